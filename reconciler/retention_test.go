package reconciler

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/db/dbtest"
)

// Each tick is a step; when all that is old is gone it rests for six hours.
func TestRetentionGoesStepByStep(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	exec := func(statement string) {
		t.Helper()
		if _, err := database.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (history, faults int) {
		t.Helper()
		if err := database.NewRaw(`SELECT (SELECT count(*) FROM serversync.history), (SELECT count(*) FROM serversync.faults)`).Scan(t.Context(), &history, &faults); err != nil {
			t.Fatal(err)
		}
		return history, faults
	}
	exec(`INSERT INTO serversync.history (at, virtfusion_id, kind, reason) SELECT '2020-01-01', 1, 'observed', '' FROM generate_series(1, 2500)`)
	exec(`INSERT INTO serversync.faults VALUES ('old', 1, 'x', '2020-01-01', '2020-01-01')`)
	var full error
	registry := prometheus.NewRegistry()
	r := NewRetention(RetentionConfig{
		DB: database, HistoryMaxAge: 365 * 24 * time.Hour, Now: func() time.Time { return now }, Log: zerolog.Nop(), Metrics: registry,
		Room: func() error { return full },
	})
	step := func(wantHistory, wantFaults int) {
		t.Helper()
		if err := r.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if history, faults := left(); history != wantHistory || faults != wantFaults {
			t.Errorf("%d history lines and %d faults are left, want %d and %d", history, faults, wantHistory, wantFaults)
		}
	}
	full = errors.New("full")
	step(2500, 1)
	full = nil
	step(1500, 1)
	step(500, 1)
	step(1, 1) // the newest stays
	step(1, 1) // runs and faults are kept for ever
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == "history" && m.GetCounter().GetValue() != 2499 {
			t.Errorf("counted %v", m.GetCounter().GetValue())
		}
	}
	exec(`INSERT INTO serversync.history (at, virtfusion_id, kind, reason) VALUES ('2021-01-01', 1, 'observed', '')`)
	step(2, 1) // it rests
	now = now.Add(6 * time.Hour)
	step(1, 1)

	ticks := make(chan time.Time)
	all := NewRetention(RetentionConfig{DB: database, RunMaxAge: 24 * time.Hour, Ticks: ticks, Now: func() time.Time { return now }, Log: zerolog.Nop()})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- all.Run(ctx) }()
	for range 4 { // the fourth is taken when the third is done: items, runs, faults
		ticks <- now
	}
	if history, faults := left(); history != 1 || faults != 0 {
		t.Errorf("%d history lines and %d faults are left", history, faults)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
