package api

import (
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"serversync/internal/skypanel"
)

// billedRow is what SkyPANEL's hourly job looks at when it comes to a row of
// virtfusion_hourly_billing.
type billedRow struct {
	enabled      bool
	monthly      decimal.Decimal  // dollars: the row's own price
	list         *decimal.Decimal // dollars: the package's price today; nil: it has none
	hours        int64            // in a month, > 0
	ownerActive  bool
	lastBilledAt *time.Time
	createdAt    *time.Time // the server's creation, as the row has it
	collected    bool       // SkyPANEL has collected a charge of the row
	jobOff       bool       // the hourly job is switched off
	monthlyMode  bool       // the monthly job bills instead
}

// silence says why SkyPANEL will charge nothing.
type silence string

// The reasons, in the order in which they are looked for.
const (
	silentNot         silence = ""
	silentOff         silence = "switched_off"
	silentUnpriced    silence = "no_price"
	silentOwner       silence = "owner_inactive"
	silentNoStart     silence = "no_start"
	silentMonthlyMode silence = "monthly_mode"
	silentJobOff      silence = "job_off"
)

// forecast is what SkyPANEL will charge for a row, and when.
type forecast struct {
	// at is when the next charge is due; nil: never, see why. It may have
	// passed, when the job is late.
	at  *time.Time
	why silence
	// hoursDue are the charges that are due by now, all of which the job's next
	// run makes at once; 0 while at is ahead.
	hoursDue int64
	// A token is a cent. dueTokens are those of all hours due, or, when none
	// is, of the next charge.
	hourlyTokens, dueTokens int64
	// monthly is what the customer pays a month, in dollars, after rounding.
	monthly decimal.Decimal
}

// predict does SkyPANEL's arithmetic. Its job charges each hour in advance: a
// row is paid until last_billed_at, or, where that is empty, until an hour
// after the server's creation, which the order paid for; the next hour is due
// from that moment on, and a run charges all that are due. Whole tokens are
// charged: the price by the hour, rounded, but rounded up for the first charge
// that is ever collected.
func predict(r billedRow, now time.Time) forecast {
	f := forecast{hourlyTokens: skypanel.HourlyTokens(r.monthly, r.hours), monthly: skypanel.EffectiveMonthly(r.monthly, r.hours)}
	if f.why = silenceOf(r); f.why != silentNot {
		return f
	}
	f.at = paidUntil(r)
	first := f.hourlyTokens
	if !r.collected {
		first = skypanel.FirstTokens(r.monthly, r.hours)
	}
	if !now.Before(*f.at) {
		f.hoursDue = int64(now.Sub(*f.at)/time.Hour) + 1
	}
	f.dueTokens = first + max(f.hoursDue-1, 0)*f.hourlyTokens
	return f
}

// paidUntil is until when a row is paid; nil when nobody can say.
func paidUntil(r billedRow) *time.Time {
	if r.lastBilledAt == nil && r.createdAt != nil {
		return new(r.createdAt.Add(time.Hour))
	}
	return r.lastBilledAt
}

// silenceOf says why the job will not charge a row: its own conditions, in the
// order in which a person would mend them.
func silenceOf(r billedRow) silence {
	switch {
	case !r.enabled:
		return silentOff
	case r.list == nil: // it joins package_pricing
		return silentUnpriced
	case !r.ownerActive: // and users
		return silentOwner
	case paidUntil(r) == nil:
		return silentNoStart
	case r.monthlyMode:
		return silentMonthlyMode
	case r.jobOff:
		return silentJobOff
	}
	return silentNot
}

// words tell a forecast to a person.
func (f *forecast) words(r *billedRow) string {
	switch f.why {
	case silentOff:
		return "SkyPANEL charges nothing: the row is switched off"
	case silentUnpriced:
		return "SkyPANEL charges nothing, and tells nobody: it has no price for the row's package; add one to package_pricing"
	case silentOwner:
		return "SkyPANEL charges nothing: the row's user is switched off or gone. Beware: once switched on again, the user is charged for all the time between"
	case silentNoStart:
		return "SkyPANEL never charges this row, and tells nobody: neither last_billed_at nor server_created_at is set"
	case silentJobOff:
		return fmt.Sprintf("SkyPANEL charges nothing: its hourly job is switched off (virtfusion_cron_settings). Beware: once it is on, it charges %s for every hour from %s on",
			tokens(f.hourlyTokens), clock(*paidUntil(*r)))
	case silentMonthlyMode:
		return "SkyPANEL charges nothing by the hour: it is set to bill by the month"
	case silentNot:
	}
	words := fmt.Sprintf("SkyPANEL charges %s at %s", tokens(f.dueTokens), clock(*f.at))
	if f.hoursDue > 0 {
		words = fmt.Sprintf("SkyPANEL charges %s at its next run, for %s since %s", tokens(f.dueTokens), counted(f.hoursDue, "hour"), clock(*f.at))
	}
	words += fmt.Sprintf(", then %s an hour: %s a month", tokens(f.hourlyTokens), f.monthly.StringFixed(2))
	if !f.monthly.Equal(r.monthly) {
		words += fmt.Sprintf(", where the row says %s (whole tokens are charged)", dollars(r.monthly))
	}
	return words
}

func tokens(n int64) string {
	return fmt.Sprintf("%s (%s)", counted(n, "token"), decimal.New(n, -2).StringFixed(2))
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// dollars is an amount with two decimals, or four where it has them.
func dollars(d decimal.Decimal) string {
	if d.Equal(d.Round(2)) {
		return d.StringFixed(2)
	}
	return d.StringFixed(4)
}

// clock is a time for people.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
