package reconciler

import (
	"testing"
	"time"

	"serversync/events"
)

// causes switch an external server's billing off, and on again.
var causes = []struct {
	reason Reason
	off    func(*books)
	on     func(*books)
	event  func(*events.Event) // where the cause is VirtFusion's word
	priced bool                // the row keeps its price
}{
	{reason: ReasonUnpriced, off: func(b *books) { delete(b.prices, small) }, on: func(b *books) { b.prices[small] = Price{small, "Small", cents(730)} }},
	{reason: ReasonMonthlyMode, off: func(b *books) { b.policy.HourlyMode = false }, on: func(b *books) { b.policy.HourlyMode = true }, priced: true},
	{reason: ReasonOwnerInactive, off: func(b *books) { b.users[0].Active = false }, on: func(b *books) { b.users[0].Active = true }, priced: true},
	{
		reason: ReasonSelfService, event: func(e *events.Event) { e.Server.SelfService = new(int64(1)) },
		off: func(*books) {}, on: func(b *books) { b.policy.BillSelfService = true }, priced: true,
	},
}

func TestNotBilledFromTheFirst(t *testing.T) {
	t.Parallel()
	for _, c := range causes {
		t.Run(string(c.reason), func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			c.off(b)
			edit := func(e *events.Event) {
				if c.event != nil {
					c.event(e)
				}
			}
			b.deliver(b.seen(edit))
			b.wantStatus(StatusExternal, false, c.reason)
			row := b.only()
			if *row.BillingEnabled || len(b.charges) != 0 {
				t.Fatalf("enabled %v, %d charges", *row.BillingEnabled, len(b.charges))
			}
			if row.MonthlyPrice.IsZero() == c.priced {
				t.Errorf("price %s", row.MonthlyPrice)
			}
			if row.LastBilledAt == nil {
				t.Error("last_billed_at is empty: whoever switches the row on bills everything since its creation")
			}

			// The cause goes: billing goes on from that moment.
			b.pass(400 * 24 * time.Hour)
			wantNothing(t, b.again())
			c.on(b)
			b.again()
			b.wantStatus(StatusExternal, true, ReasonNone)
			if !*row.BillingEnabled || !row.LastBilledAt.Equal(b.now) || row.MonthlyPrice.String() != "7.3" {
				t.Errorf("enabled %v, last_billed_at %s, price %s; want billing from now", *row.BillingEnabled, row.LastBilledAt, row.MonthlyPrice)
			}
			if len(b.charges) != 0 {
				t.Errorf("%d charges", len(b.charges))
			}
			wantNothing(t, b.again())
		})
	}
}

func TestSwitchedOffAndOn(t *testing.T) {
	t.Parallel()
	for _, c := range causes {
		t.Run(string(c.reason), func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.settled()
			row := b.only()
			c.off(b)
			edit := func(e *events.Event) {
				if c.event != nil {
					c.event(e)
				}
			}
			b.deliver(b.seen(edit))
			b.wantStatus(StatusExternal, false, c.reason)
			if *row.BillingEnabled {
				t.Fatal("still on")
			}
			// The first hour is paid: resuming within it must not shorten it.
			paid := *row.LastBilledAt
			b.pass(time.Minute)
			c.on(b)
			b.again()
			if !*row.BillingEnabled || !row.LastBilledAt.Equal(paid) {
				t.Fatalf("enabled %v, last_billed_at %s, want %s", *row.BillingEnabled, row.LastBilledAt, paid)
			}
			// A gap is never billed.
			b.policy.BillSelfService = false
			c.off(b)
			b.again()
			b.pass(30 * 24 * time.Hour)
			c.on(b)
			b.again()
			if !*row.BillingEnabled || !row.LastBilledAt.Equal(b.now) {
				t.Errorf("enabled %v, last_billed_at %s, want %s", *row.BillingEnabled, row.LastBilledAt, b.now)
			}
			b.wantStatus(StatusExternal, true, ReasonNone)
		})
	}
}

func TestUnknownPackageIsRecordedAsZero(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(func(e *events.Event) { e.Server.PackageID = nil }))
	b.wantStatus(StatusExternal, false, ReasonUnpriced)
	if row := b.only(); row.PackageID != 0 || !row.MonthlyPrice.IsZero() || row.PackageName == "" {
		t.Errorf("package %d %q, price %s", row.PackageID, row.PackageName, row.MonthlyPrice)
	}
	b.deliver(b.seen(packaged(unpriced)))
	b.wantStatus(StatusExternal, false, ReasonUnpriced)
	if row := b.only(); row.PackageID != unpriced {
		t.Errorf("package %d", row.PackageID)
	}
}

func TestRowThatSkyPANELSwitchedOffStaysOff(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) *books {
		t.Helper()
		b := newBooks(t)
		b.settled()
		b.only().BillingEnabled = new(false)
		b.deliver(b.seen())
		b.wantStatus(StatusExternal, false, ReasonDisabled)
		return b
	}
	// Whatever happens beside it, only an operator turns it on again.
	for _, tt := range []struct {
		name   string
		happen func(*books)
	}{
		{"nothing", func(*books) {}},
		{"news", func(b *books) { b.deliver(b.seen(named("web2"))) }},
		{"another package", func(b *books) { b.deliver(b.seen(packaged(large))) }},
		{"another price", func(b *books) { b.prices[small] = Price{small, "Small", cents(9000)}; b.again() }},
		{"other hours", func(b *books) { b.policy.HoursPerMonth = 720; b.again() }},
		{"no price for a while", func(b *books) {
			delete(b.prices, small)
			b.again()
			b.prices[small] = Price{small, "Small", cents(730)}
			b.again()
		}},
		{"monthly mode for a while", func(b *books) { b.policy.HourlyMode = false; b.again(); b.policy.HourlyMode = true; b.again() }},
		{"its owner inactive for a while", func(b *books) { b.users[0].Active = false; b.again(); b.users[0].Active = true; b.again() }},
		{"its end and return", func(b *books) { b.deliver(b.seen(destroyed)); b.deliver(b.seen()) }},
		{"a move and back", func(b *books) { b.deliver(b.seen(ownedBy(owner8))); b.deliver(b.seen()) }},
		{"its UUID filled in", func(b *books) { b.only().ServerUUID = nil; b.again() }},
		{"a row of SkyPANEL's own for a while", func(b *books) {
			b.native()
			b.again()
			b.wantStatus(StatusNative, true, ReasonNone)
			b.remove(b.rows[1])
			b.again()
		}},
		{"our memory lost", func(b *books) { b.only().Record = nil; b.again() }},
		{"our memory lost, and another package", func(b *books) { b.only().Record = nil; b.deliver(b.seen(packaged(large))) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			row := b.only()
			tt.happen(b)
			b.pass(time.Hour)
			b.again()
			b.again()
			if *row.BillingEnabled {
				t.Error("it is on again")
			}
			b.wantStatus(StatusExternal, false, ReasonDisabled)
		})
	}
}

func TestRowThatWeSwitchedOffAndSomebodyOn(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.policy.HourlyMode = false
	b.settled()
	b.only().BillingEnabled = new(true)
	b.again()
	if *b.only().BillingEnabled {
		t.Error("still billed in monthly mode")
	}
}
