package db_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

func runNow() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// aRun is a run that is running.
func aRun(id, kind string, user *int64, started time.Time) *db.Run {
	return &db.Run{ID: id, Kind: kind, State: db.RunRunning, Phase: db.PhaseQueued, UserID: user, StartedAt: started, BeatAt: started}
}

func startRun(t *testing.T, database *bun.DB, r *db.Run) {
	t.Helper()
	if id, joined, err := db.StartRun(t.Context(), database, r); err != nil || joined || id != r.ID {
		t.Fatalf("start %s: %s, %v, %v", r.ID, id, joined, err)
	}
}

func TestOneSweepAndOneSyncOfAUserAtATime(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			var err error
			if ids[i], _, err = db.StartRun(t.Context(), database, aRun(fmt.Sprintf("s%d", i), db.RunSweep, nil, runNow())); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two sweeps run at once: %v", ids)
		}
	}
	dry := aRun("dry", db.RunSweep, nil, runNow())
	dry.DryRun = true
	startRun(t, database, dry) // beside the other
	startRun(t, database, aRun("u7", db.RunSync, new(int64(7)), runNow()))
	startRun(t, database, aRun("u8", db.RunSync, new(int64(8)), runNow()))
	if id, joined, err := db.StartRun(t.Context(), database, aRun("again", db.RunSync, new(int64(7)), runNow())); err != nil || !joined || id != "u7" {
		t.Errorf("a second sync of a user: %s, %v, %v", id, joined, err)
	}
}

func TestARunIsItsWorkersAlone(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	run := aRun("r", db.RunSweep, nil, runNow())
	startRun(t, database, run)
	if err := db.TakeRun(t.Context(), database, run, "first", runNow()); err != nil {
		t.Fatal(err)
	}
	second := *run
	if err := db.TakeRun(t.Context(), database, &second, "second", runNow()); err != nil {
		t.Fatal(err)
	}
	if err := db.SaveRun(t.Context(), database, run, runNow()); !errors.Is(err, db.ErrLostRun) {
		t.Errorf("the first worker still writes: %v", err)
	}
	if err := db.BeatRun(t.Context(), database, "r", "first", runNow()); !errors.Is(err, db.ErrLostRun) {
		t.Errorf("the first worker still shows life: %v", err)
	}
	second.State, second.Phase, second.EndedAt = db.RunSucceeded, db.PhaseEnded, new(runNow())
	if err := db.SaveRun(t.Context(), database, &second, runNow()); err != nil {
		t.Fatal(err)
	}
	if err := db.TakeRun(t.Context(), database, run, "third", runNow()); !errors.Is(err, db.ErrLostRun) {
		t.Errorf("a run that has ended is taken up: %v", err)
	}
}

func TestItemsCountOnceHoweverOftenTheyAreCompleted(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	startRun(t, database, aRun("r", db.RunSweep, nil, runNow()))
	items := []db.RunItem{{ServerID: 1, Found: db.FoundNew, Event: "{}"}, {ServerID: 2, Found: db.FoundNew, Event: "{}"}, {ServerID: 3, Found: db.FoundMissing}}
	if err := db.StageItems(t.Context(), database, "r", items); err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []string{db.OutcomeNew, db.OutcomeUnchanged} {
		if err := db.CompleteItems(t.Context(), database, []db.Completion{
			{RunID: "r", ServerID: 1, Outcome: outcome},
			{RunID: "r", ServerID: 3, Outcome: db.OutcomeFailed, Error: "why"},
			{RunID: "other", ServerID: 1, Outcome: outcome},
		}); err != nil {
			t.Fatal(err)
		}
	}
	// What is done is not staged again, whatever finds it.
	if err := db.StageItems(t.Context(), database, "r", items); err != nil {
		t.Fatal(err)
	}
	totals, err := db.TotalsOfRuns(t.Context(), database, []string{"r"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (db.RunTotals{Expected: 3, Processed: 2, New: 1, Failed: 1}); totals["r"] != want {
		t.Errorf("the totals are %+v, want %+v", totals["r"], want)
	}
	wantTable(t, database, "1|done|null\n2|staged|{}\n3|done|null", `SELECT virtfusion_id, state, event FROM serversync.run_items ORDER BY 1`)
}

func TestANewerRunTakesOverWhatAnOlderOneHeld(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	for _, r := range []*db.Run{
		aRun("old", db.RunSweep, nil, runNow()), aRun("sync", db.RunSync, new(int64(7)), runNow()), aRun("other", db.RunSync, new(int64(8)), runNow()),
	} {
		startRun(t, database, r)
		if err := db.StageItems(t.Context(), database, r.ID, []db.RunItem{{ServerID: 1, Found: db.FoundNew, Event: "old"}, {ServerID: 2, Found: db.FoundNew, Event: "old"}}); err != nil {
			t.Fatal(err)
		}
		if err := db.MoveItems(t.Context(), database, r.ID, []int64{1, 2}, db.ItemStaged, db.ItemHeld); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, database, `UPDATE serversync.runs SET state = 'needs_approval' WHERE id IN ('old', 'sync')`)
	exec(t, database, `INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at, awaiting_run)
		SELECT i, 'settling', now(), 'sweep', 'x', now(), now(), 'old' FROM generate_series(1, 2) AS i`)

	newer := aRun("new", db.RunSweep, nil, runNow())
	startRun(t, database, newer)
	if err := db.StageItems(t.Context(), database, "new", []db.RunItem{{ServerID: 1, Found: db.FoundAwaiting, Event: "new"}}); err != nil {
		t.Fatal(err)
	}
	// Approving the old one now would do what the newer one looks at anew.
	if _, approved, err := db.ApproveRun(t.Context(), database, "old", "ada", runNow()); err != nil || approved {
		t.Errorf("approved beside a sweep that runs: %v, %v", approved, err)
	}
	err := database.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		ids, err := db.Supersede(ctx, tx, newer)
		if fmt.Sprint(ids) != "[old sync]" {
			t.Errorf("superseded %v", ids)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "1|staged|new\n2|staged|old", `SELECT virtfusion_id, state, event FROM serversync.run_items WHERE run_id = 'new' ORDER BY 1`)
	wantTable(t, database, "new\nnew", `SELECT awaiting_run FROM serversync.servers`)
	wantTable(t, database, "new|running|null\nold|superseded|new\nother|running|null\nsync|superseded|new", `SELECT id, state, superseded_by FROM serversync.runs ORDER BY 1`)

	// What the run is through with is let go when it ends.
	if err := db.CompleteItems(t.Context(), database, []db.Completion{{RunID: "new", ServerID: 2, Outcome: db.OutcomeNew}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Release(t.Context(), database, "new"); err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "1|new\n2|", `SELECT virtfusion_id, awaiting_run FROM serversync.servers ORDER BY 1`)
}

func TestARunIsApprovedOnce(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	startRun(t, database, aRun("r", db.RunSweep, nil, runNow()))
	if _, approved, err := db.ApproveRun(t.Context(), database, "r", "ada", runNow()); err != nil || approved {
		t.Errorf("a run that runs was approved: %v, %v", approved, err)
	}
	exec(t, database, `UPDATE serversync.runs SET state = 'needs_approval', worker = 'w'`)
	run, approved, err := db.ApproveRun(t.Context(), database, "r", "ada", runNow())
	if err != nil || !approved || run.State != db.RunRunning || run.Phase != db.PhaseApproved || run.ApprovedBy != "ada" {
		t.Errorf("approve: %+v, %v, %v", run, approved, err)
	}
	if _, approved, err := db.ApproveRun(t.Context(), database, "r", "bob", runNow()); err != nil || approved {
		t.Errorf("approved twice: %v, %v", approved, err)
	}
	open, err := db.OpenRuns(t.Context(), database)
	if err != nil || len(open) != 1 || open[0].ApprovedBy != "ada" {
		t.Errorf("what is open: %+v, %v", open, err)
	}
}

func TestSyncsWhoseProcessEndedAreIncomplete(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	startRun(t, database, aRun("dead", db.RunSync, new(int64(1)), runNow().Add(-time.Hour)))
	startRun(t, database, aRun("alive", db.RunSync, new(int64(2)), runNow()))
	startRun(t, database, aRun("sweep", db.RunSweep, nil, runNow().Add(-time.Hour))) // another leader goes on with it
	ids, err := db.AbandonRuns(t.Context(), database, runNow().Add(-time.Minute), runNow())
	if err != nil || fmt.Sprint(ids) != "[dead]" {
		t.Errorf("abandoned %v, %v", ids, err)
	}
	wantTable(t, database, "incomplete|worker_lost", `SELECT state, problems->0->>'code' FROM serversync.runs WHERE id = 'dead'`)
}

func TestAPageIsComparedAndMarkedInOneStatement(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database.DB, `INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, owner_ext_relation_id, name, status, package_id, ip_addresses, updated_at,
			observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at, awaiting_run, ask, confirmed)
		SELECT i, 'uuid' || i, 7, CASE WHEN i = 14 THEN 5 END, 'srv' || i, CASE WHEN i = 3 THEN 'gone' ELSE 'external' END, 4, '{192.0.2.1,2001:db8::/64}', $1,
			$1, 'sweep', 'x', $1, $1, CASE WHEN i = 6 THEN 'run' ELSE '' END, CASE WHEN i = 7 THEN 'why?' ELSE '' END, i <> 8
		FROM generate_series(1, 14) AS i`, runNow())
	row := func(id int64) db.Listed {
		return db.Listed{ID: id, UUID: new(fmt.Sprintf("uuid%d", id)), OwnerID: new(int64(7)), Name: new(fmt.Sprintf("srv%d", id)), UpdatedAt: new(runNow())}
	}
	page := []db.Listed{row(1), row(2), row(3), row(4), row(5), row(6), row(7), row(8), row(9), row(10), row(11), row(12), row(13), row(14)}
	page[1] = db.Listed{ID: 2} // says nothing, and so nothing else
	page[3].UUID = new("another")
	page[4].OwnerID = new(int64(8))
	page[8].UpdatedAt = new(runNow().Add(time.Second))
	page[9].UpdatedAt = new(runNow().Add(-time.Second)) // an older answer
	page[10].PackageID = new(int64(9))
	page[11].IPAddresses = []string{}
	page[12].IPAddresses = []string{"192.0.2.1", "2001:db8::/64"}
	page[13].OwnerWhole = true // and no relation any more
	page = append(page, db.Listed{ID: 99, Name: new("new")})
	want := "[{3 reappeared} {4 uuid} {5 owner} {6 awaiting} {7 unsettled} {8 unsettled} {9 changed} {11 changed} {12 changed} {14 owner} {99 new}]"

	drift, err := db.DriftOf(t.Context(), database, page)
	if err != nil || fmt.Sprint(drift) != want {
		t.Errorf("DriftOf:\n%v, %v, want\n%v", drift, err, want)
	}
	wantTable(t, database.DB, "0", `SELECT count(*) FROM serversync.servers WHERE last_seen_at > $1`, runNow())
	conn, release, err := db.Unhurried(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	wantTable(t, conn, "off|session", `SELECT setting, source FROM pg_settings WHERE name = 'synchronous_commit'`)
	drift, err = db.SeeListed(t.Context(), conn, page, runNow().Add(time.Minute))
	if err != nil || fmt.Sprint(drift) != want {
		t.Errorf("SeeListed:\n%v, %v, want\n%v", drift, err, want)
	}
	release()
	wantTable(t, database.DB, "14", `SELECT count(*) FROM serversync.servers WHERE last_seen_at > $1`, runNow())
	// A later sweep's mark stays, whatever an earlier one says.
	if _, err := db.SeeListed(t.Context(), database, page, runNow()); err != nil {
		t.Fatal(err)
	}
	wantTable(t, database.DB, "14", `SELECT count(*) FROM serversync.servers WHERE last_seen_at > $1`, runNow())
	for range 20 { // no connection of the pool is left in a hurry-less state
		wantTable(t, database, "false", `SELECT source = 'session' FROM pg_settings WHERE name = 'synchronous_commit'`)
	}
}

func TestOneProcessLeads(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	first, err := db.TryLead(t.Context(), database)
	if err != nil || first == nil {
		t.Fatalf("%v, %v", first, err)
	}
	if second, err := db.TryLead(t.Context(), database); err != nil || second != nil {
		t.Errorf("two lead: %v, %v", second, err)
	}
	if led, err := db.Leading(t.Context(), database); err != nil || !led {
		t.Errorf("nobody leads: %v, %v", led, err)
	}
	if err := first.Check(t.Context()); err != nil {
		t.Error(err)
	}
	// A lead does not outlive its connection.
	exec(t, database, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if err := first.Check(t.Context()); err == nil {
		t.Error("a lead whose connection is gone is still held")
	}
	_ = first.Release(t.Context())
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	third, err := db.TryLead(t.Context(), database)
	for err == nil && third == nil { // its backend is still ending
		select {
		case <-deadline.C:
			t.Fatal("nobody can lead any more")
		default:
			third, err = db.TryLead(t.Context(), database)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if led, err := db.Leading(t.Context(), database); err != nil || led {
		t.Errorf("somebody leads after the end: %v, %v", led, err)
	}
}
