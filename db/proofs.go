package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// The states of a proof.
const (
	ProofRunning    = "running"
	ProofComplete   = "complete"   // it saw everything; there may be mismatches
	ProofIncomplete = "incomplete" // see its problems
)

// MaxProofDetails is how many mismatches a proof keeps; its count is of all.
const MaxProofDetails = 1000

// Proof is serversync.proofs: all servers that we know beside all that VirtFusion
// has, at one time.
type Proof struct {
	bun.BaseModel `bun:"table:serversync.proofs,alias:p"`

	ID          string     `bun:"id,pk"`
	State       string     `bun:"state"`
	RequestedBy string     `bun:"requested_by"`
	StartedAt   time.Time  `bun:"started_at"`
	EndedAt     *time.Time `bun:"ended_at"` // nil: it runs
	Note        string     `bun:"note"`     // the state in words
	Problems    []Problem  `bun:"problems,type:jsonb"`
	SweepRun    string     `bun:"sweep_run"` // the sweep that went before it; empty: none yet
	Page        int64      `bun:"page"`      // VirtFusion's pages that were read
	Pages       int64      `bun:"pages"`     // as many there are
	Calls       int64      `bun:"calls"`

	VirtFusionTotal int64 `bun:"virtfusion_total"` // its own count
	Listed          int64 `bun:"listed"`           // different servers that its list showed
	// KnownLeast of our servers were there all the time that the proof took,
	// KnownMost at any time.
	KnownLeast int64 `bun:"known_least"`
	KnownMost  int64 `bun:"known_most"`

	// Agree counts those of Total that neither differ nor wait for approval,
	// Awaiting the latter.
	Agree    int64 `bun:"agree"`
	Awaiting int64 `bun:"awaiting"`
	// Moved differed at the first look and agreed by themselves at the next,
	// Mended agreed once a fresh look was applied. Neither is a mismatch.
	Moved      int64      `bun:"moved"`
	Mended     int64      `bun:"mended"`
	Mismatches int64      `bun:"mismatches"` // servers, and 1 for a total that differs
	Details    []Mismatch `bun:"details,type:jsonb"`

	CoverageSum
}

// TotalAgrees reports that VirtFusion's own count is what is known to have been
// there. Servers come and go while it is read, so what is known is a span.
func (p *Proof) TotalAgrees() bool {
	return p.VirtFusionTotal >= p.KnownLeast && p.VirtFusionTotal <= p.KnownMost
}

// Mismatch is something in which a server differs, after a second look.
type Mismatch struct {
	ServerID int64  `json:"serverId"`         // VirtFusion's; 0: the total
	UserID   *int64 `json:"userId,omitempty"` // SkyPANEL's users.id, as we know it; nil: nobody
	// Field is what differs: 'existence', 'billing', 'billed_user', 'total',
	// 'unsettled' (only VirtFusion can say, and has not), or a field of the server.
	Field  string `json:"field"`
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"` // VirtFusion's; of 'billing' and 'billed_user' SkyPANEL's
}

// NewProof is a proof to be started with [StartProof]; the process that leads the
// sweeps does it.
func NewProof(by string, now time.Time) *Proof {
	return &Proof{
		ID: NewRunID(), State: ProofRunning, RequestedBy: by, StartedAt: now, Note: "waits for a process with the role sweep",
		Problems: []Problem{}, Details: []Mismatch{}, CoverageSum: CoverageSum{Off: map[string]int64{}},
	}
}

// StartProof makes a proof. Where one runs already it returns that one, and joined.
func StartProof(ctx context.Context, idb bun.IDB, p *Proof) (proof Proof, joined bool, err error) {
	for range 3 { // the one in the way may end in between
		result, err := idb.NewInsert().Model(p).On("CONFLICT DO NOTHING").Exec(ctx)
		if err != nil {
			return Proof{}, false, fmt.Errorf("start a proof: %w", err)
		}
		if n, err := result.RowsAffected(); err != nil || n == 1 {
			return *p, false, err
		}
		running, err := RunningProof(ctx, idb)
		if err != nil {
			return Proof{}, false, err
		}
		if running != nil {
			return *running, true, nil
		}
	}
	return Proof{}, false, fmt.Errorf("start a proof: others start and end all the time: %w", ErrStale)
}

// RunningProof reads the proof that runs; nil: none does.
func RunningProof(ctx context.Context, idb bun.IDB) (*Proof, error) {
	return firstProof(ctx, idb, `state = 'running'`)
}

// LastProof reads the newest proof that has ended; complete: of those that are
// complete. Nil: there is none.
func LastProof(ctx context.Context, idb bun.IDB, complete bool) (*Proof, error) {
	if complete {
		return firstProof(ctx, idb, `state = 'complete'`)
	}
	return firstProof(ctx, idb, `state <> 'running'`)
}

func firstProof(ctx context.Context, idb bun.IDB, condition string) (*Proof, error) {
	var proofs []Proof
	if err := idb.NewSelect().Model(&proofs).Where(condition).OrderExpr("started_at DESC, id DESC").Limit(1).Scan(ctx); err != nil {
		return nil, fmt.Errorf("look for a proof: %w", err)
	}
	if len(proofs) == 0 {
		return nil, nil //nolint:nilnil // no proof is an answer
	}
	return &proofs[0], nil
}

// ReadProof reads one proof; [sql.ErrNoRows] when there is none of that id.
func ReadProof(ctx context.Context, idb bun.IDB, id string) (Proof, error) {
	var p Proof
	if err := idb.NewSelect().Model(&p).Where("id = ?", id).Scan(ctx); err != nil {
		return p, fmt.Errorf("read proof %s: %w", id, err)
	}
	return p, nil
}

// Proofs lists up to limit proofs without their details, newest first, after the
// one that began at beforeStart and has the id beforeID; empty: from the newest on.
func Proofs(ctx context.Context, idb bun.IDB, beforeStart time.Time, beforeID string, limit int) ([]Proof, error) {
	var proofs []Proof
	query := idb.NewSelect().Model(&proofs).ExcludeColumn("details").OrderExpr("started_at DESC, id DESC").Limit(int64(limit))
	if beforeID != "" {
		query.Where("(started_at, id) < (?, ?)", beforeStart, beforeID)
	}
	if err := query.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list proofs: %w", err)
	}
	return proofs, nil
}

// ErrProofEnded means that a proof has ended, or is not there.
var ErrProofEnded = errors.New("this proof has ended")

// SaveProof writes how far a proof has come, or its result.
func SaveProof(ctx context.Context, idb bun.IDB, p *Proof) error {
	result, err := idb.NewUpdate().Model(p).ExcludeColumn("id", "requested_by", "started_at").Where("id = ? AND state = 'running'", p.ID).Exec(ctx)
	if err != nil {
		return fmt.Errorf("save proof %s: %w", p.ID, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("save proof %s: %w", p.ID, ErrProofEnded), err)
	}
	return nil
}

// FirstSweep is when the oldest sweep began that is remembered and was no dry run;
// nil: there was none.
func FirstSweep(ctx context.Context, idb bun.IDB) (*time.Time, error) {
	var at *time.Time
	err := idb.NewRaw(`SELECT min(started_at) FROM serversync.runs WHERE kind = 'sweep' AND NOT dry_run`).Scan(ctx, &at)
	return at, wrap(err, "look for the first sweep")
}

// knownWithin counts, of serversync.servers s, how many were there all the time
// from begun to over, and how many at any time.
const knownWithin = `
	count(*) FILTER (WHERE s.first_seen_at <= r.over AND coalesce(s.created_at, s.first_seen_at) < r.begun
		AND (s.status <> 'gone' OR s.gone_at > r.over)) AS least,
	count(*) FILTER (WHERE coalesce(s.created_at <= r.over, true) AND (s.status <> 'gone' OR coalesce(s.gone_at >= r.begun, true))) AS most`

// KnownWithin counts how many servers the inventory knows were there all the time
// from begun to over, and at any time; clocks are forgiven their difference.
func KnownWithin(ctx context.Context, idb bun.IDB, begun, over time.Time) (least, most int64, err error) {
	err = idb.NewRaw(`
		SELECT k.least, k.most
		FROM (SELECT ?::timestamptz - interval '`+countSlack+`' AS begun, ?::timestamptz + interval '`+countSlack+`' AS over) r
		CROSS JOIN LATERAL (SELECT `+knownWithin+` FROM serversync.servers s) k`, begun, over).Scan(ctx, &least, &most)
	return least, most, wrap(err, "count the servers that were there")
}

// KnownIDs returns the ids of all servers that are not gone, in order.
func KnownIDs(ctx context.Context, idb bun.IDB) ([]int64, error) {
	ids, err := queryAll(ctx, idb, scanID, `SELECT virtfusion_id FROM serversync.servers WHERE status <> 'gone' ORDER BY virtfusion_id`)
	return ids, wrap(err, "list the servers that are not gone")
}

// Known is what the inventory says of a server, as far as a listing can.
type Known struct {
	Listed

	Status      string
	UserID      *int64
	Ask         string // what only VirtFusion can settle
	AwaitingRun string
}

// ReadKnown reads servers by their VirtFusion ids; those that the inventory does
// not have are missing.
func ReadKnown(ctx context.Context, idb bun.IDB, ids []int64) (map[int64]Known, error) {
	known := make(map[int64]Known, len(ids))
	if len(ids) == 0 {
		return known, nil
	}
	var servers []Server
	if err := idb.NewSelect().Model(&servers).Where("virtfusion_id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read %d servers: %w", len(ids), err)
	}
	for i := range servers {
		s := &servers[i]
		known[s.VirtfusionID] = Known{
			Listed: Listed{
				ID: s.VirtfusionID, UUID: &s.UUID, OwnerID: &s.OwnerID, OwnerExt: s.OwnerExtRelationID, OwnerWhole: true, Name: &s.Name, Hostname: &s.Hostname,
				State: &s.State, CommissionStatus: s.CommissionStatus, Suspended: &s.Suspended, Protected: &s.Protected, BuildFailed: &s.BuildFailed,
				SelfService: &s.SelfService, PackageID: s.PackageID, MemoryMB: s.MemoryMB, StorageGB: s.StorageGB, TrafficGB: s.TrafficGB,
				CPUCores: s.CPUCores, IPAddresses: s.IPAddresses, HypervisorID: s.HypervisorID, UpdatedAt: s.UpdatedAt,
			},
			Status: s.Status, UserID: s.UserID, Ask: s.Ask, AwaitingRun: s.AwaitingRun,
		}
	}
	return known, nil
}

// Unbooked returns, in the order of their ids, the servers of which SkyPANEL's
// billing rows say something else than the inventory: billed and no row that is on,
// not billed and a row that is, or a row that bills somebody else. Conflicts, and what
// waits for approval, are for a person, and are left out. ids nil: of all servers.
func Unbooked(ctx context.Context, idb bun.IDB, ids []int64) ([]Mismatch, error) {
	found, err := queryAll(ctx, idb, func(rows *sql.Rows) (Mismatch, error) {
		var m Mismatch
		err := rows.Scan(&m.ServerID, &m.UserID, &m.Field, &m.Ours, &m.Theirs)
		return m, err
	}, `
		SELECT s.virtfusion_id, s.user_id, v.field, v.ours, v.theirs
		FROM serversync.servers s
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = s.billing_id
		CROSS JOIN LATERAL (VALUES
			('billing', s.billing = 'on' AND b.billing_enabled IS NOT TRUE, s.status || ', billed',
				CASE WHEN s.billing_id IS NULL THEN 'no row' WHEN b.id IS NULL THEN format('row %s is not there', s.billing_id) ELSE format('row %s is off', b.id) END),
			('billing', s.billing = 'off' AND b.billing_enabled IS TRUE, s.status || ', not billed' || coalesce(': ' || s.billing_reason, ''), format('row %s is on', b.id)),
			('billed_user', b.billing_enabled IS TRUE AND b.user_id IS DISTINCT FROM s.user_id, coalesce('user ' || s.user_id, 'nobody'), format('row %s bills user %s', b.id, b.user_id))
		) AS v (field, differs, ours, theirs)
		WHERE s.status NOT IN ('gone', 'conflict') AND s.awaiting_run = '' AND v.differs AND ($1::bigint[] IS NULL OR s.virtfusion_id = ANY ($1::bigint[]))
		ORDER BY 1, 3`, ids)
	return found, wrap(err, "hold the inventory against SkyPANEL's billing rows")
}

// CountProof counts, in one snapshot, how the servers that are not gone stand, and
// how many of them neither are among those that differ nor wait for approval: of
// those that were compared, or, where that is nil, of all.
func CountProof(ctx context.Context, database *bun.DB, p *Proof, compared, differ []int64) error {
	snapshot := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	err := database.RunInTx(ctx, snapshot, func(ctx context.Context, tx bun.Tx) error {
		covered, err := Coverage(ctx, tx)
		if err != nil {
			return err
		}
		p.CoverageSum = AddUp(covered)
		if p.Awaiting, err = AwaitingApproval(ctx, tx); err != nil {
			return err
		}
		agree, err := queryAll(ctx, tx, scanID, `
			SELECT count(*) FROM serversync.servers
			WHERE status <> 'gone' AND awaiting_run = '' AND ($1::bigint[] IS NULL OR virtfusion_id = ANY ($1::bigint[]))
				AND virtfusion_id <> ALL (coalesce($2::bigint[], '{}'))`, compared, differ)
		if err != nil {
			return err
		}
		p.Agree = agree[0]
		return nil
	})
	return wrap(err, "count the servers of a proof")
}
