package events_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
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
