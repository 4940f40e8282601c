package ingest

import (
	"context"

	"serversync/db"
)

// approved takes up a run that a person has approved. What they saw must still
// be so: when it would by now change or cost more, it is put to them again.
func (j *job) approved(ctx context.Context) error {
	seen := j.run.Preview
	sum := newSummary()
	if err := j.previewItems(ctx, db.ItemHeld, sum); err != nil {
		return err
	}
	now := sum.preview(seen.Fleet, seen.Limit)
	if more(now, seen) {
		now.Asks = "it would change more than when it was approved: look at it again. " + seen.Asks
		j.run.Preview = now
		j.run.State, j.run.Phase, j.run.Note = db.RunNeedsApproval, db.PhaseWaiting, now.Asks
		if err := j.save(ctx); err != nil {
			return err
		}
		j.log.Error().Str("by", j.run.ApprovedBy).Str("do", "look at it again, then `serversync sweep --approve "+j.run.ID+"`").
			Msg("a run was approved, but would change more by now than the one who approved it saw")
		j.metrics.ended(j.run, j.Now())
		return errWaits
	}
	j.log.Info().Str("by", j.run.ApprovedBy).Int64("changes", now.Changes).Msg("a run was approved")
	return db.MoveAll(ctx, j.DB, j.run.ID, db.ItemHeld, db.ItemStaged)
}

// more reports that a preview goes beyond one that was approved.
func more(now, seen *db.RunPreview) bool {
	return now.Changes > seen.Changes || now.Create > seen.Create || now.Move > seen.Move || now.End > seen.End ||
		now.ListMonthly.GreaterThan(seen.ListMonthly) || now.EffectiveMonthly.GreaterThan(seen.EffectiveMonthly) ||
		now.FirstChargeAmount.GreaterThan(seen.FirstChargeAmount)
}
