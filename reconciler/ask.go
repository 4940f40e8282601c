package reconciler

import (
	"context"
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
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := r.AskDue(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn().Err(err).Dur("retry_in", askAgainAfter).Msg("VirtFusion could not be asked about servers; trying again")
		}
	}
}

// AskDue asks about what is due now.
func (r *Reconciler) AskDue(ctx context.Context) error {
	now := r.now()
	ids, err := db.ClaimAsks(ctx, r.db, now, now.Add(-askAgainAfter), askLimit)
	if err != nil || len(ids) == 0 {
		return err
	}
	return r.refetcher.Refetch(ctx, ids)
}
