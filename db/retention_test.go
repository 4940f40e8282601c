package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestOldHistoryThatExplainsNothingIsDeleted(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, status, gone_at, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at) VALUES
			(1, 'external', NULL, now(), '', '', now(), now()), (2, 'gone', '2020-01-01', now(), '', '', now(), now()), (3, 'gone', '2025-12-01', now(), '', '', now(), now());
		INSERT INTO users (id, email, username, password, full_name) VALUES (1, 'a@example.test', 'a', '!', 'A');
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate) VALUES
			(11, 1, 1, 1, 1, 'P', 1, 0.1), (12, 1, 2, 2, 1, 'P', 1, 0.1);
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, status) VALUES (11, 1, 1, 'completed'), (12, 1, 2, 'pending');
		INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('open', 'bulk', 'needs_approval', '2020-01-01', '2020-01-01');
		INSERT INTO serversync.history (at, virtfusion_id, billing_id, kind, reason, run_id) VALUES
			('2020-01-01', 1, 11, 'billing_created', 'the row that is there: stays', NULL),
			('2020-01-02', 1, 11, 'observed', 'goes', NULL),
			('2020-01-03', 1, 11, 'observed', 'of an open run: stays', 'open'),
			('2020-01-04', 1, 11, 'billing_changed', 'goes', NULL),
			('2020-01-05', 1, 11, 'billing_changed', 'the present price: stays', NULL),
			('2020-01-06', 1, 10, 'billing_closed', 'about another row: stays', NULL),
			('2020-01-07', 1, 11, 'refund_due', 'a person must look: stays', NULL),
			('2020-01-08', 1, 11, 'refund_due', 'a person must look, twice: stays', NULL),
			('2020-01-09', 2, 12, 'billing_changed', 'a charge is pending: stays', NULL),
			('2020-01-10', 2, 12, 'billing_changed', 'a charge is pending, and the newest: stays', NULL),
			('2020-01-11', 2, 12, 'observed', 'gone for long: goes', NULL),
			('2020-01-12', 3, NULL, 'decided', 'gone a moment ago: stays', NULL),
			('2020-01-13', 4, NULL, 'decided', 'nothing is known of it, the newest: stays', NULL),
			('2026-01-01', 1, 11, 'observed', 'young: stays', NULL),
			('2026-01-02', 1, 11, 'observed', 'young, the newest: stays', NULL)`)
	var deleted int64
	p := db.Pruning{Before: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), Limit: 4}
	for steps := 0; !p.Done; steps++ {
		if steps > 4 {
			t.Fatal("it does not come to an end")
		}
		p.Deleted = 0
		if err := db.PruneHistory(t.Context(), database, &p); err != nil {
			t.Fatal(err)
		}
		deleted += p.Deleted
	}
	wantTable(t, database, "", `SELECT reason FROM serversync.history WHERE reason NOT LIKE '%stays'`)
	wantTable(t, database, "12", `SELECT count(*) FROM serversync.history`)
	if deleted != 3 {
		t.Errorf("deleted %d, want 3", deleted)
	}
}

func TestOldRunsAreForgottenUnlessSomethingNeedsThem(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at)
		SELECT id, 'bulk', state, '2026-01-01', ended, '2026-01-01' FROM (VALUES
			('old', 'succeeded', '2026-01-01'::timestamptz), ('young', 'succeeded', '2026-03-01'), ('named', 'succeeded', '2026-01-01'), ('waits', 'needs_approval', '2026-01-01'),
			('runs', 'running', NULL), ('awaited', 'incomplete', '2026-01-01'), ('settles', 'succeeded', '2026-01-01'), ('holds', 'incomplete', '2026-01-01')) AS v (id, state, ended);
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state) SELECT id, i, 'new', 'done' FROM serversync.runs, generate_series(1, 5) AS i;
		UPDATE serversync.run_items SET state = 'held' WHERE run_id = 'holds' AND virtfusion_id = 3;
		INSERT INTO serversync.servers (virtfusion_id, status, awaiting_run, run_id, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at) VALUES
			(1, 'external', 'awaited', NULL, now(), '', '', now(), now()), (2, 'settling', '', 'settles', now(), '', '', now(), now());
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, run_id, created_at, updated_at)
		VALUES (1, 1, 'serversync', 1, true, 1, 1, 'named', now(), now())`)
	prune := func(step func(context.Context, *bun.DB, *db.Pruning) error, want int64, done bool) {
		t.Helper()
		p := db.Pruning{Before: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Limit: 3}
		if err := step(t.Context(), database, &p); err != nil || p.Deleted != want || p.Done != done || p.Busy {
			t.Errorf("got %+v, %v; want %d deleted, done %v", p, err, want, done)
		}
	}
	prune(db.PruneRuns, 0, true) // its items are still there
	prune(db.PruneRunItems, 3, false)
	prune(db.PruneRunItems, 2, true)
	prune(db.PruneRuns, 1, true)
	wantTable(t, database, "awaited\nholds\nnamed\nruns\nsettles\nwaits\nyoung", `SELECT id FROM serversync.runs ORDER BY 1`)
	wantTable(t, database, "35", `SELECT count(*) FROM serversync.run_items`)

	exec(t, database, `INSERT INTO serversync.faults VALUES ('old', 1, 'x', '2026-01-01', '2026-01-01'), ('young', 1, 'x', '2026-01-01', '2026-02-02')`)
	prune(db.PruneFaults, 1, true)
	wantTable(t, database, "young", `SELECT event_id FROM serversync.faults`)
}

func TestOnePrunesAtATime(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	other := begin(t, database)
	exec(t, other, `SELECT pg_advisory_xact_lock(x'7072756e65'::bigint)`)
	exec(t, database, `INSERT INTO serversync.faults VALUES ('old', 1, 'x', '2026-01-01', '2026-01-01')`)
	p := db.Pruning{Before: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Limit: 3}
	if err := db.PruneFaults(t.Context(), database, &p); err != nil || !p.Busy || p.Deleted != 0 {
		t.Errorf("beside another: %+v, %v", p, err)
	}
	commit(t, other)
	p = db.Pruning{Before: p.Before, Limit: 3}
	if err := db.PruneFaults(t.Context(), database, &p); err != nil || p.Busy || p.Deleted != 1 {
		t.Errorf("alone: %+v, %v", p, err)
	}
}

// A step over a hundred thousand lines reads its own thousand, and looks
// everything else up.
func TestPruningReadsNoTableWhole(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, 'external', now(), '', '', now(), now() FROM generate_series(1, 20000) AS i;
		INSERT INTO users (id, email, username, password, full_name) VALUES (1, 'a@example.test', 'a', '!', 'A');
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate)
		SELECT i, 1, i, i, 1, 'P', 1, 0.1 FROM generate_series(1, 20000) AS i;
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, status) SELECT i, 1, i, 'completed' FROM generate_series(1, 20000) AS i, generate_series(1, 3);
		INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at) SELECT 'run' || i, 'bulk', 'succeeded', now(), now(), now() FROM generate_series(1, 5000) AS i;
		INSERT INTO serversync.history (at, virtfusion_id, billing_id, kind, reason, run_id)
		SELECT '2020-01-01'::timestamptz + i * interval '1 minute', i % 20000 + 1, i % 20000 + 1, (ARRAY['observed', 'billing_changed'])[i % 2 + 1], '', 'run' || i % 5000 FROM generate_series(1, 100000) AS i`)
	exec(t, database, `ANALYZE`)
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	reads := explain(t, conn, db.PruneHistorySQL, 30_000, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), 1000)
	if len(reads) == 0 {
		t.Fatal("the plan reads nothing")
	}
	for _, read := range reads {
		if len(read) >= 8 && read[:8] == "Seq Scan" {
			t.Errorf("%s, in %q", read, reads)
		}
	}
	wantTable(t, database, "99000", `SELECT count(*) FROM serversync.history`)
}
