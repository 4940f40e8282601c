package reconciler

import (
	"context"
	"errors"
	"time"

	"serversync/db"
)

// refetcher asks VirtFusion for servers and publishes what it says of each:
// the answers come back as observations like any other.
type refetcher interface {
	Refetch(ctx context.Context, serverIDs []int64) error
}

const (
	askCheck = time.Second
	// askAgainAfter is how long an answer may take before it is asked again.
	askAgainAfter = time.Minute
	askLimit      = 20
)

// RunAsks asks VirtFusion about servers whose evidence it alone can settle,
// until ctx ends. The questions are in the database: they survive restarts.
func (r *Reconciler) RunAsks(ctx context.Context) error {
	ticker := time.NewTicker(askCheck)
	defer ticker.Stop()
	pause := passingFaults()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := r.AskDue(ctx)
		unasked, isUnasked := errors.AsType[*unaskedError](err)
		switch {
		case err == nil:
			pause.Reset()
		case ctx.Err() != nil:
		case isUnasked:
			r.log.Warn().Err(unasked.err).Dur("retry_in", askAgainAfter).Msg("VirtFusion could not be asked about servers; trying again")
		default:
			wait := pause.NextBackOff()
			r.warn(err, 0, wait)
			sleep(ctx, wait)
		}
	}
}

// unaskedError is VirtFusion's, or the broker's: the questions were claimed, and
// come up again after askAgainAfter.
type unaskedError struct{ err error }

func (e *unaskedError) Error() string { return e.err.Error() }
func (e *unaskedError) Unwrap() error { return e.err }

// AskDue asks about what is due now.
func (r *Reconciler) AskDue(ctx context.Context) error {
	now := r.now()
	ids, err := db.ClaimAsks(ctx, r.db, now, now.Add(-askAgainAfter), askLimit)
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := r.refetcher.Refetch(ctx, ids); err != nil {
		return &unaskedError{err}
	}
	return nil
}
