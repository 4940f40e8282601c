package main

import (
	"context"
	"errors"
	"sync/atomic"

	"serversync/api"
	"serversync/db"
	"serversync/ingest"
	"serversync/reconciler"
)

// lateBooks is the reconciler for those who are set up before it is: it can be
// made only once the database is up to date.
type lateBooks struct {
	reconciler atomic.Pointer[reconciler.Reconciler]
}

// unfit is why nothing gets into the books until a person mends the database.
func (b *lateBooks) unfit() error {
	if r := b.reconciler.Load(); r != nil {
		return r.Unfit()
	}
	return nil
}

func (b *lateBooks) Redecide(ctx context.Context, serverIDs []int64) (int, error) {
	r := b.reconciler.Load()
	if r == nil {
		return 0, api.ErrNotReady
	}
	return r.Redecide(ctx, serverIDs)
}

func (b *lateBooks) VoidOrphanedCharges(ctx context.Context) (int, error) {
	r := b.reconciler.Load()
	if r == nil {
		return 0, api.ErrNotReady
	}
	return r.VoidOrphanedCharges(ctx)
}

func (b *lateBooks) ResolveCharge(ctx context.Context, id int64, taken bool, creditID, by string) (db.FirstCharge, error) {
	r := b.reconciler.Load()
	if r == nil {
		return db.FirstCharge{}, api.ErrNotReady
	}
	return r.ResolveCharge(ctx, id, taken, creditID, by)
}

// lateSyncs are the users' syncs, replays and bulk actions for those who are set up before they are.
type lateSyncs struct {
	runs atomic.Pointer[ingest.Runs]
}

func (s *lateSyncs) StartSync(ctx context.Context, userID int64, dryRun bool, by string) (string, bool, error) {
	runs := s.runs.Load()
	if runs == nil {
		return "", false, api.ErrNotReady
	}
	id, joined, err := runs.StartSync(ctx, userID, dryRun, by)
	if errors.Is(err, ingest.ErrNoSyncs) {
		err = api.ErrNotReady
	}
	return id, joined, err
}

func (s *lateSyncs) StartReplay(ctx context.Context, o api.ReplayOrder) (string, error) {
	runs := s.runs.Load()
	if runs == nil {
		return "", api.ErrNotReady
	}
	id, err := runs.StartReplay(ctx, ingest.ReplayOrder(o))
	if errors.Is(err, ingest.ErrNoSyncs) {
		err = api.ErrNotReady
	}
	return id, err
}

func (s *lateSyncs) StartUndo(ctx context.Context, order db.UndoOrder, dryRun bool, by string) (string, error) {
	runs := s.runs.Load()
	if runs == nil {
		return "", api.ErrNotReady
	}
	id, err := runs.StartUndo(ctx, order, dryRun, by)
	if errors.Is(err, ingest.ErrNoSyncs) {
		err = api.ErrNotReady
	}
	return id, err
}

func (s *lateSyncs) StartBulk(ctx context.Context, o api.BulkOrder) (string, error) {
	runs := s.runs.Load()
	if runs == nil {
		return "", api.ErrNotReady
	}
	id, err := runs.StartBulk(ctx, ingest.BulkOrder(o))
	if errors.Is(err, ingest.ErrNoSyncs) {
		err = api.ErrNotReady
	}
	return id, err
}
