package events_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"serversync/events"
	"serversync/events/eventstest"
)

func letter(id string) events.DeadLetter {
	return events.DeadLetter{
		ID: id, Reason: "refused", Attempts: 5, FirstAt: time.Unix(1, 0).UTC(), LastAt: time.Unix(2, 0).UTC(),
		Stream: events.StreamName, Sequence: 7, StoredAt: time.Unix(0, 0).UTC(), Subject: "virtfusion.users.7.servers.5.created",
		Headers: nats.Header{jetstream.MsgIDHeader: {id}}, Data: []byte("{\x00 anything"),
	}
}

func put(t *testing.T, dead *events.DeadLetters, letters ...events.DeadLetter) {
	t.Helper()
	for _, l := range letters {
		if duplicate, err := dead.Put(t.Context(), l); err != nil || duplicate {
			t.Fatalf("put %s: duplicate %t, %v", l.ID, duplicate, err)
		}
	}
}

// fetched takes what waits on the stream: n messages, and whatever else there is.
// The broker tells the publisher first, and then the consumer.
func fetched(t *testing.T, s *eventstest.System, n int) []jetstream.Msg {
	t.Helper()
	var all []jetstream.Msg
	for range n {
		m, err := s.Consumer.Next(jetstream.FetchMaxWait(30 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	batch, err := s.Consumer.FetchNoWait(10)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		all = append(all, m)
	}
	return all
}

func TestADeadLetterKeepsTheOriginal(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	e := sample(5)
	ack, err := s.Publisher.Publish(t.Context(), &e)
	if err != nil {
		t.Fatal(err)
	}
	got := fetched(t, s, 1)
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	dead := events.NewDeadLetters(s.JetStream)
	l := events.NewDeadLetter(got[0])
	l.Reason, l.Attempts = "refused", 5
	put(t, dead, l)
	if duplicate, err := dead.Put(t.Context(), l); err != nil || !duplicate {
		t.Errorf("put again: duplicate %t, %v", duplicate, err)
	}
	back, err := dead.Get(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID != e.ID || back.Reason != "refused" || back.Attempts != 5 || back.Sequence != ack.Sequence || back.Subject != e.Subject() ||
		back.Headers.Get(jetstream.MsgIDHeader) != e.ID || !bytes.Equal(back.Data, got[0].Data()) || back.Stream != events.StreamName || back.StoredAt.IsZero() {
		t.Errorf("got %+v", back)
	}
	if n, err := dead.Count(t.Context()); n != 1 || err != nil {
		t.Errorf("%d dead letters, %v", n, err)
	}
}

func TestAMessageWithoutAUsableIDHasItsPlace(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	for _, id := range []string{"", "with.dots", "with space", "*", ">", strings.Repeat("x", 1000)} {
		m := nats.NewMsg("virtfusion.users.0.servers.9.updated")
		if id != "" {
			m.Header.Set(jetstream.MsgIDHeader, id)
		}
		if _, err := s.JetStream.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	dead := events.NewDeadLetters(s.JetStream)
	for i, m := range fetched(t, s, 6) {
		l := events.NewDeadLetter(m)
		if prefix := fmt.Sprintf("VIRTFUSION-%d-", i+1); !strings.HasPrefix(l.ID, prefix) || seen[l.ID] {
			t.Errorf("id %q, want %s…, and each its own", l.ID, prefix)
		}
		seen[l.ID] = true
		put(t, dead, l)
	}
	if len(seen) != 6 {
		t.Errorf("%d messages, want 6", len(seen))
	}
}

func TestDeadLettersAreListedNewestFirst(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	dead := events.NewDeadLetters(s.JetStream)
	list := func(cursor uint64, limit int) ([]string, uint64) {
		t.Helper()
		letters, next, err := dead.List(t.Context(), cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, l := range letters {
			ids = append(ids, l.ID)
		}
		return ids, next
	}
	if ids, next := list(0, 10); len(ids) != 0 || next != 0 {
		t.Errorf("of none: %v, next %d", ids, next)
	}
	put(t, dead, letter("a"), letter("b"), letter("c"), letter("d"), letter("e"))
	if err := dead.Discard(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	var pages [][]string
	for cursor := uint64(0); ; {
		ids, next := list(cursor, 2)
		pages = append(pages, ids)
		if cursor = next; next == 0 {
			break
		}
	}
	if want := [][]string{{"e", "d"}, {"b", "a"}}; !slices.EqualFunc(pages, want, slices.Equal) {
		t.Errorf("pages %v, want %v", pages, want)
	}
	for _, id := range []string{"c", "never", "", "*", "a.b"} {
		for name, do := range map[string]error{"get": get(t, dead, id), "requeue": dead.Requeue(t.Context(), id), "discard": dead.Discard(t.Context(), id)} {
			if !errors.Is(do, events.ErrNoDeadLetter) {
				t.Errorf("%s %q: %v, want ErrNoDeadLetter", name, id, do)
			}
		}
	}
}

func get(t *testing.T, dead *events.DeadLetters, id string) error {
	t.Helper()
	_, err := dead.Get(t.Context(), id)
	return err
}

// A requeued event comes again although the broker still knows its id.
func TestRequeue(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	dead := events.NewDeadLetters(s.JetStream)
	e := sample(5)
	if _, err := s.Publisher.Publish(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	first := fetched(t, s, 1)[0]
	put(t, dead, events.NewDeadLetter(first))
	if err := dead.Requeue(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	again := fetched(t, s, 1)
	if len(again) != 1 || !bytes.Equal(again[0].Data(), first.Data()) || again[0].Subject() != first.Subject() {
		t.Fatalf("requeued: %v", again)
	}
	if n, err := dead.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("%d dead letters are left, %v", n, err)
	}
	// It may die once more, and is another dead letter then.
	l := events.NewDeadLetter(again[0])
	if l.ID == e.ID {
		t.Errorf("the requeued event has the original's id %s", l.ID)
	}
	put(t, dead, l)
	if err := dead.Requeue(t.Context(), l.ID); err != nil {
		t.Fatal(err)
	}
	if again = fetched(t, s, 1); len(again) != 1 || !bytes.Equal(again[0].Data(), first.Data()) {
		t.Errorf("requeued twice: %v", again)
	}
}

// What does not fit beside its reason stays on the stream that it came from.
func TestALargeOriginalIsReferredTo(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	dead := events.NewDeadLetters(s.JetStream)
	e := sample(5)
	e.Server.Name = new(strings.Repeat("x", 900<<10))
	if _, err := s.Publisher.Publish(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	first := fetched(t, s, 1)[0]
	put(t, dead, events.NewDeadLetter(first))
	back, err := dead.Get(t.Context(), e.ID)
	if err != nil || !back.DataOmitted || back.Data != nil || back.Sequence != 1 {
		t.Errorf("omitted %t, sequence %d, %v", back.DataOmitted, back.Sequence, err)
	}
	if err := dead.Requeue(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	again := fetched(t, s, 1)
	if len(again) != 1 || !bytes.Equal(again[0].Data(), first.Data()) {
		t.Fatal("the original did not come again")
	}

	// Once the stream keeps it no longer, nothing can be tried again.
	l := events.NewDeadLetter(again[0])
	put(t, dead, l)
	stream, err := s.JetStream.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), l.Sequence); err != nil {
		t.Fatal(err)
	}
	if err := dead.Requeue(t.Context(), l.ID); !errors.Is(err, events.ErrNothingLeft) {
		t.Errorf("requeue of what is gone: %v, want ErrNothingLeft", err)
	}
	if n, err := dead.Count(t.Context()); n != 1 || err != nil {
		t.Errorf("%d dead letters are left, %v; want the one", n, err)
	}
}

// A stream of the same name, made anew, has other messages in the same places.
func TestAnotherMessageIsNotTheOriginal(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	dead := events.NewDeadLetters(s.JetStream)
	e := sample(5)
	e.Server.Name = new(strings.Repeat("x", 900<<10))
	if _, err := s.Publisher.Publish(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	l := events.NewDeadLetter(fetched(t, s, 1)[0])
	l.StoredAt = l.StoredAt.Add(-time.Hour)
	put(t, dead, l)
	if err := dead.Requeue(t.Context(), e.ID); !errors.Is(err, events.ErrNothingLeft) {
		t.Errorf("requeue: %v, want ErrNothingLeft", err)
	}
}

// One that cannot be read hides no other, and can be discarded.
func TestADeadLetterThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	dead := events.NewDeadLetters(s.JetStream)
	put(t, dead, letter("a"))
	if _, err := s.JetStream.Publish(t.Context(), strings.TrimSuffix(events.DeadSubjectAll, ">")+"odd", []byte(`{"id": 7`)); err != nil {
		t.Fatal(err)
	}
	put(t, dead, letter("b"))
	letters, _, err := dead.List(t.Context(), 0, 10)
	if err != nil || len(letters) != 3 {
		t.Fatalf("%d letters, %v", len(letters), err)
	}
	if l := letters[1]; l.ID != "odd" || string(l.Data) != `{"id": 7` || !strings.Contains(l.Reason, "discard it") || l.LastAt.IsZero() {
		t.Errorf("%+v", l)
	}
	if err := dead.Requeue(t.Context(), "odd"); !errors.Is(err, events.ErrNothingLeft) {
		t.Errorf("requeue: %v, want ErrNothingLeft", err)
	}
	if err := dead.Discard(t.Context(), "odd"); err != nil {
		t.Error(err)
	}
}

func TestPutWithoutTheBroker(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	dead := events.NewDeadLetters(s.JetStream)
	s.Conn.Close()
	if _, err := dead.Put(t.Context(), letter("a")); !errors.Is(err, events.ErrNotDurable) {
		t.Errorf("got %v, want ErrNotDurable", err)
	}
}
