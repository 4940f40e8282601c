package reconciler

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"serversync/db"
)

// VoidOrphanedCharges voids pending charges of ours whose billing rows were
// withdrawn, with a line of history for each, and returns how many.
func (r *Reconciler) VoidOrphanedCharges(ctx context.Context) (voided int, err error) {
	if r.policy.ObserveOnly {
		return 0, nil
	}
	finish, cancel := finishing(ctx)
	defer cancel()
	err = r.db.RunInTx(finish, nil, func(ctx context.Context, tx bun.Tx) error {
		lines, err := db.VoidOrphanedCharges(ctx, tx, micro(r.now()))
		if err != nil {
			return err
		}
		voided = len(lines)
		return db.InsertHistory(ctx, tx, lines)
	})
	if err != nil {
		return 0, fmt.Errorf("void orphaned charges: %w", err)
	}
	return voided, nil
}
