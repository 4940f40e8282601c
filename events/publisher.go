package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
)

// ErrNotDurable means that the broker did not confirm that an event is on
// disk. It may be stored or not; publishing it again is harmless.
var ErrNotDurable = errors.New("the event was not confirmed by the broker")

// Ack is the broker's confirmation of one event.
type Ack struct {
	Sequence uint64 // position in the stream
	// Duplicate: the broker already had an event of this id within the
	// duplicate window, and not from a try of this call that it left unanswered.
	Duplicate bool
}

// Publisher puts events on the stream and answers for each once it is
// durable. Events that arrive while a group is being committed form the next
// group: no timer, and no wait when nothing else is going on. Safe for
// concurrent use.
//
// A group is published together, and each of its events is acknowledged, or
// refused, by itself. Where the broker's word is not durable yet ([WithSync]),
// the group is then synced to disk, all at once, before anybody is answered;
// the next group is published meanwhile. Where the broker syncs each write, a
// large group is written as one atomic batch, which costs a few flushes in all.
//
// While a cluster chooses a new leader it confirms nothing: for some seconds
// ([patience]) an event is tried again, under its id, so that it is stored once
// however often it was sent. Where the trouble lasts, events are refused at
// once, each after one try, until one is confirmed.
type Publisher struct {
	js      jetstream.JetStream
	trouble trouble
	durable durability
	queue   chan *request
	sent    chan *sentGroup // groups to be acknowledged, synced and answered
	stopped chan struct{}   // closed when no further request is taken
	done    chan struct{}   // closed when the last group is answered
	once    sync.Once
}

type request struct {
	msg   *nats.Msg
	state result            // what the broker said; for the reply
	reply chan result       // buffered: the committer never waits for a caller
	at    time.Time         // when it was made
	span  trace.SpanContext // in which it was made; invalid: none, or not recorded
	// asked: an earlier try was sent and got no answer, so that the broker may
	// have the event from us.
	asked bool
}

type result struct {
	ack Ack
	err error
	// unanswered: the event was sent, and the broker has not said what became of it.
	unanswered bool
}

// sentGroup are events that the broker was sent together.
type sentGroup struct {
	requests []*request
	futures  []jetstream.PubAckFuture // nil: its request has its answer already
	deadline time.Time                // of the broker's word on futures
}

// groupLimit is the most events committed together.
const groupLimit = 512

const (
	// ackTimeout bounds the wait for the broker's confirmation of one event: a
	// leader that dies takes its answers with it, and whoever waits for ours has
	// time left for another try. Each event that is under way besides may take a
	// busy disk ackEach.
	ackTimeout = 2 * time.Second
	ackEach    = 8 * time.Millisecond
	// ackForgotten is when the client forgets an event that nobody confirmed.
	ackForgotten = 15 * time.Second
)

// NewPublisher starts a publisher; [Publisher.Close] ends it.
func NewPublisher(nc *nats.Conn, opts ...Option) (*Publisher, error) {
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncTimeout(ackForgotten),
		jetstream.WithPublishAsyncMaxPending(4*groupLimit))
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	p := &Publisher{
		js:      js,
		durable: newDurability(opts),
		queue:   make(chan *request, groupLimit),
		sent:    make(chan *sentGroup, 1),
		stopped: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go p.run()
	go p.settle()
	return p, nil
}

// Publish seals the event, puts it on the stream and returns when it is on
// disk. An error wraps [ErrNotDurable], or says why the event can never be
// published. A cancelled ctx ends the wait, not the publishing.
func (p *Publisher) Publish(ctx context.Context, e *Event) (Ack, error) {
	r, err := newRequest(ctx, e)
	if err != nil {
		return Ack{}, err
	}
	res := p.insist(ctx, r)
	if res.err != nil {
		return Ack{}, fmt.Errorf("publish event %s of server %d: %w: %w", e.ID, e.Server.ID, ErrNotDurable, explain(res.err))
	}
	return res.ack, nil
}

func newRequest(ctx context.Context, e *Event) (*request, error) {
	msg, err := message(e)
	if err != nil {
		return nil, err
	}
	r := &request{msg: msg, reply: make(chan result, 1), at: time.Now()}
	r.traced(ctx)
	return r, nil
}

// enqueue puts a request where the next group is formed.
func (p *Publisher) enqueue(ctx context.Context, r *request) error {
	if err := p.durable.room(); err != nil {
		return err
	}
	select {
	case <-p.stopped:
		return errShuttingDown
	default:
	}
	select {
	case <-p.stopped:
		return errShuttingDown
	case <-ctx.Done():
		return ctx.Err()
	case p.queue <- r:
		return nil
	}
}

// insist puts a request in the queue and waits for its answer, again and again
// while that is worth it.
func (p *Publisher) insist(ctx context.Context, r *request) result {
	for {
		res := p.try(ctx, r)
		if res.err == nil || !p.again(ctx, res.err) {
			p.durable.metrics.settled(r, res)
			return res
		}
		r = r.repeated(res)
	}
}

func (p *Publisher) try(ctx context.Context, r *request) result {
	if err := p.enqueue(ctx, r); err != nil {
		return result{err: err}
	}
	return p.await(ctx, r)
}

// again pauses and reports true when what was not confirmed is worth another
// try: the broker or its leader is away, and that is new.
func (p *Publisher) again(ctx context.Context, err error) bool {
	if lasts, _ := p.Trouble(); lasts > patience || !Passing(err) || ctx.Err() != nil {
		return false
	}
	pause := time.NewTimer(retryPause)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-ctx.Done():
	case <-p.stopped:
	}
	return false
}

// repeated is the same request, to be made again after what came of it.
func (r *request) repeated(res result) *request {
	return &request{msg: copyOf(r.msg), reply: make(chan result, 1), at: r.at, span: r.span, asked: r.asked || res.unanswered}
}

// Trouble says for how long the broker has confirmed no event, and why, as far
// as anybody has tried lately; 0 and nil: all is well.
func (p *Publisher) Trouble() (time.Duration, error) { return p.trouble.look(time.Now()) }

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

// run publishes one group after the other.
func (p *Publisher) run() {
	defer close(p.sent)
	for {
		var group []*request
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
		p.sent <- p.send(p.gather(group))
	}
}

// gather adds what waits to a group.
func (p *Publisher) gather(group []*request) []*request {
	for len(group) < groupLimit {
		select {
		case r := <-p.queue:
			group = append(group, r)
		default:
			return group
		}
	}
	return group
}

// settle makes groups durable, all that wait at once, and answers each request
// for itself: one refused event does not sink the others.
func (p *Publisher) settle() {
	defer close(p.done)
	for group := range p.sent {
		groups := p.waiting(group)
		for _, g := range groups {
			g.acknowledge()
			p.trouble.note(g.verdict(), time.Now())
		}
		err := p.durable.sync() // after the last acknowledgement, before the first answer
		now := time.Now()
		for _, g := range groups {
			for _, r := range g.requests {
				if r.state.err == nil && err != nil {
					r.state = result{err: err}
				}
				r.reply <- r.state
			}
			p.durable.metrics.sent(g)
			p.recordSpans(g, now)
		}
	}
}

// verdict is nil when an event of the group was confirmed, else what kept the
// last from it.
func (g *sentGroup) verdict() error {
	var err error
	for _, r := range g.requests {
		if err = r.state.err; err == nil {
			return nil
		}
	}
	return err
}

// waiting adds the groups that wait to one.
func (p *Publisher) waiting(group *sentGroup) []*sentGroup {
	groups := []*sentGroup{group}
	for {
		select {
		case next, ok := <-p.sent:
			if !ok {
				return groups
			}
			groups = append(groups, next)
		default:
			return groups
		}
	}
}

// acknowledge waits for the broker's word on each event.
func (g *sentGroup) acknowledge() {
	late := time.NewTimer(time.Until(g.deadline))
	defer late.Stop()
	for i, future := range g.futures {
		if future == nil {
			continue
		}
		r := g.requests[i]
		select {
		case ack := <-future.Ok():
			r.state = result{ack: Ack{Sequence: ack.Sequence, Duplicate: ack.Duplicate && !r.asked}}
		case err := <-future.Err():
			_, answer := errors.AsType[*jetstream.APIError](err)
			r.state = result{err: err, unanswered: !answer}
		case <-late.C:
			late.Reset(0) // for those after it
			r.state = result{err: jetstream.ErrAsyncPublishTimeout, unanswered: true}
		}
	}
}

// ackLimit bounds the wait for the broker's word on so many events.
func (p *Publisher) ackLimit(count int) time.Duration {
	return ackTimeout + time.Duration(p.js.PublishAsyncPending()+count)*ackEach
}

// send gives a group to the broker.
func (p *Publisher) send(group []*request) *sentGroup {
	patient := p.ackLimit(len(group))
	sent := &sentGroup{requests: group, deadline: time.Now().Add(patient)}
	if !p.js.Conn().IsConnected() {
		// Known to be away: say so at once rather than after a timeout.
		for _, r := range group {
			r.state = result{err: nats.ErrDisconnected}
		}
		return sent
	}
	if !p.durable.byGroup() && len(group) >= batchLeast && p.publishAtomically(group, patient) {
		return sent
	}
	sent.futures = make([]jetstream.PubAckFuture, len(group))
	for i, r := range group {
		future, err := p.js.PublishMsgAsync(r.msg, jetstream.WithExpectStream(StreamName), jetstream.WithRetryAttempts(0))
		if err != nil {
			r.state = result{err: err}
			continue
		}
		sent.futures[i] = future
	}
	return sent
}
