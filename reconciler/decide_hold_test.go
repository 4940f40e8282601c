package reconciler

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"serversync/db"
	"serversync/events"
)

// by is an observation that a run published.
func by(run string) func(*events.Event) { return func(e *events.Event) { e.RunID = run } }

// waiting is the usual server in our books at 7.30 a month, whose price is
// 14.60 by now, and which waits for approval of sweep-1.
func waiting(tb rapid.TB) *books {
	b := newBooks(tb)
	b.settled()
	b.prices[small] = Price{small, "Small", cents(1460)}
	in := b.input(server, nil)
	in.RunID = "sweep-1"
	d := decideHold(in)
	b.apply(&d)
	return b
}

func TestHeldServer(t *testing.T) {
	t.Parallel()
	earlier := func(e *events.Event) {
		e.ObservedAt = t0.Add(-time.Hour)
		e.Server.UpdatedAt = new(t0.Add(-time.Hour))
	}
	for name, c := range map[string]struct {
		news       func(b *books) []events.Event
		authorized bool
		want       string // "held", or the price
	}{
		"nothing":                     {nil, false, "held"},
		"a webhook":                   {func(b *books) []events.Event { return []events.Event{b.seen(updated, named("b"))} }, false, "held"},
		"another owner":               {func(b *books) []events.Event { return []events.Event{b.seen(updated, ownedBy(owner8))} }, false, "held"},
		"a pull of nobody's run":      {func(b *books) []events.Event { return []events.Event{b.seen(answered, named("b"))} }, false, "held"},
		"an older one of another run": {func(b *books) []events.Event { return []events.Event{b.seen(by("sweep-0"), earlier)} }, false, "held"},
		"an end before what was seen": {func(b *books) []events.Event { return []events.Event{b.seen(destroyed, earlier)} }, false, "held"},
		"the run itself":              {func(b *books) []events.Event { return []events.Event{b.seen(by("sweep-1"))} }, false, "14.6"},
		"the run, overtaken":          {func(b *books) []events.Event { return []events.Event{b.seen(by("sweep-1"), earlier)} }, false, "14.6"},
		"a newer run":                 {func(b *books) []events.Event { return []events.Event{b.seen(by("sync-2"))} }, false, "held"}, // it may have been on its way since before the wait
		"a newer run before a webhook": {func(b *books) []events.Event {
			return []events.Event{b.seen(by("sync-2")), b.seen(updated, named("b"))}
		}, false, "held"},
		"an approved run":   {nil, true, "14.6"},
		"its end":           {func(b *books) []events.Event { return []events.Event{b.seen(destroyed)} }, false, "gone"},
		"its end by a pull": {func(b *books) []events.Event { return []events.Event{b.seen(notFound)} }, false, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := waiting(t)
			var news []events.Event
			if c.news != nil {
				news = c.news(b)
			}
			in := b.input(server, observations(news))
			in.Authorized = c.authorized
			d := Decide(in)
			b.apply(&d)
			s := b.state()
			switch c.want {
			case "held":
				wantRowsUntouched(t, d)
				if s.AwaitingRun != "sweep-1" || !strings.HasSuffix(s.Note, "serversync sweep --approve sweep-1") || !s.BillingOn || s.UserID == nil || *s.UserID != 7 {
					t.Errorf("it does not wait: %+v", s)
				}
				b.wantStatus(StatusExternal, true, ReasonNone)
			case "gone":
				b.wantStatus(StatusGone, false, ReasonDestroyed)
				if len(b.enabled()) > 0 || s.AwaitingRun != "" {
					t.Errorf("billing goes on: %d rows, waiting %q", len(b.enabled()), s.AwaitingRun)
				}
			default:
				if got := b.only().MonthlyPrice.String(); got != c.want || s.AwaitingRun != "" || strings.Contains(s.Note, "approv") {
					t.Errorf("price %s, want %s, waiting %q: %s", got, c.want, s.AwaitingRun, s.Note)
				}
			}
			wantNothing(t, b.decide(server, nil))
			if len(news) > 0 {
				wantNothing(t, b.decide(server, observations(news)))
			}
		})
	}
}

// What VirtFusion says meanwhile is known, and acted upon once it may be.
func TestHeldServerIsObserved(t *testing.T) {
	t.Parallel()
	b := waiting(t)
	d := b.deliver(b.seen(updated, packaged(large), ownedBy(owner8)))
	if s := b.state(); *s.PackageID != large || s.OwnerID != owner8 || !hasLine(&d, LineObserved) || hasLine(&d, LineDecided) {
		t.Errorf("the inventory does not tell: %+v, %+v", s, d.Lines)
	}
	b.pass(time.Minute)
	b.deliver(b.seen(by("sweep-1"), packaged(large), ownedBy(owner8)))
	if on := b.enabled(); len(on) != 1 || on[0].UserID != 8 || on[0].PackageID != large {
		t.Errorf("not moved: %+v", on)
	}
}

// A run's own event that is delivered again, after a later run has the server
// wait, is no word of that run.
func TestRedeliveryIsNoApproval(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	e := b.seen(by("sweep-0"))
	b.deliver(e)
	b.prices[small] = Price{small, "Small", cents(1460)}
	in := b.input(server, nil)
	in.RunID = "sweep-1"
	d := decideHold(in)
	b.apply(&d)
	wantNothing(t, b.deliver(e))
}

// How the books stand is said, also where SkyPANEL changes them meanwhile.
func TestHeldServerSaysHowTheBooksStand(t *testing.T) {
	t.Parallel()
	b := waiting(t)
	b.only().BillingEnabled = new(false)
	wantRowsUntouched(t, b.again())
	b.wantStatus(StatusExternal, false, ReasonDisabled)
	wantNothing(t, b.again())
	b.only().BillingEnabled = new(true)
	b.again()
	b.wantStatus(StatusExternal, true, ReasonNone)
	b.deliver(b.seen(destroyed), b.seen(notFound))
	b.wantStatus(StatusGone, false, ReasonDestroyed)
}

// Once approved it waits for no person, though perhaps for VirtFusion's answer.
func TestApprovedServerWithAQuestion(t *testing.T) {
	t.Parallel()
	b := waiting(t)
	b.native(func(m *db.BillingMatch) { m.UserID = 8 })
	in := b.input(server, nil)
	in.Authorized, in.RunID = true, "sweep-1"
	d := Decide(in)
	wantRowsUntouched(t, d)
	b.apply(&d)
	if s := b.state(); s.AwaitingRun != "" || s.Ask == "" || s.Note != s.Ask {
		t.Errorf("waiting %q, asking %q: %s", s.AwaitingRun, s.Ask, s.Note)
	}
	wantNothing(t, b.again())
}

// A server that comes back while it waits settles.
func TestHeldServerComesBack(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	b.deliver(b.seen(destroyed))
	in := b.input(server, nil)
	in.RunID = "sweep-1"
	d := decideHold(in)
	b.apply(&d)
	b.wantStatus(StatusGone, false, ReasonDestroyed)
	wantRowsUntouched(t, b.deliver(b.seen(answered)))
	b.wantStatus(StatusSettling, false, ReasonNone)
	wantRowsUntouched(t, b.again())
	b.deliver(b.seen(by("sweep-1")))
	b.wantStatus(StatusExternal, true, ReasonNone)
}

// A server never heard of is noted, and no more; the same observation, once
// approved, does what it would have done.
func TestHoldOfANewServer(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	e := b.seen(by("sweep-1"))
	hold := func() Decision {
		in := b.input(server, observations([]events.Event{e}))
		in.RunID = "sweep-1"
		d := decideHold(in)
		b.apply(&d)
		return d
	}
	d := hold()
	wantRowsUntouched(t, d)
	b.wantStatus(StatusSettling, false, ReasonNone)
	decided := 0
	for _, l := range d.Lines {
		if l.Kind == LineDecided {
			decided++
			if !strings.Contains(l.Reason, "waits for approval of run sweep-1") {
				t.Errorf("the line says %s", l.Reason)
			}
		}
	}
	if s := b.state(); decided != 1 || s.RunID != "sweep-1" || d.RunID != "sweep-1" || s.Name != "web1" {
		t.Errorf("%d lines, state %+v", decided, s)
	}
	wantNothing(t, hold())
	b.pass(time.Hour)
	wantNothing(t, b.again())
	if d := b.deliver(e); d.Outcome != OutcomeNew || d.RunID != "sweep-1" {
		t.Errorf("once approved: %+v", d)
	}
	b.wantStatus(StatusExternal, true, ReasonNone)
	if s := b.state(); s.RunID != "" {
		t.Errorf("it settles no more, and has the run %q", s.RunID)
	}
}

// The row that comes once a server has settled belongs to the run that found it.
func TestRunOfASettlingServer(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	young := func(e *events.Event) { born(t0)(e) }
	b.deliver(b.seen(created, young))
	want := func(run string) {
		t.Helper()
		if got := b.state().RunID; got != run {
			t.Errorf("its run is %q, want %q", got, run)
		}
	}
	want("")
	first := b.seen(by("sweep-1"), young)
	b.deliver(first)
	want("sweep-1")
	b.deliver(b.seen(by("sweep-2"), young))
	want("sweep-2")
	wantNothing(t, b.deliver(first)) // again
	d := b.deliver(b.seen(updated, young, named("b")))
	want("sweep-2")
	if d.RunID != "sweep-2" {
		t.Errorf("what changes belongs to %q", d.RunID)
	}
	b.pass(b.policy.SettleDelay + time.Minute)
	if d = b.again(); d.Create == nil || d.RunID != "sweep-2" {
		t.Errorf("the row belongs to %q: %+v", d.RunID, d)
	}
	want("")
	d = b.deliver(b.seen(updated, named("c")))
	if d.RunID != "" {
		t.Errorf("a webhook's change belongs to %q", d.RunID)
	}
}

// Lines of what a webhook observed belong to no run, be it found by one.
func TestRunOfAnObservedLine(t *testing.T) {
	t.Parallel()
	webhook, sweep := Observation{Source: events.SourceWebhook}, Observation{Source: events.SourceSweep, RunID: "sweep-1"}
	for _, c := range []struct {
		by   *Observation
		kind LineKind
		want string
	}{{&webhook, LineObserved, ""}, {&webhook, LineCreated, "sweep-1"}, {&sweep, LineObserved, "sweep-1"}, {nil, LineCreated, "sweep-1"}} {
		d := decided{Decision: Decision{By: c.by, RunID: "sweep-1"}}
		if got := toHistory(&Line{Kind: c.kind}, &d, t0).RunID; got != c.want {
			t.Errorf("%s by %v: run %q, want %q", c.kind, c.by, got, c.want)
		}
	}
}
