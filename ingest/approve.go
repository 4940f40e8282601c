package ingest

import (
	"context"

	"github.com/uptrace/bun"

	"serversync/db"
)

// approved takes up a run that a person has approved. What they saw must still
// be so, or nearly: when it would by now do something else, or cost another amount, it
// is put to them again.
func (j *job) approved(ctx context.Context) error {
	now, err := j.outlook(ctx, db.ItemHeld)
	if err != nil {
		return err
	}
	if now != nil {
		return j.askAgain(ctx, now)
	}
	j.log.Info().Str("by", j.run.ApprovedBy).Msg("a run was approved")
	return db.MoveAll(ctx, j.DB, j.run.ID, db.ItemHeld, db.ItemStaged)
}

// checkAnswers looks once more, now that VirtFusion was asked for the servers
// that were missing: they need not be gone, but may have moved or changed.
func (j *job) checkAnswers(ctx context.Context) error {
	now, err := j.outlook(ctx, db.ItemStaged)
	if err != nil || now == nil {
		return err
	}
	return j.askAgain(ctx, now)
}

// applyApproved is apply of an approved run.
func (j *job) applyApproved(ctx context.Context) error {
	if j.partly {
		if err := j.takenUp(ctx); err != nil {
			return err
		}
	}
	return j.apply(ctx)
}

// takenUp looks once more at what an approved run has not applied yet, when whoever
// was applying it ended: the books may be others by now.
func (j *job) takenUp(ctx context.Context) error {
	if err := db.MoveAll(ctx, j.DB, j.run.ID, db.ItemSent, db.ItemStaged); err != nil {
		return err
	}
	shown := j.run.Preview
	now, err := j.outlook(ctx, db.ItemStaged)
	if err != nil {
		return err
	}
	if now != nil {
		return j.askAgain(ctx, now)
	}
	j.run.Preview = shown // that of what is left is not what is done in all
	return nil
}

// outlook previews what is about to be done, server by server; nil: it is what was
// approved, or nearly.
func (j *job) outlook(ctx context.Context, state string) (*db.RunPreview, error) {
	before := j.run.Preview
	sum := newSummary()
	sum.approved = newSeen()
	sum.approved.partly = j.partly
	if err := j.previewItems(ctx, state, sum); err != nil {
		return nil, err
	}
	fleet, err := j.fleet(ctx)
	if err != nil {
		return nil, err
	}
	now := sum.preview(fleet, j.limit(fleet))
	if before == nil {
		now.Asks = "nobody has seen yet what it would change: look at it"
		return now, nil
	}
	if now.Differs = sum.approved.difference(sum.customers); now.Differs != nil {
		now.Differs.ApprovedBy = j.run.ApprovedBy
		now.Asks = differenceWords(now.Differs)
		return now, nil
	}
	now.Asks, now.Mark = before.Asks, before.Mark
	j.run.Preview = now // what is done, and not what was thought at first
	return nil, nil     //nolint:nilnil // nothing new to be seen
}

// askAgain puts a run to a person once more.
func (j *job) askAgain(ctx context.Context, now *db.RunPreview) error {
	by := j.run.ApprovedBy
	j.run.Preview, j.run.ApprovedBy, j.run.ApprovedAt = now, "", nil
	j.run.State, j.run.Phase, j.run.Note = db.RunNeedsApproval, db.PhaseWaiting, now.Asks
	// What was approved and what is shown now change places at once: else a crash in
	// between would take this preview for the approved one.
	err := j.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := db.HoldBack(ctx, tx, j.run.ID); err != nil {
			return err
		}
		if err := db.ShowOutlooks(ctx, tx, j.run.ID); err != nil {
			return err
		}
		return j.saveIn(ctx, tx)
	})
	if err != nil {
		return err
	}
	j.announce()
	j.log.Error().Str("by", by).Str("do", "look at it with `serversync status`, then `serversync sweep --approve "+j.run.ID+"`").
		Msg("a run was approved, but would by now do something else than who approved it saw")
	j.metrics.ended(j.run, j.Now())
	return errWaits
}
