package reconciler

import (
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"serversync/internal/skypanel"
)

// clock is a time for people who read log lines and histories.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// money is an amount of dollars with two to four decimals.
func money(d decimal.Decimal) string {
	if d.Equal(d.Round(2)) {
		return d.StringFixed(2)
	}
	return d.StringFixed(4)
}

// monthWords are a price a month and, where SkyPANEL's rounding makes another amount of
// it by these hours, what is charged.
func monthWords(price decimal.Decimal, hours int64) string {
	words := money(price) + " a month"
	if charged := chargedMonthly(price, hours); !charged.Equal(price) {
		words += ", " + money(charged) + " as charged"
	}
	return words
}

// chargedMonthly is what SkyPANEL charges a month; where nobody knows the hours, the
// price.
func chargedMonthly(price decimal.Decimal, hours int64) decimal.Decimal {
	if hours <= 0 {
		return price
	}
	return skypanel.EffectiveMonthly(price, hours)
}

// priceWords say that a row gets another price.
func priceWords(r *Row, t terms) string {
	words := fmt.Sprintf("the price changed from %s to %s a month", money(r.MonthlyPrice), money(t.monthlyPrice))
	was, is := chargedMonthly(r.MonthlyPrice, r.Hours), chargedMonthly(t.monthlyPrice, t.hours)
	if was.Equal(r.MonthlyPrice) && is.Equal(t.monthlyPrice) {
		return words
	}
	return words + fmt.Sprintf(", as charged from %s to %s", money(was), money(is))
}

// reasonWords explains why billing is off, and what would turn it on.
func reasonWords(r Reason) string {
	switch r {
	case ReasonNone:
		return ""
	case ReasonUnpriced:
		return "not billed: SkyPANEL has no price for its package; add one to package_pricing and it is billed from then on"
	case ReasonMonthlyMode:
		return "not billed: SkyPANEL bills by the month, so a missing row does not prove that the server is external"
	case ReasonSelfService:
		return "not billed: VirtFusion bills it itself (self service)"
	case ReasonOwnerInactive:
		return "not billed: its owner is switched off in SkyPANEL"
	case ReasonDestroyed:
		return "not billed: the server is gone"
	case ReasonOperator:
		return "not billed: an operator wants it so"
	case ReasonDisabled:
		return "not billed: SkyPANEL switched its row off; check whether that was meant"
	default:
		return "not billed: " + string(r)
	}
}

func externalNote(t terms) string {
	if t.on {
		return fmt.Sprintf("made outside SkyPANEL, billed %s", monthWords(t.monthlyPrice, t.hours))
	}
	return "made outside SkyPANEL, " + reasonWords(t.reason)
}

func createdWords(n *NewRow, t terms) string {
	if !t.on {
		return reasonWords(t.reason)
	}
	words := fmt.Sprintf("billed %s (%s)", monthWords(n.MonthlyPrice, n.Hours), n.PackageName)
	if n.Charge != nil && n.Charge.Tokens > 0 {
		return words + fmt.Sprintf(", the first hour of %s is taken from the user's credit in VirtFusion, SkyPANEL goes on from %s",
			money(n.Charge.Amount), clock(n.LastBilledAt))
	}
	if n.Charge != nil {
		return words + fmt.Sprintf(", the first hour of %s is recorded as pending, SkyPANEL goes on from %s",
			n.Charge.Amount.StringFixed(4), clock(n.LastBilledAt))
	}
	return words + ", SkyPANEL goes on from " + clock(n.LastBilledAt)
}

func changedWords(r *Row, t terms, now time.Time) string {
	switch {
	case t.on && !r.Enabled:
		return fmt.Sprintf("billed %s, from %s on", monthWords(t.monthlyPrice, t.hours), clock(later(deref(r.LastBilledAt), now)))
	case !t.on && r.Enabled:
		return reasonWords(t.reason)
	case !r.MonthlyPrice.Equal(t.monthlyPrice):
		return priceWords(r, t)
	case r.PackageID != t.packageID:
		return fmt.Sprintf("the package changed from %s to %s", r.PackageName, t.packageName)
	default:
		return "its billing row was brought up to date"
	}
}

// observedWords says what VirtFusion changed. Its own time of the change is
// left out where there is more to say.
func observedWords(changes []change, o *Observation) string {
	var fields []string
	for _, c := range changes {
		if c.field != "updated_at" {
			fields = append(fields, c.field)
		}
	}
	return "VirtFusion changed " + strings.Join(fields, ", ") + ", by " + string(o.Source)
}

// rowFacts are a new row's values for the history.
func rowFacts(n *NewRow) map[string]any {
	facts := map[string]any{
		"user_id": n.UserID, "package_id": n.PackageID, "package_name": n.PackageName,
		"monthly_price": n.MonthlyPrice, "hourly_rate": n.HourlyRate, "hours_in_month": n.Hours,
		"billing_enabled": n.Enabled, "last_billed_at": n.LastBilledAt,
	}
	if n.Charge != nil {
		facts["charge"] = map[string]any{"amount": n.Charge.Amount, "from": n.Charge.Start, "until": n.Charge.End, "status": "pending"}
	}
	return facts
}

// termsDiff lists where a row of ours differs from what it should say.
func termsDiff(r *Row, t terms) []change {
	var d []change
	d = compare(d, "package_id", r.PackageID, t.packageID)
	d = compare(d, "package_name", r.PackageName, t.packageName)
	if !r.MonthlyPrice.Equal(t.monthlyPrice) {
		d = append(d, change{"monthly_price", r.MonthlyPrice, t.monthlyPrice})
	}
	if !r.HourlyRate.Equal(t.hourlyRate) {
		d = append(d, change{"hourly_rate", r.HourlyRate, t.hourlyRate})
	}
	return compare(d, "hours_in_month", r.Hours, t.hours)
}

func deref(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
