package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"
)

const (
	// batchLimit is the most events of one atomic batch; the server takes up to
	// 1,000.
	batchLimit = 256
	// batchLeast is from how many events on a batch is faster than they are one
	// by one: it costs six flushes of the disk whatever its size.
	batchLeast = 16
)

// PublishAll seals events, puts them on the stream and returns when all of them
// are on disk. Many are written together as atomic batches. Where a batch is
// refused its events are published one by one: one of them may be there
// already, which sinks a batch, or the broker may not know batches.
//
// An error wraps [ErrNotDurable], or says why an event can never be published.
// Some of the events may then be stored; publishing them again is harmless.
func (p *Publisher) PublishAll(ctx context.Context, events []*Event) error {
	for len(events) > 0 {
		n := min(len(events), batchLimit)
		if err := p.publishTogether(ctx, events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

func (p *Publisher) publishTogether(ctx context.Context, events []*Event) error {
	if len(events) >= batchLeast {
		err := p.publishBatch(ctx, events)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, ErrNotDurable) {
			return err // an event that can never be published
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(groupLimit)
	for _, e := range events {
		g.Go(func() error {
			_, err := p.Publish(ctx, e)
			return err
		})
	}
	return g.Wait()
}

// publishBatch is one atomic batch: all of it is stored, or nothing.
func (p *Publisher) publishBatch(ctx context.Context, events []*Event) error {
	select {
	case <-p.stopped:
		return fmt.Errorf("publish %d events: %w: %w", len(events), ErrNotDurable, errShuttingDown)
	default:
	}
	messages := make([]*nats.Msg, len(events))
	for i, e := range events {
		var err error
		if messages[i], err = message(e); err != nil {
			return err
		}
	}
	if !p.js.Conn().IsConnected() {
		return fmt.Errorf("publish %d events: %w: %w", len(events), ErrNotDurable, nats.ErrDisconnected)
	}
	batch, err := jetstreamext.NewBatchPublisher(p.js)
	if err != nil {
		return fmt.Errorf("publish %d events: %w: %w", len(events), ErrNotDurable, err)
	}
	last := len(messages) - 1
	for _, m := range messages[:last] {
		if err := batch.AddMsg(m, jetstreamext.WithBatchExpectStream(StreamName)); err != nil {
			return fmt.Errorf("publish %d events: %w: %w", len(events), ErrNotDurable, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	ack, err := batch.CommitMsg(ctx, messages[last], jetstreamext.WithBatchExpectStream(StreamName))
	if err == nil && ack.BatchSize != uint64(len(messages)) {
		err = fmt.Errorf("the broker stored %d of them", ack.BatchSize)
	}
	if err != nil {
		return fmt.Errorf("publish %d events: %w: %w", len(events), ErrNotDurable, err)
	}
	return nil
}

// message seals an event and encodes it for the stream.
func message(e *Event) (*nats.Msg, error) {
	if err := e.Seal(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	m := nats.NewMsg(e.Subject())
	m.Data = data
	m.Header.Set(jetstream.MsgIDHeader, e.ID)
	if e.Replay || e.Source == SourceReplay {
		m.Header.Set(ReplayHeader, e.RunID)
	}
	return m, nil
}
