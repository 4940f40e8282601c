package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// UndoOrder says what is to be taken back: what a run did, or one server's last
// change.
type UndoOrder struct {
	RunID    string    `json:"runId,omitempty"`
	ServerID int64     `json:"serverId,omitempty"` // where RunID is empty
	At       time.Time `json:"at,omitzero"`        // of the server's change
}

// Words name it.
func (o *UndoOrder) Words() string {
	if o.RunID != "" {
		return "run " + o.RunID
	}
	return "the change of " + o.At.UTC().Format(time.RFC3339)
}

// PastLine is a history line about a server's billing rows, or about what
// operators wish of it.
type PastLine struct {
	ServerID      int64
	At            time.Time
	Kind          string
	BillingID     *int64
	Before, After []byte // JSON objects, or nil
}

// undoable are the kinds of history lines that tell of billing rows and wishes.
const undoable = `('billing_created', 'billing_changed', 'billing_closed', 'billing_withdrawn', 'wish')`

// PastLines reads, in their order, what a change did to servers.
func PastLines(ctx context.Context, idb bun.IDB, ids []int64, order UndoOrder) ([]PastLine, error) {
	lines, err := queryAll(ctx, idb, func(rows *sql.Rows) (PastLine, error) {
		var l PastLine
		err := rows.Scan(&l.ServerID, &l.At, &l.Kind, &l.BillingID, &l.Before, &l.After)
		return l, err
	}, `
		SELECT h.virtfusion_id, h.at, h.kind, h.billing_id, h.before, h.after
		FROM unnest($1::bigint[]) AS k (id)
		JOIN serversync.history h ON h.virtfusion_id = k.id
		WHERE h.kind IN `+undoable+` AND CASE WHEN $2 <> '' THEN h.run_id = $2 ELSE h.virtfusion_id = $3 AND h.at = $4::timestamptz END
		ORDER BY h.id`, ids, order.RunID, order.ServerID, order.At)
	return lines, wrap(err, "read what "+order.Words()+" did")
}

// StageUndo adds to a run the servers whose billing a change concerned.
func StageUndo(ctx context.Context, idb bun.IDB, runID string, order UndoOrder) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state)
		SELECT $1, k.id, $2, 'staged' FROM (
			SELECT virtfusion_id FROM serversync.run_items WHERE run_id = $3 AND $3 <> ''
			UNION SELECT virtfusion_id FROM serversync.billing_rows WHERE run_id = $3 AND $3 <> ''
			UNION SELECT $4::bigint WHERE $3 = '') AS k (id)
		WHERE EXISTS (
			SELECT FROM serversync.history h
			WHERE h.virtfusion_id = k.id AND h.kind IN `+undoable+` AND CASE WHEN $3 <> '' THEN h.run_id = $3 ELSE h.at = $5::timestamptz END)
			OR EXISTS ( -- its row is yet to come, and no person's approval before it
				SELECT FROM serversync.servers s WHERE s.virtfusion_id = k.id AND s.status = 'settling' AND s.awaiting_run = '' AND s.run_id = $3 AND $3 <> '')
		ON CONFLICT DO NOTHING`, runID, FoundUndo, order.RunID, order.ServerID, order.At)
	return wrap(err, "list the servers that "+order.Words()+" changed")
}

// FoundUndo is why a server is in an undo: what is to be taken back concerned it.
const FoundUndo = "undo"

// LastChange is when a server's billing, or what operators wish of it, last
// changed, but for what undoes did; [ErrNoChange].
func LastChange(ctx context.Context, idb bun.IDB, serverID int64) (time.Time, error) {
	var at time.Time
	err := idb.NewRaw(`
		SELECT at FROM serversync.history h WHERE virtfusion_id = ? AND kind IN `+undoable+`
			AND NOT EXISTS (SELECT FROM serversync.runs r WHERE r.id = h.run_id AND r.kind = 'undo')
		ORDER BY id DESC LIMIT 1`, serverID).Scan(ctx, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return at, ErrNoChange
	}
	return at, wrap(err, fmt.Sprintf("look when the billing of server %d last changed", serverID))
}

// ErrNoChange means that a server's billing has never changed.
var ErrNoChange = errors.New("nothing of the server's billing was ever changed")

// ChargedRow is what SkyPANEL has taken for a billing row since a time.
type ChargedRow struct {
	Charges int64
	Amount  decimal.Decimal // dollars
}

// ChargedSince adds up the completed charges of billing rows, each since its own
// time, and those of which nobody knows yet whether they are. Rows without any
// are absent.
func ChargedSince(ctx context.Context, idb bun.IDB, billingIDs []int64, since []time.Time) (map[int64]ChargedRow, error) {
	if len(billingIDs) == 0 {
		return nil, nil //nolint:nilnil // nothing to look up
	}
	for i := range since {
		since[i] = since[i].UTC()
	}
	type charged struct {
		id int64
		ChargedRow
	}
	found, err := queryAll(ctx, idb, func(rows *sql.Rows) (charged, error) {
		var c charged
		err := rows.Scan(&c.id, &c.Charges, &c.Amount)
		return c, err
	}, `
		SELECT k.id, count(*), sum(t.amount_charged)
		FROM unnest($1::int[], $2::timestamp[]) AS k (id, since)
		JOIN public.virtfusion_hourly_transactions t ON t.billing_id = k.id
		WHERE (t.status = 'completed' OR t.status = 'pending' AND `+inHand+`) AND t.created_at >= k.since
		GROUP BY k.id`, billingIDs, since)
	if err != nil {
		return nil, fmt.Errorf("add up the charges of %d billing rows: %w", len(billingIDs), err)
	}
	sums := make(map[int64]ChargedRow, len(found))
	for _, c := range found {
		sums[c.id] = c.ChargedRow
	}
	return sums, nil
}
