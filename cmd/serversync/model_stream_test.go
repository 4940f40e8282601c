package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"serversync/events"
)

// modelStream stands in the place of the broker: what is published is kept as
// the bytes that the broker would keep, and waits to be delivered.
type modelStream struct {
	clock func() time.Time
	// window is for how long an event's id is remembered; 0: not at all, as if
	// every repetition came after the broker's own window.
	window time.Duration

	mu      sync.Mutex
	stored  []modelStored
	last    map[string]time.Time
	waiting []int // indexes of stored, in the order of delivery
	refused []string
}

type modelStored struct {
	id        string
	subject   string
	data      []byte
	at        time.Time
	delivered uint64
}

// Publish keeps an event, as the broker does.
func (s *modelStream) Publish(_ context.Context, e *events.Event) (events.Ack, error) {
	if err := e.Seal(); err != nil {
		return events.Ack{}, err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return events.Ack{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	if at, known := s.last[e.ID]; known && now.Sub(at) < s.window {
		return events.Ack{Sequence: uint64(len(s.stored)), Duplicate: true}, nil
	}
	s.last[e.ID] = now
	s.stored = append(s.stored, modelStored{id: e.ID, subject: e.Subject(), data: data, at: now})
	s.waiting = append(s.waiting, len(s.stored)-1)
	return events.Ack{Sequence: uint64(len(s.stored))}, nil
}

// again has stored events delivered once more, after what waits.
func (s *modelStream) again(indexes ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, indexes...)
}

// published is how many events are on the stream.
func (s *modelStream) published() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stored)
}

// take takes up to n of what waits.
func (s *modelStream) take(n int) []jetstream.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, len(s.waiting))
	messages := make([]jetstream.Msg, n)
	for i, at := range s.waiting[:n] {
		s.stored[at].delivered++
		messages[i] = &modelMessage{stream: s, sequence: uint64(at + 1), stored: s.stored[at]}
	}
	s.waiting = s.waiting[n:]
	return messages
}

// waits is how many deliveries are to come.
func (s *modelStream) waits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// complaints are the answers of the reconciler other than "done". Nothing in
// the model gives reason for one.
func (s *modelStream) complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// modelMessage is a delivery.
type modelMessage struct {
	jetstream.Msg // nil: whatever is not below is not called

	stream   *modelStream
	sequence uint64
	stored   modelStored
}

func (m *modelMessage) refuse(verb string) error {
	m.stream.mu.Lock()
	defer m.stream.mu.Unlock()
	m.stream.refused = append(m.stream.refused, verb+": "+string(m.stored.data))
	return nil
}

func (m *modelMessage) Data() []byte    { return m.stored.data }
func (m *modelMessage) Subject() string { return m.stored.subject }
func (m *modelMessage) Headers() nats.Header {
	return nats.Header{jetstream.MsgIDHeader: {m.stored.id}}
}

func (m *modelMessage) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{
		Stream: events.StreamName, Consumer: events.ConsumerName, Timestamp: m.stored.at,
		Sequence: jetstream.SequencePair{Stream: m.sequence}, NumDelivered: m.stored.delivered,
	}, nil
}

func (*modelMessage) Ack() error                         { return nil }
func (*modelMessage) InProgress() error                  { return nil }
func (m *modelMessage) Nak() error                       { return m.refuse("nak") }
func (m *modelMessage) NakWithDelay(time.Duration) error { return m.refuse("nak with delay") }
func (m *modelMessage) TermWithReason(why string) error  { return m.refuse("terminate, " + why) }

// modelConsumer hands batches, cut as the model likes, to one reconciler, and
// ends its run after the last one.
type modelConsumer struct {
	jetstream.Consumer // nil: whatever is not below is not called

	ended context.CancelFunc

	mu      sync.Mutex
	batches [][]jetstream.Msg
	idle    int           // of the reconciler's two batches in hand, those that are done and wait for more
	over    chan struct{} // closed when both are
}

// begin readies it for a run of its reconciler, which ended ends.
func (c *modelConsumer) begin(ended context.CancelFunc) {
	c.ended, c.idle, c.over = ended, 0, make(chan struct{})
}

// FetchNoWait implements jetstream.Consumer.
func (c *modelConsumer) FetchNoWait(int) (jetstream.MessageBatch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.batches) == 0 {
		return modelBatch(nil), nil
	}
	batch := c.batches[0]
	c.batches = c.batches[1:]
	return modelBatch(batch), nil
}

// Fetch implements jetstream.Consumer: nothing more comes.
func (c *modelConsumer) Fetch(int, ...jetstream.FetchOpt) (jetstream.MessageBatch, error) {
	c.mu.Lock()
	if c.idle++; c.idle == 2 {
		c.ended()
		close(c.over)
	}
	c.mu.Unlock()
	<-c.over
	return nil, errors.New("the batches of the model are over")
}

type modelBatch []jetstream.Msg

func (b modelBatch) Messages() <-chan jetstream.Msg {
	messages := make(chan jetstream.Msg, len(b))
	for _, m := range b {
		messages <- m
	}
	close(messages)
	return messages
}

func (modelBatch) Error() error { return nil }
