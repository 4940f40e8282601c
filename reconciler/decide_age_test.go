package reconciler

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"serversync/db"
	"serversync/events"
)

func TestCompareWithKnown(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for _, tt := range []struct {
		name           string
		knownUpdated   int // seconds; 0 = not known
		knownObserved  int
		updated        int
		observed       int
		gone, wasGone  bool
		pulled, differ bool
		want           age
	}{
		{name: "updated later", knownUpdated: 5, knownObserved: 5, updated: 6, observed: 6, want: newer},
		{name: "updated later, observed earlier", knownUpdated: 5, knownObserved: 9, updated: 6, observed: 7, want: newer},
		{name: "updated earlier", knownUpdated: 5, knownObserved: 5, updated: 4, observed: 4, want: older},
		{name: "updated earlier, observed later", knownUpdated: 5, knownObserved: 5, updated: 4, observed: 9, want: older},
		{name: "same update, observed later", knownUpdated: 5, knownObserved: 5, updated: 5, observed: 6, differ: true, want: newer},
		{name: "same update, observed earlier", knownUpdated: 5, knownObserved: 5, updated: 5, observed: 4, differ: true, want: older},
		{name: "same in both", knownUpdated: 5, knownObserved: 5, updated: 5, observed: 5, want: same},
		{name: "same in both, other content", knownUpdated: 5, knownObserved: 5, updated: 5, observed: 5, differ: true, want: undecided},
		{name: "without an update, observed later", knownUpdated: 5, knownObserved: 5, observed: 6, want: newer},
		{name: "without an update, observed earlier", knownUpdated: 5, knownObserved: 5, observed: 4, want: older},
		{name: "the first to have an update, observed earlier", knownObserved: 5, updated: 5, observed: 4, want: older},
		{name: "end, observed later", knownUpdated: 5, knownObserved: 5, observed: 6, gone: true, want: newer},
		{name: "end, at the same time", knownUpdated: 5, knownObserved: 5, observed: 5, gone: true, want: newer},
		{name: "end, observed earlier", knownUpdated: 5, knownObserved: 5, observed: 4, gone: true, want: undecided},
		{name: "end with an old update, observed later", knownUpdated: 5, knownObserved: 5, updated: 1, observed: 6, gone: true, want: newer},
		{name: "end again", wasGone: true, knownObserved: 5, observed: 6, gone: true, want: same},
		{name: "pushed after the end", wasGone: true, knownUpdated: 5, knownObserved: 5, updated: 9, observed: 9, want: older},
		{name: "pulled after the end", wasGone: true, knownUpdated: 5, knownObserved: 5, updated: 5, observed: 6, pulled: true, want: newer},
		{name: "pulled at the time of the end", wasGone: true, knownUpdated: 5, knownObserved: 5, updated: 9, observed: 5, pulled: true, want: older},
		{name: "pulled before the end", wasGone: true, knownUpdated: 5, knownObserved: 5, updated: 9, observed: 4, pulled: true, want: older},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			known := State{ID: server, Name: "a", Status: StatusExternal, ObservedAt: at(tt.knownObserved)}
			o := Observation{ObservedAt: at(tt.observed), Gone: tt.gone, Source: events.SourceWebhook}
			if tt.knownUpdated > 0 {
				known.UpdatedAt = new(at(tt.knownUpdated))
			}
			if tt.updated > 0 {
				o.Server.UpdatedAt = new(at(tt.updated))
			}
			if tt.wasGone {
				known.Status = StatusGone
			}
			if tt.pulled {
				o.Source = events.SourceRefetch
			}
			if tt.differ {
				o.Server.Name = new("b")
			}
			merged := merge(known, &o.Server)
			if got := compareWithKnown(&o, &known, &merged); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
	if got := compareWithKnown(&Observation{}, nil, &State{}); got != newer {
		t.Errorf("never seen: got %d, want newer", got)
	}
}

func TestPartialFormsSayNothing(t *testing.T) {
	t.Parallel()
	whole := State{
		ID: server, UUID: uuid, OwnerID: owner7, OwnerExt: new(int64(7)), Name: "n", Hostname: "h", State: "running",
		CommissionStatus: new(int64(3)), Suspended: true, Protected: true, BuildFailed: true, SelfService: 1,
		PackageID: new(int64(small)), MemoryMB: new(int64(1)), StorageGB: new(int64(2)), TrafficGB: new(int64(3)), CPUCores: new(int64(4)),
		IPAddresses: []string{"192.0.2.1"}, HypervisorID: new(int64(1)), HypervisorName: "hv", HypervisorGroupID: new(int64(2)),
		CreatedAt: new(t0), UpdatedAt: new(t0), BuiltAt: new(t0),
		UserID: new(int64(7)), Status: StatusExternal, BillingOn: true, Reason: ReasonNone, BillingID: new(int64(1)), Note: "note", Ask: "ask",
		Confirmed: true, SettleUntil: new(t0), GoneAt: new(t0), AwaitingRun: "sweep-1", RunID: "sweep-2", PulledAt: new(t0), ObservedAt: t0, ObservedSource: "sweep", ObservedEventID: "e", FirstSeenAt: t0, LastSeenAt: t0,
	}
	for i, v := 0, reflect.ValueOf(whole); i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Reason" {
			t.Errorf("the test does not set %s", name)
		}
	}
	if got := merge(whole, &events.Server{ID: server}); !reflect.DeepEqual(got, whole) {
		t.Errorf("a form that says nothing changed\n%+v to\n%+v", whole, got)
	}
	// An empty list of addresses says that there are none.
	if got := merge(whole, &events.Server{ID: server, IPAddresses: []string{}}); len(got.IPAddresses) != 0 {
		t.Errorf("addresses %v", got.IPAddresses)
	}
}

func TestRelationDoesNotOutliveAnOwner(t *testing.T) {
	t.Parallel()
	known := State{ID: server, OwnerID: owner7, OwnerExt: new(int64(7))}
	for _, tt := range []struct {
		name  string
		owner *events.Owner
		want  *int64
	}{
		{"no owner said", nil, new(int64(7))},
		{"the same, said shortly", &events.Owner{ID: owner7}, new(int64(7))},
		{"the same, without a relation", &events.Owner{ID: owner7, Whole: true}, nil},
		{"the same, with another", &events.Owner{ID: owner7, ExtRelationID: new(int64(9)), Whole: true}, new(int64(9))},
		{"another, said shortly", &events.Owner{ID: owner8}, nil},
		{"another, with a relation", &events.Owner{ID: owner8, ExtRelationID: new(int64(8)), Whole: true}, new(int64(8))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := merge(known, &events.Server{ID: server, Owner: tt.owner}).OwnerExt
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("relation %v, want %v", got, tt.want)
			}
		})
	}
}

func TestOlderObservationChangesNothingButIsDecidedAgain(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	late := b.seen(named("old"), packaged(large))
	b.settled()
	wantNothing(t, b.deliver(late))
	if b.state().Name != "web1" {
		t.Errorf("name %q", b.state().Name)
	}
	// A replay mends the books: the row was lost.
	b.rows = nil
	if d := b.deliver(late); d.Outcome != OutcomeNew || b.only().PackageID != small {
		t.Errorf("%+v", d)
	}
}

// wantOnlyAQuestion checks that a decision changes nothing but what VirtFusion
// is to be asked, and that the question is asked once and ends with a pull.
func wantOnlyAQuestion(t *testing.T, b *books, d Decision) {
	t.Helper()
	wantRowsUntouched(t, d)
	if d.Ask == "" || d.State.Ask != d.Ask || !d.Save || len(d.Lines) > 0 {
		t.Errorf("want only a question to VirtFusion, got %+v", d)
	}
	wantNothing(t, b.again())
	if b.deliver(b.seen(updated)); b.known[server].Ask == "" {
		t.Error("what VirtFusion pushed counts as its answer")
	}
	if b.deliver(b.seen()); b.known[server].Ask != "" {
		t.Error("the question outlives its answer")
	}
}

func TestEqualAgeAndOtherContentAsksVirtFusion(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	e := b.settled()
	other := e
	other.Server.Name = new("web2")
	if err := other.Seal(); err != nil {
		t.Fatal(err)
	}
	d := b.deliver(other)
	wantOnlyAQuestion(t, b, d)
	// The same when both come in one batch.
	c := newBooks(t)
	if d := c.deliver(e, other); d.Ask == "" {
		t.Error("VirtFusion is not asked after a batch")
	}
}

func TestDestroyed(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	d := b.deliver(b.seen(destroyed))
	b.wantStatus(StatusGone, false, ReasonDestroyed)
	row := b.only()
	if *row.BillingEnabled || row.Record.ClosedReason != string(ClosedDestroyed) || len(b.charges) != 1 || !hasLine(&d, LineClosed) {
		t.Errorf("%+v", d)
	}
	if b.state().GoneAt == nil || *b.state().BillingID != row.ID {
		t.Errorf("%+v", b.state())
	}
	wantNothing(t, b.again())

	// Whoever switches it on again is wrong.
	row.BillingEnabled = new(true)
	b.again()
	if *row.BillingEnabled {
		t.Error("a server that is gone is billed")
	}

	// What VirtFusion pushes after the end is an echo; a pull brings it back.
	for _, kind := range []func(*events.Event){updated, created} {
		d := b.deliver(b.seen(kind))
		wantRowsUntouched(t, d)
		if len(d.Lines) > 0 || d.State.Status != StatusGone {
			t.Errorf("an echo changed something: %+v", d)
		}
	}
	b.pass(time.Hour * 24)
	b.deliver(b.seen())
	b.wantStatus(StatusExternal, true, ReasonNone)
	if !*row.BillingEnabled || !row.LastBilledAt.Equal(b.now) || row.Record.ClosedReason != "" {
		t.Errorf("enabled %v, last_billed_at %s, closed %q", *row.BillingEnabled, row.LastBilledAt, row.Record.ClosedReason)
	}
}

func TestDestroyedNativeServer(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	row := b.native()
	b.deliver(b.seen())
	b.deliver(b.seen(destroyed))
	b.wantStatus(StatusGone, false, ReasonDestroyed)
	if *row.BillingEnabled {
		t.Error("a server that is gone is billed")
	}
	b.deliver(b.seen()) // it is back: the row is SkyPANEL's to switch on
	b.wantStatus(StatusNative, false, ReasonDestroyed)
	row.BillingEnabled = new(true)
	b.again()
	b.wantStatus(StatusNative, true, ReasonNone)
}

func TestEndLeavesRowsThatDisagree(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*db.BillingMatch){
		"same id, another UUID": func(m *db.BillingMatch) { m.ServerUUID = new(otherUUID) },
		"same UUID, another id": func(m *db.BillingMatch) { m.VirtfusionServerID = 777 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			row := b.native(edit)
			d := b.deliver(b.seen(destroyed))
			wantRowsUntouched(t, d)
			b.wantStatus(StatusGone, false, ReasonDestroyed)
			if !*row.BillingEnabled || !strings.Contains(b.state().Note, "left as it is") {
				t.Errorf("enabled %v: %s", *row.BillingEnabled, b.state().Note)
			}
		})
	}
}

func TestDestroyedThatWasNeverSeen(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	row := b.native()
	b.deliver(b.seen(destroyed))
	b.wantStatus(StatusGone, false, ReasonDestroyed)
	if *row.BillingEnabled {
		t.Error("a server that is gone is billed")
	}
	c := newBooks(t)
	wantRowsUntouched(t, c.deliver(c.seen(destroyed)))
	c.wantStatus(StatusGone, false, ReasonDestroyed)
}

func TestDestroyedWhileSettling(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(created, born(t0)))
	b.deliver(b.seen(destroyed))
	b.pass(time.Hour)
	wantNothing(t, b.again())
	if len(b.rows) != 0 {
		t.Errorf("%d rows", len(b.rows))
	}
}

func TestOldEndAsksVirtFusion(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	end := b.seen(destroyed)
	b.deliver(b.seen(updated))
	d := b.deliver(end)
	wantOnlyAQuestion(t, b, d)
	b.wantStatus(StatusExternal, true, ReasonNone)

	// Shown by VirtFusion itself since then, it needs no asking.
	b = newBooks(t)
	end = b.seen(destroyed)
	b.settled()
	wantNothing(t, b.deliver(end))
}

// observations reads events, as a batch does.
func observations(batch []events.Event) []Observation {
	var news []Observation
	for i := range batch {
		news = append(news, observationOf(&batch[i]))
	}
	return news
}

// heard is what is decided of a server never heard of before.
func (b *books) heard(batch ...events.Event) Decision {
	in := b.input(server, observations(batch))
	in.Known, in.Rows = nil, nil
	return Decide(in)
}

func TestABatchIsTakenInTheOrderOfItsTimes(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	creation := b.seen(created, named("a"))
	b.pass(time.Minute)
	short := b.seen(updated, func(e *events.Event) {
		e.Server = events.Server{ID: server, Hostname: new("h"), UpdatedAt: e.Server.UpdatedAt, Owner: &events.Owner{ID: owner7}}
	})
	d := b.heard(short, creation)
	s := d.State
	if d.By.EventID != short.ID || !s.FirstSeenAt.Equal(t0) || !s.SettleUntil.Equal(t0.Add(b.policy.SettleDelay)) || !s.Confirmed || s.Ask != "" {
		t.Errorf("%+v", s)
	}
	if s.Name != "a" || s.Hostname != "h" || *s.PackageID != small || s.OwnerID != owner7 {
		t.Errorf("what the newer one leaves unsaid was lost: %+v", s)
	}
	if d := b.heard(b.seen(created, failed)); d.State.Confirmed || d.Create != nil {
		t.Errorf("a failed creation alone: %+v", d.State)
	}

	// VirtFusion's "updated" counts before the time of the observation.
	ahead := b.seen(updated, named("new"))
	behind := b.seen(updated, named("old"), func(e *events.Event) { e.Server.UpdatedAt = new(ahead.Server.UpdatedAt.Add(-time.Second)) })
	if d := b.heard(behind, ahead); d.State.Name != "new" {
		t.Error("an older update counts because it was observed later")
	}

	end, echo := b.seen(destroyed), b.seen(updated)
	if d := b.heard(creation, echo, end); d.State.Status != StatusGone {
		t.Error("what was pushed after the end brought the server back")
	}
	back := b.seen()
	if d := b.heard(back, creation, echo, end); d.State.Status == StatusGone || d.By.EventID != back.ID {
		t.Error("a pull after the end did not bring the server back")
	}
	after := b.seen(updated, named("b"))
	if d := b.heard(after, back, end); d.State.Name != "b" {
		t.Error("what was pushed after the return is lost")
	}
	tie := b.seen(updated)
	tie.ObservedAt = end.ObservedAt
	if d := b.heard(tie, end); d.State.Status != StatusGone {
		t.Error("at the same time, the end counts")
	}
}

func TestABatchIsFoldedFromWhatIsKnown(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	at := func(second int, edit ...func(*events.Event)) events.Event {
		e := b.seen(append(edit, func(e *events.Event) { e.Server.UpdatedAt = new(t0.Add(time.Duration(second) * time.Second)) })...)
		return e
	}
	b.deliver(at(7, packaged(large)))
	// Older than what is known, and newer but silent about the package: neither
	// takes the known package away.
	b.deliver(at(5, packaged(small)), at(10, func(e *events.Event) { e.Server.PackageID = nil }))
	if s := b.known[server]; *s.PackageID != large || !s.UpdatedAt.Equal(t0.Add(10*time.Second)) {
		t.Errorf("package %d, updated %s", *s.PackageID, s.UpdatedAt)
	}
}

func TestARefetchStandsByItsTimeAlone(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(named("wrong"), func(e *events.Event) { e.Server.UpdatedAt = new(t0.AddDate(50, 0, 0)) }))
	b.deliver(b.seen(named("ignored")))
	if b.known[server].Name != "wrong" {
		t.Fatal("the rule that \"updated\" counts first is not in force")
	}
	b.deliver(b.seen(named("right"), func(e *events.Event) { e.Source = events.SourceRefetch }))
	if b.known[server].Name != "right" {
		t.Error("what VirtFusion answered when asked does not stand")
	}
}

// someEvents draws events of one server whose times and contents collide often.
func someEvents(t *rapid.T, b *books, label string) []events.Event {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) events.Event {
		at := t0.Add(time.Duration(rapid.IntRange(1, 6).Draw(t, "observed")) * time.Second)
		e := b.seen(func(e *events.Event) {
			e.ObservedAt = at
			e.ReceivedAt = at.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "lag")) * time.Second)
			e.Server.UpdatedAt, e.Server.PackageID = nil, nil
			e.Server.Name = new(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"))
		})
		if rapid.Bool().Draw(t, "has updated") {
			e.Server.UpdatedAt = new(t0.Add(time.Duration(rapid.IntRange(1, 6).Draw(t, "updated")) * time.Second))
		}
		if rapid.Bool().Draw(t, "has package") {
			e.Server.PackageID = new(rapid.SampledFrom([]int64{small, large, unpriced}).Draw(t, "package"))
		}
		e.Server.Owner = rapid.SampledFrom([]*events.Owner{
			nil,
			{ID: owner7},
			{ID: owner7, Whole: true},
			{ID: owner8, Whole: true},
			{ID: nobody, Whole: true},
			{ID: owner7, ExtRelationID: new(int64(7)), Whole: true},
			{ID: nobody, ExtRelationID: new(int64(8)), Whole: true},
		}).Draw(t, "owner")
		rapid.SampledFrom([]func(*events.Event){
			created, updated, destroyed, func(*events.Event) {}, func(*events.Event) {},
			func(e *events.Event) { created(e); failed(e) },
		}).Draw(t, "kind")(&e)
		if err := e.Seal(); err != nil {
			t.Fatal(err)
		}
		return e
	}), 1, 7).Draw(t, label)
}

func TestOrderWithinABatchDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBooks(t)
		batch := someEvents(t, b, "batch")
		want := b.heard(batch...)
		if got := b.heard(rapid.Permutation(batch).Draw(t, "shuffled")...); !reflect.DeepEqual(got, want) {
			t.Fatalf("in another order\n%+v, want\n%+v", got, want)
		}
		// Nor does repetition.
		if got := b.heard(append(slices.Clone(batch), batch...)...); !reflect.DeepEqual(got, want) {
			t.Fatalf("each twice\n%+v, want\n%+v", got, want)
		}
	})
}
