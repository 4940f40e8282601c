package reconciler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"serversync/db"
	"serversync/events"
)

// t0 is when the stories of these tests begin.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The cast: VirtFusion's user 70 is SkyPANEL's user 7, and so on. The two id
// spaces never share a number, so that a confusion shows.
const (
	server    = 501
	uuid      = "11111111-2222-3333-4444-555555555555"
	otherUUID = "99999999-8888-7777-6666-555555555555"
	owner7    = 70
	owner8    = 80
	nobody    = 90
	small     = 3 // a package at 7.30 a month
	large     = 4 // a package at 14.60 a month
	unpriced  = 5
)

// books are SkyPANEL's tables and our inventory in memory: just enough to
// apply decisions through the same mappings as the real ones.
type books struct {
	tb      rapid.TB
	now     time.Time
	policy  Policy
	users   []User
	prices  map[int64]Price
	known   map[int64]*State
	rows    []*db.BillingMatch
	charges []*bookedCharge
	lines   []Line
	lastRow int64
	clock   time.Time // of the last observation made
	wishes  Wishes
	trace   string
	vetoed  map[int64]bool // rows that SkyPANEL, not we, switched off
}

// bookedCharge is a row of virtfusion_hourly_transactions.
type bookedCharge struct {
	id, billingID int64
	amount        decimal.Decimal
	start, end    time.Time
	status        string
	ours          bool
}

func newBooks(tb rapid.TB) *books {
	tb.Helper()
	return &books{
		tb: tb, now: t0,
		policy: Policy{HourlyMode: true, HoursPerMonth: 730, InitialCharge: ChargeRecord, SettleDelay: 2 * time.Minute},
		users: []User{
			{ID: 7, VirtfusionID: new(int64(owner7)), Active: true},
			{ID: 8, VirtfusionID: new(int64(owner8)), Active: true},
		},
		prices: map[int64]Price{
			small: {PackageID: small, Name: "Small", Monthly: cents(730)},
			large: {PackageID: large, Name: "Large", Monthly: cents(1460)},
		},
		known:   make(map[int64]*State),
		vetoed:  make(map[int64]bool),
		lastRow: 100,
	}
}

// seen is an event about the usual server, observed a second after the one
// before. The server has existed for a year.
func (b *books) seen(edit ...func(*events.Event)) events.Event {
	if b.clock.Before(b.now) {
		b.clock = b.now
	}
	b.clock = b.clock.Add(time.Second)
	e := events.Event{
		Kind: events.KindObserved, Source: events.SourceSweep, ObservedAt: b.clock, ReceivedAt: b.now,
		Server: events.Server{
			ID: server, UUID: new(uuid), Owner: &events.Owner{ID: owner7, Whole: true},
			Name: new("web1"), PackageID: new(int64(small)), SelfService: new(int64(0)),
			CreatedAt: new(t0.AddDate(-1, 0, 0)), UpdatedAt: new(b.clock.Truncate(time.Second)),
		},
	}
	for _, f := range edit {
		f(&e)
	}
	if err := e.Seal(); err != nil {
		b.tb.Fatal(err)
	}
	return e
}

func created(e *events.Event) {
	e.Kind, e.Source, e.Name = events.KindCreated, events.SourceWebhook, "server.create"
}

func updated(e *events.Event) {
	e.Kind, e.Source, e.Name = events.KindUpdated, events.SourceWebhook, "server.build"
}

func destroyed(e *events.Event) {
	e.Kind, e.Source, e.Name = events.KindDestroyed, events.SourceWebhook, "server.destroy"
}

func failed(e *events.Event) { e.Failed = true }

func ownedBy(id int64) func(*events.Event) {
	return func(e *events.Event) { e.Server.Owner = &events.Owner{ID: id, Whole: true} }
}

func relatedTo(ext int64) func(*events.Event) {
	return func(e *events.Event) { e.Server.Owner.ExtRelationID = &ext }
}

func packaged(id int64) func(*events.Event) {
	return func(e *events.Event) { e.Server.PackageID = &id }
}

func named(name string) func(*events.Event) {
	return func(e *events.Event) { e.Server.Name = &name }
}

func born(at time.Time) func(*events.Event) {
	return func(e *events.Event) { e.Server.CreatedAt = &at }
}

func identified(id int64, uuid string) func(*events.Event) {
	return func(e *events.Event) { e.Server.ID, e.Server.UUID = id, &uuid }
}

// deliver decides and applies a batch, one decision per server in the order of
// ids, and returns the last one.
func (b *books) deliver(batch ...events.Event) Decision {
	var last Decision
	for _, w := range group(batch) {
		last = b.decide(w.serverID, w.news)
		b.apply(&last)
	}
	return last
}

// again decides the usual server without news.
func (b *books) again() Decision {
	d := b.decide(server, nil)
	b.apply(&d)
	return d
}

// settled is a year-old server in our books: an external one, billed.
func (b *books) settled() events.Event {
	e := b.seen()
	b.deliver(e)
	b.pass(time.Second)
	return e
}

func (b *books) pass(d time.Duration) { b.now = b.now.Add(d) }

// input gathers the evidence as a batch does.
func (b *books) input(serverID int64, news []Observation) Input {
	in := Input{
		Now: b.now, News: news, Prices: b.prices, Policy: b.policy, Wishes: b.wishes, Trace: b.trace,
		Users: &Users{ByVirtfusionID: make(map[int64][]User), ByID: make(map[int64]User)},
	}
	uuids := make(map[string]bool)
	if s := b.known[serverID]; s != nil {
		in.Known = new(*s)
		uuids[s.UUID] = true
	}
	for i := range news {
		if id := news[i].Server.UUID; id != nil {
			uuids[*id] = true
		}
	}
	delete(uuids, "")
	delete(uuids, db.DeletedServerUUID)
	for _, m := range b.rows {
		if m.VirtfusionServerID == serverID || m.ServerUUID != nil && uuids[*m.ServerUUID] {
			row := fromBilling(m)
			row.Charged = b.charged(m.ID)
			in.Rows = append(in.Rows, row)
		}
	}
	for _, u := range b.users {
		in.Users.ByID[u.ID] = u
		if u.VirtfusionID != nil {
			in.Users.ByVirtfusionID[*u.VirtfusionID] = append(in.Users.ByVirtfusionID[*u.VirtfusionID], u)
		}
	}
	return in
}

func (b *books) decide(serverID int64, news []Observation) Decision {
	return Decide(b.input(serverID, news))
}

// apply writes a decision, as the SQL does.
func (b *books) apply(d *Decision) {
	s := d.State
	if d.Create != nil {
		s.BillingID = new(b.create(d))
	}
	ours := func(m *db.BillingMatch) bool { return fromBilling(m).Ours }
	for i := range d.Changes {
		c := &d.Changes[i]
		m := b.row(c.RowID)
		change := toChange(c, m, ours(m), s.ID, b.now)
		if change.Enable != nil {
			m.BillingEnabled = change.Enable
		}
		if change.ResumeAt != nil {
			m.LastBilledAt = new(later(deref(m.LastBilledAt), *change.ResumeAt))
		}
		m.ServerUUID = cmp.Or(change.UUID, m.ServerUUID)
		if change.PackageID != nil {
			m.PackageID, m.PackageName = *change.PackageID, *change.PackageName
			m.MonthlyPrice, m.HourlyRate, m.HoursInMonth = *change.MonthlyPrice, *change.HourlyRate, change.Hours
		}
		m.Record = new(change.Record)
		m.Record.LastBilledAt = m.LastBilledAt
	}
	for _, w := range d.Withdraw {
		m := b.row(w.RowID)
		pending := func(c *bookedCharge) bool { return c.billingID == m.ID && c.ours && c.status == "pending" }
		if w.Delete {
			b.charges = slices.DeleteFunc(b.charges, pending)
			b.remove(m)
			continue
		}
		for _, c := range b.charges {
			if pending(c) {
				c.status = "failed"
			}
		}
		m.Record = new(toWithdrawn(m, s.ID, b.now))
		m.BillingEnabled, m.Record.LastBilledAt = new(false), m.LastBilledAt
	}
	b.lines = append(b.lines, d.Lines...)
	if d.Save || d.Touch {
		stored := toInventory(&s, nil)
		back := fromInventory(&stored)
		b.known[s.ID] = &back
	}
}

func (b *books) create(d *Decision) int64 {
	n := toBilling(d.Create, &d.State, "", b.now)
	b.lastRow++
	m := &db.BillingMatch{HourlyBilling: n.HourlyBilling}
	m.ID = b.lastRow
	m.Record = &db.BillingRecord{
		BillingID: m.ID, VirtfusionID: d.State.ID, MadeBy: madeByUs, UserID: m.UserID, Enabled: *m.BillingEnabled,
		PackageID: m.PackageID, MonthlyPrice: m.MonthlyPrice, LastBilledAt: m.LastBilledAt,
	}
	b.rows = append(b.rows, m)
	if n.Charge != nil {
		c := b.charge(m.ID, n.Charge.AmountCharged, *n.Charge.BillingPeriodStart, *n.Charge.BillingPeriodEnd)
		c.status, c.ours = "pending", true
		m.Record.ChargeID = &c.id
	}
	return m.ID
}

// charge books a completed charge of SkyPANEL's.
func (b *books) charge(billingID int64, amount decimal.Decimal, start, end time.Time) *bookedCharge {
	c := &bookedCharge{id: int64(len(b.charges) + 1), billingID: billingID, amount: amount, start: start, end: end, status: "completed"}
	b.charges = append(b.charges, c)
	return c
}

// charged reports charges besides the pending one that we recorded.
func (b *books) charged(billingID int64) bool {
	return slices.ContainsFunc(b.charges, func(c *bookedCharge) bool {
		return c.billingID == billingID && (!c.ours || c.status != "pending")
	})
}

// native inserts a billing row as SkyPANEL does for the usual server.
func (b *books) native(edit ...func(*db.BillingMatch)) *db.BillingMatch {
	b.lastRow++
	m := &db.BillingMatch{HourlyBilling: db.HourlyBilling{
		ID: b.lastRow, UserID: 7, ServerID: server, VirtfusionServerID: server, ServerUUID: new(uuid),
		PackageID: small, PackageName: "Small", MonthlyPrice: cents(730), HourlyRate: decimal.New(1, -2),
		HoursInMonth: new(int64(730)), BillingEnabled: new(true), LastBilledAt: new(b.now),
	}}
	for _, f := range edit {
		f(m)
	}
	b.rows = append(b.rows, m)
	return m
}

// remove deletes a billing row.
func (b *books) remove(m *db.BillingMatch) {
	b.rows = slices.DeleteFunc(b.rows, func(r *db.BillingMatch) bool { return r == m })
}

func (b *books) row(id int64) *db.BillingMatch {
	for _, m := range b.rows {
		if m.ID == id {
			return m
		}
	}
	b.tb.Fatalf("no billing row %d", id)
	return nil
}

// only returns the one billing row there is.
func (b *books) only() *db.BillingMatch {
	b.tb.Helper()
	if len(b.rows) != 1 {
		b.tb.Fatalf("%d billing rows, want one", len(b.rows))
	}
	return b.rows[0]
}

// enabled are the billing rows that are switched on.
func (b *books) enabled() []*db.BillingMatch {
	return slices.DeleteFunc(slices.Clone(b.rows), func(m *db.BillingMatch) bool { return !*m.BillingEnabled })
}

// state is what is stored of the usual server.
func (b *books) state() *State {
	b.tb.Helper()
	s := b.known[server]
	if s == nil {
		b.tb.Fatalf("server %d is not known; known are %v", server, slices.Collect(maps.Keys(b.known)))
	}
	return s
}

// wantStatus checks status and reason, and that the state says what the rows
// say.
func (b *books) wantStatus(status Status, on bool, reason Reason) {
	b.tb.Helper()
	s := b.state()
	if s.Status != status || s.BillingOn != on || s.Reason != reason {
		b.tb.Fatalf("the server is %q, billing %v, reason %q (%s); want %q, %v, %q",
			s.Status, s.BillingOn, s.Reason, s.Note, status, on, reason)
	}
}

// wantNothing checks that a decision has nothing to write.
func wantNothing(tb rapid.TB, d Decision) {
	tb.Helper()
	if d.Create != nil || len(d.Changes)+len(d.Withdraw)+len(d.Lines) > 0 || d.Save || d.Touch || d.Outcome != OutcomeUnchanged {
		tb.Fatalf("want a decision with nothing to write, got %+v", d)
	}
}

// wantRowsUntouched checks that a decision leaves every billing row alone.
func wantRowsUntouched(tb rapid.TB, d Decision) {
	tb.Helper()
	if d.Create != nil || len(d.Changes)+len(d.Withdraw) > 0 || d.Outcome != OutcomeUnchanged {
		tb.Fatalf("want billing rows as they are, got %+v", d)
	}
}

func hasLine(d *Decision, kind LineKind) bool {
	return slices.ContainsFunc(d.Lines, func(l Line) bool { return l.Kind == kind })
}
