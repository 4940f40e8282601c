package reconciler

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"serversync/db"
)

// PreviewWish is [Reconciler.Preview] of servers as they would be decided after
// a change of the operators' wishes for them.
func (r *Reconciler) PreviewWish(ctx context.Context, ids []int64, change db.WishChange) ([]db.RunEffect, error) {
	effects := make([]db.RunEffect, 0, len(ids))
	for some := range slices.Chunk(worksFor(ids, nil), previewBatch) {
		var foreseen []db.RunEffect
		err := r.insist(ctx, 0, func() (err error) {
			foreseen, err = r.foreseeWish(ctx, some, change)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("preview a wish for %d servers: %w", len(some), err)
		}
		effects = append(effects, foreseen...)
	}
	return effects, nil
}

func (r *Reconciler) foreseeWish(ctx context.Context, works []work, change db.WishChange) (effects []db.RunEffect, err error) {
	defer caught(&err)
	ids := make([]int64, len(works))
	for i := range works {
		ids[i] = works[i].serverID
	}
	snapshot := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	err = r.db.RunInTx(ctx, snapshot, func(ctx context.Context, tx bun.Tx) error {
		ev, err := r.read(ctx, tx, works)
		if err != nil {
			return err
		}
		overrides, err := db.OverridesByServer(ctx, tx, ids)
		if err != nil {
			return err
		}
		now := micro(r.now())
		effects = make([]db.RunEffect, 0, len(works))
		for i := range works {
			in := ev.input(&works[i], now)
			if in.Known == nil {
				continue
			}
			id := works[i].serverID
			own := slices.DeleteFunc(slices.Clone(overrides), func(o db.Override) bool { return o.VirtfusionID != id })
			in.Wishes = wishesOf(change.Apply(own, db.Override{VirtfusionID: id}))[id]
			effects = append(effects, lookAhead(in).RunEffect)
		}
		return nil
	})
	return effects, err
}

// wishesOf puts operators' wishes as decisions read them, by server.
func wishesOf(overrides []db.Override) map[int64]Wishes {
	slices.SortFunc(overrides, func(a, b db.Override) int { return cmp.Compare(a.Kind, b.Kind) }) // as with users
	wishes := make(map[int64]Wishes, len(overrides))
	for i := range overrides {
		o := &overrides[i]
		w := wishes[o.VirtfusionID]
		switch o.Kind {
		case db.WishBillingOn:
			w.BillingOn = true
		case db.WishBillingOff:
			w.BillingOff = true
		case db.WishIgnore:
			w.Ignore = true
		case db.WishUndone:
			w.Undone, w.UndoneFor = true, o.UserID
		case db.WishKeep:
			w.Keep, w.KeepFor = true, o.UserID
		case db.WishPackage:
			w.PackageID = o.PackageID
		}
		w.Words = strings.TrimPrefix(w.Words+"; "+cmp.Or(o.Reason, o.Kind), "; ")
		wishes[o.VirtfusionID] = w
	}
	return wishes
}
