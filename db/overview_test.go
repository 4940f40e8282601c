package db_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestCoverageCountsEveryServerThatIsNotGone(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, status, billing, billing_reason, awaiting_run, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, status, billing, reason, CASE WHEN i % 2 = 0 THEN 'r' ELSE '' END, now(), '', '', now(), now()
		FROM generate_series(1, 10) AS i
		JOIN (VALUES (1, 'external', 'on', NULL), (2, 'external', 'off', NULL), (3, 'external', 'off', 'unpriced'), (4, 'gone', 'off', 'destroyed'),
			(5, 'native', 'off', NULL), (6, 'conflict', 'on', NULL)) AS v (n, status, billing, reason) ON n = least(i, 6)`)
	covered, err := db.Coverage(t.Context(), database)
	if got := fmt.Sprint(covered); err != nil || got != "[{conflict on  5} {external off  1} {external off unpriced 1} {external on  1} {native off  1}]" {
		t.Errorf("%s, %v", got, err)
	}
	if n, err := db.AwaitingApproval(t.Context(), database); err != nil || n != 4 {
		t.Errorf("%d await approval, %v", n, err)
	}
}

func TestRecordedPrices(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	customer := customer(t, database, "anna")
	exec(t, database, `
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, hours_in_month)
		SELECT i, ?, i, i, 5, 'S', CASE WHEN i < 4 THEN 10 ELSE 5 END, 0.01, i <> 5, CASE WHEN i = 3 THEN 0 WHEN i = 4 THEN 720 ELSE 700 END FROM generate_series(1, 8) AS i;
		INSERT INTO serversync.servers (virtfusion_id, status, billing, billing_id, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, CASE WHEN i = 6 THEN 'native' ELSE 'external' END, CASE WHEN i = 7 THEN 'off' ELSE 'on' END, CASE WHEN i < 8 THEN i END, now(), '', '', now(), now()
		FROM generate_series(1, 8) AS i`, customer)
	prices, err := db.RecordedPrices(t.Context(), database)
	if got := fmt.Sprint(prices); err != nil || got != "[{5 720 1} {10 700 2} {10 730 1}]" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestReadUserBooks(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	if _, err := db.ReadUserBooks(t.Context(), database, 1<<31-1); !errors.Is(err, db.ErrNoUser) {
		t.Errorf("nobody: %v", err)
	}
	if b, err := db.ReadUserBooks(t.Context(), database, anna); err != nil || b != (db.UserBooks{}) {
		t.Errorf("with nothing: %+v, %v", b, err)
	}
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, ask, awaiting_run, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, ?0, status, ask, awaits, now(), '', '', now(), now()
		FROM (VALUES (1, 'external', '', ''), (2, 'native', '', ''), (3, 'native', 'why', ''), (4, 'external', '', 'r'), (5, 'conflict', '', ''), (6, 'gone', '', '')) AS v (i, status, ask, awaits);
		INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate)
		SELECT ?0, i, i, 5, 'S', 5, 0.01 FROM (VALUES (1), (2), (6), (99)) AS v (i);
		INSERT INTO serversync.runs (id, kind, state, user_id, dry_run, started_at, ended_at, beat_at)
		SELECT 'r' || n, kind, state, owner, dry, now(), '2026-03-01T00:00Z'::timestamptz + n * '1 h'::interval, now()
		FROM (VALUES (1, 'sync', 'succeeded', ?0, false), (2, 'sync', 'incomplete', ?0, false), (3, 'sync', 'succeeded', NULL, false), (4, 'sweep', 'succeeded', NULL, true),
			(5, 'bulk', 'succeeded', ?0, false)) AS v (n, kind, state, owner, dry)`, anna)
	b, err := db.ReadUserBooks(t.Context(), database, anna)
	if err != nil || b.Servers != 5 || b.Synced != 2 || b.External != 2 || b.Rows != 3 || !b.LastSync.Equal(time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestFailuresOfRuns(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) SELECT id, 'sync', 'failed', now(), now() FROM unnest('{a,b,c}'::text[]) AS v (id);
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error)
		SELECT id, i, 'asked', 'done', CASE WHEN i % 2 = 0 THEN 'failed' ELSE 'new' END, CASE WHEN i = 2 THEN NULL ELSE 'e' || i END
		FROM unnest('{a,b}'::text[]) AS v (id), generate_series(1, 8) AS i`)
	failures, err := db.FailuresOfRuns(t.Context(), database, []string{"c", "b", "a", "none"}, 3)
	if got := fmt.Sprint(failures); err != nil || got != "[{a 2  true} {a 4 e4 true} {a 6 e6 true} {b 2  true} {b 4 e4 true} {b 6 e6 true}]" {
		t.Errorf("%s, %v", got, err)
	}
}
