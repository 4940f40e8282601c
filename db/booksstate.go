package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// BooksState says whether the books can be believed, for those who watch.
type BooksState struct {
	Servers []Covered // that are not gone, each in one of the counts
	// Held is how many servers wait for a person's approval of their changes,
	// Runs how many runs ask for it.
	Held, Runs int64
	// LastSweep is the last sweep that ended or waits for approval; nil: none.
	LastSweep *SweepState
	// LastComplete is the last one that saw and did everything; nil: none.
	LastComplete *SweepState
	// Missing is how many servers the last complete sweep listed more than the
	// inventory then had and has seen since it began; 0 without one.
	Missing int64
	// BooksPassAt is when the pass over young billing rows last finished; nil:
	// never.
	BooksPassAt *time.Time
	// AuditAt is when the watchdog last looked; nil: never. Findings are how many
	// each of its rules then had.
	AuditAt  *time.Time
	Findings []AuditCount
}

// SweepState is how one sweep ended.
type SweepState struct {
	ID      string
	State   string
	At      time.Time // when it ended, or, while it waits for approval, when it began
	Began   time.Time // its listing, on the clock of who did it
	Servers int64     // VirtFusion's own count
}

// ReadBooksState reads it in one snapshot. It counts the whole inventory: ask
// it every half minute, not at each turn.
func ReadBooksState(ctx context.Context, idb bun.IDB) (BooksState, error) {
	var s BooksState
	err := idb.RunInTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error {
		var err error
		if s.Servers, err = Coverage(ctx, tx); err != nil {
			return err
		}
		if s.Held, err = AwaitingApproval(ctx, tx); err != nil {
			return err
		}
		if s.Runs, err = CountRuns(ctx, tx, RunNeedsApproval); err != nil {
			return err
		}
		if s.LastSweep, err = sweepState(ctx, tx, `state <> 'running'`); err != nil {
			return err
		}
		if s.LastComplete, err = sweepState(ctx, tx, `state = 'succeeded'`); err != nil {
			return err
		}
		if s.LastComplete != nil {
			var seen int64
			err := tx.NewRaw(`SELECT count(*) FROM serversync.servers WHERE last_seen_at >= ? AND first_seen_at <= ?`,
				s.LastComplete.Began, s.LastComplete.At).Scan(ctx, &seen)
			if err != nil {
				return fmt.Errorf("count the servers that were seen since the last complete sweep: %w", err)
			}
			s.Missing = max(0, s.LastComplete.Servers-seen)
		}
		if s.BooksPassAt, err = PassFinished(ctx, tx, "young"); err != nil {
			return err
		}
		if s.AuditAt, err = PassFinished(ctx, tx, "audit"); err != nil {
			return err
		}
		s.Findings, err = OpenFindings(ctx, tx)
		return err
	})
	if err != nil {
		return BooksState{}, fmt.Errorf("read how the books stand: %w", err)
	}
	return s, nil
}

// sweepState reads the newest sweep that a condition holds for; nil: none.
func sweepState(ctx context.Context, tx bun.Tx, condition string) (*SweepState, error) {
	found, err := queryAll(ctx, tx, func(rows *sql.Rows) (SweepState, error) {
		var s SweepState
		err := rows.Scan(&s.ID, &s.State, &s.At, &s.Began, &s.Servers)
		return s, err
	}, `
		SELECT id, state, coalesce(ended_at, started_at), coalesce((progress->>'since')::timestamptz, started_at),
			coalesce((progress->>'total')::bigint, 0)
		FROM serversync.runs WHERE kind = 'sweep' AND NOT dry_run AND `+condition+`
		ORDER BY started_at DESC, id DESC LIMIT 1`)
	if err != nil {
		return nil, fmt.Errorf("look how the last sweep ended: %w", err)
	}
	if len(found) == 0 {
		return nil, nil //nolint:nilnil // no sweep is an answer
	}
	return &found[0], nil
}
