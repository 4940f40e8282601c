package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// retentionLock is the advisory lock of whoever prunes: "prune" in ASCII.
const retentionLock = 0x7072756e65

// Pruning is one step of pruning a table, and what became of it.
type Pruning struct {
	// After is the last history line that the step before looked at; 0 begins.
	// Other tables have no use for it.
	After int64
	// Before is how old a row has to be.
	Before time.Time
	// Limit is how many rows a step looks at, or deletes, at most.
	Limit int

	// Deleted rows, by this step.
	Deleted int64
	// Done: there is nothing more that is old enough.
	Done bool
	// Busy: another process prunes; nothing was done.
	Busy bool
}

// prune does a step in a transaction of its own, unless another process prunes.
func prune(ctx context.Context, database *bun.DB, p *Pruning, step func(ctx context.Context, tx bun.Tx) error) error {
	return database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var got bool
		if err := tx.NewRaw(`SELECT pg_try_advisory_xact_lock(?)`, int64(retentionLock)).Scan(ctx, &got); err != nil {
			return fmt.Errorf("take the lock of pruning: %w", err)
		}
		if !got {
			p.Busy = true
			return nil
		}
		return step(ctx, tx)
	})
}

// pruneHistory looks at the next lines, in the order of their ids. What stays,
// however old:
//   - of a server that is not gone, or not for as long as that, the newest line
//     of each kind about each of its billing rows: it explains what is billed today;
//   - what was done to a billing row that still has a pending charge;
//   - refunds that a person has to look at, and lines of runs that are open.
//
// Single lookups stand where EXISTS would have the planner read all pending
// charges, or all servers that are gone.
const pruneHistory = `
	WITH batch AS MATERIALIZED (
		SELECT id, at, virtfusion_id, kind, billing_id, run_id FROM serversync.history WHERE id > $1 ORDER BY id LIMIT $3),
	old AS (
		SELECT id FROM batch b
		WHERE at < $2 AND kind <> 'refund_due'
			AND (EXISTS (SELECT FROM serversync.history newer
					WHERE newer.virtfusion_id = b.virtfusion_id AND newer.id > b.id AND newer.kind = b.kind AND newer.billing_id IS NOT DISTINCT FROM b.billing_id)
				OR (SELECT s.status = 'gone' AND s.gone_at < $2 FROM serversync.servers s WHERE s.virtfusion_id = b.virtfusion_id))
			AND NOT (kind IN ('billing_created', 'billing_changed', 'billing_closed', 'billing_withdrawn', 'charge_voided')
				AND coalesce((SELECT true FROM public.virtfusion_hourly_transactions t WHERE t.billing_id = b.billing_id AND t.status = 'pending' LIMIT 1), false))
			AND NOT EXISTS (SELECT FROM serversync.runs r WHERE r.id = b.run_id AND r.state IN ('running', 'needs_approval'))),
	deleted AS (DELETE FROM serversync.history h USING old WHERE h.id = old.id RETURNING 1)
	SELECT (SELECT count(*) FROM deleted), coalesce(max(id), 0), count(*) = $3 AND bool_or(at < $2) FROM batch`

// PruneHistory deletes history lines that are old and that nothing needs: see
// pruneHistory. It goes through the table once, from [Pruning.After] on.
func PruneHistory(ctx context.Context, database *bun.DB, p *Pruning) error {
	return prune(ctx, database, p, func(ctx context.Context, tx bun.Tx) error {
		steps, err := queryAll(ctx, tx, func(rows *sql.Rows) (step Pruning, err error) {
			var more sql.NullBool
			err = rows.Scan(&step.Deleted, &step.After, &more)
			step.Done = !more.Bool
			return step, err
		}, pruneHistory, p.After, p.Before, p.Limit)
		if err != nil {
			return fmt.Errorf("prune the history: %w", err)
		}
		p.Deleted, p.After, p.Done = steps[0].Deleted, steps[0].After, steps[0].Done
		return nil
	})
}

// oldRuns are runs that ended before $1 and that nothing needs: no billing row
// names them (an invoice may have to be explained, or the run undone), no server
// waits for them or settles on their behalf, and none of their items is held.
const oldRuns = `
	SELECT r.id FROM serversync.runs r
	WHERE r.ended_at < $1 AND r.state NOT IN ('running', 'needs_approval')
		AND NOT EXISTS (SELECT FROM serversync.billing_rows b WHERE b.run_id = r.id)
		AND NOT EXISTS (SELECT FROM serversync.servers s WHERE s.awaiting_run <> '' AND s.awaiting_run = r.id)
		AND NOT EXISTS (SELECT FROM serversync.servers s WHERE s.status = 'settling' AND s.run_id = r.id)
		AND NOT EXISTS (SELECT FROM serversync.run_items i WHERE i.run_id = r.id AND i.state <> 'done' AND i.state = 'held')
	ORDER BY r.started_at, r.id`

// PruneRunItems deletes the items of old runs, see oldRuns, a part at a time:
// those of one sweep may be the whole fleet.
func PruneRunItems(ctx context.Context, database *bun.DB, p *Pruning) error {
	return pruneCounted(ctx, database, p, "the servers of old runs", `
		DELETE FROM serversync.run_items WHERE ctid = ANY (ARRAY(
			SELECT i.ctid FROM (`+oldRuns+`) r CROSS JOIN LATERAL (SELECT ctid FROM serversync.run_items i WHERE i.run_id = r.id LIMIT $2) i LIMIT $2))`)
}

// PruneRuns deletes old runs, see oldRuns, that have no items any more.
func PruneRuns(ctx context.Context, database *bun.DB, p *Pruning) error {
	return pruneCounted(ctx, database, p, "old runs", `
		DELETE FROM serversync.runs WHERE id = ANY (ARRAY(
			SELECT r.id FROM (`+oldRuns+`) r WHERE NOT EXISTS (SELECT FROM serversync.run_items i WHERE i.run_id = r.id) LIMIT $2))`)
}

// PruneFaults deletes records of events that were refused and not heard of again
// since: they have left the stream.
func PruneFaults(ctx context.Context, database *bun.DB, p *Pruning) error {
	return pruneCounted(ctx, database, p, "old faults", `
		DELETE FROM serversync.faults WHERE event_id = ANY (ARRAY(
			SELECT event_id FROM serversync.faults WHERE last_at < $1 LIMIT $2))`)
}

// pruneCounted deletes until fewer than the limit are found.
func pruneCounted(ctx context.Context, database *bun.DB, p *Pruning, what, statement string) error {
	return prune(ctx, database, p, func(ctx context.Context, tx bun.Tx) error {
		result, err := nativeOf(tx).ExecContext(ctx, statement, p.Before, p.Limit)
		if err == nil {
			p.Deleted, err = result.RowsAffected()
		}
		p.Done = p.Deleted < int64(p.Limit)
		return wrap(err, "prune "+what)
	})
}
