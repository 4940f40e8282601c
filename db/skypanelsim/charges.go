package skypanelsim

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// What SkyPANEL's transactions say of themselves.
const (
	StatusPending   = "pending"
	StatusCompleted = "completed"
	StatusFailed    = "failed"
)

// Charge is a row of virtfusion_hourly_transactions: an hour of a server, and
// what was taken for it. The period counts, from Start until just before End;
// SkyPANEL's hours_billed is always 1.
type Charge struct {
	ID        int64 // 0: no such row could be written
	BillingID int64
	UserID    int64 // SkyPANEL's
	ServerID  int64 // VirtFusion's
	// Cents are whole ones where SkyPANEL charged, and 0 where that failed.
	// serversync's own first hours have fractions.
	Cents      decimal.Decimal
	Start, End time.Time
	Status     string
	// LedgerID is the line in transactions, which the customer sees; 0: none,
	// as with the first hours that serversync records.
	LedgerID int64
}

// Stands reports whether the charge lays claim to its hour: it was taken, or is
// recorded as still to be taken. A failed one does not.
func (c *Charge) Stands() bool { return c.Status != StatusFailed }

// Charges reads all charges in the books, by server and period. It fails where
// one does not say for which period it is.
func Charges(ctx context.Context, idb bun.IDB) ([]Charge, error) {
	var charges []Charge
	err := idb.NewRaw(`
		SELECT t.id, t.billing_id, t.user_id, b.virtfusion_server_id AS server_id, coalesce(t.amount_charged, 0) * 100 AS cents,
			t.billing_period_start AS start, t.billing_period_end AS "end", t.status, coalesce(t.transaction_id, 0) AS ledger_id
		FROM public.virtfusion_hourly_transactions t
		JOIN public.virtfusion_hourly_billing b ON b.id = t.billing_id
		ORDER BY b.virtfusion_server_id, t.billing_period_start, t.id`).Scan(ctx, &charges)
	if err != nil {
		return nil, fmt.Errorf("read the charges: %w", err)
	}
	for i := range charges {
		if c := &charges[i]; !c.Start.Before(c.End) {
			return nil, fmt.Errorf("charge %d of server %d is for no period: from %s to %s", c.ID, c.ServerID, c.Start, c.End)
		}
	}
	return charges, nil
}

// Overlap is time of one server that is charged twice.
type Overlap struct{ First, Second Charge }

// SameRow reports whether one billing row has both charges. Then SkyPANEL's
// workers did it, which nobody else can prevent; otherwise there were two rows
// for one server.
func (o *Overlap) SameRow() bool { return o.First.BillingID == o.Second.BillingID }

func (o *Overlap) String() string {
	say := func(c *Charge) string {
		return fmt.Sprintf("%s cents of user %d by row %d (%s) from %s to %s",
			c.Cents, c.UserID, c.BillingID, c.Status, c.Start.Format(time.DateTime), c.End.Format(time.DateTime))
	}
	return fmt.Sprintf("server %d is charged twice: %s, and %s", o.First.ServerID, say(&o.First), say(&o.Second))
}

// Overlaps finds every two charges that stand, completed or pending, for
// overlapping periods of one server, whoever pays. A pending one counts since
// serversync's first hour is an hour that SkyPANEL does not charge again: the
// customer would see it twice. Periods that only touch do not overlap.
func Overlaps(charges []Charge) []Overlap {
	standing := slices.DeleteFunc(slices.Clone(charges), func(c Charge) bool { return !c.Stands() })
	slices.SortStableFunc(standing, func(a, b Charge) int {
		return cmp.Or(cmp.Compare(a.ServerID, b.ServerID), a.Start.Compare(b.Start))
	})
	var overlaps []Overlap
	for i, first := range standing {
		for _, second := range standing[i+1:] {
			if second.ServerID != first.ServerID || !second.Start.Before(first.End) {
				break
			}
			overlaps = append(overlaps, Overlap{First: first, Second: second})
		}
	}
	return overlaps
}

// ledgerLine is a debit in transactions, which the customer sees.
type ledgerLine struct {
	userID      int64
	tokens      int64
	description string
	status      string
	at          time.Time
}

func insertLedger(ctx context.Context, database *sql.DB, line ledgerLine) (int64, error) {
	var id int64
	err := database.QueryRowContext(ctx, `
		INSERT INTO public.transactions (user_id, amount, type, description, status, payment_method, created_at)
		VALUES ($1, $2::text::real, 'debit', $3, $4, 'virtfusion_tokens', $5)
		RETURNING id`,
		line.userID, dollars(-line.tokens).String(), line.description, line.status, line.at).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("enter a transaction: %w", err)
	}
	return id, nil
}

// insertHour records a charge with SkyPANEL's own columns, and gives it its id.
func insertHour(ctx context.Context, database *sql.DB, serverID int64, at time.Time, c *Charge) error {
	err := database.QueryRowContext(ctx, `
		INSERT INTO public.virtfusion_hourly_transactions (
			billing_id, user_id, server_id, transaction_id, hours_billed, amount_charged,
			billing_period_start, billing_period_end, status, created_at)
		VALUES ($1, $2, $3, $4, 1.0, $5::text::numeric, $6, $7, $8, $9)
		RETURNING id`,
		c.BillingID, c.UserID, serverID, c.LedgerID, c.Cents.Shift(-2).String(), c.Start, c.End, c.Status, at).Scan(&c.ID)
	if err != nil {
		return fmt.Errorf("record the hour of transaction %d: %w", c.LedgerID, err)
	}
	return nil
}
