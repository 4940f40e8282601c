package main_test

import (
	"testing"
	"time"

	"serversync/db"
)

func (w *replayWorld) undo(run string, dryRun bool) db.Run {
	w.Helper()
	w.pass(time.Second)
	id, err := w.runs.StartUndo(w.Context(), db.UndoOrder{RunID: run}, dryRun, "ann")
	if err != nil {
		w.Fatal(err)
	}
	return w.ended(id)
}

// TestUndoOfASweep: what a sweep made is gone from SkyPANEL's tables, no later
// sweep makes it again, and the undo can be taken back itself.
func TestUndoOfASweep(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	w.create(3, accountBeatriz, packageSmall)
	sweep := w.sweep()
	w.wantState(&sweep, db.RunSucceeded)
	w.work("1")
	rows := `SELECT count(*) FROM virtfusion_hourly_billing`
	w.want("3", rows)

	dry := w.undo(sweep.ID, true)
	w.wantState(&dry, db.RunSucceeded)
	if p := dry.Preview; p == nil || p.End != 3 || p.Changes != 3 || p.Asks != "" || !p.EffectiveMonthly.IsNegative() {
		t.Errorf("the preview was %+v", p)
	}
	w.want("3", rows)

	run := w.undo(sweep.ID, false)
	w.wantState(&run, db.RunSucceeded)
	w.want("0", rows)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)
	w.want("3", `SELECT count(*) FROM serversync.history WHERE run_id = $1 AND kind = 'wish' AND reason = 'ann undid run ' || $2`, run.ID, sweep.ID)
	if got, want := w.totals(run.ID), (db.RunTotals{Expected: 3, Processed: 3, Updated: 3}); got != want {
		t.Errorf("the totals are %+v, want %+v", got, want)
	}
	w.pass(time.Hour)
	again := w.sweep()
	w.wantState(&again, db.RunSucceeded)
	w.want("0", rows)
	w.want("external off operator", `SELECT DISTINCT status || ' ' || billing || ' ' || billing_reason FROM serversync.servers`)

	second := w.undo(sweep.ID, false)
	w.wantState(&second, db.RunSucceeded)
	w.want("0", `SELECT count(*) FROM serversync.history WHERE run_id = $1`, second.ID)

	back := w.undo(run.ID, false)
	w.wantState(&back, db.RunSucceeded)
	w.want("3", rows)
	w.want("0", `SELECT count(*) FROM serversync.overrides`)
}

// TestUndoLeavesWhatWaits: what a run asks about and nobody approved was not done.
// Undoing the run takes nothing back of it, and forbids it for no later one, also
// where a newer run asks about it by now.
func TestUndoLeavesWhatWaits(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	w.create(12, accountBeatriz, packageSmall)
	w.work("1")
	first := w.sweep()
	w.wantState(&first, db.RunNeedsApproval)
	undone := w.undo(first.ID, false)
	w.wantState(&undone, db.RunSucceeded)
	second := w.sweep()
	w.wantState(&second, db.RunNeedsApproval)
	undone = w.undo(first.ID, false)
	w.wantState(&undone, db.RunSucceeded)
	w.want("0", `SELECT count(*) FROM serversync.overrides`)
	w.want("0", `SELECT count(*) FROM serversync.run_items WHERE run_id = $1`, undone.ID)
	approved := w.approve(second.ID)
	w.wantState(&approved, db.RunSucceeded)
	w.want("12", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}
