package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

const ownSync = "/api/user/servers/sync"

// Whoever calls is told who they are: by SkyPANEL's names and role.
func TestWhoAmI(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.exec(t, `UPDATE users SET full_name = ' Anna <Ä> ' WHERE id = 41`)
	key := withKey(s.addKey(t, anna, 1, "{read:servers}", ""))
	session := headers("Cookie", s.signIn(t, "rootSession", passport("1"), noon().Add(time.Hour)))
	ask := func(who http.Header, want string) {
		t.Helper()
		a := s.send(t, http.MethodGet, "/api/user/me?id=42&user=42", who, "")
		if got := data[api.Me](t, a); fmt.Sprintf("%+v", got) != want {
			t.Errorf("%s, want %s", a.raw, want)
		}
	}
	ask(key, "{ID:41 Name:Anna <Ä> Admin:false}")
	ask(session, "{ID:1 Name:Root Admin:true}")
	s.exec(t, `UPDATE users SET full_name = ' ' WHERE id = 41`)
	ask(key, "{ID:41 Name:anna Admin:false}")
	s.exec(t, `ALTER TABLE users ALTER full_name DROP NOT NULL; UPDATE users SET full_name = NULL, username = '' WHERE id = 41`)
	ask(key, "{ID:41 Name:user 41 Admin:false}")
	if a := s.admin(t, http.MethodGet, "/api/user/me"); outcome(a) != noUser {
		t.Errorf("the admin token: %s", a.raw)
	}
}

func TestOnesOwnSync(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	key := withKey(s.addKey(t, anna, 1, "{write:servers}", ""))
	s.syncs.begun = func(r *db.Run) {
		if *r.UserID != anna || r.DryRun || r.RequestedBy != "user 41 (api key 1)" {
			t.Errorf("what was begun: %+v", r)
		}
		s.end(t, r.ID, db.RunSucceeded, "new new updated unchanged unchanged")
	}
	a := s.send(t, http.MethodPost, ownSync, key, "")
	if want := `{"syncedServers":5,"newServers":2,"updatedServers":1,"errors":[],"runId":"sync-of-41","settling":[]}`; a.status != http.StatusOK || string(a.body.Data) != want ||
		a.body.Message != "Successfully synchronized 5 servers for user 41" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	for query, code := range map[string]string{"?dryRun=true": "bad_dry_run", "?dryRun=x": "bad_dry_run", "?wait=26": "bad_wait", "?wait=x": "bad_wait"} {
		if a := s.send(t, http.MethodPost, ownSync+query, key, ""); a.status != http.StatusBadRequest || a.body.Error.Code != code {
			t.Errorf("%s: %d %s", query, a.status, a.raw)
		}
	}
}

// What goes on is to be looked at where the user may look, and its problems are
// in words for customers: the operators' may hold anything.
func TestOnesOwnSyncThatGoesOn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	key := withKey(s.addKey(t, anna, 1, "{write:servers}", ""))
	for _, state := range []string{db.RunRunning, db.RunNeedsApproval, db.RunIncomplete, db.RunFailed} {
		s.syncs.begun = func(r *db.Run) {
			s.exec(t, `UPDATE serversync.runs SET state = ?, problems = ?, note = 'operators-only', preview = '{"fleet": 100000}',
				approved_by = 'operators-only', superseded_by = 'operators-only' WHERE id = ?`, state, `[{"code": "virtfusion_unavailable", "message": "operators-only", "serverId": 9},
				{"code": "internal_error", "message": "operators-only"}, {"code": "user_not_linked", "message": "operators-only"}, {"code": "virtfusion_forbidden", "message": "operators-only"},
				{"code": "virtfusion_not_found", "message": "operators-only"}]`, r.ID)
			if state != db.RunRunning {
				s.exec(t, `UPDATE serversync.runs SET ended_at = ? WHERE id = ?`, noon(), r.ID)
			}
			s.exec(t, `INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error) VALUES (?, 3, 'asked', 'done', 'failed', 'operators-only')`, r.ID)
		}
		a := s.send(t, http.MethodPost, ownSync+"?wait=0", key, "")
		if strings.Contains(a.raw, "operators-only") || strings.Contains(a.raw, "100000") || strings.Contains(a.body.Message, "Success") || a.body.Message == "" {
			t.Errorf("%s: %s", state, a.raw)
		}
		if state == db.RunIncomplete || state == db.RunFailed {
			if got := data[api.Synced](t, a); len(got.Errors) != 6 || got.Errors[0].Code != "virtfusion_unavailable" || *got.Errors[0].ServerID != 9 || !strings.Contains(got.Errors[0].Message, "try again") {
				t.Errorf("%s: %s", state, a.raw)
			}
		} else if r := dataOf[api.Run](t, a, http.StatusAccepted); r.State != state || r.RequestedBy != "user 41 (api key 1)" || a.header.Get("Location") != ownSync+"/runs/"+r.ID {
			t.Errorf("%s: %v %s", state, a.header, a.raw)
		}
		there := s.send(t, http.MethodGet, ownSync+"/runs/sync-of-41", key, "")
		if r := data[api.Run](t, there); r.State != state || r.Preview != nil || r.Note == "" || len(r.Problems) != 6 || strings.Contains(there.raw, "operators-only") || *r.ApprovedBy != "an administrator" {
			t.Errorf("%s: %s", state, there.raw)
		}
		s.exec(t, `DELETE FROM serversync.runs`)
	}
}

// Who asked is told to users of themselves alone.
func TestARunThatAnAdministratorStarted(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.addRun(t, db.Run{ID: "theirs", Kind: db.RunSync, State: db.RunRunning, UserID: new(int64(anna)), RequestedBy: "user 1 (session)"})
	s.addRun(t, db.Run{ID: "all", Kind: db.RunSweep, State: db.RunRunning})
	key := withKey(s.addKey(t, anna, 1, "{read:servers}", ""))
	if r := data[api.Run](t, s.send(t, http.MethodGet, ownSync+"/runs/theirs", key, "")); r.RequestedBy != "an administrator" {
		t.Errorf("%+v", r)
	}
	// One's own is one's own, whichever key or session asked for it.
	s.addRun(t, db.Run{ID: "mine", Kind: db.RunSync, State: db.RunSucceeded, UserID: new(int64(anna)), RequestedBy: fmt.Sprintf("user %d (session)", anna)})
	if r := data[api.Run](t, s.send(t, http.MethodGet, ownSync+"/runs/mine", key, "")); r.RequestedBy != fmt.Sprintf("user %d (session)", anna) {
		t.Errorf("%+v", r)
	}
	for _, id := range []string{"all", "none", "..%2f", "'"} {
		if a := s.send(t, http.MethodGet, ownSync+"/runs/"+id, key, ""); a.status != http.StatusNotFound || a.body.Error.Code != "run_not_found" {
			t.Errorf("%s: %d %s", id, a.status, a.raw)
		}
	}
}

// The status is counted at most every 30 s, but never older than what became
// of the user's own runs.
func TestOnesOwnStatus(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.fleet(t)
	s.people(t)
	key := withKey(s.addKey(t, anna, 1, "{read:servers}", ""))
	total := func() string {
		t.Helper()
		v := data[api.UserStatus](t, s.send(t, http.MethodGet, statusPath, key, ""))
		return fmt.Sprint(v.TotalServers, " ", v.LastSync != nil)
	}
	add := func(id int) {
		t.Helper()
		s.exec(t, `INSERT INTO serversync.servers (virtfusion_id, user_id, status, billing, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
			VALUES (?, 41, 'external', 'on', now(), '', '', now(), now())`, id)
	}
	want := func(want, when string) {
		t.Helper()
		if got := total(); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	if a := s.send(t, http.MethodGet, statusPath, key, ""); string(a.body.Data) != `{"lastSync":null,"totalServers":7,"syncedServers":2,"externalServers":3,"billingRecords":5}` {
		t.Errorf("at first: %s", a.raw)
	}
	other := withKey(s.addKey(t, boris, 2, "{read:servers}", ""))
	if v := data[api.UserStatus](t, s.send(t, http.MethodGet, statusPath, other, "")); v.TotalServers != 2 {
		t.Errorf("of another user: %+v", v)
	}
	add(101)
	s.wait(29 * time.Second)
	want("7 false", "within 30 s")
	s.wait(time.Second)
	want("8 false", "after 30 s")

	add(102)
	s.addRun(t, db.Run{ID: "others", Kind: db.RunSync, State: db.RunRunning, UserID: new(int64(boris))})
	s.addRun(t, db.Run{ID: "dry", Kind: db.RunSync, State: db.RunRunning, UserID: new(int64(anna)), DryRun: true})
	want("8 false", "after what is no run of the user's")
	s.addRun(t, db.Run{ID: "own", Kind: db.RunSync, State: db.RunRunning, UserID: new(int64(anna))})
	want("9 false", "when a run began")
	add(103)
	want("9 false", "while it runs")
	s.exec(t, `UPDATE serversync.runs SET state = 'needs_approval' WHERE id = 'own'`)
	want("10 false", "when it waits for approval")
	add(105)
	want("10 false", "while it waits")
	s.exec(t, `UPDATE serversync.runs SET state = 'succeeded', ended_at = ? WHERE id = 'own'`, noon())
	want("11 true", "when it has ended")

	s.addRun(t, db.Run{ID: "replay", Kind: db.RunReplay, State: db.RunRunning, UserID: new(int64(anna)), StartedAt: noon().Add(-time.Hour)})
	add(104)
	s.exec(t, `UPDATE serversync.runs SET state = 'succeeded', ended_at = ? WHERE id = 'replay'`, noon().Add(time.Minute))
	want("12 true", "when one that began before has ended")
}

// A user who was deleted a moment ago.
func TestTheStatusOfNobody(t *testing.T) {
	t.Parallel()
	s := setup(t)
	key := s.deletedUser(t)
	s.wait(5 * time.Second)
	if got := outcome(s.send(t, http.MethodGet, statusPath, key, "")); got != unknown {
		t.Errorf("five seconds later: %q", got)
	}
}

// deletedUser asks for the status of a user who was deleted since somebody
// looked, and returns what the user is known by.
func (s *system) deletedUser(t *testing.T) (key http.Header) {
	t.Helper()
	const dora = 44
	s.exec(t, `INSERT INTO users (id, email, username, password, full_name) VALUES (44, 'dora', 'dora', '!', 'Dora')`)
	key = withKey(s.addKey(t, dora, 44, "{read:servers}", ""))
	s.send(t, http.MethodGet, ownSync+"/runs/none", key, "")
	s.exec(t, `DELETE FROM users WHERE id = 44`)
	if a := s.send(t, http.MethodGet, statusPath, key, ""); a.status != http.StatusNotFound || a.body.Error.Code != "user_not_found" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	if a := s.send(t, http.MethodGet, "/api/user/me", key, ""); a.status != http.StatusNotFound || a.body.Error.Code != "user_not_found" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	return key
}
