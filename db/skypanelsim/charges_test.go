package skypanelsim_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"serversync/db/skypanelsim"
)

func TestChargesReadsWhoeverWroteThem(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	id := bill(t, database, row{server: 70, price: "10", lastBilled: new(hoursLater(1))})
	// A first hour as serversync records it: pending, at four decimals. It is
	// no charge of SkyPANEL's: the job's is still the first, and rounded up.
	execute(t, database, `
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, amount_charged, billing_period_start, billing_period_end, reference_1)
		VALUES ($1, 3, 70, 0.0137, $2, $3, 'external_server_70')`, id, t0, hoursLater(1))
	tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{}), hoursLater(1))
	charges := books(t, database)
	expectWords(t, "the books", charges, "70: 0-1 = 1.37 pending", "70: 1-2 = 2 completed")
	if charges[0].LedgerID != 0 || charges[1].LedgerID != 1 {
		t.Errorf("ledger lines %d, %d; want none for what nobody collected", charges[0].LedgerID, charges[1].LedgerID)
	}
	if overlaps := skypanelsim.Overlaps(charges); overlaps != nil {
		t.Errorf("charged twice: %v", overlaps)
	}
}

func TestChargesRefusesOneWithoutAPeriod(t *testing.T) {
	t.Parallel()
	for name, period := range map[string]string{"null": "NULL, NULL", "empty": "now(), now()"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, _ := seeded(t)
			id := bill(t, database, row{server: 70})
			execute(t, database, `
				INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, billing_period_start, billing_period_end)
				VALUES ($1, 3, 70, `+period+`)`, id)
			if charges, err := skypanelsim.Charges(t.Context(), database); err == nil {
				t.Errorf("no error, charges %+v", charges)
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	charge := func(id, server int64, from, to time.Duration, status string) skypanelsim.Charge {
		return skypanelsim.Charge{
			ID: id, BillingID: 10 * id, ServerID: server, UserID: id, Cents: decimal.NewFromInt(2),
			Start: t0.Add(from), End: t0.Add(to), Status: status,
		}
	}
	const minute, hour = time.Minute, time.Hour
	for name, c := range map[string]struct {
		charges []skypanelsim.Charge
		want    [][2]int64
	}{
		"nothing":          {nil, nil},
		"hours that touch": {[]skypanelsim.Charge{charge(1, 7, 0, hour, "completed"), charge(2, 7, hour, 2*hour, "completed")}, nil},
		"other servers":    {[]skypanelsim.Charge{charge(1, 7, 0, hour, "completed"), charge(2, 8, 0, hour, "completed")}, nil},
		"a failed one":     {[]skypanelsim.Charge{charge(1, 7, 0, hour, "failed"), charge(2, 7, 0, hour, "completed")}, nil},
		"two users":        {[]skypanelsim.Charge{charge(1, 7, 0, hour, "completed"), charge(2, 7, 0, hour, "completed")}, [][2]int64{{1, 2}}},
		"a pending one, in any order": {
			[]skypanelsim.Charge{charge(2, 7, 59*minute, 119*minute, "completed"), charge(3, 8, 0, hour, "completed"), charge(1, 7, 0, hour, "pending")},
			[][2]int64{{1, 2}},
		},
		"one within another, and three at once": {
			[]skypanelsim.Charge{charge(1, 7, 0, 720*hour, "completed"), charge(2, 7, hour, 2*hour, "completed"), charge(3, 7, 90*minute, 150*minute, "completed")},
			[][2]int64{{1, 2}, {1, 3}, {2, 3}},
		},
	} {
		var got [][2]int64
		for _, o := range skypanelsim.Overlaps(c.charges) {
			got = append(got, [2]int64{o.First.ID, o.Second.ID})
			if o.SameRow() {
				t.Errorf("%s: %s: of one row", name, &o)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}

	two := skypanelsim.Overlaps([]skypanelsim.Charge{charge(1, 7, 0, hour, "completed"), charge(2, 7, 30*minute, 90*minute, "pending")})
	if got, want := two[0].String(), "server 7 is charged twice: 2 cents of user 1 by row 10 (completed) from 2026-03-01 10:20:30 to 2026-03-01 11:20:30, "+
		"and 2 cents of user 2 by row 20 (pending) from 2026-03-01 10:50:30 to 2026-03-01 11:50:30"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
