package main_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
	"serversync/ingest"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// prove makes a proof and does it, and what goes before it.
func (w *fleetWorld) prove(runs *ingest.Runs) db.Proof {
	w.Helper()
	w.pass(time.Second)
	p, joined, err := db.StartProof(w.Context(), w.db, db.NewProof("test", w.clock()))
	if err != nil || joined {
		w.Fatalf("start a proof: joined %v, %v", joined, err)
	}
	ctx, cancel := context.WithTimeout(w.Context(), fleetPatience)
	defer cancel()
	if err := runs.Due(ctx); err != nil {
		w.Fatal(err)
	}
	if p, err = db.ReadProof(w.Context(), w.db, p.ID); err != nil {
		w.Fatal(err)
	}
	return p
}

// proving are runs that do something when the proof's own look begins: the sweep
// before it asks for the client first.
func (w *fleetWorld) proving(interval time.Duration, do func()) *ingest.Runs {
	asked := 0
	c := w.config(func(context.Context) (*virtfusion.Client, error) {
		if asked++; asked == 2 && do != nil {
			do()
		}
		return w.client, nil
	})
	c.Interval = interval
	return ingest.NewRuns(c)
}

func (w *fleetWorld) wantProof(p *db.Proof, state string, agree, moved, mended, mismatches int64) {
	w.Helper()
	if p.State != state || p.Agree != agree || p.Moved != moved || p.Mended != mended || p.Mismatches != mismatches || p.EndedAt == nil {
		w.Errorf("the proof is %s (%s): %d agree, %d moved, %d mended, %d mismatches; want %s, %d, %d, %d, %d; details %+v, problems %+v",
			p.State, p.Note, p.Agree, p.Moved, p.Mended, p.Mismatches, state, agree, moved, mended, mismatches, p.Details, p.Problems)
	}
}

func TestAProofOfAFleetInStep(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	w.create(230, accountBeatriz, packageSmall)
	w.create(1, accountNobody, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	before, sequence := w.books(), w.streamLength()
	w.requests.take()

	p := w.prove(w.runs)
	w.wantProof(&p, db.ProofComplete, 231, 0, 0, 0)
	if p.VirtFusionTotal != 231 || p.Listed != 231 || p.KnownLeast != 231 || p.KnownMost != 231 || !p.TotalAgrees() || p.Calls != 2 || p.Pages != 2 {
		t.Errorf("%+v", p)
	}
	if c := p.CoverageSum; c.Total != 231 || c.On != 230 || c.Unlinked != 1 || c.On+c.Native+c.Unlinked+c.Conflict+c.Settling != c.Total {
		t.Errorf("%+v", c)
	}
	if w.books() != before || w.streamLength() != sequence {
		t.Error("a proof of a fleet in step changed something")
	}
	if calls := w.requests.take(); !strings.HasSuffix(strings.Join(calls, ", "), "/servers full1, /servers full2") || len(calls) != 4 {
		t.Errorf("the calls were %v; want a sweep's, then all pages in full", calls)
	}
	w.want("succeeded", `SELECT state FROM serversync.runs WHERE id = $1`, p.SweepRun)
}

// TestWhatChangesWhileAProofReads is no mismatch: nor what the sweep before it
// mends, nor what only VirtFusion's word for each server tells.
func TestWhatChangesWhileAProofReads(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	ids := w.create(20, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	must(t, w.panel.Rename, ids[0], "before the sweep", "a.example")
	p := w.prove(w.proving(15*time.Minute, func() {
		w.pass(time.Second)
		must(t, w.panel.Rename, ids[1], "after the sweep", "b.example")
		if err := w.panel.DestroySilently(ids[2]); err != nil {
			t.Error(err)
		}
		if _, err := w.panel.Move(ids[3], accountChen); err != nil {
			t.Error(err)
		}
		w.create(1, accountChen, packageLarge)
	}))
	w.wantProof(&p, db.ProofComplete, 20, 0, 4, 0)
	w.want("1", `SELECT count(*) FROM serversync.servers WHERE status = 'gone' AND virtfusion_id = $1`, ids[2])
	w.want("after the sweep", `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[1])
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, ids[2])
	w.want("21", `SELECT count(*) FROM serversync.servers`)
}

// TestAProofWaitsForTheReconciler: what is on the stream already is no mismatch, and
// need not be told again.
func TestAProofWaitsForTheReconciler(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	ids := w.create(20, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	asked, told := 0, false
	c := w.config(func(context.Context) (*virtfusion.Client, error) {
		if asked++; asked == 2 { // the sweep is over
			w.pass(time.Second)
			must(t, w.panel.Rename, ids[1], "renamed", "b.example")
		}
		return w.client, nil
	})
	c.Stream = func(ctx context.Context) (last, acknowledged uint64, err error) {
		if !told { // after the pages were read: the webhook comes late
			told = true
			client := func(context.Context) (*virtfusion.Client, error) { return w.client, nil }
			if err := ingest.NewRefetcher(client, w.stream.Publisher, w.clock).Refetch(ctx, ids[1:2]); err != nil {
				return 0, 0, err
			}
			return 0, 0, errors.New("the broker is away")
		}
		return events.Applied(ctx, w.stream.JetStream)
	}
	p := w.prove(ingest.NewRuns(c))
	w.wantProof(&p, db.ProofComplete, 20, 1, 0, 0)
}

// TestAProofFindsWhatStaysDifferent has the inventory hold on to what is wrong.
func TestAProofFindsWhatStaysDifferent(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	ids := w.create(8, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	if _, err := w.db.ExecContext(t.Context(), fmt.Sprintf(`
		UPDATE serversync.servers SET package_id = 77 WHERE virtfusion_id = %[1]d;
		UPDATE serversync.servers SET billing = 'off', billing_reason = 'operator' WHERE virtfusion_id = %[3]d;
		CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			CASE OLD.virtfusion_id
			WHEN %[1]d THEN NEW.package_id := OLD.package_id;
			WHEN %[2]d THEN NEW.status := OLD.status; NEW.gone_at := NULL; NEW.billing := OLD.billing; NEW.billing_reason := NULL;
			WHEN %[3]d THEN NEW.billing := OLD.billing; NEW.billing_reason := OLD.billing_reason;
			ELSE NULL;
			END CASE;
			RETURN NEW;
		END $$;
		CREATE TRIGGER hold BEFORE UPDATE ON serversync.servers FOR EACH ROW EXECUTE FUNCTION hold()`, ids[0], ids[1], ids[2])); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	if err := w.panel.DestroySilently(ids[1]); err != nil {
		t.Fatal(err)
	}
	p := w.prove(w.runs)
	var got []string
	for _, m := range p.Details {
		got = append(got, fmt.Sprintf("%d %s: %s, %s", m.ServerID, m.Field, m.Ours, m.Theirs))
	}
	want := []string{
		fmt.Sprintf("%d package_id: 77, %d", ids[0], packageSmall),
		fmt.Sprintf("%d existence: external, not found", ids[1]),
		fmt.Sprintf("%d billing: external, not billed: operator, row %s is on", ids[2], w.value(`SELECT billing_id FROM serversync.servers WHERE virtfusion_id = $1`, ids[2])),
		"0 total: 8, 7",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got:\n%s\nwant:\n%s", g, w)
	}
	w.wantProof(&p, db.ProofComplete, 5, 0, 0, 4)

	// The watchdog's rule, until a complete proof finds nothing.
	mismatched := func() (found int64) {
		t.Helper()
		report, err := db.Audit(t.Context(), w.db, db.AuditQuery{Now: w.clock(), Since: w.clock(), BackBillHours: 6, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range report.Counts {
			if c.Rule == db.AuditProofMismatch {
				found = c.Findings
			}
		}
		return found
	}
	if got := mismatched(); got != 4 {
		t.Errorf("the watchdog has %d findings, want 4", got)
	}
	if _, err := w.db.ExecContext(t.Context(), `DROP TRIGGER hold ON serversync.servers`); err != nil {
		t.Fatal(err)
	}
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError, Op: virtfusionsim.OpList})
	p = w.prove(w.runs)
	w.wantProof(&p, db.ProofIncomplete, 0, 0, 0, 0)
	if got := mismatched(); got != 4 {
		t.Errorf("after a proof that saw nothing the watchdog has %d findings, want 4", got)
	}
	w.panel.SetAPIFaults()
	p = w.prove(w.runs)
	if p.State != db.ProofComplete || p.Mismatches != 0 || p.Agree != 7 {
		t.Errorf("once the inventory lets go: %+v", p)
	}
	if got := mismatched(); got != 0 {
		t.Errorf("after a complete proof the watchdog has %d findings", got)
	}
}

// TestAProofIsFooledByNoAnswer: what could not be seen is said, and nothing that
// was not seen agrees.
func TestAProofIsFooledByNoAnswer(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute, timeout: 2 * time.Second})
	ids := w.create(450, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	books := w.books()
	for _, c := range []struct {
		fault   virtfusionsim.APIFault
		problem string
		agree   int64
	}{
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultUnauthorized}, "virtfusion_unauthorized", 0},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError, Op: virtfusionsim.OpList, Page: 2}, "virtfusion_unavailable", 250},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultEmptyList, Op: virtfusionsim.OpList}, "list_leaves_out", 0},
		{virtfusionsim.APIFault{Kind: virtfusionsim.FaultShortPage, Op: virtfusionsim.OpList, Page: 2}, "page_short", -1},
	} {
		w.pass(time.Hour)
		p := w.prove(w.proving(15*time.Minute, func() { w.panel.SetAPIFaults(c.fault) }))
		w.panel.SetAPIFaults()
		if p.State != db.ProofIncomplete || p.Mismatches != 0 || len(p.Problems) == 0 || p.Problems[0].Code != c.problem || c.agree >= 0 && p.Agree != c.agree || p.Agree >= 450 {
			t.Errorf("%s: %s (%s), %d agree, %d mismatches, %+v", c.fault.Kind, p.State, p.Note, p.Agree, p.Mismatches, p.Problems)
		}
		if w.books() != books {
			t.Fatalf("%s: the books changed", c.fault.Kind)
		}
	}

	// A server that VirtFusion does not answer for is neither gone nor in step.
	p := w.prove(w.proving(15*time.Minute, func() {
		w.pass(time.Second)
		must(t, w.panel.Rename, ids[5], "x", "x.example")
		w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError, Op: virtfusionsim.OpGet})
	}))
	w.panel.SetAPIFaults()
	w.wantProof(&p, db.ProofIncomplete, 449, 0, 0, 0)
}

// TestProofsComeByTheClock: once a week, the first a week after the first sweep;
// what could not see everything is tried again after six hours, and one that was
// begun goes on.
func TestProofsComeByTheClock(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute})
	w.create(3, accountBeatriz, packageSmall)
	due := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), fleetPatience)
		defer cancel()
		if err := w.runs.Due(ctx); err != nil {
			t.Fatal(err)
		}
	}
	count := func(want string) {
		t.Helper()
		w.want(want, `SELECT string_agg(state, ' ' ORDER BY started_at) FROM serversync.proofs`)
	}
	due()
	w.pass(7*24*time.Hour - time.Minute)
	due()
	count("null")
	w.pass(time.Minute)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServerError})
	due()
	count("incomplete")
	w.panel.SetAPIFaults()
	w.pass(6*time.Hour - time.Minute)
	due()
	count("incomplete")
	w.pass(time.Minute)
	due()
	count("incomplete complete")
	w.pass(7*24*time.Hour - time.Minute)
	due()
	count("incomplete complete")
	w.pass(time.Minute)

	// Its process ends while it reads.
	c := w.config(nil)
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	c.Interval = 15 * time.Minute
	c.Client = func(context.Context) (*virtfusion.Client, error) {
		if asked++; asked == 2 {
			cancel()
		}
		return w.client, nil
	}
	if err := ingest.NewRuns(c).Due(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v; want that it was cancelled", err)
	}
	count("incomplete complete running")
	due()
	count("incomplete complete complete")
	w.want("3", `SELECT agree FROM serversync.proofs ORDER BY started_at DESC LIMIT 1`)
	w.want("clock", `SELECT requested_by FROM serversync.proofs ORDER BY started_at DESC LIMIT 1`)
}

// TestAProofOfWhatWaitsForApproval: those servers are neither in step nor a fault,
// and are not told of again, whatever they differ in, but for an end.
func TestAProofOfWhatWaitsForApproval(t *testing.T) {
	t.Parallel()
	w := newFleetWorld(t, fleetOptions{interval: 15 * time.Minute, maxChanges: "12"})
	w.create(5, accountBeatriz, packageSmall)
	first := w.sweep()
	w.wantState(&first, db.RunSucceeded)
	held := w.create(20, accountChen, packageSmall)
	asked, sequence := 0, uint64(0)
	c := w.config(func(ctx context.Context) (*virtfusion.Client, error) {
		if asked++; asked == 2 { // the sweep is over
			w.pass(time.Second)
			if _, err := w.panel.Move(held[0], accountBeatriz); err != nil {
				t.Error(err)
			}
			if err := w.panel.DestroySilently(held[1]); err != nil {
				t.Error(err)
			}
			last, _, err := events.Applied(ctx, w.stream.JetStream)
			sequence = last
			return w.client, err
		}
		return w.client, nil
	})
	var err error
	if c.MaxChanges, err = ingest.ParseMaxChanges("12"); err != nil {
		t.Fatal(err)
	}
	p := w.prove(ingest.NewRuns(c))
	if p.State != db.ProofComplete || p.Agree != 5 || p.Awaiting != 19 || p.Total != 24 || p.Mended != 1 {
		t.Errorf("%s: %d of %d agree, %d wait for approval, %d mended; %+v", p.State, p.Agree, p.Total, p.Awaiting, p.Mended, p.Details)
	}
	if got := w.streamLength(); got != sequence+1 {
		t.Errorf("it published %d events, want one", got-sequence)
	}
	if len(p.Details) > 0 {
		t.Errorf("%+v", p.Details)
	}
}
