package skypanel_test

import (
	"testing"

	"github.com/shopspring/decimal"

	"serversync/internal/skypanel"
)

// What the contract says of SkyPANEL's rounding (hazard 7).
func TestRounding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		monthly       string
		hours         int64
		hourly, first int64
		month         string
	}{
		{"10.00", 730, 1, 2, "7.30"},
		{"11.00", 730, 2, 2, "14.60"},
		{"3.60", 730, 0, 1, "0.00"},
		{"3.6499", 730, 0, 1, "0.00"},
		{"3.65", 730, 1, 1, "7.30"}, // half a token
		{"7.30", 730, 1, 1, "7.30"},
		{"7.20", 720, 1, 1, "7.20"},
		{"0", 730, 0, 0, "0.00"},
		{"999999.9999", 1, 100_000_000, 100_000_000, "1000000.00"},
	} {
		monthly := decimal.RequireFromString(c.monthly)
		if got := skypanel.HourlyTokens(monthly, c.hours); got != c.hourly {
			t.Errorf("%s by %d h: %d tokens an hour, want %d", c.monthly, c.hours, got, c.hourly)
		}
		if got := skypanel.FirstTokens(monthly, c.hours); got != c.first {
			t.Errorf("%s by %d h: %d tokens first, want %d", c.monthly, c.hours, got, c.first)
		}
		if got := skypanel.EffectiveMonthly(monthly, c.hours).StringFixed(2); got != c.month {
			t.Errorf("%s by %d h: %s a month, want %s", c.monthly, c.hours, got, c.month)
		}
	}
}
