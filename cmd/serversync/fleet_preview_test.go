package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/ingest"
)

// bills are what a preview says of each customer, and in all.
func bills(p *db.RunPreview) string {
	if p == nil {
		return "none"
	}
	var all []string
	for i := range p.ByCustomer {
		c := &p.ByCustomer[i]
		all = append(all, fmt.Sprintf("%d: %s→%s list %s→%s %s", c.UserID, c.EffectiveBefore.StringFixed(2), c.EffectiveAfter.StringFixed(2),
			c.ListBefore.StringFixed(2), c.ListAfter.StringFixed(2), rowsOf(&c.Rows)))
	}
	return fmt.Sprintf("%s; all %s→%s %s", strings.Join(all, "; "), p.Cost.EffectiveBefore.StringFixed(2), p.Cost.EffectiveAfter.StringFixed(2), rowsOf(&p.Rows))
}

func rowsOf(r *db.RowChanges) string {
	return strings.Trim(fmt.Sprintf("%+v", *r), "{}")
}

// TestEveryKindOfRunForeseesTheBills: whatever is asked first, each customer's bill
// is told in the same way, and the dry run changes nothing.
func TestEveryKindOfRunForeseesTheBills(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	w.exec(`UPDATE package_pricing SET price = 1100 WHERE virtfusion_package_id = $1`, packageSmall)
	ids := w.create(2, accountBeatriz, packageSmall)
	w.create(1, accountChen, packageLarge)
	rows := func(created, ended, withdrawn, enabled, changed int64) string {
		return rowsOf(&db.RowChanges{Created: created, Ended: ended, Withdrawn: withdrawn, Enabled: enabled, Changed: changed})
	}
	wants := func(what string, run *db.Run, want string) {
		t.Helper()
		w.wantState(run, db.RunSucceeded)
		if got := bills(run.Preview); got != want {
			t.Errorf("%s: got %s\nwant %s", what, got, want)
		}
		if run.Preview.Mark == "" {
			t.Errorf("%s: the preview has no mark", what)
		}
	}
	beatriz := fmt.Sprintf("%d: 0.00→29.20 list 0.00→22.00 %s", userBeatriz, rows(2, 0, 0, 0, 0))
	dry := w.finish(w.start(true))
	wants("sweep", &dry, fmt.Sprintf("%s; %d: 0.00→21.90 list 0.00→24.00 %s; all 0.00→51.10 %s", beatriz, userChen, rows(1, 0, 0, 0, 0), rows(3, 0, 0, 0, 0)))
	id, _, err := w.runs.StartSync(t.Context(), userBeatriz, true, "ann")
	if err != nil {
		t.Fatal(err)
	}
	dry = w.ended(id)
	wants("sync", &dry, beatriz+"; all 0.00→29.20 "+rows(2, 0, 0, 0, 0))
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)

	sweep := w.sweep()
	w.wantState(&sweep, db.RunSucceeded)
	books := w.books()
	dry = w.bulk("billing-off", "", true, ids...)
	wants("bulk", &dry, fmt.Sprintf("%d: 29.20→0.00 list 22.00→0.00 %s; all 29.20→0.00 %[2]s", userBeatriz, rows(0, 2, 0, 0, 0)))
	dry = w.undo(sweep.ID, true)
	wants("undo", &dry, fmt.Sprintf("%d: 29.20→0.00 list 22.00→0.00 %s; %d: 21.90→0.00 list 24.00→0.00 %s; all 51.10→0.00 %s",
		userBeatriz, rows(0, 0, 2, 0, 0), userChen, rows(0, 0, 1, 0, 0), rows(0, 0, 3, 0, 0)))
	if got := w.books(); got != books {
		t.Error("a dry run changed something")
	}
	w.exec(`UPDATE virtfusion_hourly_billing SET monthly_price = 1 WHERE virtfusion_server_id = $1`, ids[0])
	w.pass(time.Second)
	dry = w.replay(ingest.ReplayOrder{UserID: userBeatriz, DryRun: true, By: "ann"})
	wants("replay", &dry, fmt.Sprintf("%d: 0.00→14.60 list 1.00→11.00 %s; all 0.00→14.60 %[2]s", userBeatriz, rows(0, 0, 0, 0, 1)))
}
