package api

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
)

const (
	previewPass = "cleanup_preview"
	// previewCheck is how often it is looked whether a preview is due.
	previewCheck = time.Hour
	// previewLines bounds the log.
	previewLines = 100
)

// Run logs once a month what a cleanup would do, until ctx ends; then no answer
// waits for a run any longer. The database remembers when it last did, and of
// several processes one does it. Call it once, when the database is up to date.
func (a *API) Run(ctx context.Context) error {
	defer close(a.stopping)
	ticker := time.NewTicker(previewCheck)
	defer ticker.Stop()
	for {
		if err := a.previewDue(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn().Err(err).Dur("retry_in", previewCheck).Msg("the monthly look for duplicate and orphaned records failed; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// previewDue looks, and logs what it found, if it last did a month ago. A look
// that fails is as if it had not been.
func (a *API) previewDue(ctx context.Context) error {
	var claimed, more bool
	var found []db.CleanupFinding
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		now := a.now()
		var err error
		if claimed, err = db.ClaimPass(ctx, tx, previewPass, now, now.AddDate(0, -1, 0)); err != nil || !claimed {
			return err
		}
		if found, more, err = db.FindCleanup(ctx, tx, maxFindings); err != nil {
			return err
		}
		return db.FinishPass(ctx, tx, db.Pass{Name: previewPass, FinishedAt: new(a.now()), Servers: int64(len(found))})
	})
	if err == nil && claimed {
		a.logFindings(toFindings(found), more)
	}
	return err
}

func (a *API) logFindings(findings []CleanupFinding, more bool) {
	if len(findings) == 0 {
		a.log.Info().Msg("monthly look for duplicate and orphaned records: there are none")
		return
	}
	for i, f := range findings {
		if i == previewLines {
			break
		}
		a.log.Warn().Str("rule", f.Rule).Int64("server", f.ServerID).Ints64("billing_rows", f.BillingIDs).Str("action", f.Action).
			Msg(f.What + ": " + f.Why)
	}
	a.log.Warn().Int("findings", len(findings)).Bool("more", more).
		Msg("monthly look for duplicate and orphaned records: nothing was changed; see serversync cleanup --dry-run")
}
