package events

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// TestEncodedOnce holds what goes onto the stream to what encoding/json makes of
// the event.
func TestEncodedOnce(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	for name, e := range map[string]*Event{
		"full": {
			Kind: KindCreated, Source: SourceWebhook, Name: "server.create", Failed: true, ObservedAt: at, ReceivedAt: at,
			RunID: "run", Replay: true, Expected: ExpectNothing,
			Server: Server{ID: 7, Owner: &Owner{ID: 3, ExtRelationID: new(int64(4)), Whole: true}, Name: new(`"<é`), IPAddresses: []string{}, UpdatedAt: &at},
		},
		"least": {Kind: KindObserved, Source: SourceSweep, ObservedAt: at, Server: Server{ID: 1}},
	} {
		got, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
		if id := e.ID; e.Seal() != nil || e.ID != id || id == "" {
			t.Errorf("%s: encoding gave it the id %q, sealing %q", name, id, e.ID)
		}
	}
	if _, err := new(Event).encode(); !errors.Is(err, ErrNoServerID) {
		t.Errorf("an event without a server: %v", err)
	}
}
