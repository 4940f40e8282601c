package reconciler

import (
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
)

func TestResolveOwner(t *testing.T) {
	t.Parallel()
	linked := func(id, virtfusion int64) User { return User{ID: id, VirtfusionID: &virtfusion, Active: true} }
	for _, tt := range []struct {
		name     string
		owner    int64
		ext      *int64
		users    []User
		want     int64 // SkyPANEL user, 0 for none
		conflict bool
		unknown  bool
	}{
		{name: "linked", owner: owner7, users: []User{linked(7, owner7)}, want: 7},
		{name: "linked, and related to the same", owner: owner7, ext: new(int64(7)), users: []User{linked(7, owner7)}, want: 7},
		{name: "related only", owner: owner7, ext: new(int64(7)), users: []User{{ID: 7}}, want: 7},
		{name: "related to nobody", owner: owner7, ext: new(int64(99)), users: []User{{ID: 7}}},
		{name: "nobody", owner: owner7, users: []User{linked(8, owner8)}},
		// The number of one id space means nothing in the other.
		{name: "VirtFusion's id is somebody's users.id", owner: 7, users: []User{linked(7, owner7)}},
		{name: "the relation is somebody's virtfusion_id", owner: nobody, ext: new(int64(owner7)), users: []User{linked(7, owner7)}},
		{name: "two users with the same link", owner: owner7, users: []User{linked(7, owner7), linked(8, owner7)}, conflict: true},
		{name: "two users with the same link, one related", owner: owner7, ext: new(int64(7)), users: []User{linked(7, owner7), linked(8, owner7)}, conflict: true},
		{name: "related to one linked elsewhere", owner: nobody, ext: new(int64(7)), users: []User{linked(7, owner7)}, conflict: true},
		{name: "both answers disagree", owner: owner7, ext: new(int64(8)), users: []User{linked(7, owner7), linked(8, owner8)}, conflict: true},
		{name: "both answers disagree, one unlinked", owner: owner7, ext: new(int64(8)), users: []User{linked(7, owner7), {ID: 8}}, conflict: true},
		{name: "linked, related to nobody", owner: owner7, ext: new(int64(99)), users: []User{linked(7, owner7)}, want: 7},
		{name: "not said", unknown: true, ext: new(int64(7)), users: []User{linked(7, 0), {ID: 8}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.users = tt.users
			got := resolveOwner(&State{ID: server, OwnerID: tt.owner, OwnerExt: tt.ext}, b.input(server, nil).Users)
			var user int64
			if got.user != nil {
				user = got.user.ID
			}
			if user != tt.want || got.conflict != tt.conflict || got.unknown != tt.unknown {
				t.Errorf("user %d, conflict %v, unknown %v (%s)", user, got.conflict, got.unknown, got.note)
			}
			if user == 0 && got.note == "" {
				t.Error("it does not say why")
			}
		})
	}
}

func TestConflictsChangeNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		make func(*books) events.Event // after an external server is billed
		says string
	}{
		{"two users", func(b *books) events.Event { b.users[1].VirtfusionID = new(int64(owner7)); return b.seen() }, "linked to VirtFusion user 70"},
		{"related to one linked elsewhere", func(b *books) events.Event { return b.seen(ownedBy(nobody), relatedTo(8)) }, "user 8"},
		{"both answers disagree", func(b *books) events.Event { return b.seen(relatedTo(8)) }, "user 8"},
		{"the row's UUID is another", func(b *books) events.Event { b.only().ServerUUID = new(otherUUID); return b.seen() }, otherUUID},
		{"the server's UUID is another", func(b *books) events.Event { return b.seen(identified(server, otherUUID)) }, otherUUID},
		{"the row's id is another", func(b *books) events.Event { b.only().VirtfusionServerID = 777; return b.seen() }, "777"},
		{"another server's row has the UUID", func(b *books) events.Event {
			b.native(func(m *db.BillingMatch) { m.VirtfusionServerID = 777 })
			return b.seen()
		}, "777"},
		{"SkyPANEL bills it twice", func(b *books) events.Event { b.native(); b.native(); return b.seen() }, "twice"},
		{"SkyPANEL bills it twice, and another user", func(b *books) events.Event {
			b.only().UserID = 8
			b.native()
			b.native()
			return b.seen()
		}, "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.settled()
			e := tt.make(b)
			d := b.deliver(e)
			wantRowsUntouched(t, d)
			if s := b.state(); s.Status != StatusConflict || !strings.Contains(s.Note, tt.says) {
				t.Errorf("%s: %s; want a conflict that says %q", s.Status, s.Note, tt.says)
			}
			if !hasLine(&d, LineDecided) {
				t.Error("the history does not say it")
			}
			wantNothing(t, b.deliver(e))
			wantNothing(t, b.again())
		})
	}
}

func TestConflictHealsWhenItsCauseGoes(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.users[1].VirtfusionID = new(int64(owner7))
	b.deliver(b.seen())
	b.wantStatus(StatusConflict, false, ReasonNone)
	b.users[1].VirtfusionID = new(int64(owner8))
	b.pass(time.Hour)
	b.again()
	b.wantStatus(StatusExternal, true, ReasonNone)
	if got := b.only().LastBilledAt; !got.Equal(b.now.Add(time.Hour)) {
		t.Errorf("last_billed_at = %s, want billing from now", got)
	}
}

func TestDeletedUsersSentinelMatchesNothing(t *testing.T) {
	t.Parallel()
	t.Run("a row of another server", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.native(func(m *db.BillingMatch) {
			m.VirtfusionServerID, m.ServerUUID = 777, new(db.DeletedServerUUID)
		})
		b.deliver(b.seen())
		b.wantStatus(StatusExternal, true, ReasonNone)
	})
	t.Run("a server that claims it", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.native(func(m *db.BillingMatch) {
			m.VirtfusionServerID, m.ServerUUID = 777, new(db.DeletedServerUUID)
		})
		in := b.input(server, nil)
		in.Known = &State{ID: server, UUID: db.DeletedServerUUID, OwnerID: owner7, Status: StatusSettling, Confirmed: true}
		in.Rows = []Row{fromBilling(b.rows[0])}
		if d := Decide(in); d.State.Status != StatusExternal || d.Create == nil {
			t.Errorf("%s: %s", d.State.Status, d.State.Note)
		}
	})
	t.Run("the row has the server's id", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		row := b.native(func(m *db.BillingMatch) { m.ServerUUID = new(db.DeletedServerUUID) })
		b.deliver(b.seen())
		b.wantStatus(StatusNative, true, ReasonNone)
		if *row.ServerUUID != db.DeletedServerUUID {
			t.Errorf("UUID %s", *row.ServerUUID)
		}
	})
}

func TestUnlinkedHasNoRow(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	wantRowsUntouched(t, b.deliver(b.seen(ownedBy(nobody))))
	b.wantStatus(StatusUnlinked, false, ReasonNone)
	b.pass(100 * time.Hour)
	b.users = append(b.users, User{ID: 9, VirtfusionID: new(int64(nobody)), Active: true})
	b.again()
	b.wantStatus(StatusExternal, true, ReasonNone)
	if row := b.only(); row.UserID != 9 || !row.LastBilledAt.Equal(b.now.Add(time.Hour)) {
		t.Errorf("user %d, last_billed_at %s", row.UserID, row.LastBilledAt)
	}
}

func TestUnknownOwnerWaits(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	wantRowsUntouched(t, b.deliver(b.seen(func(e *events.Event) { e.Server.Owner = nil })))
	b.wantStatus(StatusSettling, false, ReasonNone)
	b.deliver(b.seen())
	b.wantStatus(StatusExternal, true, ReasonNone)
}

func TestMove(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	old := b.only()
	b.pass(48 * time.Hour)
	old.LastBilledAt = new(b.now.Add(-10 * time.Minute)) // as SkyPANEL's job left it

	d := b.deliver(b.seen(ownedBy(owner8)))
	if d.Outcome != OutcomeNew || !hasLine(&d, LineClosed) {
		t.Errorf("%+v", d)
	}
	on := b.enabled()
	if len(on) != 1 || on[0].UserID != 8 || *old.BillingEnabled {
		t.Fatalf("%d rows are on", len(on))
	}
	if !on[0].LastBilledAt.Equal(b.now.Add(time.Hour)) || *b.state().BillingID != on[0].ID || *b.state().UserID != 8 {
		t.Errorf("last_billed_at %s, billing_id %d, user %d", on[0].LastBilledAt, *b.state().BillingID, *b.state().UserID)
	}

	// And back.
	b.pass(48 * time.Hour)
	b.deliver(b.seen())
	back := b.enabled()
	if len(back) != 1 || back[0].UserID != 7 || back[0].LastBilledAt.Before(b.now) {
		t.Errorf("%d rows are on, the first for user %d, last_billed_at %s", len(back), back[0].UserID, back[0].LastBilledAt)
	}
	b.wantStatus(StatusExternal, true, ReasonNone)
	wantNothing(t, b.again())
}

func TestNoHourIsChargedToTwoOwners(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled() // user 7's first hour is recorded
	paid := *b.only().LastBilledAt
	b.pass(10 * time.Minute)
	b.deliver(b.seen(ownedBy(owner8)))
	if len(b.charges) != 2 || b.charges[1].start.Before(paid) {
		t.Fatalf("user 8 is charged from %s, user 7 until %s", b.charges[1].start, paid)
	}
	// Back again, while user 8's hour lasts.
	paid = b.charges[1].end
	b.pass(10 * time.Minute)
	b.deliver(b.seen())
	if on := b.enabled(); len(on) != 1 || on[0].UserID != 7 || on[0].LastBilledAt.Before(paid) {
		t.Errorf("%d rows are on; SkyPANEL bills user 7 from %s, user 8 is charged until %s", len(on), on[0].LastBilledAt, paid)
	}
}

func TestMoveOfANativeServer(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	native := b.native()
	b.deliver(b.seen())
	b.wantStatus(StatusNative, true, ReasonNone)
	b.pass(48 * time.Hour)
	b.deliver(b.seen(ownedBy(owner8)))
	if *native.BillingEnabled {
		t.Error("the old owner goes on paying")
	}
	b.wantStatus(StatusExternal, true, ReasonNone)
	if on := b.enabled(); len(on) != 1 || on[0].UserID != 8 {
		t.Fatalf("%d rows are on", len(on))
	}
	// Back: SkyPANEL's row stays as we closed it, ours bills.
	b.pass(48 * time.Hour)
	b.deliver(b.seen())
	b.wantStatus(StatusExternal, true, ReasonNone)
	if on := b.enabled(); len(on) != 1 || on[0].UserID != 7 || on[0] == native || on[0].LastBilledAt.Before(b.now) {
		t.Errorf("%d rows are on, the first is %+v", len(on), on[0].HourlyBilling)
	}
	wantNothing(t, b.again())
}

func TestMoveToNobody(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	b.deliver(b.seen(ownedBy(nobody)))
	b.wantStatus(StatusUnlinked, false, ReasonNone)
	if len(b.enabled()) != 0 || len(b.rows) != 1 {
		t.Errorf("%d of %d rows are on", len(b.enabled()), len(b.rows))
	}
	wantNothing(t, b.again())
	b.pass(time.Hour * 48)
	b.deliver(b.seen())
	b.wantStatus(StatusExternal, true, ReasonNone)
	if got := b.only().LastBilledAt; !got.Equal(b.now) {
		t.Errorf("last_billed_at %s, want %s", got, b.now)
	}
}

func TestMoveOfANativeServerToNobody(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	native := b.native()
	b.deliver(b.seen())
	b.deliver(b.seen(ownedBy(nobody)))
	b.wantStatus(StatusUnlinked, false, ReasonNone)
	if *native.BillingEnabled {
		t.Error("the old owner goes on paying")
	}
	wantNothing(t, b.again())
}

func TestRowOfAnotherUserWaitsForVirtFusionsWord(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	b.users[0].VirtfusionID, b.users[1].VirtfusionID = b.users[1].VirtfusionID, b.users[0].VirtfusionID
	d := b.again()
	wantRowsUntouched(t, d)
	if d.Ask == "" {
		t.Fatal("VirtFusion is not asked")
	}
	b.wantStatus(StatusExternal, true, ReasonNone)
	b.deliver(b.seen())
	if on := b.enabled(); len(on) != 1 || on[0].UserID != 8 {
		t.Errorf("%d rows are on", len(on))
	}
}

// A server does not move because the link of its owner was lost: SkyPANEL's
// own row is not ours to close on missing evidence.
func TestNativeRowOutlivesALostLink(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	native := b.native()
	b.users[0].VirtfusionID = nil // and this form of the server says no relation
	b.deliver(b.seen(func(e *events.Event) { e.Server.Owner.Whole = false }))
	if !*native.BillingEnabled {
		t.Errorf("SkyPANEL's row was closed: %s", b.state().Note)
	}
}
