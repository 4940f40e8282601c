package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// Covered counts servers of one status and one answer to whether they are
// billed.
type Covered struct {
	Status  string
	Billing string // 'on', 'off'
	Reason  string // why off; empty: on, or nobody said
	Servers int64
}

// Coverage counts all servers that are not gone. Each is in one of the counts.
func Coverage(ctx context.Context, idb bun.IDB) ([]Covered, error) {
	covered, err := queryAll(ctx, idb, func(rows *sql.Rows) (Covered, error) {
		var c Covered
		err := rows.Scan(&c.Status, &c.Billing, &c.Reason, &c.Servers)
		return c, err
	}, `
		SELECT status, billing, coalesce(billing_reason, ''), servers FROM (
			SELECT status, billing, billing_reason, count(*) AS servers FROM serversync.servers -- from the index servers_coverage alone
			WHERE status <> 'gone' GROUP BY 1, 2, 3) AS s
		ORDER BY 1, 2, 3`)
	if err != nil {
		return nil, fmt.Errorf("count the servers by what becomes of their billing: %w", err)
	}
	return covered, nil
}

// AwaitingApproval counts the servers whose changes wait for a person.
func AwaitingApproval(ctx context.Context, idb bun.IDB) (int64, error) {
	var n int64
	if err := idb.NewRaw(`SELECT count(*) FROM serversync.servers WHERE awaiting_run <> '' AND status <> 'gone'`).Scan(ctx, &n); err != nil {
		return 0, fmt.Errorf("count the servers that await approval: %w", err)
	}
	return n, nil
}

// RecordedPrice is how many rows bill external servers at one price.
type RecordedPrice struct {
	Monthly decimal.Decimal // dollars
	Hours   int64           // in a month, > 0
	Rows    int64
}

// RecordedPrices counts the billing rows that are on for external servers, by
// their prices: there are few different ones.
func RecordedPrices(ctx context.Context, idb bun.IDB) ([]RecordedPrice, error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return nil, err
	}
	prices, err := queryAll(ctx, idb, func(rows *sql.Rows) (RecordedPrice, error) {
		var p RecordedPrice
		err := rows.Scan(&p.Monthly, &p.Hours, &p.Rows)
		return p, err
	}, `
		SELECT b.monthly_price, CASE WHEN b.hours_in_month > 0 THEN b.hours_in_month ELSE $1 END, count(*)
		FROM serversync.servers s
		JOIN public.virtfusion_hourly_billing b ON b.id = s.billing_id
		WHERE s.status = 'external' AND s.billing = 'on' AND b.billing_enabled
		GROUP BY 1, 2 ORDER BY 1, 2`, policy.HoursPerMonth)
	if err != nil {
		return nil, fmt.Errorf("add up what is recorded: %w", err)
	}
	return prices, nil
}

// ErrNoUser means that SkyPANEL has no such user.
var ErrNoUser = errors.New("SkyPANEL has no such user")

// UserBooks is how one SkyPANEL user's servers stand in the books.
type UserBooks struct {
	// LastSync is when the user's own sync, or a sweep of all, last succeeded.
	LastSync *time.Time
	Servers  int64 // that are not gone
	Synced   int64 // of those: billed as they should be, as far as we know
	External int64
	// Rows are the user's billing rows, but for those of servers that are gone, and
	// for those that were switched off when their server became another's.
	Rows int64
}

// ReadUserBooks counts one user's servers; [ErrNoUser] when there is no such
// user.
func ReadUserBooks(ctx context.Context, idb bun.IDB, userID int64) (UserBooks, error) {
	all, err := queryAll(ctx, idb, func(rows *sql.Rows) (UserBooks, error) {
		var b UserBooks
		err := rows.Scan(&b.LastSync, &b.Servers, &b.Synced, &b.External, &b.Rows)
		return b, err
	}, `
		SELECT (SELECT max(r.ended_at) FROM serversync.runs r
				WHERE r.state = 'succeeded' AND NOT r.dry_run AND (r.kind = 'sweep' OR r.kind IN ('sync', 'replay') AND r.user_id = u.id)),
			s.servers, s.synced, s.external,
			(SELECT count(*) FROM public.virtfusion_hourly_billing b
				WHERE b.user_id = u.id AND NOT EXISTS ( -- gone, or another's by now and off here
					SELECT FROM serversync.servers g WHERE g.virtfusion_id = b.virtfusion_server_id
						AND (g.status = 'gone' OR g.user_id IS DISTINCT FROM u.id AND b.billing_enabled IS NOT TRUE)))
		FROM public.users u
		CROSS JOIN LATERAL (
			SELECT count(*) AS servers,
				count(*) FILTER (WHERE status IN ('external', 'native') AND ask = '' AND awaiting_run = '') AS synced,
				count(*) FILTER (WHERE status = 'external') AS external
			FROM serversync.servers WHERE user_id = u.id AND status <> 'gone') s
		WHERE u.id = $1`, userID)
	if err != nil {
		return UserBooks{}, fmt.Errorf("count the servers of user %d: %w", userID, err)
	}
	if len(all) == 0 {
		return UserBooks{}, fmt.Errorf("count the servers of user %d: %w", userID, ErrNoUser)
	}
	return all[0], nil
}

// RunFailure is a server of a run that could not be brought in step, or of which
// not everything could be taken back.
type RunFailure struct {
	RunID    string
	ServerID int64
	Error    string // says what to do
	Failed   bool
}

// FailuresOfRuns reads the servers with which runs had problems, at most perRun of
// each, in the order of their ids; of a dry run, those with which it would have.
func FailuresOfRuns(ctx context.Context, idb bun.IDB, ids []string, perRun int) ([]RunFailure, error) {
	failures, err := queryAll(ctx, idb, func(rows *sql.Rows) (RunFailure, error) {
		var f RunFailure
		err := rows.Scan(&f.RunID, &f.ServerID, &f.Error, &f.Failed)
		return f, err
	}, `
		SELECT k.id, f.virtfusion_id, coalesce(f.error, ''), f.failed FROM unnest($1::text[]) AS k (id)
		CROSS JOIN LATERAL (
			SELECT i.virtfusion_id, coalesce(i.error, i.forecast->>'left') AS error, i.outcome IS NOT DISTINCT FROM 'failed' AS failed
			FROM serversync.run_items i
			WHERE i.run_id = k.id AND (i.outcome = 'failed' OR i.found = 'undo' AND coalesce(i.error, i.forecast->>'left') IS NOT NULL)
			ORDER BY i.virtfusion_id LIMIT $2) f
		ORDER BY k.id, f.virtfusion_id`, ids, perRun)
	if err != nil {
		return nil, fmt.Errorf("read what failed in %d runs: %w", len(ids), err)
	}
	return failures, nil
}

// Taken reports that another row has what must be had once: of two runs that
// may not run at once, the other was first.
func Taken(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "23505" // unique_violation
}

// SettlingServer is a server of a run for which SkyPANEL's own billing row may
// still come.
type SettlingServer struct {
	ID    int64
	Name  string
	Until time.Time // when it is decided at the latest
}

// SettlingOfRun reads up to limit servers of a run that settle, by their ids.
func SettlingOfRun(ctx context.Context, idb bun.IDB, runID string, limit int) ([]SettlingServer, error) {
	settling, err := queryAll(ctx, idb, func(rows *sql.Rows) (SettlingServer, error) {
		var s SettlingServer
		err := rows.Scan(&s.ID, &s.Name, &s.Until)
		return s, err
	}, `
		SELECT s.virtfusion_id, s.name, s.settle_until FROM serversync.run_items i
		JOIN serversync.servers s USING (virtfusion_id)
		WHERE i.run_id = $1 AND i.outcome IS NOT NULL AND s.status = 'settling' AND s.settle_until IS NOT NULL
		ORDER BY s.virtfusion_id LIMIT $2`, runID, limit)
	return settling, wrap(err, "look which servers of run "+runID+" settle")
}
