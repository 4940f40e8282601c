package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/events/eventstest"
)

func sample(id int64) events.Event {
	name := fmt.Sprintf("vm-%d", id)
	return events.Event{
		Kind:       events.KindCreated,
		Source:     events.SourceWebhook,
		Name:       "server.create",
		ObservedAt: time.Date(2026, 11, 1, 12, 0, 0, 316192000, time.UTC),
		ReceivedAt: time.Date(2026, 11, 1, 12, 0, 1, 0, time.UTC),
		Server:     events.Server{ID: id, Name: &name, Owner: &events.Owner{ID: 7}},
	}
}

func TestSealIdentifiesAnObservation(t *testing.T) {
	t.Parallel()
	base := sample(1)
	if err := base.Seal(); err != nil {
		t.Fatal(err)
	}
	same := sample(1)
	same.ReceivedAt = same.ReceivedAt.Add(time.Minute) // a redelivery arrives later
	if err := same.Seal(); err != nil {
		t.Fatal(err)
	}
	if same.ID != base.ID {
		t.Errorf("the same observation got two ids: %s, %s", base.ID, same.ID)
	}

	changes := map[string]func(*events.Event){
		"source":  func(e *events.Event) { e.Source = events.SourceSweep },
		"name":    func(e *events.Event) { e.Name = "server.build" },
		"kind":    func(e *events.Event) { e.Kind = events.KindUpdated },
		"status":  func(e *events.Event) { e.Failed = true },
		"time":    func(e *events.Event) { e.ObservedAt = e.ObservedAt.Add(time.Microsecond) },
		"run":     func(e *events.Event) { e.RunID = "r1" },
		"content": func(e *events.Event) { other := "vm-x"; e.Server.Name = &other },
	}
	for what, change := range changes {
		e := sample(1)
		change(&e)
		if err := e.Seal(); err != nil {
			t.Fatal(err)
		}
		if e.ID == base.ID {
			t.Errorf("another %s has the same id", what)
		}
	}
}

func TestSealRefusesAnEventWithoutServer(t *testing.T) {
	t.Parallel()
	e := sample(0)
	if err := e.Seal(); !errors.Is(err, events.ErrNoServerID) {
		t.Fatalf("Seal = %v, want ErrNoServerID", err)
	}
}

func TestDecodeRefusesWhatNobodyCouldReconcile(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"not JSON":     `{`,
		"no server":    `{"kind":"created","observedAt":"2026-11-01T12:00:00Z","server":{}}`,
		"no time":      `{"kind":"created","server":{"id":1}}`,
		"unknown kind": `{"kind":"renamed","observedAt":"2026-11-01T12:00:00Z","server":{"id":1}}`,
	} {
		if _, err := events.Decode([]byte(data)); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

// What a newer version added is ignored; what it changed is left to it.
func TestDecodeOfWhatANewerVersionWrote(t *testing.T) {
	t.Parallel()
	e, err := events.Decode([]byte(`{"version":1,"kind":"created","mood":"fine","observedAt":"2026-11-01T12:00:00Z","server":{"id":1,"new":{"x":2}}}`))
	if err != nil || e.Server.ID != 1 {
		t.Errorf("with fields more: %+v, %v", e, err)
	}
	for name, data := range map[string]string{
		"another format":      `{"version":2,"kind":"created","runId":"r","observedAt":"2026-11-01T12:00:00Z","server":{"id":1}}`,
		"with other types":    `{"version":2,"runId":"r","server":{"id":1},"kind":7,"observedAt":[2026]}`,
		"an unknown kind":     `{"version":1,"kind":"renamed","runId":"r","observedAt":"2026-11-01T12:00:00Z","server":{"id":1}}`,
		"no version, no kind": `{"kind":"renamed","runId":"r","observedAt":"2026-11-01T12:00:00Z","server":{"id":1}}`,
	} {
		e, err := events.Decode([]byte(data))
		if !errors.Is(err, events.ErrNewer) || e.Server.ID != 1 || e.RunID != "r" {
			t.Errorf("%s: %+v, %v, want ErrNewer with what could be read", name, e, err)
		}
	}
}

func TestPublishIsStoredOnceAndFound(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	e := sample(5)
	first, err := s.Publisher.Publish(t.Context(), &e)
	if err != nil {
		t.Fatal(err)
	}
	again := sample(5)
	second, err := s.Publisher.Publish(t.Context(), &again)
	if err != nil {
		t.Fatal(err)
	}
	if first.Duplicate || !second.Duplicate || first.Sequence != second.Sequence {
		t.Fatalf("first %+v, second %+v: want the second to be the duplicate of the first", first, second)
	}
	got := fetched(t, s, 1)
	if len(got) != 1 || got[0].Subject() != "virtfusion.users.7.servers.5.created" {
		t.Fatalf("got %d messages: %v", len(got), got)
	}
	decoded, err := events.Decode(got[0].Data())
	if err != nil || decoded.ID != e.ID || *decoded.Server.Name != "vm-5" {
		t.Fatalf("decoded %+v, %v", decoded, err)
	}
}

func TestPublishAfterBrokerOrPublisherEnded(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	e := sample(1)
	s.Conn.Close()
	if _, err := s.Publisher.Publish(t.Context(), &e); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("broker gone: %v, want ErrNotDurable", err)
	}
	s.Publisher.Close()
	if _, err := s.Publisher.Publish(t.Context(), &e); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("publisher closed: %v, want ErrNotDurable", err)
	}
}

func TestPublishHonoursItsContext(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := sample(1)
	// Either it was quick enough or the wait ended; it never hangs.
	if _, err := s.Publisher.Publish(ctx, &e); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAFullStreamRefusesInsteadOfForgetting(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	if _, err := events.EnsureStream(t.Context(), s.JetStream, events.StreamOptions{MaxBytes: 4096}); err != nil {
		t.Fatal(err)
	}
	var stored int
	for i := range 100 {
		e := sample(int64(i + 1))
		if _, err := s.Publisher.Publish(t.Context(), &e); err != nil {
			if !errors.Is(err, events.ErrNotDurable) {
				t.Fatalf("full stream: %v, want ErrNotDurable", err)
			}
			break
		}
		stored++
	}
	if stored == 0 || stored == 100 {
		t.Fatalf("%d of 100 were stored in 4 KiB", stored)
	}
	first, err := s.JetStream.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	info, err := first.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.FirstSeq != 1 || int(info.State.Msgs) != stored {
		t.Fatalf("the stream holds %d from %d on; %d were acknowledged", info.State.Msgs, info.State.FirstSeq, stored)
	}
}

func TestStoreSurvivesARestartAndIsOpenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := zerolog.Nop()
	open := func() (*events.Publisher, func()) {
		b, err := events.StartBroker(dir, log)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := b.Connect()
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := events.EnsureStream(t.Context(), js, events.StreamOptions{}); err != nil {
			t.Fatal(err)
		}
		p, err := events.NewPublisher(nc, events.WithSync(b.Sync()))
		if err != nil {
			t.Fatal(err)
		}
		return p, func() {
			p.Close()
			nc.Close()
			if err := b.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
	p, stop := open()
	e := sample(1)
	if _, err := p.Publish(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	if _, err := events.StartBroker(dir, log); !errors.Is(err, events.ErrStoreInUse) {
		t.Errorf("a second broker on the store: %v, want ErrStoreInUse", err)
	}
	stop()

	p, stop = open()
	defer stop()
	again := sample(1)
	ack, err := p.Publish(t.Context(), &again)
	if err != nil {
		t.Fatal(err)
	}
	if !ack.Duplicate {
		t.Error("after a restart the store has forgotten the event, or its id")
	}
}

// Where every write is synced by itself, many are written as atomic batches.
func TestPublishAllWritesBatches(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t, events.SyncEachWrite())
	all := make([]*events.Event, 600)
	for i := range all {
		all[i] = &events.Event{Kind: events.KindObserved, Source: events.SourceSweep, ObservedAt: time.Unix(1, 0), Server: events.Server{ID: int64(i + 1)}}
	}
	// One is there already, which sinks the batch that it is in: the others of
	// that batch must be stored all the same, and it only once.
	if _, err := s.Publisher.Publish(t.Context(), all[300]); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again, as after a crash
		if err := s.Publisher.PublishAll(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Publisher.PublishAll(t.Context(), nil); err != nil {
		t.Error(err)
	}
	stream, err := s.JetStream.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 600 {
		t.Errorf("the stream holds %d events, want 600", n)
	}
	batched := 0
	for sequence := range uint64(600) {
		m, err := stream.GetMsg(t.Context(), sequence+1)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get("Nats-Batch-Id") != "" {
			batched++
		}
	}
	if batched < 16 || batched > 600-16 { // the batch that 300 was in was sunk
		t.Errorf("%d events were written in batches", batched)
	}
	if err := s.Publisher.PublishAll(t.Context(), []*events.Event{{Kind: events.KindObserved}}); !errors.Is(err, events.ErrNoServerID) {
		t.Errorf("an event without a server: %v", err)
	}
	bad := append(slices.Clone(all[:20]), &events.Event{Kind: events.KindObserved})
	if err := s.Publisher.PublishAll(t.Context(), bad); !errors.Is(err, events.ErrNoServerID) {
		t.Errorf("a batch with an event without a server: %v", err)
	}
	s.Publisher.Close()
	if err := s.Publisher.PublishAll(t.Context(), all); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestQueueDepthAndAge(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	now := time.Now()
	measure := func(wantDepth int64, wantAge bool) {
		t.Helper()
		eventually(t, func() bool { // the broker counts in the background
			depth, err := events.QueueDepth(t.Context(), s.JetStream)
			if err != nil {
				t.Fatal(err)
			}
			return depth == wantDepth
		})
		age, err := events.QueueAge(t.Context(), s.JetStream, now.Add(time.Hour))
		if err != nil || (age > 50*time.Minute) != wantAge || !wantAge && age != 0 {
			t.Errorf("the age is %s, %v", age, err)
		}
	}
	measure(0, false)
	for id := range int64(3) {
		e := events.Event{Kind: events.KindObserved, Source: events.SourceSweep, ObservedAt: now, Server: events.Server{ID: id + 1}}
		if _, err := s.Publisher.Publish(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
	measure(3, true)
	stream, err := s.JetStream.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 1); err != nil { // the next one counts then
		t.Fatal(err)
	}
	measure(2, true)
	batch, err := s.Consumer.Fetch(2)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	measure(0, false)
}
