package ingest

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"serversync/db"
)

// effectOn is a change of one server of a customer's, from and to what a month
// costs as charged.
func effectOn(server, user int64, effect, from, to string) *db.RunEffect {
	cost := db.MonthlyCost{EffectiveBefore: decimal.RequireFromString(from), EffectiveAfter: decimal.RequireFromString(to)}
	return &db.RunEffect{
		ServerID: server, UserID: &user, Effect: effect, Billing: "on", EffectiveBefore: cost.EffectiveBefore, EffectiveAfter: cost.EffectiveAfter,
		Shares: []db.RunShare{{UserID: user, MonthlyCost: cost}},
	}
}

// before is charged at once for the time before.
func before(e *db.RunEffect, amount string) *db.RunEffect {
	e.BackBilled = decimal.RequireFromString(amount)
	e.Shares[0].BackBilled = e.BackBilled
	return e
}

func with(e *db.RunEffect, change func(*db.RunEffect)) *db.RunEffect {
	change(e)
	return e
}

func TestWhatIsMoreThanALittle(t *testing.T) {
	t.Parallel()
	type pair struct{ shown, now *db.RunEffect }
	create := func(server, user int64, month string) *db.RunEffect {
		return effectOn(server, user, db.EffectCreate, "0", month)
	}
	nothing := func(server, user int64, month string) *db.RunEffect {
		return effectOn(server, user, db.EffectNone, month, month)
	}
	unasked := func(e *db.RunEffect) { e.Unasked = true }
	for name, c := range map[string]struct {
		pairs []pair
		says  string // empty: it goes on
	}{
		"the same":                        {[]pair{{create(1, 7, "7.30"), create(1, 7, "7.30")}}, ""},
		"a dollar for a customer":         {[]pair{{create(1, 7, "20.00"), create(1, 7, "21.00")}}, ""},
		"a cent more than that":           {[]pair{{create(1, 7, "20.00"), create(1, 7, "21.01")}}, "user 7 +21.01 a month, approved +20.00"},
		"a cent more, downwards":          {[]pair{{create(1, 7, "20.00"), create(1, 7, "18.99")}}, "the month would change by +18.99 as charged, approved were +20.00"},
		"a twentieth for a large one":     {[]pair{{create(1, 7, "1000.00"), create(1, 7, "1050.00")}}, ""},
		"more than a twentieth":           {[]pair{{create(1, 7, "1000.00"), create(1, 7, "1050.01")}}, "user 7"},
		"a twentieth of what ends":        {[]pair{{effectOn(1, 7, db.EffectEnd, "1000", "0"), effectOn(1, 7, db.EffectEnd, "1050", "0")}}, ""},
		"more than that":                  {[]pair{{effectOn(1, 7, db.EffectEnd, "1000", "0"), effectOn(1, 7, db.EffectEnd, "1051", "0")}}, "user 7 -1051.00 a month, approved -1000.00"},
		"many small ones":                 {[]pair{{create(1, 7, "5.00"), create(1, 7, "5.90")}, {create(2, 8, "5.00"), create(2, 8, "5.90")}}, "+11.80 as charged, approved were +10.00"},
		"two customers, the same sum":     {[]pair{{create(1, 7, "10.00"), create(1, 7, "12.00")}, {create(2, 8, "10.00"), create(2, 8, "8.00")}}, "for 2 customers"},
		"another server":                  {[]pair{{nothing(1, 7, "7.30"), create(1, 7, "0.10")}}, "for 1 servers it would do something else (1)"},
		"one that nobody was shown":       {[]pair{{nil, create(1, 7, "0")}}, "something else (1)"},
		"another effect":                  {[]pair{{effectOn(1, 7, db.EffectChange, "7.30", "7.30"), effectOn(1, 7, db.EffectMove, "7.30", "7.30")}}, "something else (1)"},
		"another customer":                {[]pair{{create(1, 7, "0.10"), create(1, 8, "0.10")}}, "something else (1)"},
		"billed, where it was not":        {[]pair{{with(create(1, 7, "0"), func(e *db.RunEffect) { e.Billing = "off" }), create(1, 7, "0.10")}}, "something else (1)"},
		"a first charge that is taken":    {[]pair{{create(1, 7, "7.30"), with(create(1, 7, "7.30"), func(e *db.RunEffect) { e.Collected = true })}}, "something else (1)"},
		"one that vanished":               {[]pair{{create(1, 7, "7.30"), nothing(1, 7, "0")}, {create(2, 7, "7.30"), create(2, 7, "7.30")}}, "user 7 +7.30 a month, approved +14.60"},
		"one that cost nothing":           {[]pair{{create(1, 7, "0"), nothing(1, 7, "0")}}, ""},
		"one that is there after all":     {[]pair{{with(effectOn(1, 7, db.EffectEnd, "7.30", "0"), unasked), nothing(1, 7, "7.30")}}, ""},
		"an hour more of the time before": {[]pair{{before(create(1, 7, "7.30"), "0.50"), before(create(1, 7, "7.30"), "1.50")}}, ""},
		"a day more of it":                {[]pair{{before(create(1, 7, "7.30"), "0.50"), before(create(1, 7, "7.30"), "1.51")}}, "SkyPANEL would charge 1.51 at once for the time before, approved were 0.50; for 1 customers it would cost another amount (user 7 1.51 at once, approved 0.50)"},
		"a twentieth more of much":        {[]pair{{before(create(1, 7, "7.30"), "100"), before(create(1, 7, "7.30"), "105")}}, ""},
		"more of it in all": {
			[]pair{{before(create(1, 7, "7.30"), "0.50"), before(create(1, 7, "7.30"), "1.10")}, {before(create(2, 8, "7.30"), "0.50"), before(create(2, 8, "7.30"), "1.10")}},
			"SkyPANEL would charge 2.20 at once for the time before, approved were 1.00",
		},
		"less of it": {[]pair{{before(create(1, 7, "7.30"), "50"), before(create(1, 7, "7.30"), "1")}}, ""},
		"both amounts": {
			[]pair{{before(create(1, 7, "7.30"), "1"), before(create(1, 7, "14.60"), "9")}},
			"(user 7 +14.60 a month, approved +7.30, and 9.00 at once, approved 1.00)",
		},
		"one that costs more than zero in all": {
			[]pair{{effectOn(1, 7, db.EffectChange, "0", "7.30"), effectOn(1, 7, db.EffectChange, "0", "7.30")}, {effectOn(2, 8, db.EffectChange, "7.30", "0"), effectOn(2, 8, db.EffectChange, "7.30", "0.01")}}, "+0.01 as charged, approved were 0.00",
		},
	} {
		s, now := newSeen(), make(db.CustomerEffects)
		for _, p := range c.pairs {
			s.compare(p.now, p.shown)
			now.Add(p.now)
		}
		d := s.difference(now)
		if d == nil {
			if c.says != "" {
				t.Errorf("%s: it goes on, want it to say %s", name, c.says)
			}
			continue
		}
		if words := differenceWords(d); c.says == "" || !strings.Contains(words, c.says) {
			t.Errorf("%s: it asks: %s, want %q", name, words, c.says)
		}
	}
}

// Of many differences the first are named, the largest first.
func TestManyDifferencesAreCounted(t *testing.T) {
	t.Parallel()
	s, now := newSeen(), make(db.CustomerEffects)
	for i := range int64(50) {
		e := effectOn(i+1, 100+i, db.EffectCreate, "0", decimal.NewFromInt(10+i).String())
		s.compare(e, nil)
		now.Add(e)
	}
	d := s.difference(now)
	if d.Servers != 50 || len(d.ServerIDs) != differencesKept || d.Customers != 50 || len(d.ByCustomer) != differencesKept || d.ByCustomer[0].UserID != 149 {
		t.Errorf("%+v", d)
	}
	words := differenceWords(d)
	if !strings.Contains(words, "for 50 servers it would do something else (1, 2, 3, 4, 5, …)") || strings.Count(words, "user ") != differencesTold {
		t.Error(words)
	}
}
