package db

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// The effects of a finding on the books.
const (
	EffectNone   = "none"
	EffectCreate = "create" // a billing row of ours is made
	EffectChange = "change" // a billing row gets another price, package or switch
	EffectMove   = "move"   // billing passes to another owner
	EffectEnd    = "end"    // billing ends
)

// RunEffect is what one finding of a run would do to the books.
type RunEffect struct {
	ServerID int64  `json:"serverId"`
	Name     string `json:"name"`
	UserID   *int64 `json:"userId"` // SkyPANEL users.id of the owner; nil: nobody
	Effect   string `json:"effect"`
	// Billing and Reason as the inventory will have them.
	Billing string `json:"billing"`
	Reason  string `json:"billingReason,omitempty"`
	Why     string `json:"why"` // in words
	// What the server's rows that are switched on cost a month, in dollars:
	// before and after, by the list and as SkyPANEL rounds it.
	ListBefore      decimal.Decimal `json:"listBefore"`
	ListAfter       decimal.Decimal `json:"listAfter"`
	EffectiveBefore decimal.Decimal `json:"effectiveBefore"`
	EffectiveAfter  decimal.Decimal `json:"effectiveAfter"`
	// FirstCharge is the first charge that would be recorded as pending; 0: none.
	// Collected: it would be taken from the user's credit.
	FirstCharge decimal.Decimal `json:"firstCharge"`
	Collected   bool            `json:"collected,omitempty"`
	// BackBilled is what SkyPANEL's next job charges at once for the time before, of a
	// row that begins in the past (BILLING_START=creation). 0: none does.
	BackBilled decimal.Decimal `json:"backBilled,omitzero"`
	// Shares are the same by customer, of those for whom something changes. None
	// where nothing does, and in previews of older versions.
	Shares []RunShare `json:"shares,omitempty"`
	// Unasked: it ends only if VirtFusion, which is asked for it after the
	// approval, does not know it any more.
	Unasked bool `json:"unasked,omitempty"`
	// Left says what of a change cannot be taken back, and why; of an undo.
	Left string `json:"left,omitempty"`
	// Changes: deciding the server changes something of ours, if only words.
	Changes bool `json:"-"`
}

// RowChanges counts what happens to billing rows.
type RowChanges struct {
	Created   int64 `json:"created,omitempty"`   // come
	Ended     int64 `json:"ended,omitempty"`     // are switched off for good: the server is gone, or an operator wants it
	Withdrawn int64 `json:"withdrawn,omitempty"` // were billed, and are taken back
	Moved     int64 `json:"moved,omitempty"`     // are switched off for good: the server is another owner's
	Enabled   int64 `json:"enabled,omitempty"`   // are switched on again
	Disabled  int64 `json:"disabled,omitempty"`  // are switched off for now
	Changed   int64 `json:"changed,omitempty"`   // get another price, package or hours
}

func (r *RowChanges) add(o RowChanges) {
	r.Created += o.Created
	r.Ended += o.Ended
	r.Withdrawn += o.Withdrawn
	r.Moved += o.Moved
	r.Enabled += o.Enabled
	r.Disabled += o.Disabled
	r.Changed += o.Changed
}

// MonthlyCost is what billing rows that are switched on cost a month, in dollars:
// before and after a change, by the list and as SkyPANEL rounds it.
type MonthlyCost struct {
	ListBefore      decimal.Decimal `json:"listBefore"`
	ListAfter       decimal.Decimal `json:"listAfter"`
	EffectiveBefore decimal.Decimal `json:"effectiveBefore"`
	EffectiveAfter  decimal.Decimal `json:"effectiveAfter"`
}

// Change is what a month costs more, or less, as SkyPANEL rounds it.
func (m *MonthlyCost) Change() decimal.Decimal { return m.EffectiveAfter.Sub(m.EffectiveBefore) }

// ListChange is the same by the list.
func (m *MonthlyCost) ListChange() decimal.Decimal { return m.ListAfter.Sub(m.ListBefore) }

func (m *MonthlyCost) add(o MonthlyCost) {
	m.ListBefore, m.ListAfter = m.ListBefore.Add(o.ListBefore), m.ListAfter.Add(o.ListAfter)
	m.EffectiveBefore, m.EffectiveAfter = m.EffectiveBefore.Add(o.EffectiveBefore), m.EffectiveAfter.Add(o.EffectiveAfter)
}

// RunShare is what a change of one server does to one customer's billing rows of
// it.
type RunShare struct {
	UserID int64      `json:"userId"` // SkyPANEL users.id of the rows
	Rows   RowChanges `json:"rows"`
	MonthlyCost
	// FirstCharge, Collected and BackBilled as in [RunEffect].
	FirstCharge decimal.Decimal `json:"firstCharge"`
	Collected   bool            `json:"collected,omitempty"`
	BackBilled  decimal.Decimal `json:"backBilled,omitzero"`
}

// shares are an effect's, also of one that an older version foresaw.
func (e *RunEffect) shares() []RunShare {
	if len(e.Shares) > 0 || e.UserID == nil {
		return e.Shares
	}
	return []RunShare{{
		UserID: *e.UserID, MonthlyCost: MonthlyCost{e.ListBefore, e.ListAfter, e.EffectiveBefore, e.EffectiveAfter},
		FirstCharge: e.FirstCharge, Collected: e.Collected,
	}}
}

// CustomerEffect sums up what a run would do to one customer's bill. Before and
// after are of the servers that change, not of all that the customer has.
type CustomerEffect struct {
	UserID  int64      `json:"userId"`
	Servers int64      `json:"servers"` // that change
	Rows    RowChanges `json:"rows"`
	MonthlyCost
	// FirstCharges as in [RunPreview].
	FirstCharges      int64           `json:"firstCharges,omitempty"`
	FirstChargeAmount decimal.Decimal `json:"firstChargeAmount"`
	Collected         bool            `json:"collected,omitempty"`
	BackBilled        decimal.Decimal `json:"backBilled,omitzero"` // as in [RunEffect]
}

// CustomerEffects are a run's effects by customer (SkyPANEL users.id).
type CustomerEffects map[int64]*CustomerEffect

// Add adds what one server's change does, if it does anything.
func (c CustomerEffects) Add(e *RunEffect) {
	if e.Effect == EffectNone {
		return
	}
	for _, share := range e.shares() {
		sum := c[share.UserID]
		if sum == nil {
			sum = &CustomerEffect{UserID: share.UserID}
			c[share.UserID] = sum
		}
		sum.Servers++
		sum.Rows.add(share.Rows)
		sum.add(share.MonthlyCost)
		sum.BackBilled = sum.BackBilled.Add(share.BackBilled)
		if share.FirstCharge.IsPositive() {
			sum.FirstCharges++
			sum.FirstChargeAmount = sum.FirstChargeAmount.Add(share.FirstCharge)
			sum.Collected = sum.Collected || share.Collected
		}
	}
}

// Total is the sum over all customers.
func (c CustomerEffects) Total() (rows RowChanges, cost MonthlyCost) {
	for _, one := range c {
		rows.add(one.Rows)
		cost.add(one.MonthlyCost)
	}
	return rows, cost
}

// BackBilled is the sum over all customers, as in [RunEffect].
func (c CustomerEffects) BackBilled() decimal.Decimal {
	var sum decimal.Decimal
	for _, one := range c {
		sum = sum.Add(one.BackBilled)
	}
	return sum
}

// Over lists the customers whose month changes by more than an amount, as charged,
// the largest change first. Below 0 it lists all.
func (c CustomerEffects) Over(amount decimal.Decimal) []CustomerEffect {
	over := make([]CustomerEffect, 0, len(c))
	for _, one := range c {
		if one.Change().Abs().GreaterThan(amount) {
			over = append(over, *one)
		}
	}
	slices.SortFunc(over, func(a, b CustomerEffect) int {
		return cmp.Or(b.Change().Abs().Cmp(a.Change().Abs()), b.ListChange().Abs().Cmp(a.ListChange().Abs()), cmp.Compare(a.UserID, b.UserID))
	})
	return over
}

// RunPreview sums up what a run would do. Amounts are dollars.
type RunPreview struct {
	// Mark names this preview: another one of the same run has another. Empty in
	// those of older versions.
	Mark   string `json:"mark,omitempty"`
	Create int64  `json:"create"`
	Change int64  `json:"change"`
	Move   int64  `json:"move"`
	End    int64  `json:"end"`
	None   int64  `json:"none"`
	// CreateOff are those of Create whose billing would be off, by reason in Off.
	CreateOff int64            `json:"createOff"`
	Off       map[string]int64 `json:"off,omitempty"`
	// Customers are the different users whom changes of the books concern.
	Customers int64 `json:"customers"`
	// FirstCharges are pending transactions, which nobody collects, unless
	// Collected: then they are taken from the users' credit.
	FirstCharges      int64           `json:"firstCharges"`
	FirstChargeAmount decimal.Decimal `json:"firstChargeAmount"`
	Collected         bool            `json:"collected,omitempty"`
	// BackBilled is what is charged at once for the time before, as in [RunEffect].
	BackBilled decimal.Decimal `json:"backBilled,omitzero"`
	// What the month costs more (or less) than before, by the list and as
	// SkyPANEL rounds it.
	ListMonthly      decimal.Decimal `json:"listMonthly"`
	EffectiveMonthly decimal.Decimal `json:"effectiveMonthly"`
	// Rows counts what happens to billing rows, Cost what those of the servers that
	// change cost a month.
	Rows RowChanges  `json:"rows"`
	Cost MonthlyCost `json:"cost"`
	// Largest are the ten servers with the largest change a month, ByCustomer the
	// ten such customers.
	Largest    []RunEffect      `json:"largest"`
	ByCustomer []CustomerEffect `json:"byCustomer,omitempty"`
	// Missing are those of End that are not in the listing, and have not been
	// asked for yet.
	Missing int64 `json:"missing"`
	// Changes is what counts towards Limit: Create, Change, Move and End. Fleet is how many servers VirtFusion has.
	Changes int64 `json:"changes"`
	Limit   int64 `json:"limit"`
	Fleet   int64 `json:"fleet"`
	// Asks says why a person has to approve; empty: nobody has to.
	Asks string `json:"asks,omitempty"`
	// Differs says how this preview differs from the one that was approved, of a run
	// that asks again; nil: it does not ask again, or nobody had seen one.
	Differs *PreviewDifference `json:"differs,omitempty"`
}

// PreviewDifference is how what a run would do by now differs from what was
// approved. Changes are of the month, as SkyPANEL rounds it, in dollars; what is back
// billed is charged at once, as in [RunEffect].
type PreviewDifference struct {
	ApprovedBy string          `json:"approvedBy"`
	Approved   decimal.Decimal `json:"approved"` // the sum, of the servers that were looked at again
	Now        decimal.Decimal `json:"now"`

	BackBilledApproved decimal.Decimal `json:"backBilledApproved,omitzero"`
	BackBilledNow      decimal.Decimal `json:"backBilledNow,omitzero"`
	// Servers do something else than what was approved, Customers pay other amounts;
	// of each, ServerIDs and ByCustomer name the first.
	Servers    int64                `json:"servers"`
	ServerIDs  []int64              `json:"serverIds"`
	Customers  int64                `json:"customers"`
	ByCustomer []CustomerDifference `json:"byCustomer"`
}

// CustomerDifference is the change of one customer's month that was approved, and
// that of now; and what is charged at once, of then and of now.
type CustomerDifference struct {
	UserID             int64           `json:"userId"`
	Approved           decimal.Decimal `json:"approved"`
	Now                decimal.Decimal `json:"now"`
	BackBilledApproved decimal.Decimal `json:"backBilledApproved,omitzero"`
	BackBilledNow      decimal.Decimal `json:"backBilledNow,omitzero"`
}

// RunEffects reads what the servers of a run would do, or what was foreseen before
// it did: up to limit of them, above the server id after, in the order of their
// ids. Those that nobody has previewed are left out.
func RunEffects(ctx context.Context, idb bun.IDB, runID string, after int64, limit int) ([]RunEffect, error) {
	effects, err := queryAll(ctx, idb, func(rows *sql.Rows) (RunEffect, error) {
		var e RunEffect
		var content []byte
		if err := rows.Scan(&content); err != nil {
			return e, err
		}
		if err := json.Unmarshal(content, &e); err != nil {
			return e, fmt.Errorf("decode %s: %w", content, err)
		}
		return e, nil
	}, `
		SELECT coalesce(outlook, forecast) FROM serversync.run_items
		WHERE run_id = $1 AND virtfusion_id > $2 AND coalesce(outlook, forecast) IS NOT NULL ORDER BY virtfusion_id LIMIT $3`, runID, after, limit)
	return effects, wrap(err, "read the preview of run "+runID)
}
