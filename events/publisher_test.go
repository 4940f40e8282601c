package events_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/events/eventstest"
)

// Whichever way a broker's writes become durable, a publisher keeps the same
// promises.
func TestEveryWayOfPublishing(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]events.BrokerOption{"one sync for a group": nil, "a sync for each write": {events.SyncEachWrite()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			promises := map[string]func(*testing.T, *eventstest.System){
				"each gets its own answer":              eachGetsItsOwnAnswer,
				"the same again is one event":           theSameAgainIsOneEvent,
				"a full stream refuses, forgets nobody": aFullStreamRefuses,
				"nothing is taken after the end":        nothingIsTakenAfterTheEnd,
				"what is published in order is stored so": func(t *testing.T, s *eventstest.System) {
					t.Helper()
					orderIsKept(t, s)
				},
			}
			for promise, prove := range promises {
				t.Run(promise, func(t *testing.T) {
					t.Parallel()
					prove(t, eventstest.New(t, opts...))
				})
			}
		})
	}
}

// One that is too large for the stream must fail alone, however many are
// committed with it.
func eachGetsItsOwnAnswer(t *testing.T, s *eventstest.System) {
	t.Helper()
	const n, bad = 300, 100
	var wg sync.WaitGroup
	acks, errs := make([]events.Ack, n), make([]error, n)
	for i := range n {
		wg.Go(func() {
			e := sample(int64(i + 1))
			if i == bad {
				huge := strings.Repeat("x", 2<<20)
				e.Server.Name = &huge
			}
			acks[i], errs[i] = s.Publisher.Publish(t.Context(), &e)
		})
	}
	wg.Wait()
	ids := map[uint64]string{}
	stream := streamOf(t, s)
	for i := range n {
		if i == bad {
			if errs[i] == nil {
				t.Error("an oversized event was accepted")
			}
			continue
		}
		if errs[i] != nil {
			t.Fatalf("event %d: %v", i, errs[i])
		}
		m, err := stream.GetMsg(t.Context(), acks[i].Sequence)
		if err != nil {
			t.Fatalf("event %d is said to be at %d: %v", i, acks[i].Sequence, err)
		}
		e := sample(int64(i + 1))
		if err := e.Seal(); err != nil {
			t.Fatal(err)
		}
		if got := m.Header.Get(jetstream.MsgIDHeader); got != e.ID || ids[acks[i].Sequence] != "" {
			t.Errorf("event %d is said to be at %d, where %s is", i, acks[i].Sequence, got)
		}
		ids[acks[i].Sequence] = e.ID
	}
}

func theSameAgainIsOneEvent(t *testing.T, s *eventstest.System) {
	t.Helper()
	const n = 100
	publish := func() (duplicates int) {
		var wg sync.WaitGroup
		acks := make([]events.Ack, n)
		for i := range n {
			wg.Go(func() {
				e := sample(int64(i + 1))
				var err error
				if acks[i], err = s.Publisher.Publish(t.Context(), &e); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, a := range acks {
			if a.Duplicate {
				duplicates++
			}
		}
		return duplicates
	}
	first, second := publish(), publish()
	if first != 0 || second != n {
		t.Errorf("%d, then %d of %d were called duplicates", first, second, n)
	}
	if got := streamOf(t, s).CachedInfo().State.Msgs; got != n {
		t.Errorf("the stream holds %d events, want %d", got, n)
	}
}

func aFullStreamRefuses(t *testing.T, s *eventstest.System) {
	t.Helper()
	if _, err := events.EnsureStream(t.Context(), s.JetStream, events.StreamOptions{MaxBytes: 16 << 10}); err != nil {
		t.Fatal(err)
	}
	all := make([]*events.Event, 200)
	for i := range all {
		e := sample(int64(i + 1))
		all[i] = &e
	}
	if err := s.Publisher.PublishAll(t.Context(), all); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("all at once: %v, want ErrNotDurable", err)
	}
	state := streamOf(t, s).CachedInfo().State
	if state.FirstSeq > 1 {
		t.Errorf("the stream forgot what came before %d", state.FirstSeq)
	}
	e := sample(1000)
	if _, err := s.Publisher.Publish(t.Context(), &e); err == nil && state.Msgs > 0 {
		// A batch that did not fit left room for one: then it is there.
		if got := streamOf(t, s).CachedInfo().State.Msgs; got != state.Msgs+1 {
			t.Errorf("one was accepted, and the stream holds %d after %d", got, state.Msgs)
		}
	}
}

func nothingIsTakenAfterTheEnd(t *testing.T, s *eventstest.System) {
	t.Helper()
	s.Publisher.Close()
	e := sample(1)
	if _, err := s.Publisher.Publish(t.Context(), &e); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("one: %v, want ErrNotDurable", err)
	}
	if err := s.Publisher.PublishAll(t.Context(), []*events.Event{&e}); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("many: %v, want ErrNotDurable", err)
	}
}

func orderIsKept(t *testing.T, s *eventstest.System) {
	t.Helper()
	all := make([]*events.Event, 700)
	for i := range all {
		e := sample(int64(i + 1))
		all[i] = &e
	}
	if err := s.Publisher.PublishAll(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	stream := streamOf(t, s)
	for i, e := range all {
		m, err := stream.GetMsg(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Header.Get(jetstream.MsgIDHeader); got != e.ID {
			t.Fatalf("at %d is %s, want server %d", i+1, got, e.Server.ID)
		}
	}
}

func streamOf(t *testing.T, s *eventstest.System) jetstream.Stream {
	t.Helper()
	stream, err := s.JetStream.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// Nobody is answered before a sync has ended that began when the broker had the
// event.
func TestAnswersWaitForTheSync(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	var durable atomic.Uint64 // up to this place on the stream
	p, err := events.NewPublisher(s.Conn, events.WithSync(func() error {
		stored := streamOf(t, s).CachedInfo().State.LastSeq
		runtime.Gosched()
		durable.Store(stored)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var wg sync.WaitGroup
	for worker := range 20 {
		wg.Go(func() {
			for i := range 20 {
				e := sample(int64(worker*100 + i + 1))
				ack, err := p.Publish(t.Context(), &e)
				if err != nil {
					t.Error(err)
				} else if synced := durable.Load(); synced < ack.Sequence {
					t.Errorf("the event at %d was answered when %d were on disk", ack.Sequence, synced)
				}
			}
		})
	}
	wg.Wait()
}

// After a sync that failed nobody knows what is on disk: its whole group is told
// so, and so is everybody later.
func TestAFailedSyncAnswersItsWholeGroup(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	broken := errors.New("the disk is broken")
	p, err := events.NewPublisher(s.Conn, events.WithSync(func() error { return broken }))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			e := sample(int64(i + 1))
			if _, err := p.Publish(t.Context(), &e); !errors.Is(err, events.ErrNotDurable) || !errors.Is(err, broken) {
				t.Errorf("event %d: %v, want ErrNotDurable and why", i, err)
			}
		})
	}
	wg.Wait()
	dead := events.NewDeadLetters(s.JetStream, events.WithSync(func() error { return broken }))
	if _, err := dead.Put(t.Context(), events.DeadLetter{ID: "a", Stream: events.StreamName, Subject: "virtfusion.users.7.servers.5.created"}); !errors.Is(err, events.ErrNotDurable) || !errors.Is(err, broken) {
		t.Errorf("a dead letter: %v", err)
	}
	if err := dead.Requeue(t.Context(), "a"); !errors.Is(err, broken) {
		t.Errorf("a requeued dead letter: %v", err)
	}
	if n, err := dead.Count(t.Context()); err != nil || n != 1 {
		t.Errorf("after a requeue that is not durable there are %d dead letters, %v: want it kept", n, err)
	}
}

// The embedded broker on this machine syncs by group: else the tests of that prove
// nothing here. Where it cannot (a temporary directory on NFS, say), point TMPDIR
// to a local disk.
func TestTheEmbeddedBrokerSyncsByGroup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := events.StartBroker(dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	sync := b.Sync()
	if sync == nil {
		t.Fatal("not on this system or file system: set TMPDIR to a directory on a local disk of Linux")
	}
	if err := os.WriteFile(filepath.Join(dir, "dirty"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sync(); err != nil {
		t.Errorf("sync: %v", err)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	if err := sync(); err == nil {
		t.Error("a store that is closed was synced")
	}
}

// forgetful is a broker whose answers to the first try of each event are lost.
func forgetful(t *testing.T) *nats.Conn {
	t.Helper()
	srv := external(t, t.TempDir(), 0, func(o *server.Options) { o.JetStream = false })
	dial := func() *nats.Conn {
		nc, err := nats.Connect(srv.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	leader := dial()
	stored := map[string]bool{} // by the subscription's goroutine alone
	if _, err := leader.Subscribe("virtfusion.>", func(m *nats.Msg) {
		id := m.Header.Get(nats.MsgIdHdr)
		if stored[id] {
			_ = m.Respond([]byte(`{"stream":"VIRTFUSION","seq":1,"duplicate":true}`))
		}
		stored[id] = true
	}); err != nil {
		t.Fatal(err)
	}
	if err := leader.Flush(); err != nil {
		t.Fatal(err)
	}
	return dial()
}

// An event whose first confirmation was lost is no duplicate to whoever sent it
// once, it is counted once, and nothing failed.
func TestARetryIsCountedOnce(t *testing.T) {
	t.Parallel()
	for name, publish := range map[string]func(context.Context, *events.Publisher, ...*events.Event) error{
		"one": func(ctx context.Context, p *events.Publisher, e ...*events.Event) error {
			ack, err := p.Publish(ctx, e[0])
			if ack.Duplicate {
				err = errors.New("a retry is told as a duplicate")
			}
			return err
		},
		"all": func(ctx context.Context, p *events.Publisher, e ...*events.Event) error { return p.PublishAll(ctx, e) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			p, err := events.NewPublisher(forgetful(t), events.WithMetrics(events.NewPublisherMetrics(reg)))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			e, again := sample(1), sample(1)
			if err := publish(t.Context(), p, &e); err != nil {
				t.Fatal(err)
			}
			if got, want := published(t, reg), "duplicate 0, failed 0, stored 1; 1 timed"; got != want {
				t.Errorf("counted %q, want %q", got, want)
			}
			if ack, err := p.Publish(t.Context(), &again); err != nil || !ack.Duplicate {
				t.Errorf("sent by somebody else: %+v, %v; want a duplicate", ack, err)
			}
			p.Close()
			refused := sample(2)
			if err := publish(t.Context(), p, &refused); err == nil {
				t.Error("published after the end")
			}
			if got, want := published(t, reg), "duplicate 1, failed 0, stored 1; 2 timed"; got != want {
				t.Errorf("counted %q, want %q", got, want)
			}
		})
	}
}

// What is refused is counted once.
func TestARefusedEventIsCountedOnce(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	reg := prometheus.NewRegistry()
	p, err := events.NewPublisher(s.Conn, events.WithMetrics(events.NewPublisherMetrics(reg)), events.WithSync(func() error { return errors.New("broken") }))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	one, two, three := sample(1), sample(2), sample(3)
	if _, err := p.Publish(t.Context(), &one); err == nil {
		t.Error("stored")
	}
	if err := p.PublishAll(t.Context(), []*events.Event{&two, &three}); err == nil {
		t.Error("all are stored")
	}
	if got, want := published(t, reg), "duplicate 0, failed 3, stored 0; 3 timed"; got != want {
		t.Errorf("counted %q, want %q", got, want)
	}
}

// published is what a publisher counted of events.
func published(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var results []string
	var timed uint64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "serversync_publish_events_total":
				results = append(results, fmt.Sprintf("%s %v", m.GetLabel()[0].GetValue(), m.GetCounter().GetValue()))
			case "serversync_publish_duration_seconds":
				timed = m.GetHistogram().GetSampleCount()
			}
		}
	}
	return fmt.Sprintf("%s; %d timed", strings.Join(results, ", "), timed)
}
