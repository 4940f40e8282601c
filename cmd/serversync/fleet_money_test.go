package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
	"serversync/ingest"
	"serversync/reconciler"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// rewriting changes what VirtFusion's answers say.
type rewriting struct {
	next    http.RoundTripper
	rewrite func(body string) string
}

// RoundTrip implements [http.RoundTripper].
func (r rewriting) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(strings.NewReader(r.rewrite(string(body))))
	return answer, nil
}

// withClient gives the world another API client.
func (w *fleetWorld) withClient(transport http.RoundTripper) {
	w.Helper()
	var err error
	w.client, err = virtfusion.New(virtfusion.Config{
		BaseURL: "http://cp.example", Token: virtfusionsim.DefaultToken, MaxRetries: -1, Budget: virtfusion.NewBudget(1e9), Clock: w.clock, Transport: transport,
	})
	if err != nil {
		w.Fatal(err)
	}
}

// TestAWrongTotalDoesNotLiftTheCap: what counts is what was seen.
func TestAWrongTotalDoesNotLiftTheCap(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "20%"})
	w.withClient(rewriting{inProcess{w.panel.Handler()}, func(body string) string {
		return strings.Replace(body, `"total":60`, `"total":1000000`, 1)
	}})
	w.create(60, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.wantProblem(&run, "listing_incomplete")
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
}

// TestABrokenRunLetsNothingGo: a run that takes over what an older one held, and
// breaks off before anybody could see it, leaves it waiting.
func TestABrokenRunLetsNothingGo(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "5"})
	w.create(30, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)

	c := w.config(func(context.Context) (*virtfusion.Client, error) { return w.client, nil })
	maxChanges, err := ingest.ParseMaxChanges("5")
	if err != nil {
		t.Fatal(err)
	}
	c.Interval, c.MaxChanges = 0, maxChanges
	c.Books = brokenPreview{w.reconciler}
	whole := w.runs
	w.runs = ingest.NewRuns(c)
	w.pass(time.Hour)
	broken := w.finish(w.start(false))
	w.wantState(&broken, db.RunNeedsApproval)
	w.wantProblem(&broken, "internal_error")
	w.pass(time.Hour)
	if err := w.reconciler.SettleDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	w.want("30", `SELECT count(*) FROM serversync.servers WHERE awaiting_run = $1`, broken.ID)

	// Approved unseen, it is worked out and shown; approved again, it is done.
	w.runs = whole
	shown := w.approve(broken.ID)
	w.wantState(&shown, db.RunNeedsApproval)
	if shown.Preview == nil || shown.Preview.Create != 30 {
		t.Errorf("the preview was %+v", shown.Preview)
	}
	w.approve(broken.ID)
	w.want("30", `SELECT count(*) FROM virtfusion_hourly_billing`)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE awaiting_run <> ''`)
}

// brokenPreview cannot preview what was observed.
type brokenPreview struct{ *reconciler.Reconciler }

func (b brokenPreview) Preview(ctx context.Context, ids []int64, news []events.Event) ([]db.RunEffect, error) {
	if len(news) > 0 {
		return nil, errors.New("it cannot be previewed")
	}
	return b.Reconciler.Preview(ctx, ids, news)
}

// TestAnswersAfterTheApprovalAreShown: a person approved ends; asked, VirtFusion
// says that the servers have moved.
func TestAnswersAfterTheApprovalAreShown(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	ids := w.create(4, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultEmptyList, Op: virtfusionsim.OpList})
	for _, id := range ids {
		if _, err := w.panel.Move(id, accountChen); err != nil {
			t.Fatal(err)
		}
	}
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	again := w.approve(run.ID)
	w.wantState(&again, db.RunNeedsApproval)
	if p := again.Preview; p.Move != 4 || p.End != 0 {
		t.Errorf("the preview was %+v", p)
	}
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1`, userChen)
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("4", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1 AND billing_enabled`, userChen)
}

// TestWhatWasApprovedCountsServerByServer: other customers at the same sum are
// not what was approved.
func TestWhatWasApprovedCountsServerByServer(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "3"})
	w.create(5, accountKofi, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.exec(fmt.Sprintf(`UPDATE users SET virtfusion_id = CASE id WHEN %d THEN %d ELSE %d END WHERE id IN (%[1]d, %[4]d)`, userKofi, accountChen, accountKofi, userChen))
	again := w.approve(run.ID)
	w.wantState(&again, db.RunNeedsApproval)
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
}

// TestAConfirmedEndDoesNotWait: a server that VirtFusion, asked, does not know is
// not billed on because a price waits for approval.
func TestAConfirmedEndDoesNotWait(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "20"})
	ids := w.create(20, accountBeatriz, packageSmall)
	more := w.create(5, accountChen, packageLarge)
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.approve(run.ID)
	w.exec(`UPDATE package_pricing SET price = price * 10`)
	for _, id := range []int64{ids[0], more[0]} {
		if err := w.panel.DestroySilently(id); err != nil {
			t.Fatal(err)
		}
	}
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.want("2", `SELECT count(*) FROM serversync.servers WHERE status = 'gone'`)
	w.want("23", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled AND monthly_price < 30`)
}

// TestASweepThatSawNothingTakesNothingOver: what waits goes on waiting under the
// run that found it.
func TestASweepThatSawNothingTakesNothingOver(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{maxChanges: "5"})
	w.create(30, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunNeedsApproval)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultUnauthorized})
	w.pass(time.Hour)
	failed := w.sweep()
	w.wantState(&failed, db.RunFailed)
	w.panel.SetAPIFaults()
	done := w.approve(run.ID)
	w.wantState(&done, db.RunSucceeded)
	w.want("30", `SELECT count(*) FROM virtfusion_hourly_billing`)
}

// TestARestoredBackupIsBelieved: after VirtFusion was put back in time its servers
// say that they changed before what we know. Asked for each, it is believed.
func TestARestoredBackupIsBelieved(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: time.Hour})
	ids := w.create(3, accountBeatriz, packageSmall)
	must(t, w.panel.Rename, ids[0], "later", "later.example")
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.exec(`UPDATE serversync.servers SET updated_at = updated_at + interval '1 year', owner_id = $1, name = 'from the future'`, accountChen)
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE owner_id <> $1 OR name = 'from the future'`, accountBeatriz)
}

// TestAClockAheadIsNotBelieved: answers that VirtFusion dates a month ahead would
// count as the newest for a month.
func TestAClockAheadIsNotBelieved(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	ids := w.create(2, accountBeatriz, packageSmall)
	ahead := virtfusionsim.New(virtfusionsim.Config{Clock: w.clock, Skew: 30 * 24 * time.Hour, Seed: 7})
	for _, a := range w.world.Accounts {
		ahead.AddUser(virtfusionsim.User{ID: a.ID, ExtRelationID: a.ExtRelationID, Name: a.Name})
	}
	for range 2 {
		if _, err := ahead.CreateServer(virtfusionsim.CreateArgs{OwnerID: accountBeatriz, Name: "srv", Built: true, Silent: true, Created: w.clock().Add(-24 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	right := w.client
	w.withClient(inProcess{ahead.Handler()})
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE observed_at > $1`, w.clock().Add(time.Hour))
	w.client = right
	if err := w.panel.DestroySilently(ids[0]); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
}

// TestSweepsGoOnAfterAClockThatWasAhead: what began under it is not waited for, nor
// is a sweep begun at every look.
func TestSweepsGoOnAfterAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	w.create(1, accountBeatriz, packageSmall)
	looks := func(want string) {
		t.Helper()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), fleetPatience)
			defer cancel()
			if err := w.runs.Due(ctx); err != nil {
				t.Fatal(err)
			}
			w.want(want, `SELECT count(*) FROM serversync.runs WHERE kind = 'sweep'`)
		}
	}
	looks("1")
	w.pass(24 * time.Hour)
	looks("2")
	w.pass(-23 * time.Hour) // it is put right
	looks("3")
	w.pass(-4 * time.Minute) // so much may clocks be apart
	looks("3")
	w.pass(24 * time.Minute)
	looks("4")
}

// TestOtherClocksMissNoServer: a run that a process with a fast clock asked for
// does not take for missing what it listed itself.
func TestOtherClocksMissNoServer(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: time.Hour})
	w.create(18, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	ahead := db.NewSweep(false, "a fast clock", w.clock().Add(10*time.Minute))
	if _, _, err := db.StartRun(t.Context(), w.db, ahead); err != nil {
		t.Fatal(err)
	}
	run = w.finish(ahead.ID)
	w.wantState(&run, db.RunSucceeded)
	if run.Progress.Missing != 0 {
		t.Errorf("%d servers were taken for missing", run.Progress.Missing)
	}
	w.pass(2 * time.Hour) // and the clock goes on
	w.finish(ahead.ID)
	w.want("true", `SELECT count(*) >= 3 FROM serversync.runs WHERE kind = 'sweep'`)
}

// TestWhatAPreviewCallsHarmlessSaysSo: the reconciler holds such an event to it.
func TestWhatAPreviewCallsHarmlessSaysSo(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{})
	ids := w.create(1, accountBeatriz, packageSmall)
	last := func() events.Event {
		stream, err := w.stream.JetStream.Stream(t.Context(), events.StreamName)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetMsg(t.Context(), w.streamLength())
		if err != nil {
			t.Fatal(err)
		}
		e, err := events.Decode(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if e := last(); e.Expected != "" { // it makes a billing row
		t.Errorf("the creation is expected to do %q", e.Expected)
	}
	must(t, w.panel.Rename, ids[0], "renamed", "x.example")
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if e := last(); e.Expected != events.ExpectNothing || *e.Server.Name != "renamed" {
		t.Errorf("the new name is expected to do %q", e.Expected)
	}
}
