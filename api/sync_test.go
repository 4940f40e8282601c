package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

// end ends a run as it is told, with the servers that it had to do with.
func (s *system) end(t *testing.T, run, state, outcomes string) {
	t.Helper()
	for i, outcome := range strings.Fields(outcomes) {
		s.exec(t, `INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error) VALUES (?0, ?1, 'asked', 'done', ?2, 'say ' || ?2)`, run, i+1, outcome)
	}
	s.exec(t, `UPDATE serversync.runs SET state = ?, phase = 'ended', ended_at = now() WHERE id = ?`, state, run)
}

func TestAUsersSyncAnswersWhenItHasEnded(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(r *db.Run) {
		if *r.UserID != 123 || r.DryRun || r.RequestedBy != "admin token" {
			t.Errorf("what was begun: %+v", r)
		}
		s.end(t, r.ID, db.RunSucceeded, "new new updated unchanged unchanged")
	}
	a := s.admin(t, http.MethodPost, "/api/admin/users/123/servers/sync")
	if want := `{"syncedServers":5,"newServers":2,"updatedServers":1,"errors":[],"runId":"sync-of-123","settling":[]}`; a.status != http.StatusOK || string(a.body.Data) != want ||
		a.body.Message != "Successfully synchronized 5 servers for user 123" {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// The end comes while the answer waits.
func TestAUsersSyncWaitsForItsEnd(t *testing.T) {
	t.Parallel()
	s := setup(t)
	timer := make(chan struct{})
	s.syncs.begun = func(r *db.Run) {
		go func() {
			defer close(timer)
			<-time.After(50 * time.Millisecond) // it has begun to wait; earlier would do no harm
			s.end(t, r.ID, db.RunSucceeded, "new")
		}()
	}
	begun := time.Now()
	if got := data[api.Synced](t, s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync?wait=25")); got.NewServers != 1 || time.Since(begun) > 10*time.Second {
		t.Errorf("after %s: %+v", time.Since(begun), got)
	}
	<-timer
}

func TestAUsersSyncThatGoesOn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for _, query := range []string{"", "?wait=0", "?wait=1"} {
		a := s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync"+query)
		if r := dataOf[api.Run](t, a, http.StatusAccepted); r.State != "running" || *r.UserID != 7 || a.header.Get("Location") != "/api/admin/runs/sync-of-7" {
			t.Errorf("%s: %v %s", query, a.header, a.raw)
		}
	}
	s.exec(t, `UPDATE serversync.runs SET state = 'needs_approval'`)
	s.syncs.begun = func(r *db.Run) { s.exec(t, `UPDATE serversync.runs SET state = 'needs_approval' WHERE id = ?`, r.ID) }
	a := s.admin(t, http.MethodPost, "/api/admin/users/8/servers/sync")
	if r := dataOf[api.Run](t, a, http.StatusAccepted); r.State != "needs_approval" || !strings.Contains(a.body.Message, "/api/admin/runs/sync-of-8/approve") {
		t.Errorf("%s", a.raw)
	}
}

// Only what saw and did everything is called a success.
func TestAUsersSyncThatIsNone(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for state, says := range map[string]string{db.RunIncomplete: "Synchronized 2 servers for user 7, but not everything", db.RunFailed: "could not be synchronized", db.RunSuperseded: "not everything"} {
		s.syncs.begun = func(r *db.Run) {
			s.exec(t, `UPDATE serversync.runs SET problems = '[{"code": "access_denied", "message": "link the user", "serverId": 9}]' WHERE id = ?`, r.ID)
			s.end(t, r.ID, state, "new unchanged failed")
		}
		a := s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync")
		got := data[api.Synced](t, a)
		if strings.Contains(a.body.Message, "Success") || !strings.Contains(a.body.Message, says) || got.SyncedServers != 2 || len(got.Errors) != 2 ||
			got.Errors[0].Code != "access_denied" || *got.Errors[0].ServerID != 9 || got.Errors[1].Code != "server_failed" || got.Errors[1].Message != "say failed" || *got.Errors[1].ServerID != 3 {
			t.Errorf("%s: %s", state, a.raw)
		}
		s.exec(t, `DELETE FROM serversync.runs`)
	}
	s.syncs.begun = func(r *db.Run) { s.end(t, r.ID, db.RunIncomplete, strings.Repeat("failed ", 25)) }
	got := data[api.Synced](t, s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync"))
	if len(got.Errors) != 25 || got.SyncedServers != 0 {
		t.Errorf("of 25 servers that failed %d are told", len(got.Errors))
	}
	for i, e := range got.Errors {
		if *e.ServerID != int64(i+1) {
			t.Errorf("error %d is of server %d", i, *e.ServerID)
		}
	}
}

func TestAUsersDryRun(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.syncs.begun = func(r *db.Run) {
		if !r.DryRun {
			t.Error("no dry run was begun")
		}
		s.exec(t, `UPDATE serversync.runs SET preview = '{"create": 2, "change": 1, "move": 1, "end": 1, "none": 4}' WHERE id = ?`, r.ID)
		s.end(t, r.ID, db.RunSucceeded, "")
	}
	a := s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync?dryRun=true")
	if got := data[api.Synced](t, a); fmt.Sprint(got.SyncedServers, got.NewServers, got.UpdatedServers) != "4 2 3" || !strings.Contains(a.body.Message, "nothing was changed") {
		t.Errorf("%s", a.raw)
	}
}

func TestAUsersSyncThatCannotBegin(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("wrapped: %w", api.ErrNotReady), "503 not_ready"},
		{fmt.Errorf("wrapped: %w", api.ErrNoUser), "404 user_not_found"},
		{context.DeadlineExceeded, "503 database_unavailable"},
		{errors.New("secret details"), "500 internal"},
	} {
		s.syncs.err = test.err
		a := s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync")
		if got := fmt.Sprint(a.status, " ", a.body.Error.Code); got != test.want || strings.Contains(a.raw, "secret") || (a.status == 503) != (a.header.Get("Retry-After") != "") {
			t.Errorf("%v: %s %s", test.err, got, a.raw)
		}
	}
}

// A process that has to end does not keep callers waiting.
func TestNoAnswerWaitsBeyondTheEnd(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.api.Run(ctx); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	a := s.admin(t, http.MethodPost, "/api/admin/users/7/servers/sync?wait=25")
	if took := time.Since(begun); a.status != http.StatusAccepted || took > 10*time.Second {
		t.Errorf("%d after %s: %s", a.status, took, a.raw)
	}
}
