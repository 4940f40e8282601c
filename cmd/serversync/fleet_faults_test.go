package main_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/ingest"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// TestSweepIsFooledByNoAnswer sweeps a fleet of three pages again and again,
// each time with another kind of bad answer. Nobody's billing may end, nobody
// may be billed for what does not exist, and no such sweep may call itself a
// success.
func TestSweepIsFooledByNoAnswer(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{timeout: 6 * time.Second, interval: time.Hour}) // the race detector takes its time over a huge name
	ids := w.create(450, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	books := `SELECT md5(string_agg(b::text, ',' ORDER BY id)) FROM virtfusion_hourly_billing b`
	before := w.value(books)

	const list = virtfusionsim.OpList
	for _, c := range []struct {
		fault   virtfusionsim.APIFault
		state   string
		problem string
		sees    bool // a change on page 3
	}{
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultUnauthorized}, db.RunFailed, "virtfusion_unauthorized", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultUnauthorizedText, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_unauthorized", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultForbidden}, db.RunFailed, "virtfusion_forbidden", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultNotFoundPage}, db.RunFailed, "virtfusion_malformed", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultNotFound, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_not_found", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultTooManyRequests}, db.RunFailed, "virtfusion_rate_limited", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_unavailable", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultTruncatedJSON, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_malformed", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultCutOff, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_unavailable", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultHTML, Op: list, Page: 1}, db.RunFailed, "virtfusion_malformed", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultHTMLAsJSON, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_malformed", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultHanging, Op: list, Page: 2}, db.RunIncomplete, "virtfusion_unavailable", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultRepeatingPage, Op: list}, db.RunIncomplete, "virtfusion_failed", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultGrowingLastPage, Op: list}, db.RunIncomplete, "listing_endless", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultEndlessServers, Op: list}, db.RunIncomplete, "listing_endless", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultShrinkingTotal, Op: list}, db.RunIncomplete, "listing_shifts", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultShortPage, Op: list, Page: 2}, db.RunIncomplete, "page_short", true},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultEmptyList, Op: list}, db.RunNeedsApproval, "", false},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultHugeName, Op: list}, db.RunSucceeded, "", true},
	} {
		name := fmt.Sprintf("%s, page %d", c.fault.Kind, c.fault.Page)
		w.pass(time.Hour)
		changed := "renamed before " + name
		must(t, w.panel.Rename, ids[449], changed, "x.example")
		w.panel.SetAPIFaults(c.fault)
		run := w.sweep()
		if run.State != c.state {
			t.Errorf("%s: the run is %s (%s), want %s; problems %+v", name, run.State, run.Note, c.state, run.Problems)
		}
		if c.problem != "" && !slices.ContainsFunc(run.Problems, func(p db.Problem) bool { return p.Code == c.problem }) {
			t.Errorf("%s: the run does not name the problem %s: %+v", name, c.problem, run.Problems)
		}
		for _, p := range run.Problems {
			if !strings.ContainsAny(p.Message, ":") {
				t.Errorf("%s: the problem does not say what to do: %s", name, p.Message)
			}
		}
		if after := w.value(books); after != before {
			t.Fatalf("%s: the sweep changed the books", name)
		}
		if n := w.value(`SELECT count(*) FROM serversync.servers WHERE status = 'gone'`); n != "0" {
			t.Errorf("%s: %s servers are taken for gone", name, n)
		}
		if got := w.value(`SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[449]) == changed; got != c.sees {
			t.Errorf("%s: the change on page 3 was seen: %v, want %v", name, got, c.sees)
		}
		w.panel.SetAPIFaults()
		healed := w.sweep()
		w.wantState(&healed, db.RunSucceeded)
		w.want(changed, `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[449])
		w.want("450", `SELECT count(*) FROM serversync.servers`)
	}
}

// TestServersThatMoveBetweenPagesAreNotMissed destroys a server of the first page while the
// second is asked for, so that one slips to a page that was read already.
func TestServersThatMoveBetweenPagesAreNotMissed(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: time.Hour})
	ids := w.create(450, accountBeatriz, packageSmall)
	var once atomic.Bool
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultNone, Op: virtfusionsim.OpList, Page: 2, First: 1, Before: func() {
		if once.CompareAndSwap(false, true) {
			for _, id := range ids[10:13] {
				if err := w.panel.DestroySilently(id); err != nil {
					t.Error(err)
				}
			}
		}
	}})
	run := w.sweep()
	if !once.Load() {
		t.Fatal("nothing was destroyed in the middle")
	}
	w.wantState(&run, db.RunSucceeded)
	// The three were seen before they went; all others are there too.
	w.want("447", `SELECT count(*) FROM serversync.servers WHERE virtfusion_id <> ALL($1::bigint[])`, ids[10:13])
	if run.Progress.Rescans == 0 {
		t.Error("no page was read again")
	}
	next := w.sweep()
	w.wantState(&next, db.RunSucceeded)
	w.want("3", `SELECT count(*) FROM serversync.servers WHERE status = 'gone'`)
	w.want("447", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

func TestAListThatOmitsServersEndsNothing(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "10", interval: time.Hour})
	ids := w.create(12, accountBeatriz, packageSmall)
	run := w.sweep()
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	// Omitted from the list, one of them is gone, one answers with an error.
	if err := w.panel.DestroySilently(ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.DestroySilently(ids[1]); err != nil {
		t.Fatal(err)
	}
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError, Op: virtfusionsim.OpGet, ServerID: ids[1]})
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunIncomplete)
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
	w.want("external", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[1])
	w.want("failed", `SELECT outcome FROM serversync.run_items WHERE run_id = $1 AND virtfusion_id = $2`, run.ID, ids[1])
	w.want("11", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

func TestAnotherLeaderGoesOnWhereTheFirstWasKilled(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: time.Hour})
	w.create(1000, accountBeatriz, packageSmall)
	ctx, kill := context.WithCancel(t.Context())
	var pages atomic.Int64
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultNone, Op: virtfusionsim.OpList, Before: func() {
		w.pass(2 * time.Second) // so that each page is noted
		if pages.Add(1) == 6 {  // each page is read twice: most servers are new
			kill()
		}
	}})
	id := w.start(false)
	if err := w.runs.Due(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("the first leader ended with %v", err)
	}
	w.want(db.RunRunning, `SELECT state FROM serversync.runs WHERE id = $1`, id)
	reached := w.value(`SELECT progress->>'page' FROM serversync.runs WHERE id = $1`, id)
	if reached == "0" {
		t.Fatal("nothing was noted of how far it had come")
	}
	w.panel.SetAPIFaults()
	w.requests.take()
	maxChanges, err := ingest.ParseMaxChanges("100%")
	if err != nil {
		t.Fatal(err)
	}
	w.runs = w.newRuns(maxChanges, fleetOptions{interval: time.Hour})
	run := w.finish(id)
	w.wantState(&run, db.RunSucceeded)
	if calls := w.requests.take(); slices.Contains(calls, "/servers simple1") && reached != "1" {
		t.Errorf("it began again from the first page, after page %s was done: %v", reached, calls)
	}
	w.want("1000", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

func TestOneOfSeveralProcessesSweeps(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	w.create(3, accountBeatriz, packageSmall)
	maxChanges, err := ingest.ParseMaxChanges("100%")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	for range 3 {
		runs := w.newRuns(maxChanges, fleetOptions{interval: 15 * time.Minute})
		g.Go(func() error { return runs.RunSweeps(ctx) })
	}
	// At start, by itself, once.
	w.until("1", `SELECT count(*) FROM serversync.runs WHERE state = 'succeeded' AND requested_by = 'clock'`)
	w.want("1", `SELECT count(*) FROM serversync.runs`)
	first := w.value(`SELECT worker FROM serversync.runs`)

	// The leader's connection is lost, and another process goes on.
	w.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, 0x7377656570&0xffffffff)
	for i := 2; ; i++ { // it may win the lead again
		w.pass(20 * time.Minute)
		w.until(strconv.Itoa(i), `SELECT count(*) FROM serversync.runs WHERE state = 'succeeded'`)
		if i == 2 {
			break
		}
	}
	w.want("2", `SELECT count(*) FROM serversync.runs`)
	_ = first
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestARotatedTokenNeedsNoRestart(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: time.Hour})
	w.create(450, accountBeatriz, packageSmall)
	good := w.client
	old, err := virtfusion.New(virtfusion.Config{BaseURL: "http://127.0.0.1:1", Token: "old", MaxRetries: -1, Transport: refuses{}})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	runs := ingest.NewRuns(w.config(func(context.Context) (*virtfusion.Client, error) {
		if asked.Add(1) == 1 {
			return old, nil
		}
		return good, nil
	}))
	w.runs = runs
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("450", `SELECT count(*) FROM serversync.servers`)
}

func TestAUsersOwnSync(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "1", interval: time.Hour})
	mine := w.create(4, accountBeatriz, packageSmall)
	others := w.create(4, accountChen, packageSmall)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.runs.RunSyncs(ctx) }()
	sync := func(user int64) db.Run {
		id, _, err := w.runs.StartSync(t.Context(), user, false, "test")
		if err != nil {
			t.Fatal(err)
		}
		w.until("false", `SELECT state = 'running' FROM serversync.runs WHERE id = $1`, id)
		run, err := db.ReadRun(t.Context(), w.db, id)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	run := sync(userBeatriz) // exempt from the cap, up to ten servers
	w.wantState(&run, db.RunSucceeded)
	if got := w.totals(run.ID); got.New != 4 || got.Expected != 4 {
		t.Errorf("the totals are %+v", got)
	}
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE virtfusion_id = ANY($1::bigint[])`, others)

	// Servers that the list omits are asked for by their ids: one moved away,
	// one is gone.
	if err := w.panel.DestroySilently(mine[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.panel.Move(mine[1], accountChen); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	run = sync(userBeatriz)
	w.wantState(&run, db.RunSucceeded)
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, mine[0])
	w.want(strconv.Itoa(userChen), `SELECT user_id FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, mine[1])

	// More than ten wait for an admin.
	w.create(12, accountBeatriz, packageSmall)
	run = sync(userBeatriz)
	w.wantState(&run, db.RunNeedsApproval)
	approved := w.approve(run.ID)
	w.wantState(&approved, db.RunSucceeded)
	w.want("14", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1 AND billing_enabled`, userBeatriz)

	// Whom VirtFusion does not know.
	run = sync(userLiv)
	w.wantState(&run, db.RunFailed)
	w.wantProblem(&run, "user_not_linked")
	if _, _, err := w.runs.StartSync(t.Context(), 999, false, "test"); !errors.Is(err, db.ErrNoUser) {
		t.Errorf("an unknown user: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, _, err := w.runs.StartSync(t.Context(), userBeatriz, false, "test"); !errors.Is(err, ingest.ErrNoSyncs) {
		t.Errorf("after the end: %v", err)
	}
	w.want("0", `SELECT count(*) FROM serversync.runs WHERE state = 'running'`)
}
