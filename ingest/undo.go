package ingest

import (
	"context"
	"encoding/json"
	"fmt"

	"serversync/db"
)

// StartUndo makes a run that takes back what another run, or a server's last
// change, did, and hands it to [Runs.RunSyncs]. By is who wants it. [ErrNoSyncs].
func (r *Runs) StartUndo(ctx context.Context, order db.UndoOrder, dryRun bool, by string) (runID string, err error) {
	run := r.newRun(db.RunUndo, by, dryRun)
	run.Progress.Undo = &order
	if _, _, err := db.StartRun(ctx, r.DB, run); err != nil {
		return "", err
	}
	return run.ID, r.hand(ctx, run)
}

// listUndo finds the servers that were changed.
func (j *job) listUndo(ctx context.Context) error {
	if err := db.StageUndo(ctx, j.DB, j.run.ID, *j.run.Progress.Undo); err != nil {
		return err
	}
	ids, err := j.stagedIDs(ctx)
	if err != nil {
		return err
	}
	j.run.Progress.Total, j.run.Progress.Listed = int64(len(ids)), int64(len(ids))
	return j.save(ctx)
}

// previewUndo works out what it would change. An operator's word needs nobody
// else's approval.
func (j *job) previewUndo(ctx context.Context) error {
	sum := newSummary()
	err := j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		effects, err := j.Books.PreviewUndo(ctx, *j.run.Progress.Undo, idsOf(items))
		if err != nil {
			return err
		}
		return j.foreseen(ctx, effects, sum)
	})
	if err != nil {
		return err
	}
	fleet, err := j.fleet(ctx)
	if err != nil {
		return err
	}
	j.run.Preview = sum.preview(fleet, j.limit(fleet))
	return j.save(ctx)
}

// foreseen adds effects to a summary, and records them with their items.
func (j *job) foreseen(ctx context.Context, effects []db.RunEffect, sum *summary) error {
	forecasts := make([]string, len(effects))
	for i := range effects {
		content, err := json.Marshal(&effects[i])
		if err != nil {
			return fmt.Errorf("encode the preview of server %d: %w", effects[i].ServerID, err)
		}
		forecasts[i] = string(content)
		sum.add(&effects[i])
	}
	return db.SetEffects(ctx, j.DB, j.run.ID, effects, forecasts)
}

// applyUndo takes it back.
func (j *job) applyUndo(ctx context.Context) error {
	if j.run.DryRun {
		return db.CloseItems(ctx, j.DB, j.run.ID)
	}
	return j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		ids := idsOf(items)
		if err := j.Books.Undo(ctx, j.run.ID, *j.run.Progress.Undo, ids, j.run.RequestedBy); err != nil {
			return fmt.Errorf("take back %s: %w", j.run.Progress.Undo.Words(), err)
		}
		// What cannot be decided has failed, or the run would never end.
		if err := db.FailItems(ctx, j.DB, j.run.ID, ids, "the server could not be decided: the service's log says why"); err != nil {
			return err
		}
		return j.save(ctx)
	})
}
