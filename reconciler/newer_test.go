package reconciler

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"serversync/events"
)

// ofTheFuture is an event of a run, in a format that nobody knows yet.
const ofTheFuture = `{"version": 2, "id": "x", "kind": "updated", "runId": "r1", "seen": [7], "observedAt": "2030-01-01T00:00:00Z", "server": {"id": 9, "name": {"long": "n"}}}`

// While old and new reconcilers share the consumer, what a newer version wrote
// gets to a newer one, however often an old one is given it first; and the
// others do not wait for it.
func TestWhatANewerVersionWroteIsLeftToIt(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.inject("virtfusion.users.0.servers.9.updated", ofTheFuture)
	s.publish(s.news(1), s.news(2))
	old := s.reconciler()
	old.newerPause = 10 * time.Millisecond
	stop := s.start(old)
	s.until("the others are in the books", func() bool {
		return s.text(`SELECT count(*) FROM serversync.servers`) == "2"
	})
	s.until("it came to the old one again and again", func() bool {
		info, err := s.Consumer.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.NumRedelivered == 1 && info.NumAckPending == 1 && info.Delivered.Consumer > 5
	})
	if !strings.Contains(s.log.String(), "left to a newer reconciler") {
		t.Errorf("it does not say so:\n%s", s.log)
	}
	s.want("0", `SELECT count(*) FROM serversync.faults`)

	// The newer one: it takes it off.
	got := false
	s.until("a newer one got it", func() bool {
		batch, err := s.Consumer.Fetch(1, jetstream.FetchMaxWait(time.Second)) // waits in a row with the old one's
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			if _, err := events.Decode(m.Data()); !errors.Is(err, events.ErrNewer) {
				t.Errorf("it got %s", m.Data())
			}
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
			got = true
		}
		return got
	})
	stop()
	s.drained(0)
	if letters := s.buried(); len(letters) > 0 {
		t.Errorf("dead letters: %+v", letters)
	}
}

// Where no newer one comes, as after an upgrade that was taken back, it becomes
// a dead letter, and holds nobody up.
func TestWithoutANewerReconcilerItIsADeadLetter(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(`INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('r1', 'sweep', 'running', now(), now());
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state) VALUES ('r1', 9, 'drift', 'sent')`)
	r := s.reconciler()
	deliver := func() string {
		t.Helper()
		m := &heard{data: []byte(ofTheFuture), headers: nats.Header{jetstream.MsgIDHeader: {"x"}}, sequence: 3, term: func() {}}
		r.handle(t.Context(), []jetstream.Msg{m})
		return m.told()
	}
	for _, pause := range []time.Duration{0, newerPatience - 2*time.Second} {
		s.pass(pause)
		if got := deliver(); got != "nak after 5s" {
			t.Errorf("after %s the broker was told %q", pause, got)
		}
	}
	r = s.reconciler() // one that was started just now takes its time again
	s.pass(time.Minute)
	if got := deliver(); got != "nak after 5s" {
		t.Errorf("after a restart the broker was told %q", got)
	}
	s.pass(newerPatience)
	if got := deliver(); got != "term" {
		t.Errorf("in the end the broker was told %q", got)
	}
	letters := s.buried()
	if len(letters) != 1 || !strings.Contains(letters[0].Reason, "newer version") || string(letters[0].Data) != ofTheFuture {
		t.Errorf("dead letters %+v", letters)
	}
	s.want("failed", `SELECT outcome FROM serversync.run_items`)
}
