// Package eventstest gives each test a broker of its own: a real embedded one
// on a directory of the test's, with the stream and the consumer made.
package eventstest

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/events"
)

// System is a running broker with everything that the service has on it.
type System struct {
	Conn      *nats.Conn
	JetStream jetstream.JetStream
	Consumer  jetstream.Consumer
	Publisher *events.Publisher
}

// New starts a broker that ends with the test.
func New(t testing.TB, opts ...events.BrokerOption) *System {
	t.Helper()
	broker, err := events.StartBroker(t.TempDir(), zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Stop(); err != nil {
			t.Error(err)
		}
	})
	nc, err := broker.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := events.EnsureStream(t.Context(), js, events.StreamOptions{MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := events.NewPublisher(nc, events.WithSync(broker.Sync()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(publisher.Close)
	return &System{Conn: nc, JetStream: js, Consumer: consumer, Publisher: publisher}
}
