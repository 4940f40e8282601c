package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Pass is serversync.passes: when a look over the whole inventory last ran.
type Pass struct {
	bun.BaseModel `bun:"table:serversync.passes,alias:p"`

	Name       string     `bun:"name,pk"`
	StartedAt  time.Time  `bun:"started_at"`
	FinishedAt *time.Time `bun:"finished_at"`
	Servers    int64      `bun:"servers"` // decided again
	Changed    int64      `bun:"changed"` // something changed
}

// ClockSlack is how far processes' clocks may be apart. What began later than that
// after now, began under a clock that was ahead.
const ClockSlack = 5 * time.Minute

// ClaimPass takes a pass that last started at or before due, or so far ahead of
// now that a clock was wrong: else it would rest until that time has come. Of
// several processes that ask, one gets it.
func ClaimPass(ctx context.Context, idb bun.IDB, name string, now, due time.Time) (bool, error) {
	var claimed string
	err := idb.NewRaw(`
		INSERT INTO serversync.passes AS p (name, started_at) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET started_at = excluded.started_at, finished_at = NULL, servers = 0, changed = 0
		WHERE p.started_at <= ? OR p.started_at > ?
		RETURNING name`, name, now, due, now.Add(ClockSlack)).Scan(ctx, &claimed)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claim the pass %s: %w", name, err)
	}
	return true, nil
}

// UnclaimPass gives back a pass that was claimed at the given time and failed: it
// is due again.
func UnclaimPass(ctx context.Context, idb bun.IDB, name string, claimed time.Time) error {
	_, err := idb.NewRaw(`DELETE FROM serversync.passes WHERE name = ? AND started_at = ? AND finished_at IS NULL`, name, claimed).Exec(ctx)
	return wrap(err, "give back the pass "+name)
}

// FinishPass records the end of a pass.
func FinishPass(ctx context.Context, idb bun.IDB, p Pass) error {
	if _, err := idb.NewRaw(`UPDATE serversync.passes SET finished_at = ?, servers = ?, changed = ? WHERE name = ?`,
		p.FinishedAt, p.Servers, p.Changed, p.Name).Exec(ctx); err != nil {
		return fmt.Errorf("record the pass %s: %w", p.Name, err)
	}
	return nil
}

// PassFinished says when a pass last ended; nil: never, or it has begun anew since.
func PassFinished(ctx context.Context, idb bun.IDB, name string) (*time.Time, error) {
	var at *time.Time
	err := idb.NewRaw(`SELECT finished_at FROM serversync.passes WHERE name = ?`, name).Scan(ctx, &at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read when the pass %s last ended: %w", name, err)
	}
	return at, nil
}

// Passes reads when each pass last ran.
func Passes(ctx context.Context, idb bun.IDB) ([]Pass, error) {
	var passes []Pass
	if err := idb.NewSelect().Model(&passes).Order("name").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the passes: %w", err)
	}
	return passes, nil
}

// YoungExternals returns up to limit ids above after, in order, of servers for
// which we made a billing row since the given time: SkyPANEL's own row may
// still turn up.
func YoungExternals(ctx context.Context, idb bun.IDB, since time.Time, after int64, limit int) ([]int64, error) {
	ids, err := queryAll(ctx, idb, scanID, `
		SELECT DISTINCT r.virtfusion_id FROM serversync.billing_rows r
		JOIN serversync.servers s USING (virtfusion_id)
		WHERE r.made_by = 'serversync' AND r.created_at >= $1 AND r.closed_reason IS NULL AND r.virtfusion_id > $2
		ORDER BY r.virtfusion_id LIMIT $3`, since, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list young external servers: %w", err)
	}
	return ids, nil
}

// ClaimAsks returns up to limit servers about which VirtFusion is to be asked
// and was not since the given time, and records that it is asked now. Of
// several processes, one gets each.
func ClaimAsks(ctx context.Context, idb bun.IDB, now, since time.Time, limit int) ([]int64, error) {
	ids, err := queryAll(ctx, idb, scanID, `
		WITH due AS (
			SELECT virtfusion_id FROM serversync.servers
			WHERE ask <> '' AND (asked_at IS NULL OR asked_at <= $2)
			ORDER BY asked_at NULLS FIRST LIMIT $3
			FOR UPDATE SKIP LOCKED)
		UPDATE serversync.servers s SET asked_at = $1 FROM due
		WHERE s.virtfusion_id = due.virtfusion_id
		RETURNING s.virtfusion_id`, now, since, limit)
	if err != nil {
		return nil, fmt.Errorf("claim questions to VirtFusion: %w", err)
	}
	return ids, nil
}
