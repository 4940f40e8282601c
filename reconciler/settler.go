package reconciler

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
)

// settleInterval is how often the settler looks for what is due.
const settleInterval = time.Second

// RunSettler decides servers whose settling time is over, until ctx ends. The
// times are in the database: they survive restarts, and several settlers share
// the work.
func (r *Reconciler) RunSettler(ctx context.Context) error {
	ticker := time.NewTicker(settleInterval)
	defer ticker.Stop()
	pause := passingFaults()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := r.SettleDue(ctx); err != nil && ctx.Err() == nil {
			wait := pause.NextBackOff()
			r.log.Warn().Err(err).Dur("retry_in", wait).Msg("settled servers could not be decided; trying again")
			sleep(ctx, wait)
			continue
		}
		pause.Reset()
	}
}

// SettleDue decides every server whose settling time is over, a batch at a
// time, and returns when none is left.
func (r *Reconciler) SettleDue(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := r.settleBatch(ctx)
		if err != nil {
			return err
		}
		if n < events.BatchSize {
			return nil
		}
	}
	return ctx.Err()
}

func (r *Reconciler) settleBatch(ctx context.Context) (int, error) {
	finish, cancel := finishing(ctx)
	defer cancel()
	var ids []int64
	var decisions []decided
	err := r.db.RunInTx(finish, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		ids, err = db.ClaimDue(ctx, tx, r.now(), events.BatchSize)
		if err != nil || len(ids) == 0 {
			return err
		}
		works := worksOf(ids...)
		decisions, err = r.decideAll(ctx, tx, works)
		return err
	})
	if err != nil {
		if db.Classify(err) == db.FaultOfData && len(ids) > 1 {
			return 0, r.settleEach(ctx, ids)
		}
		return 0, err
	}
	r.metrics.decided(decisions)
	r.report(decisions)
	return len(decisions), nil
}

// settleEach decides servers one by one, so that one whose values PostgreSQL
// refuses does not hold up the others.
func (r *Reconciler) settleEach(ctx context.Context, ids []int64) error {
	var bad error
	for _, id := range ids {
		if ctx.Err() != nil {
			return bad
		}
		decisions, err := r.attempt(ctx, worksOf(id))
		switch {
		case err == nil:
			r.metrics.decided(decisions)
			r.report(decisions)
		case db.Classify(err) == db.FaultOfData:
			bad = fmt.Errorf("decide server %d: %w", id, err)
		default:
			return err
		}
	}
	return bad
}

// worksOf are servers to decide again from what is stored.
func worksOf(ids ...int64) []work {
	works := make([]work, len(ids))
	for i, id := range ids {
		works[i] = work{serverID: id}
	}
	return works
}
