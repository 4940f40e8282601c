package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// The kinds of run.
const (
	RunSweep  = "sweep"
	RunSync   = "sync"
	RunReplay = "replay"
	RunBulk   = "bulk"
	RunUndo   = "undo"
)

// The states of a run.
const (
	RunRunning       = "running"
	RunNeedsApproval = "needs_approval"
	RunSucceeded     = "succeeded"
	RunIncomplete    = "incomplete" // it could not see or do everything
	RunFailed        = "failed"
	RunSuperseded    = "superseded" // a newer one took over what it found
)

// The phases of a run that is running.
const (
	PhaseQueued    = "queued"    // nobody works on it yet
	PhaseListing   = "listing"   // reads VirtFusion's pages
	PhaseAsking    = "asking"    // asks VirtFusion for servers that the listing left out
	PhaseReviewing = "reviewing" // looks what changed on SkyPANEL's side
	PhasePreview   = "preview"   // works out what the findings would change
	PhaseApproved  = "approved"  // a person has approved; nobody works on it yet
	PhaseApplying  = "applying"  // hands the findings to the reconciler
	PhaseFinishing = "finishing" // waits for the reconciler
	PhaseWaiting   = "waiting"   // for a person's approval
	PhaseEnded     = "ended"
)

// Run is serversync.runs: something that looks at many servers at once.
type Run struct {
	bun.BaseModel `bun:"table:serversync.runs,alias:run"`

	ID           string      `bun:"id,pk"`
	Kind         string      `bun:"kind"`
	State        string      `bun:"state"`
	Phase        string      `bun:"phase"`
	DryRun       bool        `bun:"dry_run"`
	UserID       *int64      `bun:"user_id"` // SkyPANEL users.id; nil: all users
	RequestedBy  string      `bun:"requested_by"`
	StartedAt    time.Time   `bun:"started_at"`
	EndedAt      *time.Time  `bun:"ended_at"`
	BeatAt       time.Time   `bun:"beat_at"`
	Worker       string      `bun:"worker"`
	Progress     RunProgress `bun:"progress,type:jsonb"`
	Problems     []Problem   `bun:"problems,type:jsonb"`
	Preview      *RunPreview `bun:"preview,type:jsonb"`
	ApprovedBy   string      `bun:"approved_by,nullzero"`
	ApprovedAt   *time.Time  `bun:"approved_at"`
	SupersededBy string      `bun:"superseded_by,nullzero"`
	Note         string      `bun:"note"`
}

// RunProgress is how far a run has come, for people and for whoever goes on
// with it after a crash.
type RunProgress struct {
	// Page is the last page that is done, Pages the last one there is, as
	// VirtFusion said last.
	Page  int64 `json:"page"`
	Pages int64 `json:"pages"`
	// Total is VirtFusion's own count of servers, Listed how many different
	// ones were seen.
	Total  int64 `json:"total"`
	Listed int64 `json:"listed"`
	// Drift is how many servers were found to differ, Missing how many the
	// listing left out, Reviewed how many were compared with SkyPANEL's side.
	Drift    int64 `json:"drift"`
	Missing  int64 `json:"missing"`
	Reviewed int64 `json:"reviewed"`
	// Rescans counts pages that were read again because pages had shifted.
	Rescans int64 `json:"rescans"`
	// Calls is how many API calls were made, CallsPerSecond the budget.
	Calls          int64   `json:"calls"`
	CallsPerSecond float64 `json:"callsPerSecond"`
	// Replay is a replay's part of the stream, Bulk a bulk action's order; nil for
	// runs of other kinds.
	Replay *ReplayPart `json:"replay,omitempty"`
	Bulk   *BulkOrder  `json:"bulk,omitempty"`
	// Undo is what an undo takes back.
	Undo *UndoOrder `json:"undo,omitempty"`
	// Slot says which pages are read in full by this sweep.
	Slot int64 `json:"slot"`
	// Since is when the listing began, on the clock of who did it: what has not
	// been seen since was not listed.
	Since time.Time `json:"since,omitzero"`
	// Scanned: the listing is over, and whole if Whole. Flawed: something of it
	// could not be read, or not be believed.
	Scanned bool `json:"scanned"`
	Whole   bool `json:"whole"`
	Flawed  bool `json:"flawed,omitempty"`
}

// ReplayPart is which part of the stream a run replays. Its times are the
// stream's: when a message was stored.
type ReplayPart struct {
	Since *time.Time `json:"since,omitempty"` // nil: all that the stream holds
	Until *time.Time `json:"until,omitempty"` // nil: the start of the run
	// Last is the sequence of the last message of the stream when the run began.
	Last uint64 `json:"last"`
	// Events is how many were published again.
	Events int64 `json:"events"`
	// Limits says what the stream does not hold any more, in words; empty: all
	// that was asked for is there.
	Limits string `json:"limits,omitempty"`
}

// BulkOrder is what an operator wants of the servers of a run.
type BulkOrder struct {
	Action string `json:"action"`
	WishChange
	Reason string `json:"reason,omitempty"` // in the operator's words
}

// Problem is something that a run could not see or do.
type Problem struct {
	Code     string `json:"code"`
	Message  string `json:"message"` // says what to do
	ServerID int64  `json:"serverId,omitempty"`
}

// RunTotals are counted from a run's items.
type RunTotals struct {
	Expected  int64 // servers that the run has to do with
	Processed int64 // of those, with an outcome
	New       int64 // a billing row was made
	Updated   int64 // a billing row changed
	Unchanged int64
	Failed    int64
	Held      int64 // waiting for approval
	Settling  int64 // unchanged for now: SkyPANEL's own row may still come
}

// NewRunID is an id that nobody guesses and no other run has.
func NewRunID() string { return strings.ToLower(rand.Text()[:16]) }

// NewSweep is a sweep to be started with [StartRun]; the process that leads does
// it.
func NewSweep(dryRun bool, by string, now time.Time) *Run {
	return &Run{
		ID: NewRunID(), Kind: RunSweep, State: RunRunning, Phase: PhaseQueued, DryRun: dryRun,
		RequestedBy: by, StartedAt: now, BeatAt: now, Note: "waits for a process with the role sweep",
	}
}

// ErrLostRun means that somebody else works on a run now, or that it has ended.
var ErrLostRun = errors.New("another process works on this run, or it has ended")

// StartRun makes a run, in the state running. Where one of its kind (and user)
// runs already it returns that one's id and joined; dry runs join nothing.
func StartRun(ctx context.Context, idb bun.IDB, r *Run) (id string, joined bool, err error) {
	if r.Problems == nil {
		r.Problems = []Problem{}
	}
	for range 3 { // the one in the way may end in between
		result, err := idb.NewInsert().Model(r).On("CONFLICT DO NOTHING").Exec(ctx)
		if err != nil {
			return "", false, fmt.Errorf("start a %s: %w", r.Kind, err)
		}
		if n, err := result.RowsAffected(); err != nil || n == 1 {
			return r.ID, false, err
		}
		err = idb.NewRaw(`
			SELECT id FROM serversync.runs
			WHERE kind = ? AND state = 'running' AND NOT dry_run AND user_id IS NOT DISTINCT FROM ?`, r.Kind, r.UserID).Scan(ctx, &id)
		if err == nil {
			return id, true, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return "", false, fmt.Errorf("find the %s that is running: %w", r.Kind, err)
		}
	}
	return "", false, fmt.Errorf("start a %s: others start and end all the time: %w", r.Kind, ErrStale)
}

// ReadRun reads one run; [sql.ErrNoRows] when there is none of that id.
func ReadRun(ctx context.Context, idb bun.IDB, id string) (Run, error) {
	var r Run
	if err := idb.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx); err != nil {
		return r, fmt.Errorf("read run %s: %w", id, err)
	}
	return r, nil
}

// RunsQuery selects runs for [Runs]; zero values select all.
type RunsQuery struct {
	Kind   string
	State  string
	UserID *int64
	// Before is the last run of the page before.
	BeforeStart time.Time
	BeforeID    string
	Limit       int
}

// Runs lists runs, newest first.
func Runs(ctx context.Context, idb bun.IDB, q RunsQuery) ([]Run, error) {
	var runs []Run
	query := idb.NewSelect().Model(&runs).OrderExpr("started_at DESC, id DESC").Limit(int64(q.Limit))
	if q.Kind != "" {
		query.Where("kind = ?", q.Kind)
	}
	if q.State != "" {
		query.Where("state = ?", q.State)
	}
	if q.UserID != nil {
		query.Where("user_id = ?", *q.UserID)
	}
	if q.BeforeID != "" {
		query.Where("(started_at, id) < (?, ?)", q.BeforeStart, q.BeforeID)
	}
	if err := query.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	return runs, nil
}

// OpenRuns lists the runs that a leader has to see to: first what a person has
// approved, then the sweeps that are running, whoever began them; the oldest
// first.
func OpenRuns(ctx context.Context, idb bun.IDB) ([]Run, error) {
	var runs []Run
	err := idb.NewSelect().Model(&runs).
		Where("state = 'running' AND (kind = 'sweep' OR phase = 'approved' OR approved_at IS NOT NULL)").
		OrderExpr("approved_at IS NULL, started_at, id").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for runs to work on: %w", err)
	}
	return runs, nil
}

// LastSweep reads the newest sweep that was no dry run; nil: there was none. Those
// that began under a clock that was ahead come last: the next one would not be the
// newest before that time has come.
func LastSweep(ctx context.Context, idb bun.IDB, now time.Time) (*Run, error) {
	var runs []Run
	err := idb.NewSelect().Model(&runs).Where("kind = 'sweep' AND NOT dry_run").
		OrderExpr("started_at > ?, started_at DESC, id DESC", now.Add(ClockSlack)).Limit(1).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the last sweep: %w", err)
	}
	if len(runs) == 0 {
		return nil, nil //nolint:nilnil // no sweep is an answer
	}
	return &runs[0], nil
}

// TakeRun makes worker the one who works on a run.
func TakeRun(ctx context.Context, idb bun.IDB, r *Run, worker string, now time.Time) error {
	result, err := idb.NewRaw(`UPDATE serversync.runs SET worker = ?, beat_at = ? WHERE id = ? AND state = 'running'`,
		worker, now, r.ID).Exec(ctx)
	if err != nil {
		return fmt.Errorf("take over run %s: %w", r.ID, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("take over run %s: %w", r.ID, ErrLostRun), err)
	}
	r.Worker = worker
	return nil
}

// BeatRun shows that a worker is at work on a run; [ErrLostRun] when it is not
// its own any more.
func BeatRun(ctx context.Context, idb bun.IDB, id, worker string, now time.Time) error {
	result, err := idb.NewRaw(`UPDATE serversync.runs SET beat_at = ? WHERE id = ? AND worker = ?`, now, id, worker).Exec(ctx)
	if err != nil {
		return fmt.Errorf("show life of run %s: %w", id, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("show life of run %s: %w", id, ErrLostRun), err)
	}
	return nil
}

// SaveRun writes how far a run has come, if it is still its worker's.
func SaveRun(ctx context.Context, idb bun.IDB, r *Run, now time.Time) error {
	r.BeatAt = now
	if r.Problems == nil {
		r.Problems = []Problem{}
	}
	result, err := idb.NewUpdate().Model(r).
		Column("state", "phase", "ended_at", "beat_at", "progress", "problems", "preview", "note", "approved_by", "approved_at").
		Where("id = ? AND worker = ? AND state = 'running'", r.ID, r.Worker).Exec(ctx)
	if err != nil {
		return fmt.Errorf("save run %s: %w", r.ID, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("save run %s: %w", r.ID, ErrLostRun), err)
	}
	return nil
}

// ApproveRun lets a run that waits go on. It returns the run as it is now, and
// false when it did not wait, or a sweep is running that will take it over.
func ApproveRun(ctx context.Context, database *bun.DB, id, by string, now time.Time) (run Run, approved bool, err error) {
	return ApprovePreview(ctx, database, id, "", by, now)
}

// ApprovePreview is [ApproveRun] of a run whose preview has the given mark: with
// another one nothing is approved. An empty mark is that of any preview.
func ApprovePreview(ctx context.Context, database *bun.DB, id, mark, by string, now time.Time) (run Run, approved bool, err error) {
	err = database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewRaw(`
			UPDATE serversync.runs r SET state = 'running', phase = 'approved', approved_by = ?, approved_at = ?, beat_at = ?, ended_at = NULL, worker = ''
			WHERE id = ? AND state = 'needs_approval' AND NOT dry_run AND (? = '' OR preview->>'mark' = ?)
				AND (kind NOT IN ('sweep', 'sync') OR NOT EXISTS (
					SELECT FROM serversync.runs o WHERE o.kind = 'sweep' AND o.state = 'running' AND NOT o.dry_run))`,
			by, now, now, id, mark, mark).Exec(ctx)
		if err != nil {
			return fmt.Errorf("approve run %s: %w", id, err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return fmt.Errorf("approve run %s: %w", id, err)
		}
		approved = n == 1
		run, err = ReadRun(ctx, tx, id)
		return err
	})
	return run, approved, err
}

// AbandonRuns ends runs of one user whose worker has given no sign of life since
// the given time: they are incomplete. It returns their ids.
func AbandonRuns(ctx context.Context, idb bun.IDB, since, now time.Time) ([]string, error) {
	problem, err := json.Marshal([]Problem{{Code: "worker_lost", Message: "the process that worked on it ended: start it again"}})
	if err != nil {
		return nil, fmt.Errorf("encode a problem: %w", err)
	}
	ids, err := queryAll(ctx, idb, scanText, `
		UPDATE serversync.runs r SET
			state = CASE WHEN w.waits THEN 'needs_approval' ELSE 'incomplete' END, phase = CASE WHEN w.waits THEN 'waiting' ELSE 'ended' END,
			ended_at = CASE WHEN w.waits THEN NULL ELSE $2::timestamptz END, problems = problems || $3::jsonb,
			note = 'the process that worked on it ended' || CASE WHEN w.waits THEN ', and servers wait for it' ELSE ': start it again' END
		FROM (SELECT o.id, EXISTS (SELECT FROM serversync.servers s WHERE s.awaiting_run = o.id) AS waits FROM serversync.runs o) w
		WHERE w.id = r.id AND r.state = 'running' AND r.kind <> 'sweep' AND r.approved_at IS NULL AND r.beat_at < $1
		RETURNING r.id`, since, now, string(problem))
	if err != nil {
		return nil, fmt.Errorf("end abandoned runs: %w", err)
	}
	return ids, nil
}

func scanText(rows *sql.Rows) (string, error) {
	var s string
	err := rows.Scan(&s)
	return s, err
}

// TotalsOfRuns counts the items of runs.
func TotalsOfRuns(ctx context.Context, idb bun.IDB, ids []string) (map[string]RunTotals, error) {
	type row struct {
		id string
		RunTotals
	}
	rows, err := queryAll(ctx, idb, func(rows *sql.Rows) (row, error) {
		var r row
		err := rows.Scan(&r.id, &r.Expected, &r.Processed, &r.New, &r.Updated, &r.Unchanged, &r.Failed, &r.Held, &r.Settling)
		return r, err
	}, `
		SELECT i.run_id, count(*), count(i.outcome),
			count(*) FILTER (WHERE i.outcome = 'new'), count(*) FILTER (WHERE i.outcome = 'updated'),
			count(*) FILTER (WHERE i.outcome = 'unchanged'), count(*) FILTER (WHERE i.outcome = 'failed'),
			count(*) FILTER (WHERE i.state = 'held'),
			count(*) FILTER (WHERE i.outcome = 'unchanged' AND s.status = 'settling')
		FROM unnest($1::text[]) AS k (id)
		JOIN serversync.run_items i ON i.run_id = k.id
		LEFT JOIN serversync.servers s USING (virtfusion_id)
		GROUP BY i.run_id`, ids)
	if err != nil {
		return nil, fmt.Errorf("count the servers of %d runs: %w", len(ids), err)
	}
	totals := make(map[string]RunTotals, len(rows))
	for _, r := range rows {
		totals[r.id] = r.RunTotals
	}
	return totals, nil
}

// CountRuns counts the runs in one state.
func CountRuns(ctx context.Context, idb bun.IDB, state string) (int64, error) {
	var n int64
	err := idb.NewRaw(`SELECT count(*) FROM serversync.runs WHERE state = ?`, state).Scan(ctx, &n)
	return n, wrap(err, "count the runs")
}

// LastSlot reads which pages the sweep before the given one read in full.
func LastSlot(ctx context.Context, idb bun.IDB, id string) (int64, error) {
	var slot int64
	err := idb.NewRaw(`
		SELECT coalesce((SELECT (progress->>'slot')::bigint FROM serversync.runs
			WHERE kind = 'sweep' AND NOT dry_run AND id <> ? ORDER BY started_at DESC, id DESC LIMIT 1), 0)`, id).Scan(ctx, &slot)
	return slot, wrap(err, "look which pages were read in full last")
}
