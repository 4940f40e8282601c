package api

import (
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db/skypanelsim"
)

func dec(s string) decimal.Decimal { return decimal.RequireFromString(s) }

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// row is one that is billed next in half an hour.
func row(monthly string) billedRow {
	return billedRow{
		enabled: true, monthly: dec(monthly), list: new(dec(monthly)), hours: 730, ownerActive: true,
		lastBilledAt: new(noon().Add(30 * time.Minute)), createdAt: new(noon().Add(-100 * time.Hour)), collected: true,
	}
}

// SkyPANEL charges whole tokens an hour: what that makes of a price.
func TestTokensOfAPrice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		price         string
		hours         int64
		hourly, first int64
		monthly       string
	}{
		{"10.00", 730, 1, 2, "7.30"},
		{"11.00", 730, 2, 2, "14.60"},
		{"10.9499", 730, 1, 2, "7.30"},
		{"10.95", 730, 2, 2, "14.60"}, // half a token rounds up
		{"3.65", 730, 1, 1, "7.30"},
		{"3.6499", 730, 0, 1, "0.00"},
		{"3.64", 730, 0, 1, "0.00"},
		{"7.30", 730, 1, 1, "7.30"},
		{"0", 730, 0, 0, "0.00"},
		{"10.00", 720, 1, 2, "7.20"},
		{"24.00", 730, 3, 4, "21.90"},
		{"999999.9999", 730, 136986, 136987, "999997.80"},
	} {
		r := row(test.price)
		r.hours = test.hours
		f := predict(r, noon())
		if f.hourlyTokens != test.hourly || f.dueTokens != test.hourly || f.monthly.StringFixed(2) != test.monthly {
			t.Errorf("%s at %d hours: %d tokens an hour, %d next, %s a month", test.price, test.hours, f.hourlyTokens, f.dueTokens, f.monthly)
		}
		r.collected = false
		if f = predict(r, noon()); f.dueTokens != test.first {
			t.Errorf("%s at %d hours: first %d tokens, want %d", test.price, test.hours, f.dueTokens, test.first)
		}
	}
}

func TestWhenSkyPANELChargesNext(t *testing.T) {
	t.Parallel()
	year := noon().Add(-8760 * time.Hour)
	for _, test := range []struct {
		name         string
		last, made   *time.Time
		at           time.Time
		hours, token int64
	}{
		{"ahead", new(noon().Add(time.Second)), &year, noon().Add(time.Second), 0, 1},
		{"due this moment", new(noon()), &year, noon(), 1, 1},
		{"late", new(noon().Add(-59 * time.Minute)), nil, noon().Add(-59 * time.Minute), 1, 1},
		{"an hour late", new(noon().Add(-time.Hour)), nil, noon().Add(-time.Hour), 2, 2},
		{"never billed, new", nil, new(noon().Add(-time.Minute)), noon().Add(59 * time.Minute), 0, 2},
		{"never billed, a year old", nil, &year, year.Add(time.Hour), 8760, 8761},
	} {
		r := row("10.00")
		r.lastBilledAt, r.createdAt = test.last, test.made
		r.collected = test.last != nil // the first one rounds up
		f := predict(r, noon())
		if f.why != silentNot || f.at == nil || !f.at.Equal(test.at) || f.hoursDue != test.hours || f.dueTokens != test.token {
			t.Errorf("%s: %+v at %v", test.name, f, f.at)
		}
	}
}

func TestWhySkyPANELChargesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why   silence
		says  string
		spoil func(*billedRow)
	}{
		{silentOff, "switched off", func(r *billedRow) { r.enabled = false }},
		{silentUnpriced, "package_pricing", func(r *billedRow) { r.list = nil }},
		{silentOwner, "all the time between", func(r *billedRow) { r.ownerActive = false }},
		{silentNoStart, "last_billed_at", func(r *billedRow) { r.lastBilledAt, r.createdAt = nil, nil }},
		{silentJobOff, "charges 1 token (0.01) for every hour from 2026-03-01 12:30:00 UTC on", func(r *billedRow) { r.jobOff = true }},
		{silentMonthlyMode, "by the month", func(r *billedRow) { r.monthlyMode = true }},
	} {
		r := row("10.00")
		test.spoil(&r)
		f := predict(r, noon())
		if f.why != test.why || f.at != nil || f.dueTokens != 0 || f.hoursDue != 0 || f.monthly.StringFixed(2) != "7.30" {
			t.Errorf("%s: %+v", test.why, f)
		}
		if words := f.words(&r); !strings.Contains(words, test.says) {
			t.Errorf("%s: %s", test.why, words)
		}
	}
}

func TestForecastInWords(t *testing.T) {
	t.Parallel()
	r := row("10.00")
	f := predict(r, noon())
	want := "SkyPANEL charges 1 token (0.01) at 2026-03-01 12:30:00 UTC, then 1 token (0.01) an hour: 7.30 a month, where the row says 10.00 (whole tokens are charged)"
	if got := f.words(&r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r = row("14.60")
	r.lastBilledAt = new(noon().Add(-150 * time.Minute))
	f = predict(r, noon())
	want = "SkyPANEL charges 6 tokens (0.06) at its next run, for 3 hours since 2026-03-01 09:30:00 UTC, then 2 tokens (0.02) an hour: 14.60 a month"
	if got := f.words(&r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The forecast and the simulated job are two accounts of SkyPANEL's arithmetic.
func TestTheSimulatedJobAgrees(t *testing.T) {
	t.Parallel()
	made := noon().Add(-1000 * time.Hour)
	for cents := range int64(3000) {
		r := row(decimal.New(cents, -2).String())
		r.lastBilledAt, r.createdAt = new(noon().Add(time.Duration(cents-1000)*time.Minute)), &made
		f := predict(r, noon())
		r.collected = false
		first := predict(r, noon()).dueTokens - max(f.hoursDue-1, 0)*f.hourlyTokens
		from, hours := skypanelsim.Owed(r.lastBilledAt, r.createdAt, noon())
		if f.hourlyTokens != skypanelsim.HourlyTokens(r.monthly, r.hours) || first != skypanelsim.FirstTokens(r.monthly, r.hours) ||
			!f.monthly.Equal(skypanelsim.EffectiveMonthly(r.monthly, r.hours)) || !f.at.Equal(from) || f.hoursDue != hours {
			t.Fatalf("%s: %+v, first %d; the job owes %d hours from %s", r.monthly, f, first, hours, from)
		}
	}
}
