package events_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/events/eventstest"
)

func TestAnnouncementsReachWhoWatches(t *testing.T) {
	t.Parallel()
	s := eventstest.New(t)
	live := events.NewLive(s.Conn, zerolog.Nop())
	live.Announce(events.Announcement{Type: events.LiveRun, RunID: "nobody watches"})
	heard := make(chan events.Announcement, 10)
	stop, err := live.Watch(func(a events.Announcement) { heard <- a })
	if err != nil {
		t.Fatal(err)
	}
	want := []events.Announcement{
		{Type: events.LiveRun, RunID: "r"},
		{Type: events.LiveServer, RunID: "r", UserID: new(int64(7)), Server: &events.ServerChange{ID: 1, Name: "\x1b[31m", Status: "external", Billing: "on", Outcome: "new", What: "made"}},
	}
	for _, a := range want {
		live.Announce(a)
	}
	for i := range want {
		select {
		case got := <-heard:
			if diff := cmp.Diff(want[i], got); diff != "" {
				t.Error(diff)
			}
		case <-t.Context().Done():
			t.Fatal("nothing was heard")
		}
	}
	stop()
	live.Announce(want[0])
	if err := s.Conn.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-heard:
		t.Errorf("heard after the end: %+v", a)
	default:
	}
	s.Conn.Close()
	live.Announce(want[0]) // is lost, and nobody waits for it
	if _, err := live.Watch(func(events.Announcement) {}); err == nil {
		t.Error("watching over a closed connection")
	}
}
