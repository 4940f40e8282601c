package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotDurable means that the broker did not confirm that an event is on
// disk. It may be stored or not; publishing it again is harmless.
var ErrNotDurable = errors.New("the event was not confirmed by the broker")

// Ack is the broker's confirmation of one event.
type Ack struct {
	Sequence uint64 // position in the stream
	// Duplicate: the broker already had an event of this id within the
	// duplicate window.
	Duplicate bool
}

// Publisher puts events on the stream and answers for each once it is
// durable. Events that arrive while a group is being committed form the next
// group: no timer, and no wait when nothing else is going on. Safe for
// concurrent use.
type Publisher struct {
	js      jetstream.JetStream
	queue   chan *request
	stopped chan struct{} // closed when no further request is taken
	done    chan struct{} // closed when the last group is committed
	once    sync.Once
}

type request struct {
	msg   *nats.Msg
	reply chan result // buffered: the committer never waits for a caller
}

type result struct {
	ack Ack
	err error
}

// groupLimit is the most events committed together.
const groupLimit = 256

// ackTimeout bounds the wait for the broker's confirmation of one event.
const ackTimeout = 5 * time.Second

// NewPublisher starts a publisher; [Publisher.Close] ends it.
func NewPublisher(nc *nats.Conn) (*Publisher, error) {
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncTimeout(ackTimeout),
		jetstream.WithPublishAsyncMaxPending(4*groupLimit))
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	p := &Publisher{
		js:      js,
		queue:   make(chan *request, groupLimit),
		stopped: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go p.run()
	return p, nil
}

// Publish seals the event, puts it on the stream and returns when it is on
// disk. An error wraps [ErrNotDurable], or says why the event can never be
// published. A cancelled ctx ends the wait, not the publishing.
func (p *Publisher) Publish(ctx context.Context, e *Event) (Ack, error) {
	msg, err := message(e)
	if err != nil {
		return Ack{}, err
	}
	r := &request{msg: msg, reply: make(chan result, 1)}

	select {
	case <-p.stopped:
		return Ack{}, fmt.Errorf("publish event %s: %w: %w", e.ID, ErrNotDurable, errShuttingDown)
	case <-ctx.Done():
		return Ack{}, fmt.Errorf("publish event %s: %w: %w", e.ID, ErrNotDurable, ctx.Err())
	case p.queue <- r:
	}
	res := p.await(ctx, r)
	if res.err != nil {
		return Ack{}, fmt.Errorf("publish event %s of server %d: %w: %w", e.ID, e.Server.ID, ErrNotDurable, res.err)
	}
	return res.ack, nil
}

// await waits for the answer to a request that is in the queue.
func (p *Publisher) await(ctx context.Context, r *request) result {
	select {
	case res := <-r.reply:
		return res
	case <-ctx.Done():
		return result{err: ctx.Err()}
	case <-p.done:
	}
	// The last group is committed: the request was in it, or came too late.
	select {
	case res := <-r.reply:
		return res
	default:
		return result{err: errShuttingDown}
	}
}

// errShuttingDown: the publisher takes no more events.
var errShuttingDown = errors.New("this process is shutting down; send it again")

// Close refuses further events, commits those that were taken, and returns
// when they are answered. It may be called more than once.
func (p *Publisher) Close() {
	p.once.Do(func() { close(p.stopped) })
	<-p.done
}

// run commits one group after the other.
func (p *Publisher) run() {
	defer close(p.done)
	group := make([]*request, 0, groupLimit)
	for {
		group = group[:0]
		select {
		case r := <-p.queue:
			group = append(group, r)
		case <-p.stopped:
			// Whoever got into the queue is still served.
			select {
			case r := <-p.queue:
				group = append(group, r)
			default:
				return
			}
		}
		for len(group) < groupLimit {
			select {
			case r := <-p.queue:
				group = append(group, r)
				continue
			default:
			}
			break
		}
		p.commit(group)
	}
}

// commit publishes a group together and answers each request for itself: one
// refused event does not sink the others. The broker syncs every write before
// it acknowledges it.
func (p *Publisher) commit(group []*request) {
	if !p.js.Conn().IsConnected() {
		// Known to be away: say so at once rather than after a timeout.
		for _, r := range group {
			r.reply <- result{err: nats.ErrDisconnected}
		}
		return
	}
	futures := make([]jetstream.PubAckFuture, len(group))
	for i, r := range group {
		future, err := p.js.PublishMsgAsync(r.msg, jetstream.WithExpectStream(StreamName), jetstream.WithRetryAttempts(0))
		if err != nil {
			r.reply <- result{err: err}
			continue
		}
		futures[i] = future
	}
	for i, future := range futures {
		if future == nil {
			continue
		}
		select {
		case ack := <-future.Ok():
			group[i].reply <- result{ack: Ack{Sequence: ack.Sequence, Duplicate: ack.Duplicate}}
		case err := <-future.Err():
			group[i].reply <- result{err: err}
		}
	}
}
