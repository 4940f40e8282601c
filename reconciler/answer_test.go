package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/db"
	"serversync/events"
)

// heard is a message that writes down what the broker is told about it.
type heard struct {
	jetstream.Msg // nil: whatever is not below must not be called

	data     []byte
	headers  nats.Header
	sequence uint64
	term     func() // runs before the message is taken off

	mu       sync.Mutex
	verbs    []string
	progress int
}

func (m *heard) Data() []byte         { return m.data }
func (m *heard) Headers() nats.Header { return m.headers }
func (m *heard) Subject() string      { return "virtfusion.users.70.servers.1.updated" }
func (m *heard) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Stream: events.StreamName, Sequence: jetstream.SequencePair{Stream: m.sequence}, NumDelivered: 2, Timestamp: t0}, nil
}

func (m *heard) say(verb string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verbs = append(m.verbs, verb)
	return nil
}

func (m *heard) Ack() error                         { return m.say("ack") }
func (m *heard) Nak() error                         { return m.say("nak") }
func (m *heard) NakWithDelay(d time.Duration) error { return m.say("nak after " + d.String()) }
func (m *heard) TermWithReason(_ string) error      { m.term(); return m.say("term") }
func (m *heard) DoubleAck(context.Context) error    { return m.say("double ack") }
func (m *heard) Term() error                        { return m.say("term without reason") }
func (m *heard) InProgress() error                  { m.mu.Lock(); defer m.mu.Unlock(); m.progress++; return nil }

func (m *heard) told() string { m.mu.Lock(); defer m.mu.Unlock(); return strings.Join(m.verbs, ", ") }

func (m *heard) kept() int { m.mu.Lock(); defer m.mu.Unlock(); return m.progress }

func (s *system) message(e *events.Event, sequence uint64) *heard {
	s.t.Helper()
	if err := e.Seal(); err != nil {
		s.t.Fatal(err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	return &heard{data: data, headers: nats.Header{jetstream.MsgIDHeader: {e.ID}}, sequence: sequence, term: func() {}}
}

// refuse makes PostgreSQL refuse the inventory rows of servers.
func (s *system) refuse(ids string) {
	s.t.Helper()
	s.exec(`ALTER TABLE serversync.servers ADD CONSTRAINT refused CHECK (virtfusion_id NOT IN (` + ids + `)) NOT VALID`)
}

func (s *system) buried() []events.DeadLetter {
	s.t.Helper()
	letters, _, err := events.NewDeadLetters(s.JetStream).List(s.t.Context(), 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	return letters
}

// mixed is a batch of every sort, and what the broker is to be told of each
// when all goes as it should.
func (s *system) mixed() (names []string, batch map[string]*heard, want map[string]string) {
	s.t.Helper()
	known := s.news(3)
	if err := s.reconciler().process(s.t.Context(), []events.Event{*known}); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Minute)
	stale := s.news(3, named("old"), func(e *events.Event) {
		e.ObservedAt = t0.Add(-time.Hour)
		e.Server.UpdatedAt = new(t0.Add(-time.Hour))
	})
	s.refuse("4, 5")
	batch = map[string]*heard{
		"good":               s.message(s.news(1), 11),
		"duplicate, once":    s.message(s.news(2), 12),
		"duplicate, twice":   s.message(s.news(2), 12),
		"stale":              s.message(stale, 13),
		"undecodable":        {data: []byte("no JSON"), sequence: 14, term: func() {}},
		"of unknown kind":    {data: []byte(`{"kind": "abducted", "observedAt": "2026-01-01T00:00:00Z", "server": {"id": 9}}`), sequence: 15, term: func() {}},
		"poison, first time": s.message(s.news(4), 16),
		"poison, last time":  s.message(s.news(5), 17),
		"good as well":       s.message(s.news(6), 18),
	}
	last := batch["poison, last time"].headers.Get(jetstream.MsgIDHeader)
	for range maxAttempts - 1 {
		if _, err := db.CountFaults(s.t.Context(), s.db, []string{last}, "before", s.clock()); err != nil {
			s.t.Fatal(err)
		}
	}
	want = map[string]string{
		"good": "ack", "duplicate, once": "ack", "duplicate, twice": "ack", "stale": "ack", "good as well": "ack",
		"undecodable": "term", "of unknown kind": "nak after 5s",
		"poison, first time": "nak after 1s", "poison, last time": "term",
	}
	for name := range batch {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, batch, want
}

func messages(names []string, batch map[string]*heard) []jetstream.Msg {
	var all []jetstream.Msg
	for _, name := range names {
		all = append(all, batch[name])
	}
	return all
}

func wantTold(t *testing.T, batch map[string]*heard, want func(name string) string) {
	t.Helper()
	for name, m := range batch {
		if got := m.told(); got != want(name) {
			t.Errorf("%s: the broker was told %q, want %q", name, got, want(name))
		}
	}
}

func TestEachMessageOfAMixedBatchIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	names, batch, want := s.mixed()
	for name, m := range batch {
		m.term = func() { // the dead letter is confirmed before
			id := events.MessageID(m)
			if !slices.ContainsFunc(s.buried(), func(l events.DeadLetter) bool { return l.ID == id }) {
				t.Errorf("%s: taken off the stream before its dead letter was there", name)
			}
		}
	}
	s.reconciler().handle(t.Context(), messages(names, batch))
	wantTold(t, batch, func(name string) string { return want[name] })
	s.want("1,2,3,6", `SELECT string_agg(virtfusion_id::text, ',' ORDER BY virtfusion_id) FROM serversync.servers`)

	poison := batch["poison, first time"].headers.Get(jetstream.MsgIDHeader)
	s.want(poison+" 1", `SELECT string_agg(event_id || ' ' || attempts, ', ') FROM serversync.faults`)
	var got []string
	for _, l := range s.buried() {
		got = append(got, fmt.Sprintf("%d after %d", l.Sequence, l.Attempts))
	}
	slices.Sort(got)
	if want := []string{"14 after 1", "17 after 5"}; !slices.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
	if n := strings.Count(s.log.String(), "an event was given up"); n != 2 {
		t.Errorf("%d dead letters in the log, want 2: %s", n, s.log.String())
	}
}

// While the database is away nothing is answered, and when we have to stop then,
// everything is given back at once; no event is blamed.
func TestAwayIsNobodysFault(t *testing.T) {
	t.Parallel()
	s := setup(t)
	names, batch, want := s.mixed()
	before := s.text(`SELECT string_agg(event_id || ' ' || attempts, ', ') FROM serversync.faults`)
	gone, err := db.Open("host=127.0.0.1 port=1 user=nobody dbname=none sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gone.Close() })
	r := s.reconciler()
	r.db, r.keepInterval = gone, time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.handle(ctx, messages(names, batch))
	}()
	s.until("it is tried again", func() bool { return strings.Count(s.log.String(), "trying again") > 2 })
	brokerAlone := []string{"undecodable", "of unknown kind"} // need no database
	wantTold(t, batch, func(name string) string {
		if slices.Contains(brokerAlone, name) {
			return want[name]
		}
		return ""
	})
	s.until("the broker is told that the batch is in hand", func() bool { return batch["good"].kept() > 2 && batch["poison, last time"].kept() > 2 })
	cancel()
	<-done
	wantTold(t, batch, func(name string) string {
		if slices.Contains(brokerAlone, name) {
			return want[name]
		}
		return "nak"
	})
	s.want(before, `SELECT string_agg(event_id || ' ' || attempts, ', ') FROM serversync.faults`)
	kept := batch["good"].kept()
	if r.handle(t.Context(), nil); batch["good"].kept() != kept {
		t.Error("the broker is told of a batch that is not in hand any more")
	}
}

// What cannot be written to the dead letters stays on the stream.
func TestWithoutADeadLetterTheEventStays(t *testing.T) {
	t.Parallel()
	s := setup(t)
	names, batch, want := s.mixed()
	if err := s.JetStream.DeleteStream(t.Context(), events.DeadStreamName); err != nil {
		t.Fatal(err)
	}
	s.reconciler().handle(t.Context(), messages(names, batch))
	wantTold(t, batch, func(name string) string {
		if want[name] == "term" {
			return "nak after 10m0s"
		}
		return want[name]
	})

	// Once there is room again, its time has come; the count was not lost.
	if _, err := events.EnsureStream(t.Context(), s.JetStream, events.StreamOptions{MaxBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	last := batch["poison, last time"]
	last.verbs = nil
	s.reconciler().handle(t.Context(), []jetstream.Msg{last})
	if got := last.told(); got != "term" || len(s.buried()) != 1 || s.buried()[0].Attempts != maxAttempts+1 {
		t.Errorf("told %q, dead letters %+v", got, s.buried())
	}
}

// A process may end between writing a dead letter and taking the event off: the
// next one finds the letter written.
func TestADeadLetterIsWrittenOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for i := range 2 {
		m := &heard{data: []byte("no JSON"), headers: nats.Header{jetstream.MsgIDHeader: {"e1"}}, sequence: 4, term: func() {}}
		registry := prometheus.NewRegistry()
		r := New(Config{
			DB: s.db, Consumer: s.Consumer, DeadLetters: events.NewDeadLetters(s.JetStream), Policy: s.policy, Now: s.clock,
			Log: zerolog.New(s.log), Metrics: registry,
		})
		r.handle(t.Context(), []jetstream.Msg{m})
		if got := m.told(); got != "term" {
			t.Errorf("told %q, want term", got)
		}
		if got := gathered(t, registry, "serversync_dead_letters_total"); got != float64(1-i) { // the second one was there already
			t.Errorf("it counted %v dead letters of its own, want %d", got, 1-i)
		}
	}
	if n := len(s.buried()); n != 1 {
		t.Errorf("%d dead letters, want one", n)
	}
}

// gathered is the value of a metric without labels.
func gathered(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err      error
		attempts int
		want     verdict
	}{
		"nothing":                {nil, 1, verdictDone},
		"database away":          {&networkError{}, 1, verdictNow},
		"shutting down":          {context.Canceled, 1, verdictNow},
		"rows changed meanwhile": {fmt.Errorf("apply: %w", db.ErrStale), 1, verdictNow},
		"…again and again":       {fmt.Errorf("%w: %w", errNeverFresh, db.ErrStale), 1, verdictLater},
		"refused":                {errors.New("refused"), 1, verdictLater},
		"refused once more":      {errors.New("refused"), maxAttempts - 1, verdictLater},
		"refused too often":      {errors.New("refused"), maxAttempts, verdictDead},
		"refused far too often":  {errors.New("refused"), maxAttempts + 7, verdictDead},
		"a bug":                  {&panicError{value: "x"}, 1, verdictLater},
		"for a newer one":        {fmt.Errorf("decode: %w", events.ErrNewer), maxAttempts - 1, verdictLater},
		"no event":               {fmt.Errorf("%w: %w", errUndecodable, errors.New("x")), 1, verdictDead},
	} {
		if got := judge(classify(tc.err), tc.attempts); got != tc.want {
			t.Errorf("%s: verdict %d, want %d", name, got, tc.want)
		}
	}
}

// networkError is an error of the network.
type networkError struct{}

func (*networkError) Error() string   { return "i/o timeout" }
func (*networkError) Timeout() bool   { return true }
func (*networkError) Temporary() bool { return true }

func TestRetryDelayGrows(t *testing.T) {
	t.Parallel()
	want := []time.Duration{time.Second, 5 * time.Second, 25 * time.Second, 125 * time.Second, 10 * time.Minute, 10 * time.Minute}
	for i, w := range want {
		if got := retryDelay(i + 1); got != w {
			t.Errorf("after %d attempts: %s, want %s", i+1, got, w)
		}
	}
	if got := retryDelay(1 << 40); got != 10*time.Minute {
		t.Errorf("after very many: %s", got)
	}
}
