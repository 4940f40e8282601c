package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"serversync/events"
)

// plainPublisher publishes each event by itself, and answers when the broker
// does.
type plainPublisher struct{ js jetstream.JetStream }

// Publish implements ingest's publisher.
func (p plainPublisher) Publish(ctx context.Context, e *events.Event) (events.Ack, error) {
	m, err := message(e)
	if err != nil {
		return events.Ack{}, err
	}
	ack, err := p.js.PublishMsg(ctx, m)
	if err != nil {
		return events.Ack{}, fmt.Errorf("publish: %w", err)
	}
	return events.Ack{Sequence: ack.Sequence, Duplicate: ack.Duplicate}, nil
}

// noPublisher gives events their ids and throws them away.
type noPublisher struct{}

// Publish implements ingest's publisher.
func (noPublisher) Publish(_ context.Context, e *events.Event) (events.Ack, error) {
	return events.Ack{}, e.Seal()
}

// message is what the publisher puts on the stream.
func message(e *events.Event) (*nats.Msg, error) {
	if err := e.Seal(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode an event: %w", err)
	}
	m := nats.NewMsg(e.Subject())
	m.Data = data
	m.Header.Set(jetstream.MsgIDHeader, e.ID)
	return m, nil
}

// rival is a way of answering webhooks.
type rival struct {
	name     string
	publish  publisher
	broker   *broker // where the answered events must be; nil: nowhere
	endpoint *endpoint
}

// ingestDurable measures webhooks answered 202.
func (b *bench) ingestDurable(ctx context.Context) (err error) {
	m := b.results.section("ingest_durable", "Webhooks answered",
		fmt.Sprintf("Webhooks of %d bytes, posted over TCP by 64 and by 256 connections, each the next one when the one before was answered 202. "+
			"*serversync* is the real endpoint on the embedded broker: an answer means that the event is on disk. "+
			"*plain* is the same endpoint, which publishes each event by itself to a broker that syncs every write. "+
			"*no publish* is the same endpoint, which throws the event away: the ceiling of everything else. "+
			"*JetStream* is the broker alone, in this process and without HTTP, given finished messages in atomic batches of 256 under the same sync of every write; "+
			"*JetStream, grouped* is the same messages published asynchronously in groups of 256, each group followed by one sync of the store.", bodySize))
	durable, err := b.startBroker(ctx, "nats")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.close()) }()
	each, err := b.startBroker(ctx, "nats-sync-each", events.SyncEachWrite())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, each.close()) }()
	rivals := []*rival{
		{name: "serversync", publish: durable.publisher, broker: durable},
		{name: "plain", publish: plainPublisher{each.js}, broker: each},
		{name: "no publish", publish: noPublisher{}},
	}
	for _, r := range rivals {
		if r.endpoint, err = startEndpoint(ctx, r.publish); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.endpoint.close()) }()
	}
	model, err := newRequest()
	if err != nil {
		return err
	}
	var n numbers
	for _, r := range rivals { // what is slow once is not measured
		if _, err := closedLoop(ctx, r.endpoint.addr, model, &n, 64, b.lasting(500*time.Millisecond)); err != nil {
			return err
		}
	}
	for _, connections := range []int{64, 256} {
		err := b.each(ctx, fmt.Sprintf("ingest_durable, %d connections", connections), func(round int) error {
			var turns []func() error
			for _, r := range rivals {
				turns = append(turns, func() error { return b.answering(ctx, m, r, model, &n, connections) })
			}
			return inTurn(round, turns...)
		})
		if err != nil {
			return err
		}
	}
	err = b.each(ctx, "ingest_durable, JetStream alone", func(round int) error {
		return inTurn(round,
			func() error { return b.atomicBatches(ctx, m, each, &n) },
			func() error { return b.grouped(ctx, m, durable, &n) })
	})
	if err != nil {
		return err
	}
	for _, c := range []string{"64", "256"} {
		least := map[string]float64{"64": 4, "256": 5}[c]
		at := " at " + c
		m.compare("ingest_durable_"+c+"_vs_plain", "serversync"+at, "plain"+at, atLeast(least),
			"How many times as many webhooks are answered as by publishing one by one, at "+c+" connections.")
		m.compare("ingest_durable_"+c+"_p99_vs_plain", "serversync"+at+", p99", "plain"+at+", p99", atMost(1./3),
			"How long the slowest hundredth waits, as a part of what it waits with publishing one by one.")
		name := "ingest_durable_vs_no_publish"
		if c == "64" {
			name = "ingest_durable_64_vs_no_publish"
		}
		m.compare(name, "serversync"+at, "no publish"+at, atLeast(0.65),
			"What of the endpoint's own speed is left when every event is on disk first, at "+c+" connections.")
		m.compare("ingest_durable_"+c+"_vs_jetstream", "serversync"+at, "JetStream, atomic batches of 256", target{},
			"What of the broker's own speed is left behind HTTP, JSON and a load client on the same processors.")
	}
	m.never("ingest_lost", "answered and not on the stream", "Webhooks that were answered and are not on the stream.")
	m.never("ingest_doubled", "answered and on the stream twice", "Webhooks that were answered once and are on the stream more than once.")
	return nil
}

// answering is one round of one rival.
func (b *bench) answering(ctx context.Context, m *measured, r *rival, model *request, n *numbers, connections int) error {
	var a *answered
	err := b.profiled(fmt.Sprintf("ingest_%s_%d", fileName(r.name), connections), func() error {
		var err error
		a, err = closedLoop(ctx, r.endpoint.addr, model, n, connections, b.lasting(2*time.Second))
		return err
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s at %d", r.name, connections)
	note := m.note
	if r.name != "serversync" {
		note = m.ceiling
	}
	note(name, "/s", a.rate())
	if r.broker == nil {
		return nil
	}
	note(name+", p50", "ms", milliseconds(percentile(a.took, 50)))
	note(name+", p99", "ms", milliseconds(percentile(a.took, 99)))
	note(name+", p99.9", "ms", milliseconds(percentile(a.took, 99.9)))
	lost, doubled, err := r.broker.missing(ctx, a.ids)
	if err != nil {
		return err
	}
	m.note("answered and not on the stream", "events", float64(lost))
	m.note("answered and on the stream twice", "events", float64(doubled))
	if lost+doubled > 0 {
		return fmt.Errorf("%s: of %d answered webhooks %d are not on the stream, %d more than once", r.name, len(a.ids), lost, doubled)
	}
	return r.broker.purge(ctx)
}

// missing counts those ids that are not on the stream, and those that are there
// more than once.
func (k *broker) missing(ctx context.Context, ids []eventID) (lost, doubled int, err error) {
	stream, err := k.js.Stream(ctx, events.StreamName)
	if err != nil {
		return 0, 0, fmt.Errorf("look up the stream: %w", err)
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true, FilterSubjects: []string{events.SubjectAll}})
	if err != nil {
		return 0, 0, fmt.Errorf("read the stream: %w", err)
	}
	there := make(map[eventID]int, len(ids))
	for left := stream.CachedInfo().State.Msgs; left > 0; {
		batch, err := consumer.Fetch(int(min(left, 5000)), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return 0, 0, fmt.Errorf("read the stream: %w", err)
		}
		before := left
		for msg := range batch.Messages() {
			var id eventID
			if _, err := hex.Decode(id[:], []byte(msg.Headers().Get(jetstream.MsgIDHeader))); err != nil {
				return 0, 0, fmt.Errorf("read an id on the stream: %w", err)
			}
			there[id]++
			left--
		}
		if err := batch.Error(); err != nil {
			return 0, 0, fmt.Errorf("read the stream: %w", err)
		}
		if left == before {
			return 0, 0, errors.New("read the stream: it ended early")
		}
	}
	for _, id := range ids {
		switch there[id] {
		case 0:
			lost++
		case 1:
		default:
			doubled++
		}
	}
	return lost, doubled, nil
}
