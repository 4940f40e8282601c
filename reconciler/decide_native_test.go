package reconciler

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db"
)

func TestNativeRowIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	row := b.native(func(m *db.BillingMatch) { m.MonthlyPrice = cents(1); m.PackageID = 77 })
	before := row.HourlyBilling
	d := b.deliver(b.seen())
	wantRowsUntouched(t, d)
	if row.MonthlyPrice != before.MonthlyPrice || row.PackageID != before.PackageID {
		t.Errorf("%+v", row.HourlyBilling)
	}
	b.wantStatus(StatusNative, true, ReasonNone)
	if *b.state().BillingID != row.ID || *b.state().UserID != 7 {
		t.Errorf("billing_id %d, user %d", *b.state().BillingID, *b.state().UserID)
	}
	wantNothing(t, b.again())
}

func TestMissingUUIDOfANativeRowIsFilledIn(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]*string{"null": nil, "empty": new("")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			row := b.native(func(m *db.BillingMatch) { m.ServerUUID = empty })
			d := b.deliver(b.seen())
			if d.Outcome != OutcomeUpdated || *row.ServerUUID != uuid || !hasLine(&d, LineChanged) {
				t.Errorf("%s, UUID %v", d.Outcome, row.ServerUUID)
			}
			if !*row.BillingEnabled || fromBilling(row).Ours {
				t.Error("it is not what it was")
			}
			wantNothing(t, b.again())
		})
	}
}

func TestNativeRowThatIsOff(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	row := b.native(func(m *db.BillingMatch) { m.BillingEnabled = new(false) })
	wantRowsUntouched(t, b.deliver(b.seen()))
	b.wantStatus(StatusNative, false, ReasonDisabled)
	row.BillingEnabled = nil
	wantNothing(t, b.again())
}

func TestNativeRowDuringSettling(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(created, born(t0)))
	b.pass(time.Second)
	b.native(func(m *db.BillingMatch) { m.ServerUUID = nil })
	b.pass(b.policy.SettleDelay)
	b.again()
	b.wantStatus(StatusNative, true, ReasonNone)
	if len(b.rows) != 1 || len(b.charges) != 0 {
		t.Errorf("%d rows, %d charges", len(b.rows), len(b.charges))
	}
}

// A native row that comes late wins. Ours is deleted only while every
// condition of the contract holds.
func TestWithdrawal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		spoil   func(b *books, ours *db.BillingMatch)
		deleted bool
		refund  bool
	}{
		{name: "nothing was charged", spoil: func(*books, *db.BillingMatch) {}, deleted: true},
		{name: "at the last moment", spoil: func(b *books, m *db.BillingMatch) { b.now = m.LastBilledAt.Add(-time.Microsecond) }, deleted: true},
		{name: "its first hour is over", spoil: func(b *books, m *db.BillingMatch) { b.now = *m.LastBilledAt }, refund: true},
		{name: "it was charged", spoil: func(b *books, m *db.BillingMatch) { b.charge(m.ID, cents(1), t0, t0) }, refund: true},
		{name: "its first charge was collected", spoil: func(b *books, _ *db.BillingMatch) { b.charges[0].status = "completed" }, refund: true},
		{name: "SkyPANEL billed on", spoil: func(_ *books, m *db.BillingMatch) { m.LastBilledAt = new(m.LastBilledAt.Add(time.Hour)) }, refund: true},
		{name: "another price", spoil: func(_ *books, m *db.BillingMatch) { m.MonthlyPrice = cents(731) }, refund: true},
		{name: "another package", spoil: func(_ *books, m *db.BillingMatch) { m.PackageID = large }, refund: true},
		{name: "somebody switched it off", spoil: func(_ *books, m *db.BillingMatch) { m.BillingEnabled = new(false) }, refund: true},
		{name: "last_billed_at is empty", spoil: func(_ *books, m *db.BillingMatch) { m.LastBilledAt = nil }, refund: true},
		{name: "our memory is lost", spoil: func(_ *books, m *db.BillingMatch) { m.Record = nil }, refund: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.settled()
			ours := b.only()
			b.pass(10 * time.Minute)
			native := b.native()
			tt.spoil(b, ours)
			d := b.again()
			if len(d.Withdraw) != 1 || d.Withdraw[0].RowID != ours.ID || d.Withdraw[0].Delete != tt.deleted || d.Outcome != OutcomeUpdated {
				t.Fatalf("withdrawals %+v, outcome %q", d.Withdraw, d.Outcome)
			}
			if got := hasLine(&d, LineRefundDue); got != tt.refund {
				t.Errorf("listed for a refund: %v", got)
			}
			b.wantStatus(StatusNative, true, ReasonNone)
			if on := b.enabled(); len(on) != 1 || on[0] != native {
				t.Errorf("%d rows are on", len(on))
			}
			for _, c := range b.charges {
				if c.ours && c.status == "pending" {
					t.Error("the pending charge stands")
				}
			}
			if tt.deleted != (len(b.rows) == 1) {
				t.Errorf("%d rows", len(b.rows))
			}
			wantNothing(t, b.again())
			b.deliver(b.seen())
			if len(b.enabled()) != 1 {
				t.Errorf("%d rows are on after more news", len(b.enabled()))
			}
		})
	}
}

func TestWithdrawalOfARowThatWasNeverOnNeedsNoRefund(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.policy.HourlyMode = false
	b.settled()
	b.pass(time.Hour)
	b.native()
	d := b.again()
	if len(d.Withdraw) != 1 || hasLine(&d, LineRefundDue) {
		t.Errorf("%+v", d)
	}
	b.wantStatus(StatusNative, true, ReasonNone)
}

func TestNativeRowThatCameInMonthlyModeWins(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.policy.HourlyMode = false
	b.native()
	wantRowsUntouched(t, b.deliver(b.seen()))
	b.wantStatus(StatusNative, true, ReasonNone)
}

func TestOurRowIsKnownByItsReference(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	b.only().Record = nil
	wantRowsUntouched(t, b.again())
	b.wantStatus(StatusExternal, true, ReasonNone)

	// And by our own memory, when SkyPANEL's schema tool dropped the column.
	c := newBooks(t)
	c.settled()
	c.only().Reference1 = nil
	wantNothing(t, c.again())
	c.wantStatus(StatusExternal, true, ReasonNone)
}

func TestChargeAmountsOfRows(t *testing.T) {
	t.Parallel()
	if got := hourly(decimal.RequireFromString("3.65"), 730); !got.Equal(decimal.RequireFromString("0.005")) {
		t.Errorf("hourly = %s", got)
	}
}
