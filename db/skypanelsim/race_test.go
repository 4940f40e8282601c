package skypanelsim_test

import (
	"context"
	"errors"
	"testing"

	"serversync/db/skypanelsim"
)

func TestWorkersWithoutALockChargeTwice(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	report := tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{Workers: 2, Together: true}), hoursLater(1))
	if len(report.Charges) != 4 || report.Rows != 2 {
		t.Fatalf("%d charges of %d rows, want both hours by both workers", len(report.Charges), report.Rows)
	}
	charges := books(t, database)
	expectWords(t, "the books", charges, "70: 0-1 = 2 completed", "70: 0-1 = 2 completed", "70: 1-2 = 2 completed", "70: 1-2 = 2 completed")
	overlaps := skypanelsim.Overlaps(charges)
	if len(overlaps) != 2 || !overlaps[0].SameRow() {
		t.Errorf("overlaps %v, want both hours, of one row", overlaps)
	}
	if got := read(t, database, `SELECT last_billed_at FROM virtfusion_hourly_billing`); got != "2026-03-01T12:20:30" {
		t.Errorf("paid until %s: each worker writes the same", got)
	}
}

// A second process runs the job between the first one's selecting and charging.
func TestJobChargesByWhatItReadBefore(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	second := skypanelsim.NewJob(database, skypanelsim.JobConfig{})
	first := skypanelsim.NewJob(database, skypanelsim.JobConfig{Pause: func(ctx context.Context) error {
		_, err := second.Tick(ctx, hoursLater(3))
		return err
	}})
	tick(t, first, hoursLater(1))
	if got := len(skypanelsim.Overlaps(books(t, database))); got != 2 {
		t.Errorf("%d hours charged twice, want the first's two", got)
	}
	if got := read(t, database, `SELECT last_billed_at FROM virtfusion_hourly_billing`); got != "2026-03-01T12:20:30" {
		t.Errorf("paid until %s, want what the first reckoned, though the second had charged until 14:20:30", got)
	}
	tick(t, second, hoursLater(3))
	if got := len(skypanelsim.Overlaps(books(t, database))); got != 4 {
		t.Errorf("%d hours charged twice, want also the two that were paid already", got)
	}
}

// Someone switches a row off, and moves it on, while the job has it in hand.
func TestJobDoesNotLookAgain(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Pause: func(ctx context.Context) error {
		_, err := database.DB.ExecContext(ctx, `UPDATE virtfusion_hourly_billing SET billing_enabled = false, last_billed_at = last_billed_at + interval '9 hours'`)
		return err
	}})
	expectWords(t, "charged all the same", tick(t, job, t0).Charges, "70: 0-1 = 2 completed")
	if got := read(t, database, `SELECT billing_enabled, last_billed_at FROM virtfusion_hourly_billing`); got != "false|2026-03-01T11:20:30" {
		t.Errorf("enabled, paid until %s; want the switch kept and the time overwritten", got)
	}
}

func TestWorkersRaceAsItHappens(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	for server := range int64(3) {
		bill(t, database, row{server: server + 1, lastBilled: &t0})
	}
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Workers: 4})
	for hour := range 5 {
		tick(t, job, hoursLater(hour))
	}
	paid := map[int64]map[int]bool{}
	for _, c := range books(t, database) {
		if paid[c.ServerID] == nil {
			paid[c.ServerID] = map[int]bool{}
		}
		paid[c.ServerID][int(c.Start.Sub(t0).Hours())] = true
	}
	for server, hours := range paid {
		if len(hours) != 5 {
			t.Errorf("server %d is charged for %v, want each of 5 hours at least once", server, hours)
		}
	}
	if len(paid) != 3 {
		t.Errorf("%d servers are charged, want 3", len(paid))
	}
}

func TestOneWorkersFailureDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	killed := errors.New("killed")
	turns := make(chan error, 2)
	turns <- nil
	turns <- killed
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Workers: 2, Together: true, Pause: func(context.Context) error { return <-turns }})
	report, err := job.Tick(t.Context(), t0)
	if !errors.Is(err, killed) {
		t.Errorf("error %v, want the killed worker's", err)
	}
	expectWords(t, "the other's charge", report.Charges, "70: 0-1 = 2 completed")
}
