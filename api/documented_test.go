package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

// Every answer that the document describes for the admin's routes is given, in
// one system, and looks as described: ask holds each against the document.
func TestEveryDescribedAnswerIsGiven(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.tell(t)
	s.exec(t, `UPDATE serversync.servers SET uuid = ? WHERE virtfusion_id = 8`, serverUUID)
	s.seedRun(t)
	s.addRun(t, db.Run{ID: "done", State: db.RunSucceeded, StartedAt: noon().Add(-time.Hour)})
	s.syncs.begun = func(r *db.Run) {
		if *r.UserID == 41 {
			s.end(t, r.ID, db.RunSucceeded, "new")
		}
	}
	type request struct{ method, path string }
	ordinary := []request{
		{"GET", "/api/admin/servers/7/timeline"},
		{"POST", "/api/admin/cleanup"},
		{"GET", "/api/admin/doctor"},
		{"POST", "/api/admin/servers/sync"},
		{"POST", "/api/admin/users/41/servers/sync"},
		{"GET", "/api/admin/users/41/servers/sync/status"},
		{"GET", "/api/admin/runs"},
		{"GET", "/api/admin/runs/waits"},
		{"POST", "/api/admin/runs/waits/approve"},
		{"GET", "/api/admin/overview"},
	}
	s.admin(t, http.MethodPost, "/api/admin/runs/waits/approve") // before a sweep is running: 202; 409 from now on
	for _, r := range append(slices.Clone(ordinary), []request{
		{"GET", "/api/admin/servers/x/timeline"},
		{"GET", "/api/admin/servers/99/timeline"},
		{"GET", "/api/admin/servers/" + serverUUID + "/timeline"},
		{"POST", "/api/admin/cleanup?dryRun=x"},
		{"POST", "/api/admin/servers/sync?dryRun=x"},
		{"POST", "/api/admin/users/x/servers/sync"},
		{"POST", "/api/admin/users/42/servers/sync?wait=0"},
		{"GET", "/api/admin/users/x/servers/sync/status"},
		{"GET", "/api/admin/users/99/servers/sync/status"},
		{"GET", "/api/admin/runs?limit=x"},
		{"GET", "/api/admin/runs/x"},
		{"POST", "/api/admin/runs/x/approve"},
	}...) {
		s.admin(t, r.method, r.path)
	}
	s.syncs.err = api.ErrNoUser
	s.admin(t, http.MethodPost, "/api/admin/users/42/servers/sync")
	for _, r := range ordinary {
		s.ask(t, r.method, r.path, "")
	}

	// Faults of ours: parts that panic, and columns that cannot be read.
	s.checks = func() []api.Finding { panic("the doctor fell ill") }
	s.books.redecide = func([]int64) (int, error) { panic("the books fell down") }
	s.syncs.err, s.syncs.begun = nil, func(*db.Run) { panic("the sync fell over") }
	for _, statement := range []string{
		`UPDATE serversync.servers SET status = 'gone' WHERE virtfusion_id = 7; UPDATE serversync.runs SET progress = '"none"' WHERE kind = 'sweep';
			DELETE FROM serversync.runs WHERE kind = 'sync'`,
		`ALTER TABLE serversync.history ALTER COLUMN at TYPE text USING 'never';
			ALTER TABLE serversync.runs ALTER COLUMN ended_at TYPE text USING CASE state WHEN 'succeeded' THEN 'never' END`,
	} {
		s.exec(t, statement)
		for _, r := range append(slices.Clone(ordinary), ordinary...) { // twice: what was planned before fails otherwise
			s.admin(t, r.method, r.path)
		}
	}

	// A database without our tables.
	s.syncs.err = api.ErrNotReady
	s.exec(t, `DROP SCHEMA serversync CASCADE`)
	for _, r := range ordinary {
		s.admin(t, r.method, r.path)
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
