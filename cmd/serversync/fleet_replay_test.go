package main_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"serversync/db"
	"serversync/events"
	"serversync/ingest"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// replayWorld is a fleetWorld with the process that works on users' syncs,
// replays and bulk actions.
type replayWorld struct {
	*fleetWorld

	past *pastOnce
}

// pastOnce is the stream, of which the next republication can be made to go
// otherwise.
type pastOnce struct {
	*events.Replayer

	mu   sync.Mutex
	next func(ctx context.Context, some []*events.Event) error
}

func (p *pastOnce) Republish(ctx context.Context, some []*events.Event) error {
	p.mu.Lock()
	next := p.next
	p.next = nil
	p.mu.Unlock()
	if next != nil {
		return next(ctx, some)
	}
	return p.Replayer.Republish(ctx, some)
}

// first has the next republication go otherwise.
func (w *replayWorld) first(do func(ctx context.Context, some []*events.Event) error) {
	w.past.mu.Lock()
	defer w.past.mu.Unlock()
	w.past.next = do
}

func newReplayWorld(t *testing.T) *replayWorld {
	t.Helper()
	f := newFleetWorld(t, fleetOptions{})
	w := &replayWorld{fleetWorld: f, past: &pastOnce{Replayer: events.NewReplayer(f.stream.JetStream, f.stream.Publisher)}}
	w.work("100%")
	return w
}

// work starts a process that works on replays, within a limit.
func (w *replayWorld) work(maxChanges string) {
	w.Helper()
	limit, err := ingest.ParseMaxChanges(maxChanges)
	if err != nil {
		w.Fatal(err)
	}
	c := w.config(func(context.Context) (*virtfusion.Client, error) { return w.client, nil })
	c.MaxChanges, c.Interval, c.Past = limit, 0, w.past
	w.runs = ingest.NewRuns(c)
	runs := w.runs
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	done := make(chan error, 1)
	go func() { done <- runs.RunSyncs(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
}

// ended waits for a run that another goroutine works on.
func (w *replayWorld) ended(id string) db.Run {
	w.Helper()
	w.until("true", `SELECT state <> 'running' FROM serversync.runs WHERE id = $1`, id)
	run, err := db.ReadRun(w.Context(), w.db, id)
	if err != nil {
		w.Fatal(err)
	}
	return run
}

func (w *replayWorld) replay(o ingest.ReplayOrder) db.Run {
	w.Helper()
	w.pass(time.Second)
	id, err := w.runs.StartReplay(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	return w.ended(id)
}

// hear publishes what a webhook would have: how a server looks now, or its end.
func (w *replayWorld) hear(kind events.Kind, id int64) {
	w.Helper()
	seen, err := w.client.GetServer(w.Context(), id)
	if err != nil {
		w.Fatal(err)
	}
	s := &seen.Server
	e := events.Event{
		Kind: kind, Source: events.SourceWebhook, Name: "server." + string(kind), ObservedAt: w.clock(), ReceivedAt: w.clock(),
		Server: events.Server{ID: id, UUID: s.UUID, Name: s.Name, PackageID: s.PackageID, CreatedAt: s.Created, UpdatedAt: s.Updated, Owner: &events.Owner{ID: *s.OwnerID}},
	}
	if _, err := w.stream.Publisher.Publish(w.Context(), &e); err != nil {
		w.Fatal(err)
	}
	w.until(e.ID, `SELECT observed_event_id FROM serversync.servers WHERE virtfusion_id = $1`, id)
}

// ofBeatriz is what matters of her servers and of what they are billed.
func (w *replayWorld) ofBeatriz() string {
	w.Helper()
	return w.value(`SELECT jsonb_build_array(
		(SELECT jsonb_agg(jsonb_build_array(virtfusion_id, uuid, owner_id, name, status, billing, billing_reason, package_id, state, ip_addresses, created_at, updated_at, gone_at IS NULL) ORDER BY virtfusion_id)
			FROM serversync.servers WHERE user_id = $1),
		(SELECT jsonb_agg(jsonb_build_array(virtfusion_server_id, server_uuid, package_id, monthly_price, billing_enabled) ORDER BY virtfusion_server_id)
			FROM virtfusion_hourly_billing WHERE user_id = $1 AND billing_enabled))`, userBeatriz)
}

// wholly is everything that there is of a user.
func (w *replayWorld) wholly(user int64) string {
	w.Helper()
	var b strings.Builder
	for _, query := range []string{
		`SELECT jsonb_agg(to_jsonb(t) - 'last_seen_at' ORDER BY virtfusion_id) FROM serversync.servers t WHERE user_id = $1`,
		`SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM virtfusion_hourly_billing t WHERE user_id = $1`,
		`SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM virtfusion_hourly_transactions t WHERE user_id = $1`,
		`SELECT jsonb_agg(to_jsonb(t) ORDER BY billing_id) FROM serversync.billing_rows t WHERE user_id = $1`,
		`SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM serversync.history t WHERE user_id = $1`,
	} {
		fmt.Fprintln(&b, w.value(query, user))
	}
	return b.String()
}

// replayable is a world in which things have happened, to two customers.
func replayable(t *testing.T) (w *replayWorld, ids []int64) {
	t.Helper()
	w = newReplayWorld(t)
	ids = w.create(5, accountBeatriz, packageSmall)
	w.create(2, accountChen, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.pass(time.Hour)
	must(t, w.panel.Rename, ids[0], "first", "first.example")
	w.hear(events.KindUpdated, ids[0])
	w.pass(time.Hour)
	must(t, w.panel.Rename, ids[0], "second", "second.example")
	w.hear(events.KindUpdated, ids[0])
	if _, err := w.panel.SetPackage(ids[1], packageLarge); err != nil {
		t.Fatal(err)
	}
	w.hear(events.KindUpdated, ids[1])
	w.pass(time.Hour)
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	return w, ids
}

// TestReplayRestores: whatever was lost of a user's books, a replay brings back
// what is so today, and touches nobody else's.
func TestReplayRestores(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string][]string{
		"billing rows":  {`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`},
		"the inventory": {`DELETE FROM serversync.servers WHERE user_id = $1`},
		"both":          {`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`, `DELETE FROM serversync.servers WHERE user_id = $1`},
		"everything": {
			`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`, `DELETE FROM serversync.servers WHERE user_id = $1`,
			`DELETE FROM serversync.billing_rows WHERE user_id = $1`, `DELETE FROM serversync.history WHERE user_id = $1`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, ids := replayable(t)
			before, chen := w.ofBeatriz(), w.wholly(userChen)
			for _, statement := range damage {
				w.exec(statement, userBeatriz)
			}
			run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
			w.wantState(&run, db.RunSucceeded)
			if after := w.ofBeatriz(); after != before {
				t.Errorf("the replay brought back\n%s\nof\n%s", after, before)
			}
			if w.wholly(userChen) != chen {
				t.Error("the replay touched another user's servers")
			}
			want := db.RunTotals{Expected: 5, Processed: 5, New: 5}
			if name == "the inventory" {
				want.New, want.Unchanged = 0, 5
			}
			if got := w.totals(run.ID); got != want {
				t.Errorf("the totals are %+v, want %+v", got, want)
			}
			if p := run.Progress.Replay; p.Events < 8 || p.Limits != "" || !strings.Contains(run.Note, fmt.Sprintf("%d events replayed", p.Events)) {
				t.Errorf("it says %q, and of the stream %+v", run.Note, p)
			}
			if run.Preview == nil || run.Preview.Create != want.New {
				t.Errorf("the preview was %+v", run.Preview)
			}
			w.want("second", `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
			w.want("0", `SELECT count(*) FROM serversync.history WHERE kind LIKE 'billing%' AND run_id IS NULL AND user_id = $1 AND at >= $2`, userBeatriz, run.StartedAt)
		})
	}
}

// TestReplayEndsWithToday: what was destroyed or moved away meanwhile, and
// nobody told, is so after the replay.
func TestReplayEndsWithToday(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(strconv.FormatBool(lost), func(t *testing.T) {
			t.Parallel()
			w, ids := replayable(t)
			w.pass(time.Hour)
			if err := w.panel.DestroySilently(ids[2]); err != nil {
				t.Fatal(err)
			}
			if _, err := w.panel.Move(ids[3], accountChen); err != nil {
				t.Fatal(err)
			}
			made := w.create(1, accountBeatriz, packageSmall)[0]
			if lost {
				w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
			}
			run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
			w.wantState(&run, db.RunSucceeded)
			w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[2])
			w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, ids[2])
			w.want(strconv.Itoa(userChen), `SELECT user_id FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, ids[3])
			w.want(strconv.Itoa(userBeatriz), `SELECT user_id FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 AND billing_enabled`, made)
			if got, want := w.totals(run.ID), (db.RunTotals{Expected: 6, Processed: 6, New: 2, Updated: 1, Unchanged: 3}); got != want {
				t.Errorf("the totals are %+v, want %+v", got, want)
			}
			again := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
			w.wantState(&again, db.RunSucceeded)
			if got, want := w.totals(again.ID), (db.RunTotals{Expected: 6, Processed: 6, Unchanged: 6}); got != want {
				t.Errorf("the totals of another are %+v, want %+v", got, want)
			}
		})
	}
}

// TestReplaysOfReplaysDoNotGrow: what a replay published is in no later one.
func TestReplaysOfReplaysDoNotGrow(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	first := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&first, db.RunSucceeded)
	books, length := w.books(), w.streamLength()
	grown := uint64(first.Progress.Replay.Events + first.Progress.Listed)
	for range 3 {
		run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
		w.wantState(&run, db.RunSucceeded)
		if got, want := run.Progress.Replay.Events, first.Progress.Replay.Events; got != want {
			t.Errorf("a later replay replayed %d events, the first one %d", got, want)
		}
		if got := w.streamLength(); got != length+grown {
			t.Errorf("a later replay published %d events, the first one %d", got-length, grown)
		}
		length = w.streamLength()
	}
	// Only the time at which they were last looked at has moved.
	without := func(books string) string {
		var kept []string
		for line := range strings.Lines(books) {
			if !strings.Contains(line, `"observed_event_id"`) {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	if without(w.books()) != without(books) {
		t.Error("a replay of books in step changed something")
	}
}

func TestReplayDryRun(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	w.work("1")
	w.exec(`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`, userBeatriz)
	w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
	books, length := w.books(), w.streamLength()
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, DryRun: true, By: "test"})
	w.wantState(&run, db.RunSucceeded)
	if w.books() != books || w.streamLength() != length {
		t.Error("a dry run changed something")
	}
	if p := run.Preview; p == nil || p.Create != 5 || p.ListMonthly.IsZero() || len(p.Largest) != 5 {
		t.Errorf("the preview was %+v", p)
	}
}

// TestReplayAsksBeforeItChangesMuch: what waits is replayed once a person has
// approved, by whoever leads then.
func TestReplayAsksBeforeItChangesMuch(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	w.create(9, accountBeatriz, packageSmall)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	before := w.ofBeatriz()
	w.exec(`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1 AND virtfusion_server_id <> (SELECT min(virtfusion_server_id) FROM virtfusion_hourly_billing)`, userBeatriz)
	w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
	w.work("3")
	length := w.streamLength()
	waits := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&waits, db.RunNeedsApproval)
	w.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1`, userBeatriz)
	w.want("13", `SELECT count(*) FROM serversync.servers WHERE awaiting_run = $1`, waits.ID)
	if p, part := waits.Preview, waits.Progress.Replay; p.Create != 13 || p.Limit != 10 || uint64(part.Events)+1 != w.streamLength()-length {
		t.Errorf("the preview was %+v; %d events were replayed, and %d published", p, part.Events, w.streamLength()-length)
	}

	// Its leader ends in the middle of it; the next one goes on.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.first(func(ctx context.Context, some []*events.Event) error {
		defer cancel()
		return errors.Join(w.past.Replayer.Republish(ctx, some[:len(some)/2]), events.ErrNotDurable)
	})
	if _, approved, err := db.ApproveRun(t.Context(), w.db, waits.ID, "an admin", w.clock()); err != nil || !approved {
		t.Fatal(approved, err)
	}
	if err := w.runs.Due(ctx); err == nil {
		t.Fatal("the leader did not end")
	}
	w.work("3")
	done := w.finish(waits.ID)
	w.wantState(&done, db.RunSucceeded)
	if after := w.ofBeatriz(); after != before {
		t.Errorf("the replay brought back\n%s\nof\n%s", after, before)
	}
	if got, want := w.totals(waits.ID), (db.RunTotals{Expected: 14, Processed: 14, New: 13, Unchanged: 1}); got != want {
		t.Errorf("the totals are %+v, want %+v", got, want)
	}
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE awaiting_run <> ''`)
}

// TestReplayOutlivesTheBroker: an event that was published, though nobody
// confirmed it, is published again, and counts once.
func TestReplayOutlivesTheBroker(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	before := w.ofBeatriz()
	w.exec(`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`, userBeatriz)
	w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
	w.first(func(ctx context.Context, some []*events.Event) error {
		return errors.Join(w.past.Replayer.Republish(ctx, some[:3]), events.ErrNotDurable)
	})
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&run, db.RunSucceeded)
	if got, want := w.totals(run.ID), (db.RunTotals{Expected: 5, Processed: 5, New: 5}); got != want {
		t.Errorf("the totals are %+v, want %+v", got, want)
	}
	if after := w.ofBeatriz(); after != before {
		t.Errorf("the replay brought back\n%s\nof\n%s", after, before)
	}
}

// TestReplayThatBreaksOff: it is no success, and another one does it all.
func TestReplayThatBreaksOff(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	before := w.ofBeatriz()
	w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
	w.first(func(ctx context.Context, some []*events.Event) error {
		return errors.Join(w.past.Replayer.Republish(ctx, some[:3]), errors.New("broken"))
	})
	broken := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&broken, db.RunIncomplete)
	w.wantProblem(&broken, "internal_error")
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&run, db.RunSucceeded)
	if after := w.ofBeatriz(); after != before {
		t.Errorf("the replay brought back\n%s\nof\n%s", after, before)
	}
}

// TestReplayWithoutVirtFusion: nothing is billed on old news alone.
func TestReplayWithoutVirtFusion(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	w.exec(`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`, userBeatriz)
	w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
	books, length := w.books(), w.streamLength()
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServiceUnavailable})
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&run, db.RunIncomplete)
	w.wantProblem(&run, "virtfusion_unavailable")
	if w.books() != books || w.streamLength() != length {
		t.Error("it changed something")
	}
}

// TestReplayOfAPart: only what was stored from since to until is replayed, and
// where the stream begins later, the run says so.
func TestReplayOfAPart(t *testing.T) {
	t.Parallel()
	w := newReplayWorld(t)
	id := w.create(1, accountBeatriz, packageSmall)[0]
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	stream, err := w.stream.JetStream.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	stored := func() time.Time {
		w.pass(time.Minute)
		w.hear(events.KindUpdated, id)
		last, err := stream.GetLastMsgForSubject(t.Context(), fmt.Sprintf("virtfusion.users.%d.servers.%d.updated", accountBeatriz, id))
		if err != nil {
			t.Fatal(err)
		}
		return last.Time
	}
	first, second, third := stored(), stored(), stored()
	for _, test := range []struct {
		since, until *time.Time
		want         int64
	}{
		{nil, nil, 4},
		{&first, nil, 3},
		{nil, &second, 3},
		{&second, &second, 1},
		{&second, &third, 2},
		{new(third.Add(1)), nil, 0},
	} {
		run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, Since: test.since, Until: test.until, By: "test"})
		w.wantState(&run, db.RunSucceeded)
		if p := run.Progress.Replay; p.Events != test.want || p.Limits != "" {
			t.Errorf("since %v until %v: %+v, want %d events", test.since, test.until, p, test.want)
		}
	}

	// What was cut off is gone; what is left is replayed.
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(4)); err != nil {
		t.Fatal(err)
	}
	cut := w.replay(ingest.ReplayOrder{UserID: userBeatriz, Since: &first, By: "test"})
	w.wantState(&cut, db.RunSucceeded)
	if p := cut.Progress.Replay; p.Events != 1 || !strings.Contains(p.Limits, "holds nothing from before "+third.UTC().Format(time.RFC3339)) || !strings.HasSuffix(cut.Note, p.Limits) {
		t.Errorf("it says %q, and of the stream %+v", cut.Note, p)
	}
	if all := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"}); all.Progress.Replay.Limits != "" {
		t.Errorf("all that there is was replayed, and it says %q", all.Note)
	}
	if _, err := w.runs.StartReplay(t.Context(), ingest.ReplayOrder{UserID: 999}); !errors.Is(err, db.ErrNoUser) {
		t.Errorf("a user who is nobody: %v", err)
	}
}

// TestReplayOverwritesNothingNewer: news that are older than what is known change
// nothing, also of a server that came to somebody else since.
func TestReplayOverwritesNothingNewer(t *testing.T) {
	t.Parallel()
	w, ids := replayable(t)
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&run, db.RunSucceeded)
	w.want("second", `SELECT name FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
	w.want("24.0000", `SELECT monthly_price FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[1])
	w.want("0", `SELECT count(*) FROM serversync.history WHERE run_id = $1`, run.ID)
	if got, want := w.totals(run.ID), (db.RunTotals{Expected: 5, Processed: 5, Unchanged: 5}); got != want {
		t.Errorf("the totals are %+v, want %+v", got, want)
	}
}

// TestReplayIsNotDoneBeforeItsEnd: what is replayed completes no server of the
// run, for VirtFusion's word of today is still to come.
func TestReplayIsNotDoneBeforeItsEnd(t *testing.T) {
	t.Parallel()
	w, _ := replayable(t)
	w.exec(`DELETE FROM virtfusion_hourly_billing WHERE user_id = $1`, userBeatriz)
	w.exec(`DELETE FROM serversync.servers WHERE user_id = $1`, userBeatriz)
	half := make(chan struct{}) // all is replayed, and the end is to come
	w.first(func(ctx context.Context, some []*events.Event) error {
		defer func() { <-half }()
		return w.past.Replayer.Republish(ctx, some)
	})
	w.pass(time.Second)
	id, err := w.runs.StartReplay(t.Context(), ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("5", `SELECT count(*) FROM serversync.servers WHERE ask <> '' AND status = 'settling'`)
	w.pass(time.Hour)
	if err := w.reconciler.SettleDue(t.Context()); err != nil {
		t.Error(err)
	}
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1`, userBeatriz)
	w.want("5 0", `SELECT count(*) || ' ' || count(outcome) FROM serversync.run_items i JOIN serversync.runs r ON r.id = i.run_id WHERE r.kind = 'replay'`)
	close(half)
	run := w.ended(id)
	w.wantState(&run, db.RunSucceeded)
	if got, want := w.totals(run.ID), (db.RunTotals{Expected: 5, Processed: 5, New: 5}); got != want {
		t.Errorf("the totals are %+v, want %+v", got, want)
	}
	w.want("5", `SELECT count(*) FROM serversync.billing_rows WHERE run_id = $1`, run.ID)
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE ask <> ''`)
}

// TestReplayOfWhatOnlyTheStreamKnows: nothing in the database says that the
// server was ever the user's, and VirtFusion no longer lists it.
func TestReplayOfWhatOnlyTheStreamKnows(t *testing.T) {
	t.Parallel()
	w, ids := replayable(t)
	if err := w.panel.DestroySilently(ids[2]); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"virtfusion_hourly_billing", "serversync.servers", "serversync.billing_rows", "serversync.history"} {
		w.exec(`DELETE FROM `+table+` WHERE user_id = $1`, userBeatriz)
	}
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&run, db.RunSucceeded)
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[2])
	// Nor was it billed for a moment, by what was heard when it was still there.
	w.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[2])
	w.want("0", `SELECT count(*) FROM serversync.history WHERE virtfusion_id = $1 AND kind LIKE 'billing%'`, ids[2])
	w.want("4", `SELECT count(*) FROM virtfusion_hourly_billing WHERE user_id = $1 AND billing_enabled`, userBeatriz)
	if got, want := w.totals(run.ID), (db.RunTotals{Expected: 5, Processed: 5, New: 4, Unchanged: 1}); got != want || run.Preview.Create != 4 {
		t.Errorf("the totals are %+v, want %+v; the preview was %+v", got, want, run.Preview)
	}
}

// TestReplayBringsBackWhatIsThere: VirtFusion reported an end, and shows the
// server today.
func TestReplayBringsBackWhatIsThere(t *testing.T) {
	t.Parallel()
	w, ids := replayable(t)
	w.pass(time.Hour)
	w.hear(events.KindDestroyed, ids[0])
	w.want("gone", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
	run := w.replay(ingest.ReplayOrder{UserID: userBeatriz, By: "test"})
	w.wantState(&run, db.RunSucceeded)
	w.want("external", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, ids[0])
	w.want("true", `SELECT billing_enabled FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[0])
}
