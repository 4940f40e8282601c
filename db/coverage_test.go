package db_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// sweptAt adds a sweep that ended at a time and took ten minutes, in which
// VirtFusion counted so many servers.
func sweptAt(t *testing.T, database *bun.DB, id, state string, ended time.Time, total int64) {
	t.Helper()
	run := db.Run{
		ID: id, Kind: db.RunSweep, State: state, Phase: db.PhaseEnded, StartedAt: ended.Add(-11 * time.Minute), EndedAt: &ended, BeatAt: ended,
		Progress: db.RunProgress{Total: total, Since: ended.Add(-10 * time.Minute), Scanned: true, Whole: true},
	}
	if _, err := database.NewInsert().Model(&run).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCountAtLastSweep(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	if _, err := db.CountAtLastSweep(t.Context(), database); !errors.Is(err, db.ErrNoSweep) {
		t.Errorf("without a sweep: %v", err)
	}
	if _, err := db.LastSweepEnd(t.Context(), database); !errors.Is(err, db.ErrNoSweep) {
		t.Errorf("without a sweep: %v", err)
	}
	ended := auditAt()
	sweptAt(t, database, "old", db.RunSucceeded, ended.Add(-time.Hour), 99)
	sweptAt(t, database, "last", db.RunSucceeded, ended, 3)
	sweptAt(t, database, "broken", db.RunIncomplete, ended.Add(time.Minute), 1)
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, status, created_at, gone_at, first_seen_at, last_seen_at, observed_at, observed_source, observed_event_id)
		SELECT id, status, ?0::timestamptz + created * '1 min'::interval, ?0::timestamptz + gone * '1 min'::interval, ?0::timestamptz + seen * '1 min'::interval, now(), now(), '', ''
		FROM (VALUES
			(1, 'external', -9000, NULL, -9000), (2, 'native', -9000, NULL, -9000), -- there all the time
			(3, 'gone', -9000, 5, -9000), -- as well
			(4, 'gone', -9000, -5, -9000), (5, 'settling', -5, NULL, -5), -- a part of the time
			(6, 'unlinked', NULL, NULL, -1), -- found by it; nobody knows since when it is there
			(7, 'external', -11, NULL, -11), (8, 'gone', -9000, -11, -9000), -- within what clocks may differ
			(9, 'gone', -9000, -13, -9000), (10, 'settling', 3, NULL, 3), -- before and after
			(11, 'external', -9000, NULL, 30) -- heard of too late
		) AS v (id, status, created, gone, seen)`, ended)
	got, err := db.CountAtLastSweep(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	if *got.RunID != "last" || !got.At.Equal(ended) || *got.VirtFusionTotal != 3 || *got.KnownLeast != 3 || *got.KnownMost != 9 || got.Mismatch() {
		t.Errorf("%s at %s: %d, %d to %d", *got.RunID, got.At, *got.VirtFusionTotal, *got.KnownLeast, *got.KnownMost)
	}
	for total, want := range map[int64]bool{2: true, 3: false, 9: false, 10: true} {
		got.VirtFusionTotal = &total
		if got.Mismatch() != want {
			t.Errorf("VirtFusion counts %d: mismatch %v", total, !want)
		}
	}
	if at, err := db.LastSweepEnd(t.Context(), database); err != nil || !at.Equal(ended) {
		t.Errorf("%s, %v", at, err)
	}
}

func TestKeepCoverage(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	monday := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
	keep := func(day time.Time, total int64, sweep db.SweepCount) {
		t.Helper()
		err := db.KeepCoverage(t.Context(), database, &db.CoverageDay{
			Day: day, WrittenAt: day.Add(time.Hour), Total: total, On: total - 1, Off: map[string]int64{"unpriced": 1},
			RecordedList: "10.00", RecordedEffective: "7.30", LeakingList: "1", LeakingEffective: "0.5",
			Leaks: []db.CoverageLeak{{Status: "external", Reason: "unpriced", Servers: 1}}, SweepCount: sweep,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	swept := func(id string, at time.Time, total int64) db.SweepCount {
		return db.SweepCount{RunID: &id, At: &at, VirtFusionTotal: &total, KnownLeast: new(int64(5)), KnownMost: new(int64(6))}
	}
	mismatch := func(want string) {
		t.Helper()
		got, err := db.CoverageMismatch(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		run := ""
		if got != nil {
			run = *got.RunID
		}
		if run != want {
			t.Errorf("mismatch %q, want %q", run, want)
		}
	}
	mismatch("")
	keep(monday, 5, db.SweepCount{})
	mismatch("")
	keep(monday, 7, swept("a", monday.Add(2*time.Hour), 7))
	mismatch("a")
	keep(monday, 8, db.SweepCount{}) // what was written of a sweep stays
	mismatch("a")
	tuesday := monday.AddDate(0, 0, 1)
	keep(tuesday, 6, swept("b", tuesday.Add(-time.Second), 6)) // ended on the day before
	mismatch("")
	wantTable(t, database, "2026-03-09|8|7|b|6\n2026-03-10|6|5|null|null", `SELECT day::text, total, external_on, sweep_run, virtfusion_total FROM serversync.coverage_days ORDER BY day`)
	keep(tuesday, 6, swept("c", tuesday.Add(time.Hour), 4))
	mismatch("c")
	days, err := db.CoverageDays(t.Context(), database, tuesday)
	if err != nil || len(days) != 1 || !days[0].Day.Equal(tuesday) || days[0].Off["unpriced"] != 1 || days[0].RecordedEffective != "7.30" || days[0].LeakingEffective != "0.50" || days[0].Leaks[0].Reason != "unpriced" {
		t.Errorf("%+v, %v", days, err)
	}
	findings, counts := audit(t, database)
	if counts[db.AuditCoverageGap] != 1 || findings[0].ServerID != nil || !strings.Contains(findings[0].Evidence, "counted 4 servers in the sweep that ended on 2026-03-10 01:00 UTC, and 5 to 6 are known to have been there: 1 are too many here") {
		t.Errorf("%+v", findings)
	}
	keep(tuesday, 6, swept("d", tuesday.Add(2*time.Hour), 9))
	if findings, _ := audit(t, database); !strings.Contains(findings[0].Evidence, "3 are missing here") {
		t.Errorf("%+v", findings)
	}
	keep(tuesday, 6, swept("e", tuesday.Add(3*time.Hour), 6))
	if _, counts := audit(t, database); counts[db.AuditCoverageGap] != 0 {
		t.Error("VirtFusion agrees, and it is a finding")
	}
}
