package main

import (
	"context"
	"sync/atomic"

	"serversync/api"
	"serversync/reconciler"
)

// lateBooks is the reconciler for those who are set up before it is: it can be
// made only once the database is up to date.
type lateBooks struct {
	reconciler atomic.Pointer[reconciler.Reconciler]
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
