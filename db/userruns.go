package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

// ReadUserRun reads one run of a SkyPANEL user's; [sql.ErrNoRows] when there is
// none of that id, or it is not the user's.
func ReadUserRun(ctx context.Context, idb bun.IDB, id string, userID int64) (Run, error) {
	var r Run
	if err := idb.NewSelect().Model(&r).Where("id = ? AND user_id = ?", id, userID).Scan(ctx); err != nil {
		return r, fmt.Errorf("read run %s of user %d: %w", id, userID, err)
	}
	return r, nil
}

// UserRunsMark is a text that changes whenever a run of the user's begins,
// changes its state or ends. Dry runs change nothing, and do not count.
func UserRunsMark(ctx context.Context, idb bun.IDB, userID int64) (string, error) {
	marks, err := queryAll(ctx, idb, scanText, `
		SELECT coalesce(concat_ws(' ',
			(SELECT concat_ws(' ', id, state) FROM serversync.runs WHERE user_id = $1 AND NOT dry_run ORDER BY started_at DESC, id DESC LIMIT 1),
			(SELECT max(ended_at) FROM serversync.runs WHERE user_id = $1 AND NOT dry_run)), '')`, userID)
	if err != nil {
		return "", fmt.Errorf("look for the latest run of user %d: %w", userID, err)
	}
	return marks[0], nil
}
