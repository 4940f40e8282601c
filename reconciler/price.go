package reconciler

import (
	"fmt"
	"math"
	"time"

	"github.com/shopspring/decimal"

	"serversync/internal/skypanel"
)

// Price is what SkyPANEL charges for a VirtFusion package.
type Price struct {
	PackageID int64
	Name      string
	Monthly   decimal.Decimal // dollars a month
}

// The largest values that SkyPANEL's columns hold.
var (
	maxMonthly = decimal.New(9_999_999_999, -4) // monthly_price numeric(10,4)
	maxHourly  = decimal.New(9_999_999_999, -6) // hourly_rate numeric(10,6)
)

// storable reports whether a price fits SkyPANEL's columns.
func storable(monthly decimal.Decimal, hours int64) bool {
	return !monthly.IsNegative() && monthly.LessThanOrEqual(maxMonthly) && hourly(monthly, hours).LessThanOrEqual(maxHourly)
}

// hourly is a monthly price by the hour, at the six decimals that SkyPANEL
// keeps.
func hourly(monthly decimal.Decimal, hours int64) decimal.Decimal {
	return monthly.DivRound(decimal.NewFromInt(hours), 6)
}

// terms are what a billing row of ours should say.
type terms struct {
	on           bool
	reason       Reason
	packageID    int64 // 0 when unknown
	packageName  string
	monthlyPrice decimal.Decimal // 0 when there is no price
	hourlyRate   decimal.Decimal
	hours        int64
}

// termsFor decides whether a server of ours is to be billed, and at what
// price.
func termsFor(s *State, u *User, in *Input) terms {
	t := terms{hours: in.Policy.HoursPerMonth, packageName: "Unknown package"}
	priced := false
	packageID := s.PackageID
	if in.Wishes.PackageID != nil {
		packageID = in.Wishes.PackageID
	}
	if packageID != nil && *packageID <= math.MaxInt32 { // as SkyPANEL's columns hold it
		t.packageID = *packageID
		t.packageName = fmt.Sprintf("Package %d", *packageID)
		if p, ok := in.Prices[*packageID]; ok && storable(p.Monthly, t.hours) {
			priced = true
			t.packageName = p.Name
			t.monthlyPrice = p.Monthly
			t.hourlyRate = hourly(p.Monthly, t.hours)
		}
	}
	switch {
	case in.Wishes.BillingOff || in.Wishes.Ignore || in.Wishes.Undone:
		t.reason = ReasonOperator
	case s.SelfService != 0 && !in.Policy.BillSelfService && !in.Wishes.BillingOn:
		t.reason = ReasonSelfService
	case !in.Policy.HourlyMode:
		t.reason = ReasonMonthlyMode
	case !u.Active:
		t.reason = ReasonOwnerInactive
	case !priced:
		t.reason = ReasonUnpriced
	default:
		t.on = true
	}
	return t
}

// firstHour says from when a new row is billed: the first charge, where one is
// recorded, and the last_billed_at from which SkyPANEL's job goes on. It is
// never left empty: SkyPANEL would bill every hour since the server's creation
// at once.
func firstHour(t terms, p Policy, start time.Time) (lastBilledAt time.Time, charge *Charge) {
	if !t.on || p.InitialCharge == ChargeNone {
		return start, nil
	}
	end := start.Add(p.hour())
	tokens := skypanel.FirstTokens(t.monthlyPrice, t.hours)
	switch {
	case p.InitialCharge == ChargeDeduct && tokens > 0: // as SkyPANEL charges it
		charge = &Charge{Amount: cents(tokens), Tokens: tokens, Start: start, End: end}
	case p.InitialCharge != ChargeDeduct && t.hourlyRate.IsPositive():
		charge = &Charge{Amount: t.hourlyRate.Round(4), Start: start, End: end}
	}
	return end, charge
}

// cents is an amount of SkyPANEL's integer cents in dollars.
func cents(n int64) decimal.Decimal { return decimal.New(n, -2) }
