package main_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/virtfusion/virtfusionsim"
)

func TestSweepFindsWhatNoWebhookTold(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	w.create(3, accountBeatriz, packageSmall)
	w.create(2, accountChen, packageLarge)
	w.create(1, accountNobody, packageSmall)

	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("5", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	w.want("1", `SELECT count(*) FROM serversync.servers WHERE status = 'unlinked'`)
	w.want("5", `SELECT count(*) FROM serversync.billing_rows WHERE run_id = $1`, run.ID)
	if got := w.totals(run.ID); got.New != 5 || got.Unchanged != 1 || got.Expected != 6 || got.Processed != 6 {
		t.Errorf("the totals are %+v", got)
	}
	// Without an interval every sweep reads everything in full: packages and
	// addresses too.
	w.want("6", `SELECT count(*) FROM serversync.servers WHERE package_id IS NOT NULL AND ip_addresses <> '{}'`)
	if got := strings.Join(w.requests.take(), ", "); got != "/servers full1" {
		t.Errorf("the calls were %s", got)
	}

	// What it said beforehand is what came to pass.
	if p := run.Preview; p == nil || p.Create != 5 || p.None != 1 || p.Customers != 2 || p.ListMonthly.StringFixed(2) != "69.90" {
		t.Errorf("the preview was %+v", p)
	}
	w.want("69.9000", `SELECT sum(monthly_price) FROM virtfusion_hourly_billing`)
}

func TestSweepOfAFleetInStepCostsItsPagesOnly(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	w.create(230, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	before := w.books()
	sequence := w.streamLength()
	w.requests.take()

	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if after := w.books(); after != before {
		t.Errorf("the sweep of a fleet in step changed something")
	}
	if got := w.streamLength(); got != sequence {
		t.Errorf("it published %d events", got-sequence)
	}
	w.want("0", `SELECT count(*) FROM serversync.run_items WHERE run_id = $1`, run.ID)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE last_seen_at < $1`, run.StartedAt)
	if calls := w.requests.take(); len(calls) != 2 {
		t.Errorf("it made the calls %v", calls)
	}
}

// TestWithinADayEveryPageIsReadInFull: a simple row says neither package nor
// addresses, and a change of these alone may leave "updated" as it was.
func TestWithinADayEveryPageIsReadInFull(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 4 * time.Hour})
	w.create(450, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	w.requests.take()
	for range 24 / 4 {
		w.pass(4 * time.Hour)
		run := w.sweep()
		w.wantState(&run, db.RunSucceeded)
	}
	calls := strings.Join(w.requests.take(), ",")
	for page := 1; page <= 3; page++ {
		if n := strings.Count(calls+",", fmt.Sprintf("/servers full%d,", page)); n < 1 || n > 2 {
			t.Errorf("page %d was read in full %d times within a day: %s", page, n, calls)
		}
	}
}

func TestSweepFindsEveryDifference(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	ids := w.create(8, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)

	// The panel tells nobody: its webhooks go nowhere.
	w.pass(time.Hour)
	must(t, w.panel.Rename, ids[0], "renamed", "renamed.example")
	if _, err := w.panel.Move(ids[1], accountChen); err != nil {
		t.Fatal(err)
	}
	if _, err := w.panel.SetPackage(ids[2], packageLarge); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.DestroySilently(ids[3]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.panel.Suspend(ids[4]); err != nil {
		t.Fatal(err)
	}
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if p := run.Preview; p.Move != 1 || p.Change != 1 || p.End != 1 || p.Create != 0 {
		t.Errorf("the preview was %+v", p)
	}
	w.want("renamed", `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
	w.want(strconv.Itoa(userChen), `SELECT user_id FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, ids[1])
	w.want("24.0000", `SELECT monthly_price FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[2])
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[3])
	w.want("false", `SELECT billing_enabled FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[3])
	w.want("true", `SELECT suspended FROM serversync.servers WHERE virtfusion_id = $1`, ids[4])
	w.want("0", `SELECT count(*) FROM serversync.history WHERE kind LIKE 'billing%' AND run_id IS NULL`)
}

func TestSweepFindsWhatChangedOnSkyPANELsSide(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	w.create(4, accountBeatriz, packageSmall)
	unpriced := w.create(1, accountChen, packageCustom)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("unpriced", `SELECT billing_reason FROM serversync.servers WHERE virtfusion_id = $1`, unpriced[0])

	w.exec(`UPDATE package_pricing SET price = 900 WHERE virtfusion_package_id = $1`, packageSmall)
	w.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price, enabled) VALUES ($1, 'Custom', 5000, true)`, packageCustom)
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if p := run.Preview; p.Change != 5 || p.ListMonthly.StringFixed(2) != "56.80" {
		t.Errorf("the preview was %+v", p)
	}
	w.want("86.0000", `SELECT sum(monthly_price) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	if got := w.totals(run.ID); got.Updated != 5 {
		t.Errorf("the totals are %+v", got)
	}
}

// TestTheBooksAreReviewedThoughVirtFusionIsAway: a price takes effect though no
// page can be read, and the sweep does not call itself a success.
func TestTheBooksAreReviewedThoughVirtFusionIsAway(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	w.create(2, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServiceUnavailable})
	w.exec(`UPDATE package_pricing SET price = 900 WHERE virtfusion_package_id = $1`, packageSmall)
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunFailed)
	w.want("18.0000", `SELECT sum(monthly_price) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

func TestSweepAsksBeforeItChangesMuch(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "20%"})
	w.create(40, accountBeatriz, packageSmall)

	// The first fill asks too.
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	w.want("40", `SELECT count(*) FROM serversync.servers WHERE status = 'settling' AND awaiting_run = $1`, run.ID)
	if p := run.Preview; p.Create != 40 || p.Limit != 10 || p.FirstCharges != 40 || p.EffectiveMonthly.StringFixed(2) != "292.00" || len(p.Largest) != 10 {
		t.Errorf("the preview was %+v", p)
	}

	// Nothing else decides them meanwhile.
	w.pass(time.Hour)
	if err := w.reconciler.SettleDue(w.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.reconciler.BooksPassDue(w.Context()); err != nil {
		t.Fatal(err)
	}
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)

	// A newer sweep takes its place.
	newer := w.sweep()
	w.wantState(&newer, db.RunNeedsApproval)
	w.want("superseded", `SELECT state FROM serversync.runs WHERE id = $1`, run.ID)
	w.want(newer.ID, `SELECT superseded_by FROM serversync.runs WHERE id = $1`, run.ID)
	w.want("40", `SELECT count(*) FROM serversync.servers WHERE awaiting_run = $1`, newer.ID)

	done := w.approve(newer.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("40", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE awaiting_run <> ''`)
	if got := w.totals(newer.ID); got.New != 40 || got.Held != 0 {
		t.Errorf("the totals are %+v", got)
	}

	// A price that somebody mistyped reaches nobody.
	w.exec(`UPDATE package_pricing SET price = 73000 WHERE virtfusion_package_id = $1`, packageSmall)
	w.pass(time.Hour)
	if err := w.reconciler.BooksPassDue(w.Context()); err != nil {
		t.Fatal(err)
	}
	wrong := w.sweep()
	w.wantState(&wrong, db.RunNeedsApproval)
	w.want("40", `SELECT count(*) FROM virtfusion_hourly_billing WHERE monthly_price = 7.3`)
	// Corrected, the next sweep has nothing to ask.
	w.exec(`UPDATE package_pricing SET price = 730 WHERE virtfusion_package_id = $1`, packageSmall)
	w.pass(time.Hour)
	right := w.sweep()
	w.wantState(&right, db.RunSucceeded)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE awaiting_run <> ''`)
	w.want("40", `SELECT count(*) FROM virtfusion_hourly_billing WHERE monthly_price = 7.3`)
}

// TestWhatNeedsNoApprovalGoesOn: a run over the cap publishes what changes no
// billing, and only that.
func TestWhatNeedsNoApprovalGoesOn(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "3"})
	known := w.create(3, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	must(t, w.panel.Rename, known[0], "renamed", "x.example")
	w.create(6, accountChen, packageSmall)
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.want("renamed", `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, known[0])
	w.want("3", `SELECT count(*) FROM virtfusion_hourly_billing`)
	if got := w.totals(run.ID); got.Held != 6 || got.Unchanged != 1 {
		t.Errorf("the totals are %+v", got)
	}
}

func TestWhatWasApprovedMustStillBeSo(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "5"})
	w.create(8, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)

	w.exec(`UPDATE package_pricing SET price = 7300 WHERE virtfusion_package_id = $1`, packageSmall)
	again := w.approve(run.ID)
	w.wantState(&again, db.RunNeedsApproval)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	if again.Preview.ListMonthly.StringFixed(2) != "584.00" {
		t.Errorf("the new preview is %+v", again.Preview)
	}
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("8", `SELECT count(*) FROM virtfusion_hourly_billing`)
}

func TestSuddenlyEmptyListAlwaysAsks(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	ids := w.create(3, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if err := w.panel.DestroySilently(ids[0]); err != nil {
		t.Fatal(err)
	}
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultEmptyList, Op: virtfusionsim.OpList})
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.want("3", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	if run.Preview.Missing != 3 {
		t.Errorf("the preview was %+v", run.Preview)
	}
	// Approved, VirtFusion is asked for each: two are still there.
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("2", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	w.want("1", `SELECT count(*) FROM serversync.servers WHERE status = 'gone'`)
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "5"})
	w.create(30, accountBeatriz, packageSmall)
	before := w.books()
	run := w.finish(w.start(true))
	w.wantState(&run, db.RunSucceeded)
	if run.Preview.Create != 30 || run.Preview.Asks == "" {
		t.Errorf("the preview was %+v", run.Preview)
	}
	if w.books() != before {
		t.Error("a dry run changed something")
	}
	if n := w.streamLength(); n != 0 {
		t.Errorf("a dry run published %d events", n)
	}
}

func TestObserveOnlyFillsTheInventoryUnasked(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "5", observeOnly: true})
	w.create(30, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("30", `SELECT count(*) FROM serversync.servers`)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	if run.Preview.Create != 30 {
		t.Errorf("the preview was %+v", run.Preview)
	}
}

// must calls something that returns what nobody needs.
func must[A, B, R any](t *testing.T, do func(int64, A, B) (R, error), id int64, a A, b B) {
	t.Helper()
	if _, err := do(id, a, b); err != nil {
		t.Fatal(err)
	}
}

// TestASweepThatIsNotWholeTakesOverWhatItDidNotSee: what an older run held must
// not be lost because the newer one could not read its page.
func TestASweepThatIsNotWholeTakesOverWhatItDidNotSee(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "20", interval: time.Hour})
	w.create(250, accountBeatriz, packageSmall)
	old := w.sweep()
	w.wantState(&old, db.RunNeedsApproval)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError, Op: virtfusionsim.OpList, Page: 2})
	w.pass(time.Hour)
	newer := w.sweep()
	w.wantState(&newer, db.RunNeedsApproval)
	w.wantProblem(&newer, "virtfusion_unavailable")
	if newer.Preview.Create != 250 {
		t.Errorf("the preview was %+v", newer.Preview)
	}
	w.panel.SetAPIFaults()
	done := w.approve(newer.ID)
	w.wantState(&done, db.RunIncomplete) // it did not see everything
	w.want("250", `SELECT count(*) FROM virtfusion_hourly_billing`)
	if got := w.totals(newer.ID); got.New != 250 || got.Processed != 250 {
		t.Errorf("the totals are %+v", got)
	}
}

// TestRelinkedCustomersAreCapped: when links of users change in SkyPANEL, the
// servers' owners are others than their rows say. VirtFusion is asked before
// such a row is closed, and its answers must not get past the cap.
func TestRelinkedCustomersAreCapped(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "8"})
	var run db.Run
	for range 2 {
		w.create(8, accountKofi, packageSmall) // VirtFusion knows no relation of his
		run = w.sweep()
		w.wantState(&run, db.RunSucceeded)
	}
	w.exec(fmt.Sprintf(`UPDATE users SET virtfusion_id = CASE id WHEN %d THEN %d ELSE %d END WHERE id IN (%[1]d, %[4]d)`, userKofi, accountChen, accountKofi, userChen))
	w.pass(time.Hour)
	if err := w.reconciler.BooksPassDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE ask <> ''`)
	run = w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	if p := run.Preview; p.Move != 16 {
		t.Errorf("the preview was %+v", p)
	}
	w.want("16", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1 AND billing_enabled`, userKofi)
}

// TestWhatSettlesBelongsToTheRunThatFoundIt: a new server waits for SkyPANEL's own
// row; ours, when it comes, carries the id of the run.
func TestWhatSettlesBelongsToTheRunThatFoundIt(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	if _, err := w.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: accountBeatriz, PackageID: packageSmall, Name: "new", Built: true, Silent: true}); err != nil {
		t.Fatal(err)
	}
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if got := w.totals(run.ID); got.Settling != 1 || got.Unchanged != 1 {
		t.Errorf("the totals are %+v", got)
	}
	settling, err := db.SettlingOfRun(t.Context(), w.db, run.ID, 10)
	if err != nil || len(settling) != 1 || settling[0].Name != "new" {
		t.Errorf("what settles: %+v, %v", settling, err)
	}
	if p := run.Preview; p.Create != 1 { // the row to come
		t.Errorf("the preview was %+v", p)
	}
	w.pass(time.Hour)
	if err := w.reconciler.SettleDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(run.ID, `SELECT run_id FROM serversync.billing_rows`)
	w.want(run.ID, `SELECT run_id FROM serversync.history WHERE kind = 'billing_created'`)
}
