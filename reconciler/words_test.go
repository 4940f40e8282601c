package reconciler

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

// What a month is said to cost has what is really charged beside it, where that is
// another amount.
func TestAPriceIsToldAsItIsCharged(t *testing.T) {
	t.Parallel()
	price := func(s string) terms {
		return terms{on: true, monthlyPrice: decimal.RequireFromString(s), hours: 730}
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	row := func(s string, hours int64) *Row {
		return &Row{Enabled: true, MonthlyPrice: decimal.RequireFromString(s), Hours: hours, LastBilledAt: &now}
	}
	made := &NewRow{MonthlyPrice: decimal.RequireFromString("11"), Hours: 730, PackageName: "Eleven", LastBilledAt: now}
	off := row("11", 730)
	off.Enabled = false
	for got, want := range map[string]string{
		externalNote(price("11")):                                           "made outside SkyPANEL, billed 11.00 a month, 14.60 as charged",
		externalNote(price("7.30")):                                         "made outside SkyPANEL, billed 7.30 a month",
		externalNote(price("3.60")):                                         "made outside SkyPANEL, billed 3.60 a month, 0.00 as charged",
		createdWords(made, price("11")):                                     "billed 11.00 a month, 14.60 as charged (Eleven), SkyPANEL goes on from 2026-03-01 12:00:00 UTC",
		changedWords(off, price("11"), now):                                 "billed 11.00 a month, 14.60 as charged, from 2026-03-01 12:00:00 UTC on",
		changedWords(row("7.3", 730), price("14.60"), now):                  "the price changed from 7.30 to 14.60 a month",
		changedWords(row("10.00", 730), price("11.00"), now):                "the price changed from 10.00 to 11.00 a month, as charged from 7.30 to 14.60",
		changedWords(row("7.30", 0), price("14.60"), now):                   "the price changed from 7.30 to 14.60 a month", // nobody knows its hours
		changedWords(row("7.3000", 730), price("8.00"), now):                "the price changed from 7.30 to 8.00 a month, as charged from 7.30 to 7.30",
		changedWords(row("7.30", 730), price("7.3000"), now):                "its billing row was brought up to date",
		externalNote(terms{on: true, monthlyPrice: decimal.NewFromInt(11)}): "made outside SkyPANEL, billed 11.00 a month",
	} {
		if got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}
