package ingest

import (
	"context"
	"fmt"

	"serversync/db"
)

// approved takes up a run that a person has approved. What they saw must still
// be so: when it would by now change or cost more, it is put to them again.
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
	if _, err := db.HoldBack(ctx, j.DB, j.run.ID); err != nil {
		return err
	}
	return j.askAgain(ctx, now)
}

// outlook previews what is about to be done, server by server; nil: it is what was
// approved, or less.
func (j *job) outlook(ctx context.Context, state string) (*db.RunPreview, error) {
	seen := j.run.Preview
	sum := newSummary()
	sum.approved = true
	if err := j.previewItems(ctx, state, sum); err != nil {
		return nil, err
	}
	fleet, err := j.fleet(ctx)
	if err != nil {
		return nil, err
	}
	now := sum.preview(fleet, j.limit(fleet))
	switch {
	case seen == nil:
		now.Asks = "nobody has seen yet what it would change: look at it"
	case sum.others > 0:
		now.Asks = fmt.Sprintf("for %d servers it would do something else than what was approved: look at it again", sum.others)
	default:
		now.Asks = seen.Asks
		j.run.Preview = now // what is done, and not what was thought at first
		return nil, nil     //nolint:nilnil // nothing new to be seen
	}
	return now, nil
}

// askAgain puts a run to a person once more.
func (j *job) askAgain(ctx context.Context, now *db.RunPreview) error {
	by := j.run.ApprovedBy
	j.run.Preview, j.run.ApprovedBy, j.run.ApprovedAt = now, "", nil
	j.run.State, j.run.Phase, j.run.Note = db.RunNeedsApproval, db.PhaseWaiting, now.Asks
	if err := j.save(ctx); err != nil {
		return err
	}
	j.log.Error().Str("by", by).Str("do", "look at it with `serversync status`, then `serversync sweep --approve "+j.run.ID+"`").
		Msg("a run was approved, but would change more than who approved it saw")
	j.metrics.ended(j.run, j.Now())
	return errWaits
}

// beyond reports that an effect is another than the one that a person has seen.
// That nothing happens any more is no matter.
func beyond(now, seen *db.RunEffect) bool {
	if now.Effect == db.EffectNone {
		return false
	}
	return seen == nil || now.Effect != seen.Effect || (now.UserID == nil) != (seen.UserID == nil) ||
		now.UserID != nil && *now.UserID != *seen.UserID ||
		!now.ListAfter.Equal(seen.ListAfter) || !now.EffectiveAfter.Equal(seen.EffectiveAfter) || !now.FirstCharge.Equal(seen.FirstCharge) || now.Collected != seen.Collected
}
