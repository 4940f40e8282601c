package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/api"
	"serversync/db"
	"serversync/db/dbtest"
	"serversync/internal/httpserver"
)

// administered is the admin API with nobody behind it who works on runs: what
// becomes of them a test says itself.
type administered struct {
	db  *bun.DB
	url string
	// away makes the service answer as a proxy whose service is away.
	away atomic.Bool
	// asked is told of each request before it is answered.
	asked atomic.Pointer[func(*http.Request)]
}

// onLook has what follows each look at a run: how many there were, that one
// included.
func (a *administered) onLook(does func(looks int64)) {
	var looks atomic.Int64
	a.asked.Store(new(func(r *http.Request) {
		if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/api/admin/runs/") {
			does(looks.Add(1))
		}
	}))
}

const hostileName = "<img src=x>\x1b]0;owned\x07\x1b[2J\u202e\nserver 99 \"forged\""

func (a *administered) StartSync(ctx context.Context, userID int64, dryRun bool, by string) (string, bool, error) {
	if userID == 404 {
		return "", false, api.ErrNoUser
	}
	state := db.RunRunning
	if userID == 200 { // whose servers are in step at once
		state = db.RunSucceeded
	}
	return db.StartRun(ctx, a.db, &db.Run{
		ID: fmt.Sprintf("sync%d", userID), Kind: db.RunSync, State: state, Phase: db.PhaseQueued, DryRun: dryRun,
		UserID: &userID, RequestedBy: by, StartedAt: time.Now(), BeatAt: time.Now(),
	})
}

func administer(t *testing.T) *administered {
	t.Helper()
	a := &administered{db: dbtest.New(t)}
	server, err := httpserver.New(httpserver.Config{Registry: prometheus.NewRegistry(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := api.New(api.Config{
		DB: a.db, Syncs: a, Replays: a, Bulks: a, AdminToken: testToken, Now: time.Now, Log: zerolog.Nop(),
		Queue: func(context.Context) (int64, error) { return 12, nil }, Checks: func(context.Context) []api.Finding { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	routes.Register(server.Echo())
	handler := server.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		away := a.away.Load()
		if asked := a.asked.Load(); asked != nil {
			(*asked)(r)
		}
		if away {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

func (a *administered) command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return a.commandUntil(t.Context(), args...)
}

func (a *administered) commandUntil(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, append(append([]string{"serversync"}, args...), "--url", a.url, "--admin-token", testToken), &out, &errs)
	return code, out.String(), errs.String()
}

func (a *administered) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := a.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Errorf("%s: %v", query, err)
	}
}

// endNext ends the next run that is begun, once it is there.
func (a *administered) endNext(t *testing.T, state string) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		eventually(t, "a run is begun", func() bool {
			result, err := a.db.ExecContext(t.Context(), `
				UPDATE serversync.runs SET state = ?, phase = 'ended', ended_at = started_at + '90 s'::interval, note = 'a note',
					progress = '{"page": 3, "pages": 3, "total": 250, "listed": 250, "drift": 2, "calls": 5, "callsPerSecond": 10}'
				WHERE state = 'running'`, state)
			if err != nil {
				t.Error(err)
				return true
			}
			n, err := result.RowsAffected()
			return err != nil || n > 0
		})
	})
	t.Cleanup(wg.Wait)
}

// add writes a run with all that a run can say.
func (a *administered) add(t *testing.T, id, state string, dryRun bool) {
	t.Helper()
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := db.Run{
		ID: id, Kind: db.RunSweep, State: state, Phase: db.PhaseEnded, DryRun: dryRun, StartedAt: began, BeatAt: began, EndedAt: new(began.Add(time.Minute)),
		Progress: db.RunProgress{Page: 3, Pages: 3, Total: 250, Listed: 249, Drift: 4, Missing: 1, Calls: 9},
		Problems: []db.Problem{{Code: "page_short", Message: "look again"}, {Code: "access_denied", Message: hostileName, ServerID: 7}},
		Preview: &db.RunPreview{
			Create: 12, Change: 1, Move: 2, End: 3, None: 4, CreateOff: 3, Off: map[string]int64{"unpriced": 1, "self_service": 2}, Customers: 5, FirstCharges: 9,
			FirstChargeAmount: decimal.RequireFromString("0.1233"), ListMonthly: decimal.RequireFromString("90"), EffectiveMonthly: decimal.RequireFromString("65.7"),
			Largest: []db.RunEffect{{
				ServerID: 8, Name: hostileName, UserID: new(int64(41)), Effect: db.EffectCreate, Billing: "on", Why: "made outside SkyPANEL",
				ListAfter: decimal.RequireFromString("10"), EffectiveAfter: decimal.RequireFromString("7.3"),
			}},
			Changes: 18, Limit: 10, Fleet: 250, Asks: "18 changes are more than 10, which may be made unasked",
		},
	}
	if _, err := a.db.NewInsert().Model(&r).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.exec(t, `INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error)
		VALUES (?0, 1, 'new', 'done', 'new', NULL), (?0, 2, 'new', 'done', 'failed', 'requeue it'), (?0, 3, 'new', 'held', NULL, NULL)`, id)
}

func TestSweepFollowsARunToItsEnd(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{"succeeded": exitDone, "failed": exitFailed, "incomplete": exitIncomplete, "superseded": exitIncomplete, "needs_approval": exitIncomplete} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			a := administer(t)
			a.endNext(t, state)
			code, out, errs := a.command(t, "sweep")
			if code != want || !strings.Contains(out, "seen      250 servers of VirtFusion's 250, on 3 pages; 5 API calls") || !strings.Contains(out, "after 1m30s") {
				t.Errorf("exit %d, want %d:\n%s%s", code, want, out, errs)
			}
			if says := strings.Contains(errs, "serversync: run "); says != (code != exitDone) {
				t.Errorf("of the exit code it says: %s", errs)
			}
		})
	}
}

// A dry run that saw everything is done, whatever it found.
func TestADryRunIsDoneWhenItSawEverything(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{"succeeded": exitDone, "needs_approval": exitDone, "incomplete": exitIncomplete, "failed": exitFailed} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			a := administer(t)
			a.endNext(t, state)
			if code, out, errs := a.command(t, "sweep", "--dry-run"); code != want || !strings.Contains(out, "a dry run") || strings.Contains(out, "--approve") {
				t.Errorf("exit %d, want %d:\n%s%s", code, want, out, errs)
			}
		})
	}
}

func TestSweepTellsWhatItFound(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "waits", db.RunNeedsApproval, false)
	code, out, errs := a.command(t, "sweep", "--watch", "waits")
	for _, says := range []string{
		"Sweep (waits): waits for approval after 1m0s",
		"seen      249 servers of VirtFusion's 250, on 3 pages; 9 API calls",
		"found     4 servers differ from what was known, 1 known ones were not listed",
		"became    1 new, 1 failed, 1 waiting for approval",
		"  page_short: look again\n",
		`  server 7: access_denied: <img src=x>\x1b]0;owned`,
		"  server 2: server_failed: requeue it; its story: serversync explain 2\n",
		"for 5 customers:", "create    12 billing rows, 3 of them not billed (2 self_service, 1 unpriced)",
		"others    1 change, 2 move to another owner, 3 end, 4 stay as they are",
		"at once   9 first charges of 0.1233 in all are recorded as pending; nobody collects them",
		"a month   +90.00 by the prices, +65.70 as it is charged: SkyPANEL charges each hour in whole tokens (cents), rounded",
		`  server 8 "<img src=x>\x1b]0;owned`, "of user 41: create, billing on, 0.00 → 10.00 (charged 0.00 → 7.30)\n    made outside SkyPANEL\n",
		"It waits for approval: 18 changes are more than 10, which may be made unasked.\nTo let it be done: serversync sweep --approve waits\n",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("it does not say %q", says)
		}
	}
	if code != exitIncomplete || t.Failed() {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	if strings.ContainsAny(out+errs, "\x1b\x07\u202e") || strings.Contains(out+errs, "\nserver 99") {
		t.Errorf("a name was let loose on the terminal:\n%q", out)
	}

	code, out, errs = a.command(t, "sweep", "--watch", "waits", "--json")
	var printed, served api.Run
	client := &adminClient{base: a.url, token: testToken, http: http.DefaultClient}
	if err := client.call(t.Context(), http.MethodGet, "/api/admin/runs/waits", nil, &served); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &printed); err != nil || code != exitIncomplete || string(mustJSON(t, printed)) != string(mustJSON(t, served)) || strings.ContainsAny(out, "\x1b\x07") {
		t.Errorf("as JSON: exit %d, %v:\n%s%s", code, err, out, errs)
	}

	a.add(t, "old", db.RunSuperseded, false)
	a.exec(t, `UPDATE serversync.runs SET superseded_by = 'waits' WHERE id = 'old'`)
	if _, out, _ := a.command(t, "sweep", "--watch", "old"); !strings.Contains(out, "Run waits took over what it found: serversync sweep --watch waits") {
		t.Errorf("superseded:\n%s", out)
	}
	a.add(t, "tried", db.RunSucceeded, true)
	if code, out, _ := a.command(t, "sweep", "--watch", "tried"); code != exitDone || !strings.Contains(out, "would wait for approval: 18 changes") || strings.Contains(out, "became") || strings.Contains(out, "--approve") {
		t.Errorf("a dry run: exit %d:\n%s", code, out)
	}
}

func TestSweepApproves(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "waits", db.RunNeedsApproval, false)
	a.endNext(t, db.RunSucceeded)
	if code, out, errs := a.command(t, "sweep", "--approve", "waits"); code != exitDone || !strings.Contains(out, "Sweep (waits): succeeded") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	if code, _, errs := a.command(t, "sweep", "--approve", "waits"); code != exitFailed || !strings.Contains(errs, "does not wait for approval") {
		t.Errorf("again: exit %d: %s", code, errs)
	}
	if code, _, errs := a.command(t, "sweep", "--approve", "../overview"); code != exitFailed || !strings.Contains(errs, "there is no run with this id") {
		t.Errorf("a run that there is not: exit %d: %s", code, errs)
	}
}

func TestSweepOfOneUser(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.endNext(t, db.RunSucceeded)
	if code, out, errs := a.command(t, "sweep", "--user", "41"); code != exitDone || !strings.Contains(out, "Sync of user 41 (sync41): succeeded") || !strings.Contains(out, "seen      250 servers, on") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	if code, out, errs := a.command(t, "sweep", "--user", "200"); code != exitDone || !strings.Contains(out, "Sync of user 200 (sync200): succeeded") {
		t.Errorf("ended at once: exit %d:\n%s%s", code, out, errs)
	}
	begun := time.Now()
	if code, out, _ := a.command(t, "sweep", "--user", "42", "--no-wait"); code != exitDone || !strings.Contains(out, "--watch sync42") || time.Since(begun) > 15*time.Second {
		t.Errorf("nobody watches: exit %d after %s:\n%s", code, time.Since(begun), out)
	}
	if code, _, errs := a.command(t, "sweep", "--user", "404"); code != exitFailed || !strings.Contains(errs, "SkyPANEL has no user with this id") {
		t.Errorf("nobody: exit %d: %s", code, errs)
	}
	for _, args := range [][]string{
		{"--user", "me"},
		{"--user", "0"},
		{"--user", "2147483648"},
		{"--approve", "x", "--dry-run"},
		{"--approve", "x", "--user", "4"},
		{"--watch", "x", "--dry-run"},
		{"--watch", "x", "--approve", "x"},
		{"--nonsense"},
		{"14"},
	} {
		if code, _, errs := a.command(t, append([]string{"sweep"}, args...)...); code != exitUsage {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
}

func TestSweepThatNobodyWatches(t *testing.T) {
	t.Parallel()
	a := administer(t)
	code, out, errs := a.command(t, "sweep", "--no-wait", "--json")
	var begun api.Run
	if err := json.Unmarshal([]byte(out), &begun); err != nil || code != exitDone || begun.State != "running" || begun.Phase != "queued" || errs != "" {
		t.Fatalf("exit %d, %v:\n%s%s", code, err, out, errs)
	}
	if code, out, _ := a.command(t, "sweep", "--no-wait"); code != exitDone || !strings.Contains(out, "serversync sweep --watch "+begun.ID) {
		t.Errorf("exit %d:\n%s", code, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a.onLook(func(looks int64) {
		if looks == 2 {
			cancel()
		}
	})
	if code, _, errs := a.commandUntil(ctx, "sweep"); code != exitFailed || !strings.Contains(errs, "stopped watching; run "+begun.ID+" goes on. To watch it again: serversync sweep --watch "+begun.ID) {
		t.Errorf("after a Ctrl-C: exit %d: %s", code, errs)
	}
	if run, err := db.ReadRun(t.Context(), a.db, begun.ID); err != nil || run.State != db.RunRunning {
		t.Errorf("after it the run is %q, %v", run.State, err)
	}
}

// quickly is a watcher whose waits are short.
func (a *administered) quickly(out *bytes.Buffer) *watcher {
	return &watcher{
		client: &adminClient{base: a.url, token: testToken, http: http.DefaultClient}, meter: &lineMeter{out: out},
		every: 10 * time.Millisecond, patience: 200 * time.Millisecond, unclaimed: 100 * time.Millisecond, now: time.Now,
	}
}

func TestWatchSaysWhenNobodySweeps(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "lonely", db.RunRunning, false)
	a.exec(t, `UPDATE serversync.runs SET phase = 'queued'`)
	watch := func() string {
		t.Helper()
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a.onLook(func(looks int64) {
			if looks == 20 {
				cancel()
			}
		})
		w := a.quickly(&out)
		now := time.Now()
		w.now = func() time.Time { now = now.Add(w.unclaimed / 4); return now }
		if _, err := w.watch(ctx, "lonely"); err == nil {
			t.Error("the watching ended well")
		}
		return out.String()
	}
	if out := watch(); strings.Count(out, "no process with the role sweep is running: run lonely waits") != 1 {
		t.Errorf("nobody leads:\n%s", out)
	}
	lead, err := db.TryLead(t.Context(), a.db)
	if err != nil || lead == nil {
		t.Fatalf("lead: %v, %v", lead, err)
	}
	if out := watch(); strings.Contains(out, "role sweep") {
		t.Errorf("somebody leads:\n%s", out)
	}
	if err := lead.Release(t.Context()); err != nil {
		t.Error(err)
	}
	a.exec(t, `UPDATE serversync.runs SET phase = 'listing'`)
	if out := watch(); strings.Contains(out, "role sweep") {
		t.Errorf("somebody was at it:\n%s", out)
	}
}

func TestWatchOutlastsAShortAbsence(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.add(t, "run", db.RunRunning, false)
	var out bytes.Buffer
	w := a.quickly(&out)
	w.patience = time.Minute
	a.away.Store(true)
	a.onLook(func(int64) { a.away.Store(false) })
	a.endNext(t, db.RunSucceeded)
	if run, err := w.watch(t.Context(), "run"); err != nil || run.State != "succeeded" || strings.Count(out.String(), "does not answer") != 1 {
		t.Errorf("%+v, %v:\n%s", run, err, out.String())
	}

	out.Reset()
	a.onLook(func(int64) {})
	a.away.Store(true)
	_, err := a.quickly(&out).watch(t.Context(), "run")
	if err == nil || !strings.Contains(err.Error(), "run run goes on") || !strings.Contains(err.Error(), "serversync sweep --watch run") {
		t.Errorf("after a long absence: %v", err)
	}
	a.away.Store(false)
	if _, err := a.quickly(&out).watch(t.Context(), "gone"); err == nil || !strings.Contains(err.Error(), "no run with this id") {
		t.Errorf("a run that there is not: %v", err)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	listing := func(page int64) *api.Run {
		return &api.Run{State: "running", Phase: "listing", Progress: api.Progress{Page: page, Pages: 100, Total: 10_000, Listed: 100 * page, Drift: 7, Calls: page + 3, CallsPerSecond: 10}}
	}
	var out bytes.Buffer
	m := &lineMeter{out: &out, every: 5 * time.Second}
	m.show(&api.Run{State: "running", Phase: "queued"}, at)
	for i := range int64(21) {
		m.show(listing(i), at.Add(time.Duration(i)*time.Second/2))
	}
	m.show(listing(20), at.Add(time.Hour)) // stands still
	m.show(&api.Run{State: "running", Phase: "applying", Expected: 7, Processed: 3, New: 2, Failed: 1}, at.Add(time.Hour))
	m.show(&api.Run{State: "succeeded", Phase: "ended"}, at.Add(time.Hour))
	want := `queued: waiting to be taken up
listing: page 0 of 100, 0 of 10000 servers, 7 differ, 3 API calls (at most 10 a second)
listing: page 10 of 100, 1000 of 10000 servers, 7 differ, 45s left, 13 API calls (at most 10 a second)
listing: page 20 of 100, 2000 of 10000 servers, 7 differ, 40s left, 23 API calls (at most 10 a second)
applying: 3 of 7 servers, 2 new, 0 updated, 1 failed
`
	if out.String() != want {
		t.Errorf("lines:\n%swant\n%s", out.String(), want)
	}
	out.Reset()
	quiet := &lineMeter{out: &out, every: -1}
	quiet.show(listing(1), at)
	if quiet.say("heard\x1b"); out.String() != "heard\\x1b\n" {
		t.Errorf("quiet: %q", out.String())
	}
}

// The bar never gets wider than the terminal, and leaves nothing behind.
func TestTheBar(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	m := &barMeter{out: &out, width: 60}
	for _, phase := range []string{"queued", "listing", "asking", "applying", "made\x1b[2Jup"} {
		for i := range int64(11) {
			m.show(&api.Run{Kind: "sweep", State: "running", Phase: phase, Expected: 10, Processed: i, Progress: api.Progress{Page: i, Pages: 10 * min(i, 1), Total: 1000, Listed: 100 * i, Calls: i}}, at.Add(time.Duration(i)*time.Second))
		}
	}
	m.say("besides\x07")
	m.end()
	drawn := out.String()
	<-time.After(300 * time.Millisecond) // a spinner that turns by itself would draw meanwhile
	if out.String() != drawn {
		t.Error("it draws after its end")
	}
	for _, says := range []string{"50% [=========>..........]  listing: page 5 of 10", "99% [", "listing: waiting for", "…", "besides\\a\n", "made\\x1b[2Jup"} {
		if !strings.Contains(drawn, says) {
			t.Errorf("it does not show %q", says)
		}
	}
	if strings.Contains(drawn, "\x1b[2J") || strings.Count(drawn, "\n") != 1 || strings.Contains(drawn, "100%") {
		t.Errorf("%q", drawn)
	}
	for line := range strings.SplitSeq(drawn, "\r") {
		if n := len([]rune(strings.NewReplacer("\x1b[0K", "", "\x1b[2K", "").Replace(line))); n > 60 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if _, terminal := terminalWidth(&out); terminal {
		t.Error("a buffer is no terminal")
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, terminal := terminalWidth(file); terminal {
		t.Error("a file is no terminal")
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}
