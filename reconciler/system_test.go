package reconciler

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"serversync/db/dbtest"
	"serversync/events"
	"serversync/events/eventstest"
)

// patience bounds every wait for a condition.
const patience = time.Minute

// system is a database, a broker and a clock that stands still.
type system struct {
	*eventstest.System

	t      *testing.T
	db     *bun.DB
	policy Policy
	log    *syncBuffer
	now    atomic.Int64 // Unix microseconds
}

// syncBuffer is a log that several reconcilers write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func setup(t *testing.T) *system {
	t.Helper()
	return setupOn(t, dbtest.New(t))
}

func setupOn(t *testing.T, database *bun.DB) *system {
	t.Helper()
	s := &system{
		System: eventstest.New(t), t: t, db: database, log: new(syncBuffer),
		policy: Policy{InitialCharge: ChargeRecord, SettleDelay: 2 * time.Minute},
	}
	s.now.Store(t0.UnixMicro())
	s.exec(`INSERT INTO users (id, email, username, password, full_name, virtfusion_id) VALUES
		(7, '7@example.com', 'seven', '', 'Seven', 70), (8, '8@example.com', 'eight', '', 'Eight', 80)`)
	s.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (3, 'Small', 730), (4, 'Large', 1460)`)
	return s
}

func (s *system) clock() time.Time     { return time.UnixMicro(s.now.Load()).UTC() }
func (s *system) pass(d time.Duration) { s.now.Add(d.Microseconds()) }

func (s *system) reconciler() *Reconciler {
	return New(Config{
		DB: s.db, Consumer: s.Consumer, DeadLetters: events.NewDeadLetters(s.JetStream), Policy: s.policy, Now: s.clock,
		Log: zerolog.New(s.log).Level(zerolog.InfoLevel), Metrics: prometheus.NewRegistry(),
	})
}

// run starts n reconcilers and returns what stops them, cleanly.
func (s *system) run(n int) (stop func()) {
	all := make([]*Reconciler, n)
	for i := range all {
		all[i] = s.reconciler()
	}
	return s.start(all...)
}

func (s *system) start(all ...*Reconciler) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				s.t.Errorf("Run ended with %v", err)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(stop)
	return stop
}

func (s *system) exec(statement string) {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), statement); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// text is the one value that a query gives.
func (s *system) text(query string) string {
	s.t.Helper()
	var v sql.NullString
	if err := s.db.QueryRowContext(s.t.Context(), query).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return v.String
}

// want checks the one value that a query gives.
func (s *system) want(want, query string) {
	s.t.Helper()
	if got := s.text(query); got != want {
		s.t.Errorf("%s\ngot  %s\nwant %s", query, got, want)
	}
}

// news is an event about a server of user 7's, a year old.
func (s *system) news(id int64, edit ...func(*events.Event)) *events.Event {
	e := &events.Event{
		Kind: events.KindObserved, Source: events.SourceSweep, ObservedAt: s.clock(), ReceivedAt: s.clock(),
		Server: events.Server{
			ID: id, UUID: new(fmt.Sprintf("uuid-%d", id)), Owner: &events.Owner{ID: owner7, Whole: true},
			Name: new(fmt.Sprintf("web%d", id)), PackageID: new(int64(small)), SelfService: new(int64(0)),
			IPAddresses: []string{"192.0.2.1", "2001:db8::1"},
			CreatedAt:   new(t0.AddDate(-1, 0, 0)), UpdatedAt: new(s.clock().Truncate(time.Second)),
		},
	}
	for _, f := range edit {
		f(e)
	}
	return e
}

func (s *system) publish(all ...*events.Event) {
	s.t.Helper()
	var wg sync.WaitGroup
	for _, e := range all {
		wg.Go(func() {
			e := new(*e) // publishing seals it
			if _, err := s.Publisher.Publish(s.t.Context(), e); err != nil {
				s.t.Errorf("publish: %v", err)
			}
		})
	}
	wg.Wait()
}

// drained waits until the consumer has taken everything and all but parked
// events are acknowledged.
func (s *system) drained(parked int) {
	s.t.Helper()
	s.until("the stream is drained", func() bool {
		stream, err := s.JetStream.Stream(s.t.Context(), events.StreamName)
		if err != nil {
			s.t.Fatal(err)
		}
		info, err := s.Consumer.Info(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return info.Delivered.Stream >= stream.CachedInfo().State.LastSeq && info.NumAckPending == parked
	})
}

func (s *system) until(what string, condition func() bool) {
	s.t.Helper()
	eventually(s.t, what, condition)
}

// eventually waits for a condition, with a deadline.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// again delivers the whole stream once more, to a consumer that has forgotten
// everything.
func (s *system) again(reconcilers int) {
	s.t.Helper()
	if err := s.JetStream.DeleteConsumer(s.t.Context(), events.StreamName, events.ConsumerName); err != nil {
		s.t.Fatal(err)
	}
	consumer, err := events.EnsureStream(s.t.Context(), s.JetStream, events.StreamOptions{MaxBytes: 64 << 20})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Consumer = consumer
	stop := s.run(reconcilers)
	s.drained(0)
	stop()
}

// dump is every row that we or SkyPANEL keep.
func (s *system) dump() string {
	s.t.Helper()
	var all strings.Builder
	for _, table := range []string{
		"public.virtfusion_hourly_billing", "public.virtfusion_hourly_transactions",
		"serversync.servers", "serversync.billing_rows", "serversync.history",
	} {
		fmt.Fprintf(&all, "%s\n%s\n", table, s.text(fmt.Sprintf(`SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY to_jsonb(t)::text) FROM %s t`, table)))
	}
	return all.String()
}

// wantSame compares two dumps and shows the first line that differs.
func wantSame(t *testing.T, before, after string) {
	t.Helper()
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("the books changed\nfrom %s\nto   %s", a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("the books have %d lines, had %d", len(b), len(a))
	}
}

// inject puts a raw message on the stream.
func (s *system) inject(subject, data string) {
	s.t.Helper()
	if _, err := s.JetStream.Publish(s.t.Context(), subject, []byte(data), jetstream.WithExpectStream(events.StreamName)); err != nil {
		s.t.Fatal(err)
	}
}

// tracer keeps the statements that are sent.
type tracer struct {
	mu   sync.Mutex
	sent []statement
}

type statement struct {
	sql  string
	args []any
}

func (tr *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.sent = append(tr.sent, statement{data.SQL, data.Args})
	return ctx
}

func (*tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (tr *tracer) take() []statement {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	sent := tr.sent
	tr.sent = nil
	return sent
}

// traced is a database of the test's own whose statements are kept.
func traced(t *testing.T) (*bun.DB, *tracer) {
	t.Helper()
	cfg, err := pgx.ParseConfig(dbtest.NewDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	tr := new(tracer)
	cfg.Tracer = tr
	database := bun.NewDB(stdlib.OpenDB(*cfg), pgdialect.New())
	t.Cleanup(func() { _ = database.Close() })
	return database, tr
}
