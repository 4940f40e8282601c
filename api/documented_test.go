package api_test

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"serversync/api"
	"serversync/db"
	"serversync/events"
)

// Every answer that the document describes for the API's routes is given, in
// one system, and looks as described: ask holds each against the document.
func TestEveryDescribedAnswerIsGiven(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.tell(t)
	s.exec(t, `UPDATE serversync.servers SET uuid = ? WHERE virtfusion_id = 8`, serverUUID)
	s.seedRun(t)
	s.addRun(t, db.Run{ID: "done", State: db.RunSucceeded, StartedAt: noon().Add(-time.Hour)})
	s.addNotices(t)
	s.addProof(t, "proved", db.ProofComplete)
	s.syncs.begun = func(r *db.Run) {
		if r.UserID != nil && *r.UserID == 41 {
			s.end(t, r.ID, db.RunSucceeded, "new")
		}
	}
	s.people(t)
	s.addRun(t, db.Run{ID: "annas", Kind: db.RunSync, State: db.RunSucceeded, UserID: new(int64(anna))})
	keys := []string{s.addKey(t, anna, 1, "{*}", ""), s.addKey(t, boris, 2, "{*}", "")}
	s.addKey(t, root, 3, "{*}", "")
	type request struct{ method, path string }
	allowed := func(r request) {
		t.Helper()
		if r.path == "/api/admin/charges/1/resolve" {
			s.put(t, r.path, `{"taken": false}`)
			return
		}
		if r.path == "/api/admin/servers/bulk" {
			s.put(t, r.path, `{"ids": [7], "action": "resync"}`)
			return
		}
		if !strings.HasPrefix(r.path, "/api/user/") {
			s.admin(t, r.method, r.path)
			return
		}
		for _, key := range keys {
			if s.syncs.err == nil { // the stub gives all of a user's syncs one id
				_, _ = s.db.ExecContext(t.Context(), `DELETE FROM serversync.runs WHERE id LIKE 'sync-of-%'`) // in the end there is no such table
			}
			s.send(t, r.method, r.path, withKey(key), "")
		}
	}
	ordinary := []request{
		{"GET", "/api/admin/servers/7/timeline"},
		{"POST", "/api/admin/cleanup"},
		{"GET", "/api/admin/doctor"},
		{"GET", "/api/admin/audit"},
		{"POST", "/api/admin/servers/sync"},
		{"POST", "/api/admin/users/41/servers/sync"},
		{"GET", "/api/admin/users/41/servers/sync/status"},
		{"GET", "/api/admin/runs"},
		{"GET", "/api/admin/runs/waits"},
		{"POST", "/api/admin/runs/waits/approve"},
		{"POST", "/api/admin/runs/waits/undo"},
		{"POST", "/api/admin/servers/7/undo"},
		{"POST", "/api/admin/users/41/servers/replay"},
		{"POST", "/api/admin/servers/bulk"},
		{"GET", "/api/admin/runs/waits/servers"},
		{"GET", "/api/admin/runs/waits/preview"},
		{"GET", "/api/admin/runs/waits/preview.csv"},
		{"GET", "/api/admin/overview"},
		{"GET", "/api/admin/live"},
		{"GET", "/api/user/servers/sync/live"},
		{"GET", "/api/user/me"},
		{"POST", "/api/user/servers/sync"},
		{"GET", "/api/user/servers/sync/status"},
		{"GET", "/api/user/servers/sync/runs/annas"},
		{"GET", "/api/user/servers"},
		{"GET", "/api/user/servers/sync/history"},
		{"GET", "/api/admin/servers"},
		{"GET", "/api/admin/servers.csv"},
		{"GET", "/api/admin/users/41/servers/sync/history"},
		{"GET", "/api/admin/dead-letters"},
		{"POST", "/api/admin/dead-letters/one/requeue"},
		{"DELETE", "/api/admin/dead-letters/one"},
		{"GET", "/api/admin/charges"},
		{"POST", "/api/admin/charges/1/resolve"},
		{"GET", "/api/admin/reports/external.csv"},
		{"GET", "/api/admin/charts/external.svg"},
		{"GET", "/api/admin/charts/coverage.svg"},
		{"GET", "/api/admin/coverage"},
		{"GET", "/api/admin/reports/monthly"},
		{"GET", "/api/admin/reports/monthly.csv"},
		{"GET", "/api/admin/coverage.csv"},
		{"GET", "/api/admin/notices"},
		{"POST", "/api/admin/proofs"},
		{"GET", "/api/admin/proofs"},
		{"GET", "/api/admin/proofs/proved"},
		{"GET", "/api/admin/charts/events.svg"},
		{"GET", "/api/admin/charts/lag.svg"},
		{"GET", "/api/admin/charts/revenue.svg"},
	}
	s.listed(t)
	s.admin(t, http.MethodPost, "/api/admin/runs/waits/approve") // before a sweep is running: 202; 409 from now on
	for _, r := range append(slices.Clone(ordinary), []request{
		{"GET", "/api/admin/servers/x/timeline"},
		{"GET", "/api/admin/servers/99/timeline"},
		{"GET", "/api/admin/servers/" + serverUUID + "/timeline"},
		{"POST", "/api/admin/cleanup?dryRun=x"},
		{"GET", "/api/admin/audit?x=y"},
		{"GET", "/api/admin/doctor?user=x"},
		{"POST", "/api/admin/servers/sync?dryRun=x"},
		{"POST", "/api/admin/users/x/servers/sync"},
		{"POST", "/api/admin/users/42/servers/sync?wait=0"},
		{"GET", "/api/admin/users/x/servers/sync/status"},
		{"GET", "/api/admin/users/99/servers/sync/status"},
		{"GET", "/api/admin/runs?limit=x"},
		{"GET", "/api/admin/runs/x"},
		{"POST", "/api/admin/runs/x/approve"},
		{"POST", "/api/admin/runs/x/approve?preview=not%20a%20mark"},
		{"POST", "/api/admin/runs/x/undo"},
		{"POST", "/api/admin/servers/x/undo"},
		{"POST", "/api/admin/servers/99/undo"},
		{"POST", "/api/admin/users/x/servers/replay"},
		{"GET", "/api/admin/runs/x/servers"},
		{"GET", "/api/admin/runs/waits/servers?limit=x"},
		{"GET", "/api/admin/runs/x/preview"},
		{"GET", "/api/admin/runs/waits/preview?changesOver=x"},
		{"GET", "/api/admin/runs/x/preview.csv"},
		{"GET", "/api/admin/runs/waits/preview.csv?by=x"},
		{"POST", "/api/user/servers/sync?wait=x"},
		{"POST", "/api/user/servers/sync?wait=0"},
		{"GET", "/api/user/servers/sync/runs/x"},
		{"GET", "/api/user/servers?sort=x"},
		{"GET", "/api/user/servers/sync/history?limit=x"},
		{"GET", "/api/admin/servers?sort=x"},
		{"GET", "/api/admin/servers.csv?sort=x"},
		{"GET", "/api/admin/users/41/servers/sync/history?limit=x"},
		{"GET", "/api/admin/users/99/servers/sync/history"},
		{"GET", "/api/admin/dead-letters?limit=x"},
		{"POST", "/api/admin/dead-letters/none/requeue"},
		{"DELETE", "/api/admin/dead-letters/none"},
		{"GET", "/api/admin/charges?state=x"},
		{"POST", "/api/admin/charges/x/resolve"},
		{"GET", "/api/admin/reports/external.csv?user=7"},
		{"GET", "/api/admin/charts/external.svg?days=x"},
		{"GET", "/api/admin/charts/coverage.svg?days=x"},
		{"GET", "/api/admin/coverage?days=401"},
		{"GET", "/api/admin/reports/monthly?months=x"},
		{"GET", "/api/admin/reports/monthly.csv?months=x"},
		{"GET", "/api/admin/coverage.csv?days=0"},
		{"GET", "/api/admin/notices?limit=x"},
		{"POST", "/api/admin/proofs?x=y"},
		{"GET", "/api/admin/proofs?limit=x"},
		{"GET", "/api/admin/proofs/x"},
		{"GET", "/api/admin/charts/events.svg?days=x"},
		{"GET", "/api/admin/charts/lag.svg?days=x"},
		{"GET", "/api/admin/charts/revenue.svg?days=x"},
	}...) {
		allowed(r)
	}
	s.letters.err = events.ErrNothingLeft
	allowed(request{"POST", "/api/admin/dead-letters/one/requeue"})
	s.letters.err = nil
	for _, cause := range []error{db.ErrNoCharge, db.ErrChargeState} {
		s.books.resolve = func(int64) (db.FirstCharge, error) { return db.FirstCharge{State: db.ChargeTaken}, cause }
		allowed(request{"POST", "/api/admin/charges/1/resolve"})
	}
	s.books.resolve = nil
	for _, path := range []string{"/api/admin/users/41/servers/replay", "/api/admin/servers/bulk", "/api/admin/charges/1/resolve"} {
		s.put(t, path, `{"action": "none"}`)
		s.put(t, path, strings.Repeat(" ", 1<<20+1))
	}
	s.exec(t, `UPDATE serversync.runs SET state = 'succeeded' WHERE id = 'waits'`)
	s.admin(t, http.MethodPost, "/api/admin/runs/waits/undo")
	s.admin(t, http.MethodPost, "/api/admin/runs/waits/undo?dryRun=x")
	s.bulkAs(t, "text/plain")
	s.syncs.begun = func(r *db.Run) {
		if r.Kind == db.RunBulk || r.Kind == db.RunUndo {
			s.exec(t, `UPDATE serversync.runs SET state = 'succeeded' WHERE id = ?`, r.ID)
		}
	}
	s.put(t, "/api/admin/servers/bulk", `{"ids": [7], "action": "resync"}`)
	for _, path := range []string{"/api/admin/runs/waits/undo", "/api/admin/servers/7/undo"} {
		s.admin(t, http.MethodPost, path)
	}
	s.exec(t, `UPDATE serversync.runs SET dry_run = true WHERE id = 'waits'`)
	s.admin(t, http.MethodPost, "/api/admin/runs/waits/undo")
	s.exec(t, `UPDATE serversync.runs SET dry_run = false WHERE id = 'waits'`)
	s.syncs.err = api.ErrNoUser
	for _, r := range []request{{"POST", "/api/admin/users/42/servers/replay"}, {"POST", "/api/admin/users/42/servers/sync"}, {"POST", "/api/user/servers/sync"}} {
		allowed(r)
	}
	for _, r := range ordinary {
		s.ask(t, r.method, r.path, "")
		if strings.HasPrefix(r.path, "/api/user/") { // nobody's own
			s.admin(t, r.method, r.path)
		} else {
			s.send(t, r.method, r.path, withKey(keys[0]), "")
		}
	}
	s.deletedUser(t)

	for path, credential := range map[string]string{"/api/admin/live": testToken, "/api/user/servers/sync/live": keys[0]} {
		conn, answer, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + credential}}}) //nolint:bodyclose // the library closes it, and there is none after an upgrade
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseNow()
		s.seen["GET "+path+" "+strconv.Itoa(answer.StatusCode)] = true
	}

	// Faults of ours: parts that panic, and columns that cannot be read.
	s.checks = func() []api.Finding { panic("the doctor fell ill") }
	s.books.redecide = func([]int64) (int, error) { panic("the books fell down") }
	s.books.resolve = func(int64) (db.FirstCharge, error) { panic("the charges fell out") }
	s.addCharge(t, db.ChargeDue, "")
	s.syncs.err, s.syncs.begun = nil, func(*db.Run) { panic("the sync fell over") }
	s.letters.panics = true
	for _, statement := range []string{
		`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (false, 730);
			ALTER TABLE virtfusion_cron_settings RENAME TO settings_of_cron;
			CREATE VIEW virtfusion_cron_settings AS SELECT id, hours_per_month, 1 / (id - id) = 1 AS enabled, true AS hourly_billing_enabled FROM settings_of_cron;
			ALTER TABLE serversync.coverage_days ALTER COLUMN written_at TYPE text USING 'never'; INSERT INTO serversync.coverage_days (day, written_at, total, external_on, external_off, native, unlinked, conflict, settling, recorded_list, recorded_effective, leaking_servers, leaking_list, leaking_effective, leaks)
				VALUES ('2026-03-01', 'never', 0, 0, '{}', 0, 0, 0, 0, 0, 0, 0, 0, 0, '[]');
			ALTER TABLE serversync.proofs ALTER COLUMN ended_at TYPE text USING 'never'; UPDATE serversync.notices SET at = 'infinity'; UPDATE serversync.history SET at = 'infinity'; UPDATE serversync.billing_rows SET created_at = 'infinity'; UPDATE serversync.charges SET created_at = 'infinity'; UPDATE serversync.lag_samples SET at = 'infinity' WHERE at = '2026-03-01T10:00Z';
			ALTER TABLE serversync.servers ALTER COLUMN last_seen_at TYPE text USING 'never'`,
		`UPDATE serversync.servers SET status = 'gone' WHERE virtfusion_id = 7; UPDATE serversync.runs SET progress = '"none"' WHERE kind = 'sweep';
			DELETE FROM serversync.runs WHERE id LIKE 'sync-of-%';
			ALTER TABLE users RENAME TO people; CREATE VIEW users AS SELECT id, email, username, (1 / (id - id))::text AS full_name, role, virtfusion_id, is_active FROM people`,
		`ALTER TABLE serversync.history ALTER COLUMN at TYPE text USING 'never';
			ALTER TABLE serversync.runs ALTER COLUMN ended_at TYPE text USING CASE state WHEN 'succeeded' THEN 'never' END`,
	} {
		s.exec(t, statement)
		s.db.SetMaxIdleConns(0) // what connections planned before would fail otherwise
		s.db.SetMaxIdleConns(2)
		s.wait(time.Minute)
		for _, r := range ordinary {
			allowed(r)
		}
	}

	// A database without our tables.
	s.syncs.err = api.ErrNotReady
	s.letters.panics, s.letters.err = false, errors.New("the broker is away")
	s.books.resolve = func(int64) (db.FirstCharge, error) { return db.FirstCharge{}, api.ErrNotReady }
	s.exec(t, `DROP SCHEMA serversync CASCADE`)
	for _, r := range ordinary {
		allowed(r)
	}
	// Keys that cannot be looked up, whatever they are to open.
	s.exec(t, `ALTER TABLE api_keys RENAME TO away`)
	s.wait(time.Minute)
	for _, r := range ordinary {
		s.send(t, r.method, r.path, withKey(secretOf(root, 3)), "")
	}
	// Somebody who guesses.
	for range 70 {
		s.ask(t, http.MethodGet, "/api/admin/overview", "Bearer guess")
	}
	for _, r := range ordinary {
		s.ask(t, r.method, r.path, "Bearer guess")
	}

	var missing []string
	for path, item := range s.doc.Paths.Map() {
		if !strings.HasPrefix(path, "/api/") {
			continue
		}
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				if answer := method + " " + path + " " + status; !s.seen[answer] {
					missing = append(missing, answer)
				}
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("described and never given:\n%s", strings.Join(missing, "\n"))
	}
}
