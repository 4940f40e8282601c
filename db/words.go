package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

// KeepWords writes what searches look at anew for up to limit of the servers that
// wait for it (serversync.words_due), and returns how many entries it took off.
// Several may run side by side.
func KeepWords(ctx context.Context, idb bun.IDB, limit int) (int, error) {
	// What is taken off is visible, and so is the change that put it there; a
	// change that is not committed yet puts the server there once more.
	counted, err := queryAll(ctx, idb, scanID, `
		WITH due AS (
			DELETE FROM serversync.words_due WHERE ctid = ANY (ARRAY(
				SELECT ctid FROM serversync.words_due LIMIT $1 FOR UPDATE SKIP LOCKED))
			RETURNING virtfusion_id),
		written AS (
			INSERT INTO serversync.server_words (virtfusion_id, words)
			SELECT s.virtfusion_id, serversync.words_of(s.virtfusion_id, s.name, s.hostname, s.uuid, s.ip_addresses)
			FROM serversync.servers s WHERE s.virtfusion_id IN (SELECT virtfusion_id FROM due)
			ORDER BY s.virtfusion_id -- one order for all who do this
			ON CONFLICT (virtfusion_id) DO UPDATE SET words = excluded.words WHERE server_words.words <> excluded.words)
		SELECT count(*) FROM due`, limit)
	if err != nil {
		return 0, fmt.Errorf("keep the words that searches look at: %w", err)
	}
	return int(counted[0]), nil
}
