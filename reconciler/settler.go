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
			r.warn(err, 0, wait)
			sleep(ctx, wait)
			continue
		}
		pause.Reset()
	}
}

// SettleDue decides every server whose settling time is over, a batch at a
// time, and returns when none is left. While the database is away it waits.
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

// settleBatch decides up to a batch of due servers and returns how many there
// were. A server at fault is postponed; the others go through.
func (r *Reconciler) settleBatch(ctx context.Context) (int, error) {
	var ids []int64
	var decisions []decided
	err := r.insist(ctx, 0, func() (err error) {
		ids, decisions, err = r.settleTogether(ctx)
		return err
	})
	if classify(err) == classFault {
		return len(ids), r.settleEach(ctx, ids)
	}
	if err != nil {
		return 0, err
	}
	r.metrics.decided(decisions)
	r.report(decisions)
	return len(ids), nil
}

// settleTogether is one transaction over what is due.
func (r *Reconciler) settleTogether(ctx context.Context) (ids []int64, decisions []decided, err error) {
	defer caught(&err)
	ctx, cancel := finishing(ctx)
	defer cancel()
	err = r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		ids, err = db.ClaimDue(ctx, tx, r.now(), events.BatchSize)
		if err != nil || len(ids) == 0 {
			return err
		}
		if decisions, err = r.decideAll(ctx, tx, worksOf(ids...)); err != nil {
			return err
		}
		keys := make([]string, len(ids))
		for i, id := range ids {
			keys[i] = settleKey(id)
		}
		return db.ForgetFaults(ctx, tx, keys)
	})
	return ids, decisions, err
}

// settleKey is under which the failed attempts at settling a server are
// counted.
func settleKey(id int64) string { return fmt.Sprintf("settle:%d", id) }

// settleEach decides servers one by one, so that one whose values are refused
// does not hold up the others.
func (r *Reconciler) settleEach(ctx context.Context, ids []int64) error {
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		var decisions []decided
		err := r.insist(ctx, 0, func() (err error) {
			decisions, err = r.attempt(ctx, worksOf(id))
			return err
		})
		switch classify(err) {
		case classFine:
			r.forget(ctx, []string{settleKey(id)})
			r.metrics.decided(decisions)
			r.report(decisions)
		case classFault, classHopeless, classNewer:
			if err := r.postpone(ctx, id, err); err != nil {
				return err
			}
		case classAway:
			return err
		}
	}
	return nil
}

// postpone counts a failed attempt at settling a server, and lets it wait the
// longer the more there were. Nothing is lost: it stays settling, which is
// never billed, and any event about it decides it too.
func (r *Reconciler) postpone(ctx context.Context, id int64, cause error) error {
	record, err := r.count(ctx, settleKey(id), cause)
	if err != nil {
		return err
	}
	delay := r.retryDelay(record.Attempts)
	finish, cancel := finishing(ctx)
	defer cancel()
	if err := db.PostponeSettling(finish, r.db, id, r.now().Add(delay)); err != nil {
		return err
	}
	r.log.Error().Err(cause).Int64("server", id).Int("attempts", record.Attempts).Dur("retry_in", delay).
		Msg("a server that has settled cannot be decided; the others go on. Report it with this line")
	return nil
}

// worksOf are servers to decide again from what is stored.
func worksOf(ids ...int64) []work {
	works := make([]work, len(ids))
	for i, id := range ids {
		works[i] = work{serverID: id}
	}
	return works
}
