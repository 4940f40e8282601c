package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"serversync/api"
	"serversync/db"
)

func TestUndoTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(t, `
		INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('done', 'sweep', 'succeeded', now(), now()), ('works', 'sync', 'running', now(), now()), ('waits', 'sweep', 'needs_approval', now(), now());
		INSERT INTO serversync.runs (id, kind, state, dry_run, started_at, beat_at) VALUES ('dry', 'sweep', 'succeeded', true, now(), now());
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, run_id) VALUES ('2026-02-01T12:00:00.123456Z', 7, 'billing_changed', '', 'done'), (now(), 8, 'observed', '', 'done')`)
	var started *db.Run
	s.syncs.begun = func(r *db.Run) {
		started = r
		s.exec(t, `
			INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error) VALUES (?0, 7, 'undo', 'done', 'updated', 'row 3 stays off'), (?0, 8, 'undo', 'done', 'updated', NULL), (?0, 9, 'undo', 'done', 'failed', 'no');
			UPDATE serversync.runs SET state = 'succeeded' WHERE id = ?0`, r.ID)
	}
	a := s.admin(t, http.MethodPost, "/api/admin/runs/done/undo?dryRun=true")
	run := data[api.Run](t, a)
	if !started.DryRun || started.Progress.Undo.RunID != "done" || run.Kind != "undo" || *run.Undoes.RunID != "done" || run.Undoes.ServerID != nil ||
		a.body.Message != "What was done is to be taken back for 3 servers; of 2 not everything: the problems say what is left" {
		t.Errorf("%s", a.raw)
	}
	if len(run.Problems) != 2 || run.Problems[0].Code != "not_undone" || run.Problems[0].Message != "row 3 stays off" || *run.Problems[0].ServerID != 7 || run.Problems[1].Code != "server_failed" {
		t.Errorf("%+v", run.Problems)
	}
	results := data[api.RunServers](t, s.admin(t, http.MethodGet, "/api/admin/runs/"+run.ID+"/servers"))
	if len(results.Items) != 3 || results.Items[0].Error.Code != "not_undone" || results.Items[1].Error != nil || results.Items[2].Error.Code != "server_failed" {
		t.Errorf("%+v", results)
	}
	run = data[api.Run](t, s.admin(t, http.MethodPost, "/api/admin/servers/7/undo"))
	if started.DryRun || started.Progress.Undo.ServerID != 7 || *run.Undoes.ServerID != 7 || run.Undoes.At.Nanosecond() != 123456000 {
		t.Errorf("%+v", run.Undoes)
	}
	s.syncs.begun = func(r *db.Run) {
		s.exec(t, `
			INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome) VALUES (?0, 7, 'undo', 'done', 'unchanged');
			UPDATE serversync.runs SET state = 'succeeded' WHERE id = ?0`, r.ID)
	}
	if a := s.admin(t, http.MethodPost, "/api/admin/runs/done/undo"); !strings.HasPrefix(a.body.Message, "Nothing was changed: of 1 servers there was nothing") {
		t.Errorf("once more: %s", a.raw)
	}
	s.exec(t, `
		INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('partly', 'sweep', 'needs_approval', now(), now());
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome) VALUES ('partly', 7, 'listed', 'done', 'new'), ('partly', 8, 'listed', 'held', NULL)`)
	if run := data[api.Run](t, s.admin(t, http.MethodPost, "/api/admin/runs/partly/undo")); run.Undoes == nil || *run.Undoes.RunID != "partly" {
		t.Errorf("of one that asks again after a part: %+v", run)
	}
	for path, want := range map[string]string{
		"runs/dry/undo": "409 nothing_to_undo", "runs/works/undo": "409 run_not_ended", "runs/waits/undo": "409 nothing_to_undo", "runs/none/undo": "404 run_not_found",
		"servers/8/undo": "404 nothing_to_undo", "servers/x/undo": "400 bad_server_id", "runs/done/undo?dry=1": "400 unknown_parameter",
	} {
		a := s.admin(t, http.MethodPost, "/api/admin/"+path)
		if got := fmt.Sprint(a.status, " ", a.body.Error.Code); got != want {
			t.Errorf("%s: %d %s, want %s", path, a.status, a.raw, want)
		}
	}
}
