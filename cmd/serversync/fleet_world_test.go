package main_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
	"serversync/events"
	"serversync/events/eventstest"
	"serversync/ingest"
	"serversync/reconciler"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// fleetWorld is a company with real stores, a simulated VirtFusion whose
// webhooks all get lost, and everything that a sweep needs.
type fleetWorld struct {
	testing.TB

	db         *bun.DB // the test's own hands
	service    *bun.DB // what is under test has: the role of deploy/grants.sql
	world      skypanelsim.World
	panel      *virtfusionsim.Panel
	stream     *eventstest.System
	reconciler *reconciler.Reconciler
	runs       *ingest.Runs
	requests   *requestLog
	client     *virtfusion.Client
	url        string // of VirtFusion
	micros     atomic.Int64
}

// fleetPatience bounds what a test waits for.
const fleetPatience = 3 * time.Minute

type fleetOptions struct {
	maxChanges  string // empty: 100%, never asks
	interval    time.Duration
	observeOnly bool
	timeout     time.Duration // of a call of the API
	retries     int
	charge      reconciler.InitialCharge // empty: record
}

func newFleetWorld(t testing.TB, o fleetOptions) *fleetWorld {
	t.Helper()
	if o.maxChanges == "" {
		o.maxChanges = "100%"
	}
	maxChanges, err := ingest.ParseMaxChanges(o.maxChanges)
	if err != nil {
		t.Fatal(err)
	}
	w := &fleetWorld{TB: t, world: modelCompany(), stream: eventstest.New(t), requests: new(requestLog)}
	w.db, w.service = dbtest.NewForService(t)
	w.micros.Store(modelStart.UnixMicro())
	if err := skypanelsim.Seed(t.Context(), w.db, w.world); err != nil {
		t.Fatal(err)
	}
	w.panel = virtfusionsim.New(virtfusionsim.Config{Clock: w.clock, Seed: 7})
	for _, a := range w.world.Accounts {
		w.panel.AddUser(virtfusionsim.User{ID: a.ID, ExtRelationID: a.ExtRelationID, Name: a.Name})
	}
	for _, p := range w.world.Packages {
		w.panel.AddPackage(virtfusionsim.Package{ID: p.ID, Name: p.Name, MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores})
	}
	w.panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 1, Name: "host1", GroupID: 1})
	web := httptest.NewServer(w.panel.Handler()) // a real connection: faults cut it
	t.Cleanup(web.Close)
	t.Cleanup(func() { w.panel.SetAPIFaults() }) // what hangs is let go first
	w.url = web.URL
	if o.retries == 0 {
		o.retries = -1
	}
	w.client, err = virtfusion.New(virtfusion.Config{
		BaseURL: web.URL, Token: virtfusionsim.DefaultToken, MaxRetries: o.retries, Timeout: o.timeout,
		Budget: virtfusion.NewBudget(1e9), Clock: w.clock, Transport: w.requests,
	})
	if err != nil {
		t.Fatal(err)
	}
	policy := reconciler.Policy{InitialCharge: cmp.Or(o.charge, reconciler.ChargeRecord), SettleDelay: modelSettleDelay, ObserveOnly: o.observeOnly}
	w.reconciler = reconciler.New(reconciler.Config{
		DB: w.service, Consumer: w.stream.Consumer, Policy: policy, Now: w.clock, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
		MaxChanges: maxChanges.Limit,
	})
	w.runs = w.newRuns(maxChanges, o)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.reconciler.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *fleetWorld) newRuns(maxChanges ingest.MaxChanges, o fleetOptions) *ingest.Runs {
	c := w.config(func(context.Context) (*virtfusion.Client, error) { return w.client, nil })
	c.Interval, c.MaxChanges, c.ObserveOnly = o.interval, maxChanges, o.observeOnly
	return ingest.NewRuns(c)
}

// config is one that never asks.
func (w *fleetWorld) config(client func(context.Context) (*virtfusion.Client, error)) ingest.RunsConfig {
	unlimited, err := ingest.ParseMaxChanges("100%")
	if err != nil {
		w.Fatal(err)
	}
	return ingest.RunsConfig{
		DB: w.service, Client: client, Publisher: w.stream.Publisher, Books: w.reconciler, Interval: time.Hour, MaxChanges: unlimited,
		Stream: func(ctx context.Context) (last, acknowledged uint64, err error) {
			return events.Applied(ctx, w.stream.JetStream)
		},
		Now: w.clock, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
	}
}

func (w *fleetWorld) clock() time.Time { return time.UnixMicro(w.micros.Load()).UTC() }

// pass lets time go by.
func (w *fleetWorld) pass(d time.Duration) { w.micros.Add(d.Microseconds()) }

// create makes servers that existed before anybody looked, and of which no
// webhook tells.
func (w *fleetWorld) create(n int, owner, plan int64) []int64 {
	w.Helper()
	var ids []int64
	for range n {
		s, err := w.panel.CreateServer(virtfusionsim.CreateArgs{
			OwnerID: owner, PackageID: plan, Name: "srv", Built: true, Silent: true, Created: w.clock().Add(-24 * time.Hour),
		})
		if err != nil {
			w.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	return ids
}

// start makes a sweep.
func (w *fleetWorld) start(dryRun bool) string {
	w.Helper()
	id, _, err := db.StartRun(w.Context(), w.db, db.NewSweep(dryRun, "test", w.clock()))
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// sweep makes a sweep and does it.
func (w *fleetWorld) sweep() db.Run {
	w.Helper()
	w.pass(time.Second) // or what was seen now could not be told from what is seen by the sweep
	id := w.start(false)
	return w.finish(id)
}

// finish does what is open and returns a run.
func (w *fleetWorld) finish(id string) db.Run {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), fleetPatience)
	defer cancel()
	if err := w.runs.Due(ctx); err != nil {
		w.Fatal(err)
	}
	run, err := db.ReadRun(w.Context(), w.db, id)
	if err != nil {
		w.Fatal(err)
	}
	return run
}

func (w *fleetWorld) approve(id string) db.Run {
	w.Helper()
	run, approved, err := db.ApproveRun(w.Context(), w.db, id, "an admin", w.clock())
	if err != nil || !approved {
		w.Fatalf("approve: %v, %v, state %s", approved, err, run.State)
	}
	return w.finish(id)
}

func (w *fleetWorld) totals(id string) db.RunTotals {
	w.Helper()
	totals, err := db.TotalsOfRuns(w.Context(), w.db, []string{id})
	if err != nil {
		w.Fatal(err)
	}
	return totals[id]
}

// value reads one value as text.
func (w *fleetWorld) value(query string, args ...any) string {
	w.Helper()
	var v *string
	if err := w.db.DB.QueryRowContext(w.Context(), `SELECT (`+query+`)::text`, args...).Scan(&v); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
	if v == nil {
		return "null"
	}
	return *v
}

func (w *fleetWorld) want(want, query string, args ...any) {
	w.Helper()
	if got := w.value(query, args...); got != want {
		w.Errorf("%s: got %s, want %s", query, got, want)
	}
}

func (w *fleetWorld) wantState(run *db.Run, want string) {
	w.Helper()
	if run.State != want {
		w.Fatalf("the run is %s (%s), want %s; problems: %+v", run.State, run.Note, want, run.Problems)
	}
}

// wantProblem reports whether a run names a problem.
func (w *fleetWorld) wantProblem(run *db.Run, code string) {
	w.Helper()
	for _, p := range run.Problems {
		if p.Code == code {
			return
		}
	}
	w.Errorf("the run does not name the problem %s: %+v", code, run.Problems)
}

// books are all tables that a sweep of a fleet in step must not touch.
func (w *fleetWorld) books() string {
	w.Helper()
	var b strings.Builder
	for _, query := range []string{
		`SELECT to_jsonb(t) - 'last_seen_at' FROM serversync.servers t ORDER BY virtfusion_id`,
		`SELECT to_jsonb(t) FROM public.virtfusion_hourly_billing t ORDER BY id`,
		`SELECT to_jsonb(t) FROM public.virtfusion_hourly_transactions t ORDER BY id`,
		`SELECT to_jsonb(t) FROM serversync.billing_rows t ORDER BY billing_id`,
		`SELECT to_jsonb(t) FROM serversync.history t ORDER BY id`,
	} {
		rows, err := w.db.DB.QueryContext(w.Context(), query)
		if err != nil {
			w.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				w.Fatal(err)
			}
			fmt.Fprintln(&b, line)
		}
		if err := rows.Err(); err != nil {
			w.Fatal(err)
		}
		rows.Close()
	}
	return b.String()
}

// requestLog counts the calls of the API, by path and form.
type requestLog struct {
	mu   sync.Mutex
	made []string
}

// RoundTrip implements [http.RoundTripper].
func (l *requestLog) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	l.made = append(l.made, strings.TrimPrefix(r.URL.Path, "/api/v1")+" "+r.URL.Query().Get("type")+r.URL.Query().Get("page"))
	l.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

// take returns the calls since it was last asked.
func (l *requestLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	made := l.made
	l.made = nil
	return made
}

func (w *fleetWorld) exec(statement string, args ...any) {
	w.Helper()
	if _, err := w.db.DB.ExecContext(w.Context(), statement, args...); err != nil {
		w.Fatalf("%s: %v", statement, err)
	}
}

// streamLength is how many events were ever published.
func (w *fleetWorld) streamLength() uint64 {
	w.Helper()
	stream, err := w.stream.JetStream.Stream(w.Context(), "VIRTFUSION")
	if err != nil {
		w.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

// until waits until a query gives a value.
func (w *fleetWorld) until(want, query string, args ...any) {
	w.Helper()
	deadline := time.NewTimer(fleetPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for w.value(query, args...) != want {
		select {
		case <-ticker.C:
		case <-deadline.C:
			w.Fatalf("%s: still %s, want %s", query, w.value(query, args...), want)
		}
	}
}

// refuses answers every request as VirtFusion does without a good token.
type refuses struct{}

// RoundTrip implements [http.RoundTripper].
func (refuses) RoundTrip(*http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	answer.WriteHeader(http.StatusUnauthorized)
	return answer.Result(), nil
}
