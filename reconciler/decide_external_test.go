package reconciler

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/events"
)

func TestExternalServerIsBilledFromDiscovery(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	d := b.deliver(b.seen())

	if d.Outcome != OutcomeNew {
		t.Errorf("outcome %q, want new", d.Outcome)
	}
	b.wantStatus(StatusExternal, true, ReasonNone)
	row := b.only()
	if row.UserID != 7 || row.VirtfusionServerID != server || row.ServerID != server || *row.ServerUUID != uuid {
		t.Errorf("the row is for user %d, server %d/%d, UUID %s", row.UserID, row.VirtfusionServerID, row.ServerID, *row.ServerUUID)
	}
	if row.PackageID != small || row.PackageName != "Small" || row.MonthlyPrice.String() != "7.3" || row.HourlyRate.String() != "0.01" || *row.HoursInMonth != 730 {
		t.Errorf("the row's terms are %d %q %s %s %d", row.PackageID, row.PackageName, row.MonthlyPrice, row.HourlyRate, *row.HoursInMonth)
	}
	if *row.Reference1 != "external_server_501" {
		t.Errorf("reference_1 = %q", *row.Reference1)
	}
	// A year of hours must not be charged at once: billing starts now, and the
	// first hour is recorded by us.
	if !row.LastBilledAt.Equal(t0.Add(time.Hour)) {
		t.Errorf("last_billed_at = %s, want the end of the first hour", row.LastBilledAt)
	}
	if len(b.charges) != 1 {
		t.Fatalf("%d charges, want one", len(b.charges))
	}
	c := b.charges[0]
	if !c.start.Equal(t0) || !c.end.Equal(t0.Add(time.Hour)) || c.amount.String() != "0.01" || c.status != "pending" {
		t.Errorf("the first charge is %+v", c)
	}
	if !hasLine(&d, LineObserved) || !hasLine(&d, LineCreated) || !hasLine(&d, LineDecided) {
		t.Errorf("the history misses a line: %+v", d.Lines)
	}
}

func TestPricesAreDecimals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		cents, hours    int64
		monthly, hourly string
		charge          string
	}{
		{"a thirtieth", 1000, 730, "10", "0.013699", "0.0137"},
		{"cents that floating point has not", 1999, 730, "19.99", "0.027384", "0.0274"},
		{"whole", 73000, 730, "730", "1", "1"},
		{"other hours", 1000, 672, "10", "0.014881", "0.0149"},
		{"half up at six decimals", 1, 800, "0.01", "0.000013", "0"}, // 0.0000125
		{"the largest that fits", 99_999_999, 730, "999999.99", "1369.863", "1369.863"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.prices[small] = Price{PackageID: small, Name: "Small", Monthly: cents(tt.cents)}
			b.policy.HoursPerMonth = tt.hours
			b.deliver(b.seen())
			row := b.only()
			want := func(what string, got decimal.Decimal, want string) {
				t.Helper()
				if !got.Equal(decimal.RequireFromString(want)) {
					t.Errorf("%s = %s, want %s", what, got, want)
				}
			}
			want("monthly_price", row.MonthlyPrice, tt.monthly)
			want("hourly_rate", row.HourlyRate, tt.hourly)
			want("the first charge", b.charges[0].amount, tt.charge)
			if *row.HoursInMonth != tt.hours {
				t.Errorf("hours_in_month = %d", *row.HoursInMonth)
			}
		})
	}
}

func TestFreeServerHasNoCharge(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.prices[small] = Price{PackageID: small, Name: "Free", Monthly: decimal.Zero}
	b.deliver(b.seen())
	b.wantStatus(StatusExternal, true, ReasonNone)
	if b.only().LastBilledAt == nil || len(b.charges) != 0 {
		t.Errorf("last_billed_at %v, %d charges", b.only().LastBilledAt, len(b.charges))
	}
}

func TestPriceThatDoesNotFitIsNone(t *testing.T) {
	t.Parallel()
	for name, price := range map[string]decimal.Decimal{"too large": decimal.New(1_000_000, 0), "negative": decimal.New(-1, 0)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.prices[small] = Price{PackageID: small, Name: "Small", Monthly: price}
			b.deliver(b.seen())
			b.wantStatus(StatusExternal, false, ReasonUnpriced)
			if !b.only().MonthlyPrice.IsZero() || len(b.charges) != 0 {
				t.Errorf("price %s, %d charges", b.only().MonthlyPrice, len(b.charges))
			}
		})
	}
}

// TestInitialChargeDeduct: whole tokens, rounded up as SkyPANEL does, for rows that
// are billed.
func TestInitialChargeDeduct(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cents, hours, tokens int64
		amount               string
	}{
		{730, 730, 1, "0.01"}, {731, 730, 2, "0.02"}, {2400, 730, 4, "0.04"}, {1, 800, 1, "0.01"}, {73000, 730, 100, "1"}, {0, 730, 0, "0"},
	} {
		b := newBooks(t)
		b.policy.InitialCharge, b.policy.HoursPerMonth = ChargeDeduct, tt.hours
		b.prices[small] = Price{PackageID: small, Name: "Small", Monthly: cents(tt.cents)}
		created := b.deliver(b.seen()).Create
		switch charge := created.Charge; {
		case tt.tokens == 0:
			if charge != nil {
				t.Errorf("%d cents a month: %+v", tt.cents, charge)
			}
		case charge == nil || charge.Tokens != tt.tokens || !charge.Amount.Equal(decimal.RequireFromString(tt.amount)) || !charge.Start.Equal(t0) || !charge.End.Equal(t0.Add(time.Hour)):
			t.Errorf("%d cents a month by %d hours: %+v, want %d tokens", tt.cents, tt.hours, charge, tt.tokens)
		}
		if !created.LastBilledAt.Equal(t0.Add(time.Hour)) {
			t.Errorf("last_billed_at %s", created.LastBilledAt)
		}
	}
	b := newBooks(t)
	b.policy.InitialCharge, b.policy.HourlyMode = ChargeDeduct, false
	if created := b.deliver(b.seen()).Create; created.Charge != nil {
		t.Errorf("in monthly mode: %+v", created.Charge)
	}
}

func TestInitialChargeNone(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.policy.InitialCharge = ChargeNone
	b.deliver(b.seen())
	if !b.only().LastBilledAt.Equal(t0) || len(b.charges) != 0 {
		t.Errorf("last_billed_at %s, %d charges; want discovery and none", b.only().LastBilledAt, len(b.charges))
	}
}

func TestBillingFromCreation(t *testing.T) {
	t.Parallel()
	birth := t0.AddDate(0, 0, -10)

	t.Run("at a first decision", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.deliver(b.seen(born(birth)))
		if got := b.only().LastBilledAt; !got.Equal(birth.Add(time.Hour)) {
			t.Errorf("last_billed_at = %s", got)
		}
		if !b.charges[0].start.Equal(birth) {
			t.Errorf("the first charge starts %s", b.charges[0].start)
		}
	})
	t.Run("after settling", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.deliver(b.seen(created, born(t0)))
		b.pass(b.policy.SettleDelay)
		b.again()
		if got := b.only().LastBilledAt; !got.Equal(t0.Add(time.Hour)) {
			t.Errorf("last_billed_at = %s", got)
		}
	})
	t.Run("never before a creation to come", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation, b.policy.SettleDelay = true, 0
		b.deliver(b.seen(born(t0.Add(time.Hour))))
		if got := b.only().LastBilledAt; !got.Equal(t0.Add(time.Hour)) {
			t.Errorf("last_billed_at = %s, want billing from now", got)
		}
	})
	t.Run("not for one that was unlinked", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.deliver(b.seen(born(birth), ownedBy(nobody)))
		b.users = append(b.users, User{ID: 9, VirtfusionID: new(int64(nobody)), Active: true})
		b.again()
		if got := b.only().LastBilledAt; !got.Equal(t0.Add(time.Hour)) {
			t.Errorf("last_billed_at = %s, want billing from the link on", got)
		}
	})
	t.Run("not for one that moved while it settled", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.deliver(b.seen(created, born(birth)))
		b.pass(time.Hour)
		b.deliver(b.seen(born(birth), ownedBy(owner8)))
		if got := b.only().LastBilledAt; got.Before(b.now) {
			t.Errorf("last_billed_at = %s: an hour of user 7's would be charged to user 8", got)
		}
	})
	t.Run("not for a new owner", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.deliver(b.seen(born(birth)))
		b.pass(48 * time.Hour)
		b.deliver(b.seen(born(birth), ownedBy(owner8)))
		if got := b.enabled()[0].LastBilledAt; got.Before(b.now) {
			t.Errorf("last_billed_at = %s", got)
		}
	})
	t.Run("not when somebody else was billed for it", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.native(func(m *db.BillingMatch) { m.UserID, m.BillingEnabled = 8, new(false) })
		b.deliver(b.seen(born(birth)))
		if got := b.enabled()[0].LastBilledAt; !got.Equal(t0.Add(time.Hour)) {
			t.Errorf("last_billed_at = %s: hours of user 8's would be charged to user 7", got)
		}
	})
	t.Run("not when its row was deleted", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.policy.StartAtCreation = true
		b.deliver(b.seen(born(birth)))
		b.rows = nil
		b.pass(time.Hour)
		b.again()
		if got := b.only().LastBilledAt; got.Before(b.now) {
			t.Errorf("last_billed_at = %s: hours that were billed before would be billed again", got)
		}
	})
}

func TestSettling(t *testing.T) {
	t.Parallel()
	delay := 2 * time.Minute
	for _, tt := range []struct {
		name  string
		edit  []func(*events.Event)
		until time.Time
	}{
		{"an announced creation settles from its arrival", []func(*events.Event){created, born(t0.Add(-time.Minute))}, t0.Add(delay)},
		{"though VirtFusion's clock is far behind", []func(*events.Event){created, born(t0.AddDate(-1, 0, 0))}, t0.Add(delay)},
		{"one found by a sweep settles from its own creation", []func(*events.Event){born(t0.Add(-time.Minute))}, t0.Add(delay - time.Minute)},
		{"one whose creation nobody knows settles from the first sight", []func(*events.Event){func(e *events.Event) { e.Server.CreatedAt = nil }}, t0.Add(delay)},
		{"one that is told of by another webhook settles from its own creation", []func(*events.Event){updated, born(t0.Add(-time.Minute))}, t0.Add(delay - time.Minute)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			wantRowsUntouched(t, b.deliver(b.seen(tt.edit...)))
			b.wantStatus(StatusSettling, false, ReasonNone)
			if got := b.state().SettleUntil; got == nil || !got.Equal(tt.until) {
				t.Fatalf("settles until %v, want %s", got, tt.until)
			}
			b.now = tt.until.Add(-time.Microsecond)
			wantNothing(t, b.again())
			b.now = tt.until
			if d := b.again(); d.Outcome != OutcomeNew {
				t.Fatalf("when its time is over: %+v", d)
			}
			b.wantStatus(StatusExternal, true, ReasonNone)
			if got := b.only().LastBilledAt; !got.Equal(tt.until.Add(time.Hour)) {
				t.Errorf("last_billed_at = %s", got)
			}
		})
	}
}

func TestOldServerDoesNotSettle(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(born(t0.Add(-2 * time.Minute))))
	b.wantStatus(StatusExternal, true, ReasonNone)
}

func TestCreationExtendsSettling(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	announced := b.seen(created, born(t0.Add(-time.Minute))) // pushed, but late
	b.deliver(b.seen(born(t0.Add(-time.Minute))))            // a sweep was first
	b.pass(30 * time.Second)
	announced.ReceivedAt = b.now
	b.deliver(announced)
	want := t0.Add(b.policy.SettleDelay)
	if got := b.state().SettleUntil; !got.Equal(want) {
		t.Errorf("settles until %s, want %s: that long after its first news, not after its creation", got, want)
	}
	// A creation told again settles nothing anew.
	b.pass(30 * time.Second)
	announced.ReceivedAt = b.now
	b.deliver(announced)
	if got := b.state().SettleUntil; !got.Equal(want) {
		t.Errorf("told again, it settles until %s, want %s", got, want)
	}
}

func TestSettlingIsNeverShortened(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	delayed := b.seen(created, func(e *events.Event) { e.ReceivedAt = t0.Add(-time.Minute) }) // stuck in the stream
	b.deliver(b.seen(born(t0)))
	b.deliver(delayed)
	if got := b.state().SettleUntil; !got.Equal(t0.Add(b.policy.SettleDelay)) {
		t.Errorf("settles until %s", got)
	}
}

func TestSettlingIgnoresLaterNews(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(created, born(t0)))
	for range 5 {
		b.pass(20 * time.Second)
		b.deliver(b.seen(updated, born(t0)))
	}
	if got := b.state().SettleUntil; !got.Equal(t0.Add(b.policy.SettleDelay)) {
		t.Errorf("settles until %s: news must not put it off", got)
	}
}

func TestCreationInTheFutureDoesNotSettleForEver(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(born(t0.AddDate(10, 0, 0))))
	if got := b.state().SettleUntil; got.After(t0.Add(b.policy.SettleDelay)) {
		t.Errorf("settles until %s, though we have seen it today", got)
	}
}

func TestFailedCreationBillsNothing(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	wantRowsUntouched(t, b.deliver(b.seen(created, failed)))
	b.wantStatus(StatusSettling, false, ReasonNone)
	b.pass(24 * time.Hour)
	wantNothing(t, b.again())
	// Once VirtFusion shows it, it is a server like any other.
	b.deliver(b.seen())
	b.wantStatus(StatusExternal, true, ReasonNone)
}

func TestFailedOperationOnKnownServerChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	wantRowsUntouched(t, b.deliver(b.seen(created, failed)))
	wantRowsUntouched(t, b.deliver(b.seen(updated, failed))) // as a failed destroy arrives
	wantRowsUntouched(t, b.deliver(b.seen(destroyed, failed)))
	b.wantStatus(StatusExternal, true, ReasonNone)
}

func TestPriceAndPackageChanges(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	before := *b.only().LastBilledAt

	d := b.deliver(b.seen(packaged(large)))
	row := b.only()
	if d.Outcome != OutcomeUpdated || row.PackageID != large || row.PackageName != "Large" || row.MonthlyPrice.String() != "14.6" || row.HourlyRate.String() != "0.02" {
		t.Errorf("after another package: %+v", row.HourlyBilling)
	}
	b.prices[large] = Price{PackageID: large, Name: "Larger", Monthly: cents(2190)}
	b.again()
	if row.PackageName != "Larger" || row.MonthlyPrice.String() != "21.9" || row.HourlyRate.String() != "0.03" {
		t.Errorf("after another price: %+v", row.HourlyBilling)
	}
	b.policy.HoursPerMonth = 720
	b.again()
	if *row.HoursInMonth != 720 || row.HourlyRate.String() != "0.030417" {
		t.Errorf("after other hours: %d, %s", *row.HoursInMonth, row.HourlyRate)
	}
	if !row.LastBilledAt.Equal(before) {
		t.Errorf("last_billed_at moved to %s", row.LastBilledAt)
	}
	wantNothing(t, b.again())
}

func TestMissingUUIDOfOurRowIsFilledIn(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.deliver(b.seen(func(e *events.Event) { e.Server.UUID = nil }))
	if b.only().ServerUUID != nil {
		t.Fatalf("UUID %q out of nothing", *b.only().ServerUUID)
	}
	b.deliver(b.seen())
	if got := b.only().ServerUUID; got == nil || *got != uuid {
		t.Errorf("UUID = %v", got)
	}
}

func TestOneRowOfOursIsEnough(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.settled()
	double := *b.only()
	double.ID, double.Record = 900, nil
	b.rows = append(b.rows, &double)
	d := b.again()
	if len(b.enabled()) != 1 || len(d.Withdraw) != 1 {
		t.Errorf("%d rows are on, %+v", len(b.enabled()), d.Withdraw)
	}
	wantNothing(t, b.again())

	// When SkyPANEL switches it off, the one that we withdrew takes no turn.
	for _, m := range b.enabled() {
		m.BillingEnabled = new(false)
	}
	b.again()
	b.wantStatus(StatusExternal, false, ReasonDisabled)
	if len(b.enabled()) != 0 {
		t.Error("a withdrawn row is on again")
	}
}

func TestIdsThatDoNotFitAreShown(t *testing.T) {
	t.Parallel()
	big := int64(math.MaxInt32) + 1

	t.Run("server", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		d := b.deliver(b.seen(identified(big, uuid)))
		wantRowsUntouched(t, d)
		if d.State.Status != StatusConflict || !strings.Contains(d.State.Note, "2147483648") {
			t.Errorf("%s: %s", d.State.Status, d.State.Note)
		}
	})
	t.Run("server that ends", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		if d := b.deliver(b.seen(identified(big, uuid), destroyed)); d.State.Status != StatusGone {
			t.Errorf("%s: %s", d.State.Status, d.State.Note)
		}
	})
	t.Run("package", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.deliver(b.seen(packaged(big)))
		b.wantStatus(StatusExternal, false, ReasonUnpriced)
		if b.only().PackageID != 0 {
			t.Errorf("package %d", b.only().PackageID)
		}
	})
	t.Run("owner", func(t *testing.T) {
		t.Parallel()
		b := newBooks(t)
		b.deliver(b.seen(ownedBy(big), relatedTo(big)))
		b.wantStatus(StatusUnlinked, false, ReasonNone)
	})
}
