package reconciler

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"serversync/db"
)

const (
	// staleRetries bounds how often work is decided again at once because
	// SkyPANEL changed a row meanwhile, staleLimit how often in all. What is
	// stale even then is taken for a fault of the work.
	staleRetries = 5
	staleLimit   = 7
)

// passingFaults is the pace of retries while something is away.
func passingFaults() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0))
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// insist tries something with the database for as long as only passing faults
// and an unfinished set-up stand in the way, which no event is to blame for. It
// returns nil, an error of [classFault], or, once ctx has ended, the last
// error.
func (r *Reconciler) insist(ctx context.Context, events int, try func() error) error {
	pause := passingFaults()
	stale := 0
	for {
		err := try()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if db.Stale(err) {
			if stale++; stale <= staleRetries {
				continue
			}
			if stale > staleLimit {
				return fmt.Errorf("%w: %w", errNeverFresh, err)
			}
		}
		if classify(err) == classFault {
			return err
		}
		if r.mended(ctx, err) {
			continue
		}
		wait := pause.NextBackOff()
		r.metrics.retries.Inc()
		r.warn(err, events, wait)
		sleep(ctx, wait)
	}
}

// sayAgain is how often something that stays wrong is said.
const sayAgain = 5 * time.Second

// paced lets through the first of many, and then one each sayAgain.
func paced() *rate.Sometimes { return &rate.Sometimes{First: 1, Interval: sayAgain} }

// unfit is when the database was last found not to be set up for us, and how.
type unfit struct {
	err error
	at  time.Time
}

// unfitFor is longer than any pause between two tries.
const unfitFor = 15 * time.Second

// Unfit returns the fault of the database's set-up that keeps everything from the
// books now, or nil. It shows until unfitFor after the last try that met it.
func (r *Reconciler) Unfit() error {
	if last := r.unfit.Load(); last != nil && r.now().Sub(last.at) < unfitFor {
		return last.err
	}
	return nil
}

// warn says that work has to wait, and what a person has to do about it, if
// anything: at once, and then every sayAgain at most.
func (r *Reconciler) warn(err error, events int, wait time.Duration) {
	if db.Classify(err) == db.FaultOfSetup {
		r.unfit.Store(&unfit{err, r.now()})
		r.saidSetup.Do(func() { r.warnNow(err, events, wait) })
		return
	}
	r.saidAway.Do(func() { r.warnNow(err, events, wait) })
}

func (r *Reconciler) warnNow(err error, events int, wait time.Duration) {
	if db.Classify(err) == db.FaultOfSetup {
		r.log.Error().Err(err).Int("events", events).Dur("retry_in", wait).Str("do", db.Remedy(err)).
			Msg("the database is not set up for us; nothing is lost, but nothing goes on until somebody mends it")
		return
	}
	r.log.Warn().Err(err).Int("events", events).Dur("retry_in", wait).
		Msg("the books could not be written; nothing is lost, trying again")
}

// mended reports that a column which SkyPANEL's schema tool had dropped is back.
func (r *Reconciler) mended(ctx context.Context, err error) bool {
	if !db.ColumnMissing(err) {
		return false
	}
	added, err := db.AddMissingColumns(ctx, r.db)
	if err != nil {
		r.log.Error().Err(err).Msg("a column of ours was dropped from SkyPANEL's tables, and cannot be added again")
		return false
	}
	if len(added) == 0 {
		return false
	}
	r.log.Error().Strs("columns", added).
		Msg("columns of ours had been dropped from SkyPANEL's tables, most likely by its schema tool (drizzle-kit push); they were added again, but what was in them is lost. Tell the tool to leave them alone")
	return true
}

// count counts a failed attempt at something that stood alone, and waits for
// the database to do so.
func (r *Reconciler) count(ctx context.Context, id string, cause error) (db.FaultRecord, error) {
	var record db.FaultRecord
	err := r.insist(ctx, 1, func() error {
		ctx, cancel := finishing(ctx)
		defer cancel()
		records, err := db.CountFaults(ctx, r.db, []string{id}, cause.Error(), r.now())
		if err == nil {
			record = records[0]
		}
		return err
	})
	return record, err
}

// forget deletes the records of failed attempts at what went well after all.
// Where that fails they stay: a count that nobody asks for again.
func (r *Reconciler) forget(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	ctx, cancel := finishing(ctx)
	defer cancel()
	if err := db.ForgetFaults(ctx, r.db, ids); err != nil {
		r.log.Warn().Err(err).Msg("records of failed attempts were left behind; they do no harm")
	}
}

// keep tells the broker, until stop is called, that messages are being worked
// on, so that a batch that has to wait for the database is not delivered to
// others meanwhile. Messages that were answered are left alone.
func (r *Reconciler) keep(messages []jetstream.Msg) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(r.keepInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			for _, m := range messages {
				if err := m.InProgress(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
					break // the broker is away, and will deliver them again: harmless
				}
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// panicError is a panic while servers were decided. It is a fault of the data:
// one event that this program cannot cope with must not stop all others, again
// after each restart.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("a bug in this program: %v\n%s", e.value, e.stack)
}

// caught turns a panic into an error; to be deferred.
func caught(err *error) {
	if v := recover(); v != nil {
		*err = &panicError{v, debug.Stack()}
	}
}
