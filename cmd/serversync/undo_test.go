package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

func (a *administered) StartBulk(context.Context, api.BulkOrder) (string, error) {
	return "", api.ErrNotReady // no command begins one
}

func (a *administered) StartUndo(ctx context.Context, order db.UndoOrder, dryRun bool, by string) (string, error) {
	id, _, err := db.StartRun(ctx, a.db, &db.Run{
		ID: db.NewRunID(), Kind: db.RunUndo, State: db.RunRunning, Phase: db.PhaseQueued, DryRun: dryRun,
		RequestedBy: by, StartedAt: time.Now(), BeatAt: time.Now(), Progress: db.RunProgress{Undo: &order},
	})
	return id, err
}

// endUndo ends the next undo, once it is there: of thirty servers one failed, and of
// the others something is left.
func (a *administered) endUndo(t *testing.T, state, order string) {
	t.Helper()
	a.exec(t, `CREATE OR REPLACE FUNCTION undone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error)
			SELECT NEW.id, n, 'undo', 'done', CASE n WHEN 1 THEN 'failed' ELSE 'updated' END, 'row ' || n || ' was charged 2 times' FROM generate_series(1, 30) AS n;
		UPDATE serversync.runs SET state = '`+state+`', phase = 'ended', ended_at = started_at + '90 s'::interval, note = 'a note',
			progress = '{"listed": 30, "undo": `+order+`}', preview = '{"end": 30, "customers": 2, "effectiveMonthly": "-219", "listMonthly": "-219"}' WHERE id = NEW.id;
		RETURN NULL; END $$`)
	a.exec(t, `CREATE OR REPLACE TRIGGER undone AFTER INSERT ON serversync.runs FOR EACH ROW WHEN (NEW.kind = 'undo') EXECUTE FUNCTION undone()`)
}

func TestUndoFollowsARunToItsEnd(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{"succeeded": exitDone, "failed": exitFailed, "incomplete": exitIncomplete} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			a := administer(t)
			a.add(t, "done", db.RunSucceeded, false)
			a.endUndo(t, state, `{"runId": "done"}`)
			code, out, errs := a.command(t, "undo", "done")
			for _, says := range []string{
				"Undo (", "takes back run done, which concerned 30 servers\n", "What is left:\n  server 1: server_failed: row 1 was charged 2 times",
				"  server 30: not_undone: row 30 was charged 2 times", "What taking it back changes in the books, for 2 customers:",
			} {
				if !strings.Contains(out, says) {
					t.Errorf("it does not say %q", says)
				}
			}
			if code != want || t.Failed() {
				t.Errorf("exit %d, want %d:\n%s%s", code, want, out, errs)
			}
		})
	}
}

func TestUndoIsAskedFirst(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.exec(t, `INSERT INTO serversync.history (at, virtfusion_id, kind, reason) VALUES ('2026-03-01T12:00:00Z', 14, 'billing_changed', 'x')`)
	a.endUndo(t, "succeeded", `{"serverId": 14, "at": "2026-03-01T12:00:00Z"}`)
	code, out, errs := a.command(t, "undo", "--server", "14", "--dry-run")
	if code != exitDone || !strings.Contains(out, "Undo, a dry run (") || !strings.Contains(out, "takes back the change of server 14 at 2026-03-01 12:00:00 UTC") ||
		!strings.Contains(out, "Nothing was changed. Without --dry-run it would be done.") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	code, out, errs = a.command(t, "undo", "--server", "14", "--dry-run", "--json")
	var run api.Run
	if err := json.Unmarshal([]byte(out), &run); err != nil || code != exitDone || !run.DryRun || *run.Undoes.ServerID != 14 || len(run.Problems) != 30 {
		t.Errorf("as JSON: exit %d, %v:\n%s%s", code, err, out, errs)
	}
}

func TestUndoRefuses(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "tried", db.RunSucceeded, true)
	a.add(t, "works", db.RunRunning, false)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitUsage, "one RUN"},
		{[]string{"one", "two"}, exitUsage, "one RUN"},
		{[]string{"one", "--server", "14"}, exitUsage, "one RUN"},
		{[]string{"--server", "x"}, exitUsage, "VirtFusion's id"},
		{[]string{"one", "--changes-over", "x"}, exitUsage, "dollars"},
		{[]string{"none"}, exitFailed, "there is no run with this id"},
		{[]string{"tried"}, exitFailed, "this was a dry run"},
		{[]string{"works"}, exitFailed, "the run is at work"},
		{[]string{"--server", "99"}, exitFailed, "was ever changed"},
	} {
		if code, out, errs := a.command(t, append([]string{"undo"}, c.args...)...); code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
	}
	a.add(t, "done", db.RunSucceeded, false)
	if code, out, errs := a.command(t, "undo", "done", "--no-wait"); code != exitDone || !strings.Contains(out, "serversync sweep --watch") {
		t.Errorf("nobody watches: exit %d:\n%s%s", code, out, errs)
	}
}
