package db

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/uptrace/bun"
)

// The states of a run's item.
const (
	ItemStaged = "staged" // found, not handed on yet
	ItemHeld   = "held"   // waits for approval
	ItemSent   = "sent"   // handed to the reconciler
	ItemDone   = "done"   // has an outcome
)

// The outcomes of a run's item.
const (
	OutcomeNew       = "new"
	OutcomeUpdated   = "updated"
	OutcomeUnchanged = "unchanged"
	OutcomeFailed    = "failed"
)

// RunItem is serversync.run_items: one server of a run.
type RunItem struct {
	RunID    string
	ServerID int64
	// Found is why the server is in the run: see docs/database.md.
	Found string
	State string
	// Event is the observation, as JSON; empty: none.
	Event string
	// Effect is what it would do, Forecast the same as JSON of a [RunEffect];
	// empty: not previewed yet.
	Effect   string
	Forecast string
}

// StageItems adds what a run found, while it runs. What it found before of the same server,
// and has not handed on, is replaced.
func StageItems(ctx context.Context, idb bun.IDB, runID string, items []RunItem) error {
	if len(items) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.run_items AS i (run_id, virtfusion_id, found, state, event)
		SELECT $1, v.id, v.found, 'staged', v.event
		FROM unnest($2::bigint[], $3::text[], $4::text[]) AS v (id, found, event)
		WHERE EXISTS (SELECT FROM serversync.runs WHERE id = $1 AND state = 'running')
		ON CONFLICT (run_id, virtfusion_id) DO UPDATE SET found = excluded.found, event = excluded.event
		WHERE i.state = 'staged'`,
		runID,
		column(items, func(i *RunItem) int64 { return i.ServerID }),
		column(items, func(i *RunItem) string { return i.Found }),
		column(items, func(i *RunItem) *string { return nullIfEmpty(i.Event) }))
	if err != nil {
		return fmt.Errorf("stage %d findings of run %s: %w", len(items), runID, err)
	}
	return nil
}

// RunItems reads up to limit items of a run in one state, above the server id
// after, in order.
func RunItems(ctx context.Context, idb bun.IDB, runID, state string, after int64, limit int) ([]RunItem, error) {
	items, err := queryAll(ctx, idb, func(rows *sql.Rows) (RunItem, error) {
		i := RunItem{RunID: runID, State: state}
		err := rows.Scan(&i.ServerID, &i.Found, &i.Event, &i.Effect, &i.Forecast)
		return i, err
	}, `
		SELECT virtfusion_id, found, coalesce(event, ''), coalesce(effect, ''), coalesce(forecast::text, '') FROM serversync.run_items
		WHERE run_id = $1 AND state = $2 AND state <> 'done' AND virtfusion_id > $3
		ORDER BY virtfusion_id LIMIT $4`, runID, state, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the findings of run %s: %w", runID, err)
	}
	return items, nil
}

// SetEffects records what the items of a run would do. forecasts are the same
// as JSON, one for each.
func SetEffects(ctx context.Context, idb bun.IDB, runID string, effects []RunEffect, forecasts []string) error {
	if len(effects) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items i SET effect = v.effect, forecast = v.forecast::jsonb
		FROM unnest($2::bigint[], $3::text[], $4::text[]) AS v (id, effect, forecast)
		WHERE i.run_id = $1 AND i.virtfusion_id = v.id`,
		runID,
		column(effects, func(e *RunEffect) int64 { return e.ServerID }),
		column(effects, func(e *RunEffect) string { return e.Effect }),
		forecasts)
	if err != nil {
		return fmt.Errorf("record the preview of run %s: %w", runID, err)
	}
	return nil
}

// SetOutlooks records what the items of an approved run would do by now, beside
// what was approved. outlooks are the same as JSON, one for each.
func SetOutlooks(ctx context.Context, idb bun.IDB, runID string, effects []RunEffect, outlooks []string) error {
	if len(effects) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items i SET effect = v.effect, outlook = v.outlook::jsonb
		FROM unnest($2::bigint[], $3::text[], $4::text[]) AS v (id, effect, outlook)
		WHERE i.run_id = $1 AND i.virtfusion_id = v.id`,
		runID,
		column(effects, func(e *RunEffect) int64 { return e.ServerID }),
		column(effects, func(e *RunEffect) string { return e.Effect }),
		outlooks)
	return wrap(err, "record what run "+runID+" would do by now")
}

// ShowOutlooks makes what a run would do by now what a person is to approve.
func ShowOutlooks(ctx context.Context, idb bun.IDB, runID string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items SET forecast = outlook, outlook = NULL WHERE run_id = $1 AND outlook IS NOT NULL`, runID)
	return wrap(err, "show what run "+runID+" would do by now")
}

// MoveItems moves items of a run from one state to another.
func MoveItems(ctx context.Context, idb bun.IDB, runID string, ids []int64, from, to string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items i SET state = $4
		FROM unnest($2::bigint[]) AS v (id)
		WHERE i.run_id = $1 AND i.virtfusion_id = v.id AND i.state = $3`, runID, ids, from, to)
	if err != nil {
		return fmt.Errorf("mark %d findings of run %s as %s: %w", len(ids), runID, to, err)
	}
	return nil
}

// Completion is what became of one server of a run.
type Completion struct {
	RunID    string
	ServerID int64
	Outcome  string // OutcomeNew, …
	Error    string // what to do about a failure
}

// CompleteItems records outcomes, one statement for all; the first outcome of
// an item stands, so that an event delivered twice counts once. Items that do
// not exist are passed over.
func CompleteItems(ctx context.Context, idb bun.IDB, completions []Completion) error {
	if len(completions) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items i SET state = 'done', outcome = v.outcome, error = v.error, event = NULL
		FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) AS v (run_id, id, outcome, error)
		WHERE i.run_id = v.run_id AND i.virtfusion_id = v.id AND i.outcome IS NULL`,
		column(completions, func(c *Completion) string { return c.RunID }),
		column(completions, func(c *Completion) int64 { return c.ServerID }),
		column(completions, func(c *Completion) string { return c.Outcome }),
		column(completions, func(c *Completion) *string { return nullIfEmpty(c.Error) }))
	if err != nil {
		return fmt.Errorf("record the outcomes of %d servers of runs: %w", len(completions), err)
	}
	return nil
}

// Claim has servers that wait for the approval of some run wait for another one,
// whose observations of them are on their way: these end the waiting.
func Claim(ctx context.Context, idb bun.IDB, runID string, ids []int64) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.servers SET awaiting_run = $1
		WHERE awaiting_run NOT IN ('', $1) AND virtfusion_id = ANY($2::bigint[])`, runID, ids)
	return wrap(err, "claim the servers of run "+runID)
}

// Supersede ends the runs that wait for approval in favour of another, which
// takes over what they held and it did not find itself: a sweep those of older
// sweeps and of users' syncs, a user's sync that user's older ones. Of several
// findings about one server the newest counts. Servers that were missing from a
// list, and have been seen since, or are gone, are not taken over. It returns the
// runs' ids.
func Supersede(ctx context.Context, tx bun.Tx, by *Run) ([]string, error) {
	ids, err := queryAll(ctx, tx, scanText, `
		SELECT id FROM serversync.runs
		WHERE state = 'needs_approval' AND id <> $1
			AND (kind = $2 AND user_id IS NOT DISTINCT FROM $3 OR $2 = 'sweep' AND kind = 'sync')
		ORDER BY id FOR UPDATE`, by.ID, by.Kind, by.UserID)
	if err != nil || len(ids) == 0 {
		return nil, wrap(err, "look for runs that wait for approval")
	}
	for _, statement := range []string{
		// Moved, not copied: a fleet that waits for weeks would fill the disk.
		`WITH held AS (
			SELECT i.run_id, i.virtfusion_id, row_number() OVER (
				PARTITION BY i.virtfusion_id ORDER BY i.event IS NULL, r.started_at DESC, r.id) AS place
			FROM serversync.run_items i
			JOIN serversync.runs r ON r.id = i.run_id
			LEFT JOIN serversync.servers s USING (virtfusion_id)
			WHERE i.run_id = ANY($2::text[]) AND i.state = 'held'
				AND NOT EXISTS (SELECT FROM serversync.run_items n WHERE n.run_id = $1 AND n.virtfusion_id = i.virtfusion_id)
				AND (i.found <> 'missing' OR s.status <> 'gone' AND s.last_seen_at < r.started_at))
		 UPDATE serversync.run_items i SET run_id = $1, state = 'staged', effect = NULL, forecast = NULL, outlook = NULL
		 FROM held h WHERE h.place = 1 AND i.run_id = h.run_id AND i.virtfusion_id = h.virtfusion_id`,
		`DELETE FROM serversync.run_items WHERE $1 <> '' AND run_id = ANY($2::text[]) AND state = 'held'`,
		`UPDATE serversync.servers SET awaiting_run = $1 WHERE awaiting_run = ANY($2::text[])`,
		`UPDATE serversync.runs r SET state = 'superseded', phase = 'ended', superseded_by = $1, note = 'a newer run took over what it found',
			ended_at = (SELECT started_at FROM serversync.runs WHERE id = $1)
		 WHERE id = ANY($2::text[])`,
	} {
		if _, err := nativeOf(tx).ExecContext(ctx, statement, by.ID, ids); err != nil {
			return nil, fmt.Errorf("supersede runs: %w", err)
		}
	}
	return ids, nil
}

// HoldBack makes the findings of a run that broke off wait (again): those that
// would change billing, and those whose servers wait for it already. It returns
// how many now wait for the run.
func HoldBack(ctx context.Context, idb bun.IDB, runID string) (int64, error) {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items i SET state = 'held'
		WHERE run_id = $1 AND state = 'staged' AND (coalesce(effect, 'none') <> 'none'
			OR EXISTS (SELECT FROM serversync.servers s WHERE s.virtfusion_id = i.virtfusion_id AND s.awaiting_run = $1))`, runID)
	if err != nil {
		return 0, fmt.Errorf("hold back the findings of run %s: %w", runID, err)
	}
	var waiting int64
	err = idb.NewRaw(`SELECT count(*) FROM serversync.servers WHERE awaiting_run = ?`, runID).Scan(ctx, &waiting)
	return waiting, wrap(err, "count what waits for run "+runID)
}

// Release ends the waiting of servers for a run that is through with them.
func Release(ctx context.Context, idb bun.IDB, runID string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.servers s SET awaiting_run = ''
		WHERE awaiting_run = $1 AND NOT EXISTS (
			SELECT FROM serversync.run_items i WHERE i.run_id = $1 AND i.virtfusion_id = s.virtfusion_id AND i.state <> 'done')`, runID)
	return wrap(err, "release the servers that waited for run "+runID)
}

// wrap adds what was being done to an error, if there is one.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// StageMore adds findings to a run for servers that it has not found yet.
func StageMore(ctx context.Context, idb bun.IDB, runID string, items []RunItem) error {
	if len(items) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state)
		SELECT $1, v.id, v.found, 'staged' FROM unnest($2::bigint[], $3::text[]) AS v (id, found)
		WHERE EXISTS (SELECT FROM serversync.runs WHERE id = $1 AND state = 'running')
		ON CONFLICT DO NOTHING`,
		runID,
		column(items, func(i *RunItem) int64 { return i.ServerID }),
		column(items, func(i *RunItem) string { return i.Found }))
	return wrap(err, fmt.Sprintf("stage %d more findings of run %s", len(items), runID))
}

// CloseItems ends the items of a run that changes nothing. Their forecasts stay.
func CloseItems(ctx context.Context, idb bun.IDB, runID string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items SET state = 'done', event = NULL WHERE run_id = $1 AND state <> 'done'`, runID)
	return wrap(err, "close the findings of run "+runID)
}

// FailItems completes those of the given items of a run that have no outcome as
// failed.
func FailItems(ctx context.Context, idb bun.IDB, runID string, ids []int64, why string) error {
	failed := make([]Completion, len(ids))
	for i, id := range ids {
		failed[i] = Completion{RunID: runID, ServerID: id, Outcome: OutcomeFailed, Error: why}
	}
	return CompleteItems(ctx, idb, failed)
}

// CountOpen counts the items of a run that are in one state other than done.
func CountOpen(ctx context.Context, idb bun.IDB, runID, state string) (int64, error) {
	var n int64
	err := idb.NewRaw(`SELECT count(*) FROM serversync.run_items WHERE run_id = ? AND state = ? AND state <> 'done'`, runID, state).Scan(ctx, &n)
	return n, wrap(err, "count the open findings of run "+runID)
}

// MoveAll moves all items of a run that are in one state to another.
func MoveAll(ctx context.Context, idb bun.IDB, runID, from, to string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `UPDATE serversync.run_items SET state = $3 WHERE run_id = $1 AND state = $2`, runID, from, to)
	return wrap(err, fmt.Sprintf("mark the findings of run %s as %s", runID, to))
}

// DropItems forgets findings of a run that were found to be so, and have not
// been handed on.
func DropItems(ctx context.Context, idb bun.IDB, runID string, found ...string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		DELETE FROM serversync.run_items WHERE run_id = $1 AND state = 'staged' AND found = ANY($2::text[])`, runID, found)
	return wrap(err, "drop findings of run "+runID)
}

// FailUnasked completes those of the given items of a run that still have no
// observation, though they were missing, as failed.
func FailUnasked(ctx context.Context, idb bun.IDB, runID string, ids []int64, why string) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.run_items SET state = 'done', outcome = 'failed', error = $3
		WHERE run_id = $1 AND virtfusion_id = ANY($2::bigint[]) AND found = 'missing' AND event IS NULL AND outcome IS NULL`, runID, ids, why)
	return wrap(err, "note what could not be asked for in run "+runID)
}
