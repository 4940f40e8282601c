package api

import (
	"context"
	"regexp"
	"strconv"

	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"serversync/db"
)

// RowChanges counts what happens to billing rows.
type RowChanges struct {
	Created   int64 `json:"created"`   // come
	Ended     int64 `json:"ended"`     // are switched off for good: the server is gone, or an operator wants it
	Withdrawn int64 `json:"withdrawn"` // were billed, and are taken back
	Moved     int64 `json:"moved"`     // are switched off for good: the server is another owner's
	Enabled   int64 `json:"enabled"`   // are switched on again
	Disabled  int64 `json:"disabled"`  // are switched off for now
	Changed   int64 `json:"changed"`   // get another price, package or hours
}

// MonthlyCost is what billing rows that are switched on cost a month, in dollars:
// by their prices (list), and in whole tokens, as SkyPANEL charges it (effective).
type MonthlyCost struct {
	ListBefore      string `json:"listBefore"`
	ListAfter       string `json:"listAfter"`
	EffectiveBefore string `json:"effectiveBefore"`
	EffectiveAfter  string `json:"effectiveAfter"`
}

// CustomerEffect is what a run would do to one customer's bill. Before and after
// are of the servers that change.
type CustomerEffect struct {
	UserID  int64      `json:"userId"` // SkyPANEL's
	Servers int64      `json:"servers"`
	Rows    RowChanges `json:"rows"`
	MonthlyCost
	ListChange        string `json:"listChange"` // a month
	EffectiveChange   string `json:"effectiveChange"`
	FirstCharges      int64  `json:"firstCharges"`
	FirstChargeAmount string `json:"firstChargeAmount"`
	Collected         bool   `json:"firstChargesCollected"`
	BackBilled        string `json:"backBilled"` // at once, for the time before
}

// Difference is how what a run would do by now differs from what was approved.
// Changes are of the month, in dollars, as SkyPANEL charges it.
type Difference struct {
	ApprovedBy string `json:"approvedBy"`
	Approved   string `json:"approved"`
	Now        string `json:"now"`

	BackBilledApproved string `json:"backBilledApproved"` // at once, for the time before
	BackBilledNow      string `json:"backBilledNow"`

	Servers    int64                `json:"servers"`    // that do something else
	ServerIDs  []int64              `json:"serverIds"`  // the first of them
	Customers  int64                `json:"customers"`  // who pay other amounts
	ByCustomer []CustomerDifference `json:"byCustomer"` // the first of them, the largest difference first
}

// CustomerDifference is of one customer.
type CustomerDifference struct {
	UserID             int64  `json:"userId"`
	Approved           string `json:"approved"`
	Now                string `json:"now"`
	BackBilledApproved string `json:"backBilledApproved"`
	BackBilledNow      string `json:"backBilledNow"`
}

// The fates of first charges.
const (
	chargesRecorded  = "recorded as pending; nobody collects them"
	chargesCollected = "taken from the customers' credit in VirtFusion"
)

func toPreview(p *db.RunPreview) *Preview {
	v := &Preview{
		Mark:   orNull(p.Mark),
		Create: p.Create, Change: p.Change, Move: p.Move, End: p.End, None: p.None, CreateOff: p.CreateOff, Off: p.Off,
		Customers: p.Customers, FirstCharges: p.FirstCharges, FirstChargeAmount: dollars(p.FirstChargeAmount), Collected: p.Collected,
		FirstChargesNote: chargesNote(p.FirstCharges, p.Collected), BackBilled: dollars(p.BackBilled),
		ListMonthly: dollars(p.ListMonthly), EffectiveMonthly: dollars(p.EffectiveMonthly),
		Rows: RowChanges(p.Rows), MonthlyCost: toMonthlyCost(&p.Cost),
		Largest: make([]Effect, 0, len(p.Largest)), ByCustomer: toCustomerEffects(p.ByCustomer),
		Missing: p.Missing, Changes: p.Changes, Limit: p.Limit, Fleet: p.Fleet, Asks: orNull(p.Asks),
		Differs: toDifference(p.Differs),
	}
	if v.Off == nil {
		v.Off = map[string]int64{}
	}
	for i := range p.Largest {
		v.Largest = append(v.Largest, toEffect(&p.Largest[i]))
	}
	return v
}

func toDifference(d *db.PreviewDifference) *Difference {
	if d == nil {
		return nil
	}
	v := &Difference{
		ApprovedBy: d.ApprovedBy, Approved: dollars(d.Approved), Now: dollars(d.Now),
		BackBilledApproved: dollars(d.BackBilledApproved), BackBilledNow: dollars(d.BackBilledNow), Servers: d.Servers, ServerIDs: d.ServerIDs,
		Customers: d.Customers, ByCustomer: make([]CustomerDifference, len(d.ByCustomer)),
	}
	for i, c := range d.ByCustomer {
		v.ByCustomer[i] = CustomerDifference{
			UserID: c.UserID, Approved: dollars(c.Approved), Now: dollars(c.Now),
			BackBilledApproved: dollars(c.BackBilledApproved), BackBilledNow: dollars(c.BackBilledNow),
		}
	}
	return v
}

func chargesNote(n int64, collected bool) *string {
	switch {
	case n == 0:
		return nil
	case collected:
		return new(chargesCollected)
	}
	return new(chargesRecorded)
}

func toEffect(e *db.RunEffect) Effect {
	return Effect{
		ServerID: e.ServerID, Name: e.Name, UserID: e.UserID, Effect: e.Effect, Billing: e.Billing, BillingReason: orNull(e.Reason), Why: e.Why,
		ListBefore: dollars(e.ListBefore), ListAfter: dollars(e.ListAfter),
		EffectiveBefore: dollars(e.EffectiveBefore), EffectiveAfter: dollars(e.EffectiveAfter),
		FirstCharge: dollars(e.FirstCharge), Collected: e.Collected,
	}
}

func toMonthlyCost(m *db.MonthlyCost) MonthlyCost {
	return MonthlyCost{dollars(m.ListBefore), dollars(m.ListAfter), dollars(m.EffectiveBefore), dollars(m.EffectiveAfter)}
}

func toCustomerEffects(found []db.CustomerEffect) []CustomerEffect {
	customers := make([]CustomerEffect, len(found))
	for i := range found {
		c := &found[i]
		customers[i] = CustomerEffect{
			UserID: c.UserID, Servers: c.Servers, Rows: RowChanges(c.Rows), MonthlyCost: toMonthlyCost(&c.MonthlyCost),
			ListChange: dollars(c.ListChange()), EffectiveChange: dollars(c.Change()),
			FirstCharges: c.FirstCharges, FirstChargeAmount: dollars(c.FirstChargeAmount), Collected: c.Collected, BackBilled: dollars(c.BackBilled),
		}
	}
	return customers
}

// PreviewCustomers is a page of the customers whom a run's preview concerns, the
// largest change of a month first.
type PreviewCustomers struct {
	Preview    *Preview         `json:"preview"` // null: it was not worked out
	Total      int64            `json:"total"`   // customers that changesOver leaves
	Items      []CustomerEffect `json:"items"`
	NextCursor *string          `json:"nextCursor"` // null: there are no more
}

// previewCustomers answers GET /api/admin/runs/:id/preview.
func (a *API) previewCustomers(c echo.Context) error {
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	given, err := readParams(c, []string{"changesOver", "limit", "cursor"})
	if err != nil {
		return err
	}
	over, err := readChangesOver(given.Get("changesOver"))
	if err != nil {
		return err
	}
	limit, from := defaultResults, 0
	if v := given.Get("limit"); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 {
			return badRequest("bad_limit", "limit must be a number from 1 to 1000")
		}
		limit = min(limit, maxResults)
	}
	if v := given.Get("cursor"); v != "" {
		if from, err = strconv.Atoi(v); err != nil || from < 0 {
			return badRequest("bad_cursor", "cursor must be nextCursor of the page before")
		}
	}
	ctx := c.Request().Context()
	run, err := db.ReadRun(ctx, a.db, id)
	if err != nil {
		return runFault(err)
	}
	found, err := a.customersOver(ctx, id, over)
	if err != nil {
		return fault(err)
	}
	page := PreviewCustomers{Total: int64(len(found))}
	if run.Preview != nil {
		page.Preview = toPreview(run.Preview)
	}
	found = found[min(from, len(found)):]
	if len(found) > limit {
		found = found[:limit]
		page.NextCursor = new(strconv.Itoa(from + limit))
	}
	page.Items = toCustomerEffects(found)
	return succeed(c, page)
}

// customersOver are the customers whose month a run would change by more than an
// amount; below 0: all whom it concerns.
func (a *API) customersOver(ctx context.Context, runID string, over decimal.Decimal) ([]db.CustomerEffect, error) {
	customers := make(db.CustomerEffects)
	for after := int64(0); ; {
		page, err := db.RunEffects(ctx, a.db, runID, after, csvBatch)
		if err != nil {
			return nil, err
		}
		for i := range page {
			customers.Add(&page[i])
			after = page[i].ServerID
		}
		if len(page) < csvBatch {
			return customers.Over(over), nil
		}
	}
}

// allCustomers is below every change.
var allCustomers = decimal.NewFromInt(-1)

// dollarsWritten is how people write an amount of dollars.
var dollarsWritten = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,4})?$`)

// readChangesOver reads an amount of dollars, such as 5.00; empty: all changes count.
func readChangesOver(value string) (decimal.Decimal, error) {
	if value == "" {
		return allCustomers, nil
	}
	over, err := decimal.NewFromString(value)
	if err != nil || !dollarsWritten.MatchString(value) {
		return allCustomers, badRequest("bad_changes_over", "changesOver must be an amount of dollars a month, such as 5.00")
	}
	return over, nil
}

var (
	customerHeadings = []string{
		"user_id", "servers", "rows_created", "rows_ended", "rows_withdrawn", "rows_moved", "rows_enabled", "rows_disabled", "rows_changed",
		"first_charges", "first_charge_amount", "first_charges_note", "list_before", "list_after", "list_change", "effective_before", "effective_after", "effective_change",
		"back_billed",
	}
	effectHeadings = []string{
		"server_id", "name", "user_id", "effect", "billing", "billing_reason", "list_before", "list_after", "list_change", "effective_before", "effective_after", "effective_change",
		"first_charge", "first_charge_note", "back_billed", "why", "left",
	}
)

// previewCSV answers GET /api/admin/runs/:id/preview.csv: one line a customer, or,
// with by=server, one line a server.
func (a *API) previewCSV(c echo.Context) error {
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	given, err := readParams(c, []string{"by", "changesOver"})
	if err != nil {
		return err
	}
	over, err := readChangesOver(given.Get("changesOver"))
	if err != nil {
		return err
	}
	if _, err := db.ReadRun(c.Request().Context(), a.db, id); err != nil {
		return runFault(err)
	}
	switch given.Get("by") {
	case "", "customer":
		return a.customersCSV(c, id, over)
	case "server":
		return a.effectsCSV(c, id, over)
	}
	return badRequest("bad_by", "by must be customer or server")
}

func (a *API) customersCSV(c echo.Context, runID string, over decimal.Decimal) error {
	found, err := a.customersOver(c.Request().Context(), runID, over)
	if err != nil {
		return fault(err)
	}
	customers := toCustomerEffects(found)
	s := a.newSheet(c, "preview-"+runID+"-customers", customerHeadings)
	return a.send(c, s, func() (bool, error) {
		n := min(len(customers), csvBatch)
		for i := range customers[:n] {
			s.row(customerCells(&customers[i])...)
		}
		customers = customers[n:]
		return len(customers) > 0, nil
	})
}

func customerCells(v *CustomerEffect) []string {
	r := &v.Rows
	return []string{
		number(&v.UserID), number(&v.Servers), number(&r.Created), number(&r.Ended), number(&r.Withdrawn), number(&r.Moved), number(&r.Enabled), number(&r.Disabled), number(&r.Changed),
		number(&v.FirstCharges), v.FirstChargeAmount, text(chargesNote(v.FirstCharges, v.Collected)),
		v.ListBefore, v.ListAfter, v.ListChange, v.EffectiveBefore, v.EffectiveAfter, v.EffectiveChange, v.BackBilled,
	}
}

// effectsCSV has the servers whose month changes by more than an amount; below 0,
// all of the run, those that stay as they are too.
func (a *API) effectsCSV(c echo.Context, runID string, over decimal.Decimal) error {
	var after int64
	s := a.newSheet(c, "preview-"+runID+"-servers", effectHeadings)
	return a.send(c, s, func() (bool, error) {
		page, err := db.RunEffects(c.Request().Context(), a.db, runID, after, csvBatch)
		if err != nil || len(page) == 0 {
			return false, err
		}
		for i := range page {
			if e := &page[i]; e.EffectiveAfter.Sub(e.EffectiveBefore).Abs().GreaterThan(over) {
				s.row(effectCells(e)...)
			}
		}
		after = page[len(page)-1].ServerID
		return len(page) == csvBatch, nil
	})
}

func effectCells(e *db.RunEffect) []string {
	charges := int64(0)
	if e.FirstCharge.IsPositive() {
		charges = 1
	}
	return []string{
		number(&e.ServerID), e.Name, number(e.UserID), e.Effect, e.Billing, e.Reason,
		dollars(e.ListBefore), dollars(e.ListAfter), dollars(e.ListAfter.Sub(e.ListBefore)),
		dollars(e.EffectiveBefore), dollars(e.EffectiveAfter), dollars(e.EffectiveAfter.Sub(e.EffectiveBefore)),
		dollars(e.FirstCharge), text(chargesNote(charges, e.Collected)), dollars(e.BackBilled), e.Why, e.Left,
	}
}
