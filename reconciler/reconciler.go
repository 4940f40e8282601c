package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"serversync/db"
	"serversync/events"
)

// Config is what a reconciler needs. Fields are required unless they say
// otherwise.
type Config struct {
	DB       *bun.DB
	Consumer jetstream.Consumer
	// DeadLetters takes the events that cannot be reconciled.
	DeadLetters *events.DeadLetters
	Policy      Policy // the operator's part; SkyPANEL's is read with every batch
	Now         func() time.Time
	Log         zerolog.Logger
	Metrics     prometheus.Registerer
	// MaxChanges is how many servers of a fleet of this size (those that are not
	// gone) a books pass may bill otherwise than before, but for ends; nil: no
	// limit.
	MaxChanges func(fleet int64) int64
	// NotifyUsers: owners are told of new external servers in SkyPANEL.
	NotifyUsers bool
	// Live is told what changed, for those who watch; nil: nobody is.
	Live announcer
	// Room returns an error while nothing may be written; nil: always something may.
	Room func() error
	// Refetcher asks VirtFusion where evidence disagrees; needed by RunAsks
	// alone.
	Refetcher refetcher
	// Tracer records how batches were committed; nil: nothing is recorded.
	Tracer trace.Tracer
}

// announcer tells those who watch what just happened. It waits for nobody.
type announcer interface {
	Announce(a events.Announcement)
}

// Reconciler is the consumer of the stream. Several may run side by side, in
// one process or in many.
type Reconciler struct {
	db       *bun.DB
	consumer jetstream.Consumer
	policy   Policy
	now      func() time.Time
	log      zerolog.Logger
	metrics  *metrics

	maxChanges   func(fleet int64) int64
	notifyUsers  bool
	refetcher    refetcher
	live         announcer
	room         func() error
	deadLetters  *events.DeadLetters
	dead         prometheus.Counter
	retryDelay   func(attempts int) time.Duration
	newerPause   time.Duration
	began        time.Time // when this process began
	keepInterval time.Duration
	tracer       trace.Tracer // nil: nothing is recorded

	// What stays wrong is not said again and again, by each worker.
	saidAway, saidSetup, saidFetch, saidNewer *rate.Sometimes

	unfit atomic.Pointer[unfit]
}

// New returns a reconciler; [Reconciler.Run] and [Reconciler.RunSettler] make
// it work.
func New(c Config) *Reconciler {
	return &Reconciler{
		db: c.DB, consumer: c.Consumer, policy: c.Policy, now: c.Now, log: c.Log,
		metrics:     newMetrics(c.Metrics),
		maxChanges:  c.MaxChanges,
		notifyUsers: c.NotifyUsers,
		refetcher:   c.Refetcher,
		live:        c.Live,
		room:        c.Room,
		deadLetters: c.DeadLetters, dead: newDeadMetrics(c.Metrics),
		retryDelay: retryDelay, newerPause: newerPause, began: c.Now(), keepInterval: events.KeepInterval, tracer: c.Tracer,
		saidAway: paced(), saidSetup: paced(), saidFetch: paced(), saidNewer: paced(),
	}
}

const (
	// idleWait is how long one request for an event waits at the broker.
	idleWait = 5 * time.Second
	// fetchPause is the longest pause between two requests to a broker that
	// refuses them: asking costs it nothing, and it is back within seconds.
	fetchPause = time.Second
	// finishTimeout is how long the batch in hand may take after a shutdown
	// was asked for.
	finishTimeout = 5 * time.Second
)

// workers is how many batches are in hand at once: while one is decided, the
// other is committed. More would only compete for the same processors.
const workers = 2

// Run takes events off the stream until ctx ends, then finishes and
// acknowledges the batches in hand. It returns nil after a clean end.
func (r *Reconciler) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { r.work(ctx) })
	}
	all.Wait()
	return nil
}

// work takes one batch after the other. Two batches may hold the same server:
// its lock lets them wait for each other, and the decision heeds no order.
func (r *Reconciler) work(ctx context.Context) {
	pause := passingFaults()
	pause.MaxInterval = fetchPause
	for ctx.Err() == nil {
		messages, err := r.fetchIfRoom(ctx)
		if err != nil {
			if ctx.Err() != nil {
				continue
			}
			wait := pause.NextBackOff()
			r.saidFetch.Do(func() {
				r.log.Warn().Err(err).Dur("retry_in", wait).Msg("no events from the broker; nothing is lost, and nothing gets into the books: trying again")
			})
			sleep(ctx, wait)
			continue
		}
		pause.Reset()
		if len(messages) > 0 {
			r.handle(ctx, messages)
		}
	}
}

// fetchIfRoom fetches nothing while nothing may be written: events wait on the
// stream.
func (r *Reconciler) fetchIfRoom(ctx context.Context) ([]jetstream.Msg, error) {
	if r.room != nil {
		if err := r.room(); err != nil {
			return nil, err
		}
	}
	return r.fetch(ctx)
}

// fetch takes what is waiting, up to a batch; when nothing is, it waits for
// the first event. A lone event is thus taken at once, and nothing is held
// back while the database is away.
func (r *Reconciler) fetch(ctx context.Context) ([]jetstream.Msg, error) {
	batch, err := r.consumer.FetchNoWait(events.BatchSize)
	if err != nil {
		return nil, fmt.Errorf("fetch events: %w", err)
	}
	var messages []jetstream.Msg
	for m := range batch.Messages() {
		messages = append(messages, m)
	}
	if len(messages) > 0 {
		return messages, nil // an error after the first ones shows up again at the next fetch
	}
	if err := batch.Error(); err != nil {
		return nil, fmt.Errorf("fetch events: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, idleWait)
	defer cancel()
	first, err := r.consumer.Fetch(1, jetstream.FetchContext(wait))
	if err != nil {
		return nil, fmt.Errorf("wait for an event: %w", err)
	}
	for m := range first.Messages() {
		messages = append(messages, m)
	}
	if err := first.Error(); err != nil && len(messages) == 0 && !idle(err) {
		return nil, fmt.Errorf("wait for an event: %w", err)
	}
	return messages, nil
}

// idle reports that a wait ended because nothing came.
func idle(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, jetstream.ErrNoMessages)
}

// delivery is an event with the message that brought it.
type delivery struct {
	message jetstream.Msg
	id      string // the message's
	event   events.Event
}

// handle brings a batch into the books and answers for each of its messages.
// It may take as long as the database is away: meanwhile nothing is fetched.
func (r *Reconciler) handle(ctx context.Context, messages []jetstream.Msg) {
	stop := r.keep(messages)
	defer stop()
	deliveries := make([]delivery, 0, len(messages))
	for _, m := range messages {
		d := delivery{message: m, id: events.MessageID(m)}
		var err error
		if d.event, err = events.Decode(m.Data()); err != nil {
			if !errors.Is(err, events.ErrNewer) {
				err = fmt.Errorf("%w: %w", errUndecodable, err)
			}
			r.conclude(ctx, &d, err)
			continue
		}
		deliveries = append(deliveries, d)
	}
	r.commit(ctx, deliveries)
}

// commit brings deliveries into the books. When something in them is refused it
// goes on by halves, until the bad event stands alone: the others go through.
func (r *Reconciler) commit(ctx context.Context, deliveries []delivery) {
	if len(deliveries) == 0 {
		return
	}
	batch := make([]events.Event, len(deliveries))
	for i := range deliveries {
		batch[i] = deliveries[i].event
	}
	span := r.trace(ctx, deliveries)
	err := r.process(ctx, batch)
	span.end(r.now(), err)
	if classify(err) == classFault && len(deliveries) > 1 {
		half := len(deliveries) / 2
		r.commit(ctx, deliveries[:half])
		r.commit(ctx, deliveries[half:])
		return
	}
	if err == nil {
		r.forget(ctx, redelivered(deliveries))
	}
	for i := range deliveries {
		r.conclude(ctx, &deliveries[i], err)
	}
}

// redelivered are the ids of the events that may have failed before.
func redelivered(deliveries []delivery) []string {
	var ids []string
	for i := range deliveries {
		if meta, err := deliveries[i].message.Metadata(); err == nil && meta.NumDelivered > 1 {
			ids = append(ids, deliveries[i].id)
		}
	}
	return ids
}

// process decides and applies a batch, and tries again for as long as no event
// is to blame. Once ctx has ended it tries no more; the attempt in hand gets
// finishTimeout.
func (r *Reconciler) process(ctx context.Context, batch []events.Event) error {
	works := group(batch)
	return r.insist(ctx, len(batch), func() error {
		started := r.now()
		decisions, err := r.attempt(ctx, works)
		if err != nil {
			return err
		}
		r.metrics.committed(len(batch), decisions, r.now().Sub(started), r.oldest(batch))
		r.report(decisions)
		return nil
	})
}

// attempt is one transaction over a batch.
func (r *Reconciler) attempt(ctx context.Context, works []work) (decisions []decided, err error) {
	defer caught(&err)
	ctx, cancel := finishing(ctx)
	defer cancel()
	ids := make([]int64, len(works))
	for i, w := range works {
		ids[i] = w.serverID
	}
	err = r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := db.LockServers(ctx, tx, ids); err != nil {
			return err
		}
		var err error
		decisions, err = r.decideAll(ctx, tx, works)
		return err
	})
	return decisions, err
}

// finishing is a context that outlives the end of ctx by finishTimeout, so
// that a shutdown does not tear a transaction in two.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(finishTimeout, cancel)
		context.AfterFunc(work, func() { timer.Stop() })
	})
	return work, func() {
		stop()
		cancel()
	}
}

// oldest is the age of the batch's oldest event, from its arrival.
func (r *Reconciler) oldest(batch []events.Event) time.Duration {
	first := r.now()
	for i := range batch {
		if batch[i].ReceivedAt.Before(first) && !batch[i].Replay { // replays are no arrears
			first = batch[i].ReceivedAt
		}
	}
	return r.now().Sub(first)
}
