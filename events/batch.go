package events

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// batchLeast is from how many events on a batch is faster than they are one
	// by one: it costs six flushes of the disk whatever its size.
	batchLeast = 16
)

// PublishAll seals events, puts them on the stream and returns when all of them
// are on disk. They are committed in groups, together with what others publish.
//
// An error wraps [ErrNotDurable], or says why an event can never be published.
// Some of the events may then be stored; publishing them again is harmless.
func (p *Publisher) PublishAll(ctx context.Context, events []*Event) error {
	requests := make([]*request, len(events))
	for i, e := range events {
		var err error
		if requests[i], err = newRequest(ctx, e); err != nil {
			return err
		}
	}
	pending := requests
	for {
		left, err := p.tryAll(ctx, pending)
		if err == nil {
			return nil
		}
		if !p.again(ctx, err) {
			for _, r := range left {
				p.durable.metrics.settled(r, result{err: err})
			}
			return fmt.Errorf("publish %d of %d events: %w: %w", len(left), len(requests), ErrNotDurable, err)
		}
		pending = left
	}
}

// tryAll puts requests in the queue, so that they form groups, and waits for all
// answers. It returns those that were not confirmed, to be made again, and what
// kept the first of them from it that another try would not mend, or else the
// last.
func (p *Publisher) tryAll(ctx context.Context, requests []*request) (left []*request, err error) {
	queued := len(requests)
	for i, r := range requests {
		if err = p.enqueue(ctx, r); err != nil {
			queued = i
			break
		}
	}
	for _, r := range requests[:queued] {
		res := p.await(ctx, r)
		if res.err == nil {
			p.durable.metrics.settled(r, res)
			continue
		}
		left = append(left, r.repeated(res))
		if err == nil || Passing(err) {
			err = res.err
		}
	}
	return append(left, requests[queued:]...), err
}

// publishAtomically writes a group as one atomic batch: all of it is stored, or
// nothing. False: it was refused, and each event has to be tried by itself: one
// of them may be there already, which sinks a batch, or the broker may not know
// batches. Where there was no answer, its requests have got that for one: one by
// one they would get none either, and take longer over it.
func (p *Publisher) publishAtomically(group []*request, patient time.Duration) bool {
	batch, err := jetstreamext.NewBatchPublisher(p.js, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: patient})
	if err != nil {
		return false
	}
	last := len(group) - 1
	for _, r := range group[:last] {
		if err := batch.AddMsg(copyOf(r.msg), jetstreamext.WithBatchExpectStream(StreamName)); err != nil {
			return unanswered(group, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	ack, err := batch.CommitMsg(ctx, copyOf(group[last].msg), jetstreamext.WithBatchExpectStream(StreamName))
	if err != nil {
		return unanswered(group, err)
	}
	if ack.BatchSize != uint64(len(group)) {
		return false
	}
	for i, r := range group {
		r.state = result{ack: Ack{Sequence: ack.Sequence - uint64(last-i)}} //nolint:gosec // G115: last is the largest i
	}
	return true
}

// unanswered gives a group the error of a broker that does not answer; false: it
// has answered.
func unanswered(group []*request, err error) bool {
	if _, answer := errors.AsType[*jetstream.APIError](err); answer || !Passing(err) {
		return false
	}
	for _, r := range group {
		r.state = result{err: err, unanswered: true}
	}
	return true
}

// copyOf keeps a message free of what it is given to be sent: the headers by which
// a batch is told, and where the answer goes.
func copyOf(m *nats.Msg) *nats.Msg {
	c := nats.NewMsg(m.Subject)
	c.Data, c.Header = m.Data, maps.Clone(m.Header)
	return c
}

// message seals an event and encodes it for the stream.
func message(e *Event) (*nats.Msg, error) {
	data, err := e.encode()
	if err != nil {
		return nil, err
	}
	m := nats.NewMsg(e.Subject())
	m.Data = data
	m.Header.Set(jetstream.MsgIDHeader, e.ID)
	if e.Replay || e.Source == SourceReplay {
		m.Header.Set(ReplayHeader, e.RunID)
	}
	return m, nil
}
