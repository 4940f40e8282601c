package db

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// FaultRecord is serversync.faults: how often something was tried that
// PostgreSQL, or the decision, refused while it stood alone.
type FaultRecord struct {
	bun.BaseModel `bun:"table:serversync.faults,alias:f"`

	// EventID is an event's message id; the settler keeps its own under
	// "settle:<VirtFusion id>".
	EventID  string    `bun:"event_id,pk"`
	Attempts int       `bun:"attempts"` // at least 1
	Reason   string    `bun:"reason"`   // of the last one
	FirstAt  time.Time `bun:"first_at"`
	LastAt   time.Time `bun:"last_at"`
}

// CountFaults counts one failed attempt at each of the ids, which must be
// distinct, for the same reason, and returns the records as they are now, in no
// particular order. The count survives restarts and is shared by all processes.
func CountFaults(ctx context.Context, idb bun.IDB, ids []string, reason string, now time.Time) ([]FaultRecord, error) {
	records, err := queryAll(ctx, idb, scanFault, `
		INSERT INTO serversync.faults AS f (event_id, attempts, reason, first_at, last_at)
		SELECT id, 1, $2, $3, $3 FROM unnest($1::text[]) AS k (id)
		ON CONFLICT (event_id) DO UPDATE SET
			attempts = f.attempts + 1, reason = excluded.reason, last_at = excluded.last_at
		RETURNING f.event_id, f.attempts, f.reason, f.first_at, f.last_at`,
		ids, storable(reason), now)
	if err != nil {
		return nil, fmt.Errorf("count a failed attempt at %s: %w", strings.Join(ids, ", "), err)
	}
	return records, nil
}

// ForgetFaults deletes the records of what went well, or was given up.
func ForgetFaults(ctx context.Context, idb bun.IDB, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	if _, err := nativeOf(idb).ExecContext(ctx, `DELETE FROM serversync.faults WHERE event_id = ANY ($1::text[])`, ids); err != nil {
		return fmt.Errorf("forget the failed attempts of %d events: %w", len(ids), err)
	}
	return nil
}

// PostponeSettling moves a settling server's time, so that one which cannot be
// decided does not stand in the way of others that are due.
func PostponeSettling(ctx context.Context, idb bun.IDB, id int64, until time.Time) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.servers SET settle_until = $2
		WHERE virtfusion_id = $1 AND status = 'settling' AND settle_until < $2`, id, until)
	if err != nil {
		return fmt.Errorf("postpone the settling of server %d: %w", id, err)
	}
	return nil
}

func scanFault(rows *sql.Rows) (FaultRecord, error) {
	var f FaultRecord
	err := rows.Scan(&f.EventID, &f.Attempts, &f.Reason, &f.FirstAt, &f.LastAt)
	return f, err
}

// storable is a text that PostgreSQL takes, whatever an error quotes.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
