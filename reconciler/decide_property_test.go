package reconciler

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"serversync/db"
	"serversync/events"
)

// TestDecideProperties drives random histories through the decision and holds
// what must be true at every step, whatever the order of things.
func TestDecideProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBooks(t)
		b.policy.StartAtCreation = rapid.Bool().Draw(t, "from creation")
		b.policy.SettleDelay = rapid.SampledFrom([]time.Duration{0, 2 * time.Minute}).Draw(t, "delay")
		var delivered []events.Event
		steps := map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				batch := someEvents(t, b, "batch")
				shift := b.now.Sub(t0)
				for i := range batch { // around the present
					e := &batch[i]
					e.ObservedAt, e.ReceivedAt = e.ObservedAt.Add(shift), e.ReceivedAt.Add(shift)
					if e.Server.UpdatedAt != nil {
						e.Server.UpdatedAt = new(e.Server.UpdatedAt.Add(shift))
					}
				}
				b.check(t, batch...)
				delivered = append(delivered, batch...)
			},
			"redeliver": func(t *rapid.T) {
				if len(delivered) == 0 {
					t.Skip("nothing to deliver again")
				}
				b.check(t, rapid.SliceOfN(rapid.SampledFrom(delivered), 1, 4).Draw(t, "again")...)
			},
			"wait": func(t *rapid.T) {
				b.pass(rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Minute, 2 * time.Hour}).Draw(t, "time"))
				b.check(t)
			},
			"price": func(t *rapid.T) {
				if _, ok := b.prices[small]; ok && rapid.Bool().Draw(t, "remove") {
					delete(b.prices, small)
				} else {
					b.prices[small] = Price{small, "Small", cents(rapid.Int64Range(0, 2000).Draw(t, "cents"))}
				}
				b.check(t)
			},
			"policy": func(t *rapid.T) {
				b.policy.HourlyMode = rapid.Bool().Draw(t, "hourly")
				b.policy.BillSelfService = rapid.Bool().Draw(t, "self service")
				b.check(t)
			},
			"user": func(t *rapid.T) {
				u := &b.users[rapid.IntRange(0, 1).Draw(t, "user")]
				u.Active = rapid.Bool().Draw(t, "active")
				u.VirtfusionID = rapid.SampledFrom([]*int64{nil, new(int64(owner7)), new(int64(owner8))}).Draw(t, "link")
				b.check(t)
			},
			"SkyPANEL inserts": func(t *rapid.T) {
				b.native(func(m *db.BillingMatch) {
					m.UserID = rapid.Int64Range(7, 8).Draw(t, "user")
					m.ServerUUID = rapid.SampledFrom([]*string{nil, new(uuid), new(otherUUID), new(db.DeletedServerUUID)}).Draw(t, "uuid")
				})
				b.check(t)
			},
			"SkyPANEL deletes": func(t *rapid.T) {
				native := slices.DeleteFunc(slices.Clone(b.rows), func(m *db.BillingMatch) bool { return fromBilling(m).Ours })
				if len(native) == 0 {
					t.Skip("no row of SkyPANEL's")
				}
				b.remove(rapid.SampledFrom(native).Draw(t, "row"))
				b.check(t)
			},
			"SkyPANEL switches": func(t *rapid.T) {
				if len(b.rows) == 0 {
					t.Skip("no row")
				}
				m, on := rapid.SampledFrom(b.rows).Draw(t, "row"), rapid.Bool().Draw(t, "on")
				if on != *m.BillingEnabled {
					// Switched on and off again while nothing could be decided, it is
					// off as we left it, as far as anybody can tell.
					oursToSwitch := m.Record != nil && !m.Record.Enabled
					m.BillingEnabled, b.vetoed[m.ID] = &on, !on && !oursToSwitch
				}
				b.check(t)
			},
			"SkyPANEL bills": func(*rapid.T) {
				for _, m := range b.enabled() {
					for m.LastBilledAt != nil && !m.LastBilledAt.Add(time.Hour).After(b.now) {
						end := m.LastBilledAt.Add(time.Hour)
						b.charge(m.ID, cents(1), *m.LastBilledAt, end)
						m.LastBilledAt = &end
					}
				}
			},
		}
		t.Repeat(steps)
	})
}

// check delivers, or decides again where there is nothing to deliver, and
// then holds what must be true.
func (b *books) check(t *rapid.T, batch ...events.Event) {
	news := observations(batch)
	if len(news) == 0 && b.known[server] == nil {
		return
	}
	in := b.input(server, news)
	d, twin := Decide(in), Decide(b.input(server, news))
	if !reflect.DeepEqual(d, twin) {
		t.Fatalf("the same input decided\n%+v and\n%+v", d, twin)
	}
	checkHeld(t, in)
	foreseen, was := lookAhead(in), b.billing()
	wasOn := make(map[int64]*time.Time)
	for _, m := range b.enabled() {
		wasOn[m.ID] = m.LastBilledAt
	}
	b.apply(&d)
	b.sound(t, &d, wasOn)
	if !settles(&d.State) || onItsWay(in.Known) { // else it shows the row to come
		checkForeseen(t, &foreseen, &d, was, b.billing(), in.Known)
	}

	wantNothing(t, b.decide(server, nil))
	if len(news) > 0 {
		wantNothing(t, b.decide(server, news))
	}
}

// checkHeld holds what is true of every server that waits for approval, whatever
// is heard of it.
func checkHeld(t *rapid.T, in Input) {
	if in.Known == nil {
		return
	}
	in.Known = new(*in.Known)
	in.Known.AwaitingRun = "sweep-1"
	d := Decide(in)
	if d.State.AwaitingRun == "" {
		if d.State.GoneAt == nil {
			t.Fatalf("nobody approved, and it waits no longer: %+v", d)
		}
		return
	}
	if d.Create != nil || len(d.Changes) > 0 || len(d.Withdraw) > 0 && !slices.ContainsFunc(in.Rows, func(r Row) bool { return !r.Ours }) {
		t.Fatalf("it waits, and its billing changes: %+v", d)
	}
	if len(d.Withdraw) > 0 {
		return // what a customer would pay twice is taken back all the same
	}
	again := in
	again.Known, again.News = &d.State, nil
	wantNothing(t, Decide(again))
	again.News = in.News
	wantNothing(t, Decide(again))
}

// sound holds the invariants of the books after a decision.
func (b *books) sound(t *rapid.T, d *Decision, wasOn map[int64]*time.Time) {
	s := &d.State
	on := b.enabled()
	for _, m := range on {
		last, was := wasOn[m.ID]
		switch {
		case !was && b.vetoed[m.ID]:
			t.Fatalf("row %d is on, though SkyPANEL switched it off", m.ID)
		case m.LastBilledAt == nil:
			t.Fatalf("row %d is on without last_billed_at", m.ID)
		case !was && m.LastBilledAt.Before(b.now) && !b.policy.StartAtCreation:
			t.Fatalf("row %d was switched on with last_billed_at %s: it would bill back", m.ID, m.LastBilledAt)
		case was && m.LastBilledAt.Before(*last):
			t.Fatalf("row %d: last_billed_at moved back", m.ID)
		}
	}
	if s.Status == StatusGone {
		for _, m := range on {
			if row := fromBilling(m); agrees(&row, s) {
				t.Fatalf("row %d is on for a server that is gone", m.ID)
			}
		}
		return
	}
	if s.Status != StatusConflict && s.Ask == "" {
		if len(on) > 1 {
			// Another server's row, or one that names the UUID only, is a conflict.
			t.Fatalf("%d rows are on for a server that is %s", len(on), s.Status)
		}
		if got := len(on) == 1; got != s.BillingOn && s.Status != StatusSettling {
			t.Fatalf("billing is %v, but %d rows are on; %s: %s", s.BillingOn, len(on), s.Status, s.Note)
		}
		for _, m := range on {
			if s.UserID != nil && m.UserID != *s.UserID {
				t.Fatalf("row %d bills user %d, the server is user %d's", m.ID, m.UserID, *s.UserID)
			}
		}
	}
	if s.Status == StatusExternal && (s.Reason == ReasonNone) != s.BillingOn {
		t.Fatalf("%s: billing %v for the reason %q", s.Status, s.BillingOn, s.Reason)
	}
	if d.Outcome != OutcomeUnchanged && len(d.Lines) == 0 {
		t.Fatalf("a change without a line: %+v", d)
	}
	if s.Status == StatusConflict && d.Outcome != OutcomeUnchanged {
		t.Fatalf("a conflict changed the books: %+v", d)
	}
}
