package skypanelsim_test

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"serversync/db/skypanelsim"
)

// t0 is when most tests' servers were created.
var t0 = time.Date(2026, 3, 1, 10, 20, 30, 0, time.UTC)

func hoursLater(n int) time.Time { return t0.Add(time.Duration(n) * time.Hour) }

func TestTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		monthly       string
		hours         int64
		hourly, first int64
		effective     string
	}{
		{"10.00", 730, 1, 2, "7.30"},
		{"11.00", 730, 2, 2, "14.60"},
		{"0", 730, 0, 0, "0"},
		{"0.01", 730, 0, 1, "0"},
		{"3.64", 730, 0, 1, "0"},
		{"3.6499", 730, 0, 1, "0"},
		{"3.65", 730, 1, 1, "7.30"}, // half a token goes up
		{"7.30", 730, 1, 1, "7.30"},
		{"7.3001", 730, 1, 2, "7.30"},
		{"10.95", 730, 2, 2, "14.60"},
		{"24.00", 730, 3, 4, "21.90"},
		{"24.00", 720, 3, 4, "21.60"},
		{"5.00", 672, 1, 1, "6.72"},
		{"999999.9999", 1, 100000000, 100000000, "1000000"},
	} {
		monthly := decimal.RequireFromString(c.monthly)
		if got := skypanelsim.HourlyTokens(monthly, c.hours); got != c.hourly {
			t.Errorf("%s at %d hours: %d tokens, want %d", c.monthly, c.hours, got, c.hourly)
		}
		if got := skypanelsim.FirstTokens(monthly, c.hours); got != c.first {
			t.Errorf("%s at %d hours: first %d tokens, want %d", c.monthly, c.hours, got, c.first)
		}
		if got := skypanelsim.EffectiveMonthly(monthly, c.hours); !got.Equal(decimal.RequireFromString(c.effective)) {
			t.Errorf("%s at %d hours costs %s a month, want %s", c.monthly, c.hours, got, c.effective)
		}
	}
}

func TestTokensAreNearThePrice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		monthly := decimal.New(rapid.Int64Range(0, 9_999_999_999).Draw(t, "monthly"), -4)
		hours := rapid.Int64Range(1, 10_000).Draw(t, "hours")
		hourly, first := skypanelsim.HourlyTokens(monthly, hours), skypanelsim.FirstTokens(monthly, hours)
		if first < hourly || first > hourly+1 {
			t.Fatalf("the first hour costs %d, the others %d", first, hourly)
		}
		// Twice the error of rounding, times the hours, is at most the hours.
		exact := monthly.Shift(2)
		off := decimal.NewFromInt(hourly * hours).Sub(exact).Mul(decimal.NewFromInt(2))
		if off.GreaterThan(decimal.NewFromInt(hours)) || !off.GreaterThan(decimal.NewFromInt(-hours)) {
			t.Fatalf("%d tokens are not the nearest to %s / %d", hourly, exact, hours)
		}
		up := decimal.NewFromInt(first * hours).Sub(exact)
		if up.IsNegative() || !up.LessThan(decimal.NewFromInt(hours)) {
			t.Fatalf("%d tokens are not %s / %d rounded up", first, exact, hours)
		}
	})
}

func TestOwed(t *testing.T) {
	t.Parallel()
	year := 365 * 24
	for name, c := range map[string]struct {
		lastBilled, created *time.Time
		now                 time.Time
		from                time.Time
		hours               int64
	}{
		"nothing says from when":                {nil, nil, t0, time.Time{}, 0},
		"the order paid the first hour":         {nil, &t0, hoursLater(1).Add(-time.Nanosecond), hoursLater(1), 0},
		"the second is owed when it begins":     {nil, &t0, hoursLater(1), hoursLater(1), 1},
		"and until it ends":                     {nil, &t0, hoursLater(2).Add(-time.Nanosecond), hoursLater(1), 1},
		"a year is back-billed":                 {nil, &t0, hoursLater(year), hoursLater(1), 8760},
		"paid until now":                        {&t0, nil, t0, t0, 1},
		"paid until later":                      {new(hoursLater(3)), &t0, hoursLater(2), hoursLater(3), 0},
		"last_billed_at counts before creation": {new(hoursLater(5)), &t0, hoursLater(7), hoursLater(5), 3},
		"a gap is charged when it is over":      {&t0, new(hoursLater(-9)), hoursLater(48), t0, 49},
		"created later than now, never billed":  {nil, new(hoursLater(10)), t0, hoursLater(11), 0},
		"the zone of the times does not matter": {new(t0.In(time.FixedZone("east", 3*3600))), nil, hoursLater(1), t0, 2},
	} {
		from, hours := skypanelsim.Owed(c.lastBilled, c.created, c.now)
		if !from.Equal(c.from) || hours != c.hours {
			t.Errorf("%s: %d hours from %s, want %d from %s", name, hours, from, c.hours, c.from)
		}
	}
}

// TestCatchingUpOwesWhatTickingOwes is the arithmetic alone: however often the
// job runs, the hours that it charges are the same.
func TestCatchingUpOwesWhatTickingOwes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var lastBilled *time.Time
		if rapid.Bool().Draw(t, "billed before") {
			lastBilled = new(t0.Add(time.Duration(rapid.Int64Range(-1e13, 1e13).Draw(t, "last billed"))))
		}
		now, ticked := t0, lastBilled
		var sum int64
		for _, step := range rapid.SliceOfN(rapid.Int64Range(0, 2e13), 1, 20).Draw(t, "steps") {
			now = now.Add(time.Duration(step))
			from, hours := skypanelsim.Owed(ticked, &t0, now)
			if hours > 0 {
				ticked = new(from.Add(time.Duration(hours) * time.Hour))
				sum += hours
			}
		}
		from, hours := skypanelsim.Owed(lastBilled, &t0, now)
		if hours != sum {
			t.Fatalf("%d hours at once, %d by and by", hours, sum)
		}
		if hours > 0 && !ticked.Equal(from.Add(time.Duration(hours)*time.Hour)) {
			t.Fatalf("paid until %s by and by", ticked)
		}
		if again := from.Add(time.Duration(hours) * time.Hour); !again.After(now) {
			t.Fatalf("at %s only paid until %s", now, again)
		}
	})
}
