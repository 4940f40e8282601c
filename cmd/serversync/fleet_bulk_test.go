package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/ingest"
	"serversync/virtfusion/virtfusionsim"
)

var bulkWishes = map[string]db.WishChange{
	"resync":      {},
	"billing-on":  {Set: db.WishBillingOn, Drop: []string{db.WishBillingOff, db.WishIgnore, db.WishUndone}},
	"billing-off": {Set: db.WishBillingOff, Drop: []string{db.WishBillingOn}},
	"set-package": {Set: db.WishPackage, PackageID: new(int64(packageLarge))},
	"ignore":      {Set: db.WishIgnore, Drop: []string{db.WishBillingOn, db.WishBillingOff}},
	"clear":       {Drop: []string{db.WishBillingOn, db.WishBillingOff, db.WishPackage, db.WishIgnore, db.WishUndone}},
}

func (w *replayWorld) bulk(action, reason string, dryRun bool, ids ...int64) db.Run {
	w.Helper()
	w.pass(time.Second)
	slices.Sort(ids)
	id, err := w.runs.StartBulk(w.Context(), ingest.BulkOrder{
		IDs: ids, Order: db.BulkOrder{Action: action, WishChange: bulkWishes[action], Reason: reason}, DryRun: dryRun, By: "ann",
	})
	if err != nil {
		w.Fatal(err)
	}
	return w.ended(id)
}

// results are what became of a run's servers.
func (w *replayWorld) results(run *db.Run) string {
	w.Helper()
	items, err := db.ItemResults(w.Context(), w.db, run.ID, 0, 100)
	if err != nil {
		w.Fatal(err)
	}
	var all []string
	for _, i := range items {
		all = append(all, strings.TrimSpace(fmt.Sprint(i.Found, " ", i.Outcome, " ", i.Effect)))
	}
	return strings.Join(all, ", ")
}

// TestBulkWishes: an operator's word takes effect at once, without approval,
// says who gave it and why, and stands until they take it back.
func TestBulkWishes(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	ids := w.create(4, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.work("1")
	on := `SELECT string_agg(billing_enabled::text || ' ' || monthly_price, ', ' ORDER BY virtfusion_server_id) FROM virtfusion_hourly_billing`
	all := func(row string) string { return strings.Join([]string{row, row, row, row}, ", ") }
	before := all("true 7.3000")
	w.want(before, on)
	for _, test := range []struct {
		action, effect, after, status string
	}{
		{"billing-off", "end", all("false 7.3000"), "external off operator"},
		{"billing-on", "change", before, "external on null"},
		{"set-package", "change", all("true 24.0000"), "external on null"},
		{"ignore", "end", all("false 24.0000"), "external off operator"},
		{"clear", "change", before, "external on null"},
	} {
		w.pass(time.Hour)
		was := w.value(on)
		dry := w.bulk(test.action, "because", true, ids...)
		w.wantState(&dry, db.RunSucceeded)
		w.want(was, on)
		if got := w.results(&dry); got != strings.TrimSuffix(strings.Repeat("named  "+test.effect+", ", 4), ", ") {
			t.Errorf("the dry run of %s tells %s", test.action, got)
		}
		if dry.Preview == nil || dry.Preview.Changes != 4 || dry.Preview.Asks != "" {
			t.Errorf("the preview of %s was %+v", test.action, dry.Preview)
		}
		w.want("0", `SELECT count(*) FROM serversync.history WHERE run_id = $1`, dry.ID)

		run := w.bulk(test.action, "because", false, ids...)
		w.wantState(&run, db.RunSucceeded)
		w.want(test.after, on)
		if got, want := w.totals(run.ID), (db.RunTotals{Expected: 4, Processed: 4, Updated: 4}); got != want {
			t.Errorf("the totals of %s are %+v, want %+v", test.action, got, want)
		}
		w.want("4", `SELECT count(*) FROM serversync.history WHERE run_id = $1 AND kind = 'wish' AND source = 'operator' AND reason LIKE 'ann %: because' AND before <> after AND user_id = $2`, run.ID, userBeatriz)
		w.want(test.status, `SELECT DISTINCT status || ' ' || billing || ' ' || coalesce(billing_reason, 'null') FROM serversync.servers`)
		again := w.bulk(test.action, "because", false, ids...)
		w.wantState(&again, db.RunSucceeded)
		w.want("0", `SELECT count(*) FROM serversync.history WHERE run_id = $1`, again.ID)
		sweep := w.sweep() // no sweep reverts it
		w.wantState(&sweep, db.RunSucceeded)
		w.want(test.after, on)
	}
	w.want("0", `SELECT count(*) FROM serversync.overrides`)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE last_billed_at < (SELECT max(at) FROM serversync.history WHERE kind = 'billing_changed')`)
}

// TestBulkEndsWhatContradictsIt: who wants a server billed wants it neither off
// nor left alone; the package stays.
func TestBulkEndsWhatContradictsIt(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	ids := w.create(1, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	for _, test := range [][2]string{
		{"billing-off", "billing_off"},
		{"set-package", "billing_off, package"},
		{"ignore", "ignore, package"},
		{"billing-on", "billing_on, package"},
		{"billing-off", "billing_off, package"},
		{"clear", "null"},
	} {
		run := w.bulk(test[0], "", false, ids...)
		w.wantState(&run, db.RunSucceeded)
		w.want(test[1], `SELECT string_agg(kind, ', ' ORDER BY kind) FROM serversync.overrides WHERE set_by = 'ann'`)
	}
}

// TestBulkOfUnknownServers: each fails for itself.
func TestBulkOfUnknownServers(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	ids := w.create(2, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	for _, action := range []string{"billing-off", "resync"} {
		for _, dryRun := range []bool{true, false} {
			run := w.bulk(action, "", dryRun, ids[0], 9999, 1<<40)
			w.wantState(&run, db.RunIncomplete)
			if got := w.results(&run); strings.Count(got, "unknown failed") != 2 || strings.Count(got, "failed") != 2 {
				t.Errorf("%s, dry run %v: %s", action, dryRun, got)
			}
			if got := w.totals(run.ID); got.Expected != 3 || got.Failed != 2 {
				t.Errorf("the totals of %s are %+v", action, got)
			}
		}
	}
	// A dry run does nothing to the others either, and that is no problem.
	if run := w.bulk("billing-off", "", true, ids[0], ids[1], 9999); !strings.HasSuffix(run.Note, ": 1 problem") {
		t.Errorf("a dry run of which one server is unknown says: %s", run.Note)
	}
	w.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	w.want("0", `SELECT count(*) FROM serversync.overrides WHERE virtfusion_id >= 9999`)
	w.want("2", `SELECT count(*) FROM serversync.servers`)
}

func TestBulkResync(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	ids := w.create(4, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.work("1")
	w.pass(time.Hour)
	must(t, w.panel.Rename, ids[0], "renamed", "x.example")
	if err := w.panel.DestroySilently(ids[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.panel.SetPackage(ids[2], packageLarge); err != nil {
		t.Fatal(err)
	}
	books := w.books()
	dry := w.bulk("resync", "", true, ids[:3]...)
	w.wantState(&dry, db.RunSucceeded)
	if got := w.results(&dry); w.books() != books || got != "asked  none, gone  end, asked  change" {
		t.Errorf("the dry run tells %s", got)
	}
	run = w.bulk("resync", "", false, ids[:3]...)
	w.wantState(&run, db.RunSucceeded)
	if got := w.results(&run); got != "asked unchanged none, gone updated end, asked updated change" {
		t.Errorf("it tells %s", got)
	}
	w.want("renamed", `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[1])
	w.want("24.0000", `SELECT monthly_price FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[2])

	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServiceUnavailable})
	books = w.books()
	away := w.bulk("resync", "", false, ids...)
	w.wantState(&away, db.RunIncomplete)
	if got := w.totals(away.ID); got.Failed != 4 || w.books() != books {
		t.Errorf("with VirtFusion away the totals are %+v", got)
	}
}
