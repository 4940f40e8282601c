package ingest

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/virtfusion"
)

// BulkResync is the bulk action that changes no wish: VirtFusion is asked for
// each server.
const BulkResync = "resync"

// BulkOrder is what an operator wants done with servers.
type BulkOrder struct {
	IDs    []int64 // VirtFusion's; each once
	Order  db.BulkOrder
	DryRun bool
	By     string // who wants it
}

// StartBulk makes a run that does with servers what an operator wants, and hands
// it to [Runs.RunSyncs]. [ErrNoSyncs].
func (r *Runs) StartBulk(ctx context.Context, o BulkOrder) (runID string, err error) {
	run := r.newRun(db.RunBulk, o.By, o.DryRun)
	run.Progress.Bulk = &o.Order
	err = r.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, _, err := db.StartRun(ctx, tx, run); err != nil {
			return err
		}
		return db.StageBulk(ctx, tx, run.ID, o.IDs)
	})
	if err != nil {
		return "", err
	}
	return run.ID, r.hand(ctx, run)
}

// listBulk fails the servers that nobody knows, and asks VirtFusion for the
// others where that is what is wanted.
func (j *job) listBulk(ctx context.Context) error {
	if err := db.FailUnknown(ctx, j.DB, j.run.ID, "the inventory has no server of this id: sync its owner first, or sweep"); err != nil {
		return err
	}
	ids, err := j.stagedIDs(ctx)
	if err != nil {
		return err
	}
	j.run.Progress.Total, j.run.Progress.Listed = int64(len(ids)), int64(len(ids))
	if j.run.Progress.Bulk.Action != BulkResync {
		return j.save(ctx)
	}
	if err := j.connect(ctx); err != nil {
		return err
	}
	if j.client == nil {
		return db.FailItems(ctx, j.DB, j.run.ID, ids, "VirtFusion could not be asked for it: see the run's problems")
	}
	if len(ids) > singlePull { // nobody waits for that many
		ctx = virtfusion.InBackground(ctx)
	}
	for len(ids) > 0 {
		n := min(len(ids), 4*looksAtOnce)
		if err := j.lookAt(ctx, ids[:n], db.FoundAsked); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// previewBulk works out what it would change. An operator's word needs nobody
// else's approval.
func (j *job) previewBulk(ctx context.Context) error {
	sum, order := newSummary(), j.run.Progress.Bulk
	var err error
	if order.Action == BulkResync {
		err = j.previewItems(ctx, db.ItemStaged, sum)
	} else {
		err = j.previewWishes(ctx, order.WishChange, sum)
	}
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

// previewWishes adds what a change of wishes would do to a summary, and records
// it with each item.
func (j *job) previewWishes(ctx context.Context, change db.WishChange, sum *summary) error {
	return j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		effects, err := j.Books.PreviewWish(ctx, idsOf(items), change)
		if err != nil {
			return fmt.Errorf("preview the operator's wish: %w", err)
		}
		return j.foreseen(ctx, effects, sum)
	})
}

// applyBulk writes the operator's wishes and has the servers decided by them.
func (j *job) applyBulk(ctx context.Context) error {
	order := j.run.Progress.Bulk
	if j.run.DryRun || order.Action == BulkResync {
		return j.apply(ctx)
	}
	return j.eachItem(ctx, db.ItemStaged, func(items []db.RunItem) error {
		err := j.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			return db.ChangeWishes(ctx, tx, idsOf(items), order.WishChange, db.NewWish(j.run.RequestedBy, order.Reason, j.Now()), j.run.ID)
		})
		if err != nil {
			return err
		}
		if err := j.send(ctx, items); err != nil {
			return err
		}
		return j.save(ctx)
	})
}

func idsOf(items []db.RunItem) []int64 {
	ids := make([]int64, len(items))
	for i := range items {
		ids[i] = items[i].ServerID
	}
	return ids
}
