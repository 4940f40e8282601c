package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
)

// panel is VirtFusion, as far as runs ask it.
type panel interface {
	serverGetter
	ListServers(ctx context.Context, page, perPage int, full bool) (virtfusion.Page, error)
	ServersOfUser(ctx context.Context, userID int64) (virtfusion.UserServers, error)
	UserByExtRelation(ctx context.Context, ext int64) (virtfusion.User, error)
}

// books is the reconciler, as far as runs need it.
type books interface {
	// Preview says what deciding servers would do, in the order of their ids,
	// and writes nothing. News are observations of some of them; the others are
	// decided again from what is stored.
	Preview(ctx context.Context, ids []int64, news []events.Event) ([]db.RunEffect, error)
	// Hold makes servers wait for the approval of a run. Those that the
	// inventory does not know yet are taken from the news.
	Hold(ctx context.Context, runID string, ids []int64, news []events.Event) error
	// PreviewWish is Preview of servers as they would be decided after a change
	// of the operators' wishes for them.
	PreviewWish(ctx context.Context, ids []int64, change db.WishChange) ([]db.RunEffect, error)
	// PreviewUndo says what Undo would do, and writes nothing.
	PreviewUndo(ctx context.Context, order db.UndoOrder, ids []int64) ([]db.RunEffect, error)
	// Undo takes back what a run, or a server's last change, did to servers, on
	// behalf of another run, whose items it completes; by is who wants it.
	Undo(ctx context.Context, runID string, order db.UndoOrder, ids []int64, by string) error
	// RedecideFor decides servers again from what is stored, on behalf of a run
	// whose changes may be made, and completes its items.
	RedecideFor(ctx context.Context, runID string, ids []int64) (changed int, err error)
}

// batchPublisher stores events durably: without an error, all are on disk.
type batchPublisher interface {
	PublishAll(ctx context.Context, events []*events.Event) error
}

// announcer tells those who watch what just happened. It waits for nobody.
type announcer interface {
	Announce(a events.Announcement)
}

// RunsConfig is what [Runs] are made of. Fields are required unless they say
// otherwise.
type RunsConfig struct {
	DB *bun.DB
	// Client gives the API client of the moment: the token may be rotated.
	Client    func(ctx context.Context) (*virtfusion.Client, error)
	Publisher batchPublisher
	// Past is what the stream holds; nil: replays are refused.
	Past  past
	Books books
	// Interval is how often a sweep starts by itself; 0: never.
	Interval time.Duration
	// MaxChanges is how much a run may change unasked.
	MaxChanges MaxChanges
	// ObserveOnly: no billing row is touched, so that nobody has to approve.
	ObserveOnly bool
	// Room returns an error while nothing may be written; nil: always something may.
	Room func() error
	// Live is told how far a run has come, for those who watch; nil: nobody is.
	Live announcer
	// Stream tells the sequence of the newest event on the stream, and up to which
	// the reconciler has acknowledged all; nil: a proof waits for nothing.
	Stream func(ctx context.Context) (last, acknowledged uint64, err error)
	// Budget tells how much of the API budget was used; nil: not told.
	Budget  func() virtfusion.BudgetStats
	Now     func() time.Time
	Log     zerolog.Logger
	Metrics prometheus.Registerer
	// Tracer records the phases of runs and the pages of VirtFusion's list; nil:
	// nothing is recorded.
	Tracer trace.Tracer
}

// Runs looks at many servers at once: sweeps of all, and one user's syncs. What
// it finds goes onto the stream as observations of the run, once it is known
// what that would change.
type Runs struct {
	RunsConfig

	worker  string // who we are to other processes
	metrics *runMetrics
	syncs   chan *db.Run
	stopped chan struct{} // closed when no sync is begun any more
	// proofLooked is when whoever leads last saw whether a proof is due.
	proofLooked time.Time

	// For tests.
	pollInterval time.Duration
	stallTimeout time.Duration
}

const (
	// pollInterval is how often the database is asked what there is to do, and
	// how far the reconciler is.
	pollInterval = 500 * time.Millisecond
	// beatInterval is how often a run shows that somebody works on it;
	// deadAfter is how long it may not before it counts as abandoned.
	beatInterval = 10 * time.Second
	deadAfter    = time.Minute
	// stallTimeout is how long the reconciler may complete nothing before a run
	// gives up waiting for it.
	stallTimeout = 10 * time.Minute
)

// NewRuns returns runs; [Runs.RunSweeps] and [Runs.RunSyncs] make them work.
func NewRuns(c RunsConfig) *Runs {
	return &Runs{
		RunsConfig: c, worker: db.NewRunID(), metrics: newRunMetrics(c.Metrics), syncs: make(chan *db.Run), stopped: make(chan struct{}),
		pollInterval: pollInterval, stallTimeout: stallTimeout,
	}
}

// job is a run in hand.
type job struct {
	*Runs
	run    *db.Run
	source events.Source
	log    zerolog.Logger
	// seen are the servers that the listing showed, by id.
	seen  map[int64]struct{}
	saved time.Time // when the run was last written
	// partly: an approved run was taken up whose findings were being applied.
	partly bool

	mu     sync.Mutex // guards what follows: servers are asked for side by side
	client panel      // nil: VirtFusion cannot be asked
	calls  int64
}

func (r *Runs) newJob(run *db.Run) *job {
	j := &job{Runs: r, run: run, source: events.SourceSweep, seen: make(map[int64]struct{})}
	switch run.Kind {
	case db.RunSync, db.RunBulk:
		j.source = events.SourceSync
	case db.RunReplay:
		j.source = events.SourceReplay
	}
	j.log = r.Log.With().Str("run", run.ID).Str("kind", run.Kind).Logger()
	return j
}

// step is a part of a run's work. It may be begun again after a crash.
type step struct {
	phase string
	do    func(ctx context.Context) error
}

// work takes a run from where it stands to its end, or to where a person has to
// approve. An error means that it stands still; it goes on when it is taken up
// again.
func (j *job) work(ctx context.Context, steps []step) (err error) {
	ctx, span := j.span(ctx, "run "+j.run.Kind)
	defer func() { endSpan(span, err) }()
	at := 0
	for i := range steps {
		if steps[i].phase == j.run.Phase {
			at = i
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return j.beat(ctx) })
	g.Go(func() error {
		defer cancel()
		for _, s := range steps[at:] {
			j.run.Phase = s.phase
			if err := j.save(ctx); err != nil {
				return err
			}
			j.log.Debug().Str("phase", s.phase).Msg("a run goes on")
			err := j.do(ctx, s)
			if errors.Is(err, errWaits) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// do is a step, in a span of its own.
func (j *job) do(ctx context.Context, s step) error {
	ctx, span := j.span(ctx, s.phase)
	err := s.do(ctx)
	endSpan(span, err)
	return err
}

// errWaits ends the work on a run that has been put to a person.
var errWaits = errors.New("the run waits for approval")

// beat shows that the run is worked on, until ctx ends.
func (j *job) beat(ctx context.Context) error {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := db.BeatRun(ctx, j.DB, j.run.ID, j.worker, j.Now()); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// save writes how far the run has come, and tells those who watch.
func (j *job) save(ctx context.Context) error {
	if err := j.saveIn(ctx, j.DB); err != nil {
		return err
	}
	j.announce()
	return nil
}

func (j *job) announce() {
	if j.Live != nil {
		j.Live.Announce(events.Announcement{Type: events.LiveRun, RunID: j.run.ID, UserID: j.run.UserID})
	}
}

func (j *job) saveIn(ctx context.Context, idb bun.IDB) error {
	j.mu.Lock()
	j.run.Progress.Calls += j.calls
	j.calls = 0
	j.mu.Unlock()
	if j.Budget != nil {
		j.run.Progress.CallsPerSecond = j.Budget().PerSecond
	}
	j.saved = j.Now()
	return db.SaveRun(ctx, idb, j.run, j.saved)
}

// saveNowAndThen is save, at most once a second: what is read again after a
// crash does no harm.
func (j *job) saveNowAndThen(ctx context.Context) error {
	if j.Now().Sub(j.saved) < time.Second {
		return nil
	}
	return j.save(ctx)
}

const maxProblems = 100

// problem notes what the run could not see or do, once. Beyond a hundred they
// are the same story.
func (j *job) problem(p db.Problem) {
	if slices.Contains(j.run.Problems, p) {
		return
	}
	j.log.Warn().Str("code", p.Code).Int64("server", p.ServerID).Msg(p.Message)
	if len(j.run.Problems) < maxProblems {
		j.run.Problems = append(j.run.Problems, p)
	}
}

// problemOf puts a failed call into a code and words that say what to do.
func problemOf(err error, serverID int64) db.Problem {
	code := "virtfusion_failed"
	switch {
	case errors.Is(err, virtfusion.ErrUnauthorized):
		code = "virtfusion_unauthorized"
	case errors.Is(err, virtfusion.ErrForbidden):
		code = "virtfusion_forbidden"
	case errors.Is(err, virtfusion.ErrRateLimited):
		code = "virtfusion_rate_limited"
	case errors.Is(err, virtfusion.ErrUnavailable):
		code = "virtfusion_unavailable"
	case errors.Is(err, virtfusion.ErrMalformed):
		code = "virtfusion_malformed"
	case errors.Is(err, virtfusion.ErrNotFound):
		code = "virtfusion_not_found"
	}
	return db.Problem{Code: code, Message: err.Error(), ServerID: serverID}
}

// connect gets an API client. Without one the run has a problem and no client.
func (j *job) connect(ctx context.Context) error {
	client, err := j.Client(ctx)
	switch {
	case err == nil:
		j.client = client
	case ctx.Err() != nil:
		return ctx.Err()
	case db.Classify(err) == db.FaultPassing: // SkyPANEL's settings could not be read
		return err
	default:
		j.problem(db.Problem{Code: "virtfusion_not_configured", Message: err.Error()})
	}
	return nil
}

// ask makes a call. When the token is refused it looks whether there is a newer
// one by now: it may have been rotated in the middle of the run.
func ask[T any](ctx context.Context, j *job, call func(panel) (T, error)) (T, error) {
	client := j.current()
	result, err := call(client)
	if !errors.Is(err, virtfusion.ErrUnauthorized) {
		return result, err
	}
	fresh, clientErr := j.Client(ctx)
	if clientErr != nil || panel(fresh) == client {
		return result, err
	}
	j.mu.Lock()
	j.client = fresh
	j.mu.Unlock()
	return call(j.current())
}

// current is the client for one call, which it counts.
func (j *job) current() panel {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls++
	return j.client
}

// event is an observation of the run.
func (j *job) event(s *virtfusion.Server, at time.Time) events.Event {
	return events.Event{
		Version: events.Version, Kind: events.KindObserved, Source: j.source, RunID: j.run.ID,
		ObservedAt: plausible(at, j.Now()), ReceivedAt: j.Now().UTC(), Server: keep(s),
	}
}

// end is VirtFusion's word that a server is gone.
func (j *job) end(id int64, at time.Time) events.Event {
	return events.Event{
		Version: events.Version, Kind: events.KindDestroyed, Source: j.source, RunID: j.run.ID,
		ObservedAt: plausible(at, j.Now()), ReceivedAt: j.Now().UTC(), Server: events.Server{ID: id},
	}
}

// look asks VirtFusion for one server: what it shows, or that it is gone.
func (j *job) look(ctx context.Context, id int64) (events.Event, error) {
	seen, err := ask(ctx, j, func(p panel) (virtfusion.Observation, error) { return p.GetServer(ctx, id) })
	if failed, said := errors.AsType[*virtfusion.Error](err); said && errors.Is(err, virtfusion.ErrNotFound) {
		return j.end(id, failed.ObservedAt), nil
	}
	if err != nil {
		return events.Event{}, err
	}
	if seen.Server.ID != id {
		return events.Event{}, fmt.Errorf("VirtFusion answered with server %d when asked for %d: report it to VirtFusion", seen.Server.ID, id)
	}
	return j.event(&seen.Server, seen.ObservedAt), nil
}
