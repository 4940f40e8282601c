package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
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

// held is a sweep that waits for approval: four servers of Beatriz's at 14.60 a
// month, and one of Chen's at 21.90.
func held(t *testing.T) (w *replayWorld, ids []int64, run db.Run) {
	t.Helper()
	w = newReplayWorld(t)
	w.exec(`UPDATE package_pricing SET price = 1100 WHERE virtfusion_package_id = $1`, packageSmall)
	w.work("2")
	ids = append(w.create(4, accountBeatriz, packageSmall), w.create(1, accountChen, packageLarge)...)
	run = w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	return w, ids, run
}

const billedMonthly = `SELECT coalesce(string_agg(monthly_price::text, ' ' ORDER BY virtfusion_server_id), '') FROM virtfusion_hourly_billing WHERE billing_enabled`

// wantAskedAgain checks that an approval applied nothing and says what differs.
func (w *replayWorld) wantAskedAgain(run *db.Run, says ...string) {
	w.Helper()
	w.wantState(run, db.RunNeedsApproval)
	w.want("", billedMonthly)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)
	if run.Preview.Differs == nil || run.Preview.Differs.ApprovedBy != "an admin" || run.ApprovedAt != nil || run.Note != run.Preview.Asks {
		w.Errorf("it asks again, and nobody knows why: %+v", run.Preview)
	}
	for _, part := range says {
		if !strings.Contains(run.Note, part) {
			w.Errorf("it does not say %q: %s", part, run.Note)
		}
	}
	w.want("0", `SELECT count(*) FROM serversync.run_items WHERE run_id = $1 AND outlook IS NOT NULL`, run.ID)
}

// TestApprovalOfAPrice: a price that changed between the preview and the approval is
// put to a person, each time that it changes, and an approval of an older preview is
// none.
func TestApprovalOfAPrice(t *testing.T) {
	t.Parallel()
	w, _, run := held(t)
	price := func(cents int) {
		t.Helper()
		w.exec(`UPDATE package_pricing SET price = $2 WHERE virtfusion_package_id = $1`, packageSmall, cents)
	}
	price(2000)
	again := w.approve(run.ID)
	w.wantAskedAgain(&again, "the month would change by +109.50 as charged, approved were +80.30",
		fmt.Sprintf("for 1 customers it would cost another amount (user %d +87.60 a month, approved +58.40)", userBeatriz))
	if d := again.Preview.Differs; d.Servers != 0 || len(d.ByCustomer) != 1 || again.Preview.Mark == run.Preview.Mark || again.Preview.EffectiveMonthly.StringFixed(2) != "109.50" {
		t.Errorf("the new preview is %+v", again.Preview)
	}
	if _, approved, err := db.ApprovePreview(t.Context(), w.db, run.ID, run.Preview.Mark, "somebody late", w.clock()); err != nil || approved {
		t.Errorf("what nobody is asked any more was approved: %v, %v", approved, err)
	}
	price(3000)
	third := w.approve(run.ID)
	w.wantAskedAgain(&third, "by +138.70 as charged, approved were +109.50")
	if _, approved, err := db.ApprovePreview(t.Context(), w.db, run.ID, third.Preview.Mark, "an admin", w.clock()); err != nil || !approved {
		t.Fatalf("it could not be approved: %v, %v", approved, err)
	}
	done := w.finish(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("30.0000 30.0000 30.0000 30.0000 24.0000", billedMonthly)
	if done.Preview.Differs != nil || done.Preview.Mark != third.Preview.Mark {
		t.Errorf("what was done is %+v", done.Preview)
	}
}

// A price that SkyPANEL's rounding swallows asks nobody again.
func TestApprovalOfALittle(t *testing.T) {
	t.Parallel()
	w, _, run := held(t)
	w.exec(`UPDATE package_pricing SET price = 1200 WHERE virtfusion_package_id = $1`, packageSmall)
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("12.0000 12.0000 12.0000 12.0000 24.0000", billedMonthly)
}

// TestApprovalOfAPackage: a server that got another package meanwhile costs its
// customer another amount.
func TestApprovalOfAPackage(t *testing.T) {
	t.Parallel()
	w, ids, run := held(t)
	w.pass(time.Minute)
	if _, err := w.panel.SetPackage(ids[1], packageLarge); err != nil {
		t.Fatal(err)
	}
	w.hear(events.KindUpdated, ids[1])
	again := w.approve(run.ID)
	w.wantAskedAgain(&again, fmt.Sprintf("user %d +65.70 a month, approved +58.40", userBeatriz))
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("11.0000 24.0000 11.0000 11.0000 24.0000", billedMonthly)
}

// TestApprovalOfAServerThatVanished: what a customer would pay less is put to a
// person too; what nobody pays for is no matter.
func TestApprovalOfAServerThatVanished(t *testing.T) {
	t.Parallel()
	w, ids, run := held(t)
	w.pass(time.Minute)
	w.hear(events.KindDestroyed, ids[4])
	again := w.approve(run.ID)
	w.wantAskedAgain(&again, "by +58.40 as charged, approved were +80.30", fmt.Sprintf("user %d 0.00 a month, approved +21.90", userChen))
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("11.0000 11.0000 11.0000 11.0000", billedMonthly)
}

// TestApprovalOfAServerThatWasAdded: what nobody was shown is not approved.
func TestApprovalOfAServerThatWasAdded(t *testing.T) {
	t.Parallel()
	w, _, run := held(t)
	w.pass(time.Minute)
	added := w.create(1, accountBeatriz, packageLarge)[0]
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("11.0000 11.0000 11.0000 11.0000 24.0000", billedMonthly)
	w.want("0", `SELECT count(*) FROM serversync.run_items WHERE run_id = $1 AND virtfusion_id = $2`, run.ID, added)

	// One that came to the run unseen, as from an older run that it took over.
	w, ids, run := held(t)
	w.exec(`UPDATE serversync.run_items SET forecast = NULL, effect = NULL WHERE run_id = $1 AND virtfusion_id = $2`, run.ID, ids[0])
	again := w.approve(run.ID)
	w.wantAskedAgain(&again, fmt.Sprintf("for 1 servers it would do something else (%d)", ids[0]))
}

// TestApprovalOutlivesACrash: a process that ended while it looked again takes what
// it saw for no approval.
func TestApprovalOutlivesACrash(t *testing.T) {
	t.Parallel()
	w, ids, run := held(t)
	w.exec(`UPDATE package_pricing SET price = 2000 WHERE virtfusion_package_id = $1`, packageSmall)
	w.exec(`CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''the process ended''; END'`)
	w.exec(`CREATE TRIGGER die BEFORE UPDATE ON serversync.runs FOR EACH ROW WHEN (NEW.state = 'needs_approval') EXECUTE FUNCTION die()`)
	if _, approved, err := db.ApproveRun(t.Context(), w.db, run.ID, "an admin", w.clock()); err != nil || !approved {
		t.Fatal(approved, err)
	}
	if err := w.runs.Due(t.Context()); err == nil {
		t.Fatal("the process did not end")
	}
	w.want("running approved", `SELECT state || ' ' || phase FROM serversync.runs WHERE id = $1`, run.ID)
	w.want("true", `SELECT bool_and(outlook <> forecast) FROM serversync.run_items WHERE run_id = $1 AND virtfusion_id < $2`, run.ID, ids[4])
	w.exec(`DROP TRIGGER die ON serversync.runs`)
	again := w.finish(run.ID)
	w.wantAskedAgain(&again, "by +109.50 as charged, approved were +80.30")
}

// TestApprovalOutlivesADeadProcess: what is applied by whoever takes up an approved run
// that broke off is what was approved, whatever the books became meanwhile.
func TestApprovalOutlivesADeadProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		marked  bool // the process had marked what it was about to send
		applied int  // of how many servers it was heard of
		price   int  // cents, meanwhile
		asks    bool
	}{{false, 0, 20000, true}, {true, 0, 20000, true}, {true, 0, 1100, false}, {true, 2, 1100, false}} {
		w, ids, run := held(t)
		w.exec(`CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''57P01'', MESSAGE = ''the process ended''; END'`)
		w.exec(`CREATE TRIGGER die BEFORE UPDATE ON serversync.run_items FOR EACH ROW WHEN (NEW.state = 'sent') EXECUTE FUNCTION die()`)
		if _, approved, err := db.ApproveRun(t.Context(), w.db, run.ID, "an admin", w.clock()); err != nil || !approved {
			t.Fatal(approved, err)
		}
		if err := w.runs.Due(t.Context()); err == nil {
			t.Fatal("the process did not end")
		}
		w.exec(`DROP TRIGGER die ON serversync.run_items`)
		w.want("running applying", `SELECT state || ' ' || phase FROM serversync.runs WHERE id = $1`, run.ID)
		if c.marked {
			w.exec(`UPDATE serversync.run_items SET state = 'sent' WHERE run_id = $1`, run.ID)
		}
		w.exec(`UPDATE package_pricing SET price = $2 WHERE virtfusion_package_id = $1`, packageSmall, c.price)
		if _, err := w.reconciler.RedecideFor(t.Context(), run.ID, ids[:c.applied]); err != nil {
			t.Fatal(err)
		}
		w.exec(`UPDATE serversync.run_items SET state = 'sent', outcome = NULL WHERE run_id = $1 AND outcome IS NOT NULL`, run.ID) // they are about to be written down
		w.pass(time.Hour)
		again := w.finish(run.ID)
		if c.asks {
			w.wantAskedAgain(&again, "approved were +80.30")
			continue
		}
		w.wantState(&again, db.RunSucceeded)
		w.want("11.0000 11.0000 11.0000 11.0000 24.0000", billedMonthly)
		if got := again.Preview.Cost.EffectiveAfter.StringFixed(2); got != "80.30" {
			t.Errorf("what was done is said to be %s", got)
		}
	}
}
