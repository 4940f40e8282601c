package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"serversync/db/dbtest"
	"serversync/events"
)

// A broker that lost the stream, or the consumer, under the running service is
// used again without a restart: webhooks are taken, and reach the books.
func TestALostStreamIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(jetstream.JetStream) error{
		"stream": func(js jetstream.JetStream) error { return js.DeleteStream(t.Context(), events.StreamName) },
		"consumer": func(js jetstream.JetStream) error {
			return js.DeleteConsumer(t.Context(), events.StreamName, events.ConsumerName)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, config{natsURL: pagesBroker(t), databaseURL: dbtest.NewDSN(t), roles: allRoles, streamMaxAge: time.Hour})
			r.ready(t)
			before, err := r.js.Consumer(t.Context(), events.StreamName, events.ConsumerName)
			if err != nil {
				t.Fatal(err)
			}
			if err := lose(r.js); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the consumer is there again", func() bool {
				now, err := r.js.Consumer(t.Context(), events.StreamName, events.ConsumerName)
				return err == nil && now.CachedInfo().Created.After(before.CachedInfo().Created)
			})
			r.ready(t)
			eventually(t, "a webhook is taken", func() bool {
				status, _ := deliver(t, r.base, `{"event": "server.create", "created": "2026-03-01T12:00:00Z", "data": {"server": {"id": 501, "name": "web-1"}}}`)
				return status == http.StatusAccepted
			})
			eventually(t, "it is acknowledged", func() bool {
				last, acknowledged, err := events.Applied(t.Context(), r.js)
				return err == nil && last > 0 && acknowledged == last
			})
			if log := r.log.String(); !strings.Contains(log, "it was made again") {
				t.Errorf("the log does not say so: %s", log)
			}
		})
	}
}
