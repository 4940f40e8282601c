package events_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"serversync/events"
	"serversync/events/eventstest"
)

// stored publishes an event of a server under an owner, the nth of its kind.
func stored(t *testing.T, s *eventstest.System, owner, server int64, n int) {
	t.Helper()
	e := sample(server)
	e.Server.Owner, e.ObservedAt = &events.Owner{ID: owner}, e.ObservedAt.Add(time.Duration(n)*time.Second)
	if _, err := s.Publisher.Publish(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
}

// read lists a part of the stream, as owner/server and the second of its time.
func read(t *testing.T, r *events.Replayer, past events.Past) string {
	t.Helper()
	held, err := r.Holds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if past.Last == 0 {
		past.Last = held.Last
	}
	var all []string
	err = r.Read(t.Context(), past, func(e *events.Event) error {
		all = append(all, fmt.Sprintf("%d/%d:%d", e.OwnerID(), e.Server.ID, e.ObservedAt.Second()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// TestThePastIsReadInOrder: an owner's events and those of servers, which
// overlap, come once, in the order of the stream.
func TestThePastIsReadInOrder(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	r := events.NewReplayer(s.JetStream, s.Publisher)
	if got := read(t, r, events.Past{Owners: []int64{5}, Servers: []int64{1}}); got != "" {
		t.Errorf("an empty stream tells %s", got)
	}
	for n, at := range [][2]int64{{5, 1}, {6, 2}, {0, 1}, {5, 3}, {6, 1}, {6, 3}, {5, 4}, {6, 55}, {56, 6}} {
		stored(t, s, at[0], at[1], n)
	}
	for _, test := range []struct {
		past events.Past
		want string
	}{
		{events.Past{Owners: []int64{5}, Servers: []int64{1, 2, 1}}, "5/1:0 6/2:1 0/1:2 5/3:3 6/1:4 5/4:6"},
		{events.Past{Owners: []int64{5}}, "5/1:0 5/3:3 5/4:6"},
		{events.Past{Servers: []int64{55}}, "6/55:7"},
		{events.Past{Servers: []int64{7}}, ""},
		{events.Past{}, ""},
		{events.Past{Owners: []int64{5}, Servers: []int64{1}, Last: 4}, "5/1:0 0/1:2 5/3:3"},
		{events.Past{Owners: []int64{5}, Since: time.Now().Add(time.Hour)}, ""},
	} {
		if got := read(t, r, test.past); got != test.want {
			t.Errorf("%+v: %s, want %s", test.past, got, test.want)
		}
	}
	ids, err := r.ServersIn(t.Context(), events.Past{Owners: []int64{5}, Servers: []int64{2}, Last: 9})
	if err != nil || !slices.Equal(ids, []int64{1, 2, 3, 4}) {
		t.Errorf("servers %v, %v", ids, err)
	}
	stop := errors.New("enough")
	if err := r.Read(t.Context(), events.Past{Owners: []int64{5}, Last: 9}, func(*events.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error does not end the reading: %v", err)
	}
}

// TestThePastOfManyServers: more than one consumer takes.
func TestThePastOfManyServers(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	r := events.NewReplayer(s.JetStream, s.Publisher)
	var many []*events.Event
	var ids []int64
	for n := range 1500 {
		id := int64(n*7%500 + 1)
		e := sample(id)
		e.ObservedAt = e.ObservedAt.Add(time.Duration(n) * time.Second)
		many, ids = append(many, &e), append(ids, id)
	}
	if err := r.Republish(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := r.Read(t.Context(), events.Past{Owners: []int64{7}, Servers: ids, Last: 1500}, func(e *events.Event) error {
		if want := many[n]; e.ID != want.ID {
			t.Fatalf("event %d is of server %d at %s, want %d at %s", n, e.Server.ID, e.ObservedAt, want.Server.ID, want.ObservedAt)
		}
		n++
		return nil
	})
	if err != nil || n != 1500 {
		t.Errorf("%d events, %v", n, err)
	}
}

// TestWhatAReplayPublishedIsNotReplayed, not even when it was among the dead
// letters meanwhile.
func TestWhatAReplayPublishedIsNotReplayed(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	r := events.NewReplayer(s.JetStream, s.Publisher)
	for n := range 3 {
		stored(t, s, 7, 1, n)
	}
	again := func() (some []*events.Event) {
		for n := range 3 {
			e := sample(1)
			e.ObservedAt, e.RunID, e.Replay = e.ObservedAt.Add(time.Duration(n)*time.Second), "r1", true
			some = append(some, &e, new(e)) // twice
		}
		return some
	}
	for range 2 { // the second time they are there already
		if err := r.Republish(t.Context(), again()); err != nil {
			t.Fatal(err)
		}
	}
	pulled := sample(1)
	pulled.Kind, pulled.Source, pulled.RunID = events.KindObserved, events.SourceReplay, "r1"
	if err := s.Publisher.PublishAll(t.Context(), []*events.Event{&pulled}); err != nil {
		t.Fatal(err)
	}
	all := fetched(t, s, 7)
	if len(all) != 7 {
		t.Fatalf("%d messages", len(all))
	}
	for i, m := range all {
		e, err := events.Decode(m.Data())
		if want := i > 2; err != nil || (m.Headers().Get(events.ReplayHeader) == "r1") != want || e.Replay != (want && i < 6) {
			t.Errorf("message %d: %v %+v, %v", i, m.Headers(), e, err)
		}
	}
	if !pulled.Source.Pulled() {
		t.Error("what a replay pulled was not pulled")
	}

	dead := events.NewDeadLetters(s.JetStream)
	letter := events.NewDeadLetter(all[4])
	put(t, dead, letter)
	if err := dead.Requeue(t.Context(), letter.ID); err != nil {
		t.Fatal(err)
	}
	if requeued := fetched(t, s, 1); len(requeued) != 1 || !slices.Equal(requeued[0].Headers()[events.ReplayHeader], all[4].Headers()[events.ReplayHeader]) {
		t.Errorf("requeued: %v", requeued)
	}
	if got := read(t, r, events.Past{Owners: []int64{7}, Servers: []int64{1}}); got != "7/1:0 7/1:1 7/1:2" {
		t.Errorf("the past is %s", got)
	}
}
