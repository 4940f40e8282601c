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

// Leak counts servers that run and for which nobody pays though somebody should,
// by what their billing rows would bring.
type Leak struct {
	Status string // 'external', 'native'
	Reason string // 'unpriced', 'disabled_by_skypanel'
	// Monthly is the rows' price in dollars, by Hours in a month; invalid: nobody
	// knows a price.
	Monthly decimal.NullDecimal
	Hours   int64
	Servers int64
}

// Leaks finds the servers that are not billed by mistake: SkyPANEL's job switched
// their row off, or there is no price for their package. What an operator wants
// off, what VirtFusion bills itself, what is billed by the month and what belongs
// to a user who is switched off is meant so.
func Leaks(ctx context.Context, idb bun.IDB) ([]Leak, error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return nil, err
	}
	leaks, err := queryAll(ctx, idb, func(rows *sql.Rows) (Leak, error) {
		var l Leak
		err := rows.Scan(&l.Status, &l.Reason, &l.Monthly, &l.Hours, &l.Servers)
		return l, err
	}, `
		SELECT s.status, s.billing_reason, CASE WHEN s.billing_reason <> 'unpriced' THEN coalesce(b.monthly_price, p.price / 100.0) END,
			CASE WHEN b.hours_in_month > 0 THEN b.hours_in_month ELSE $1 END, count(*)
		FROM serversync.servers s
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = s.billing_id
		-- Where the row itself is missing, the price is its package's of today.
		LEFT JOIN public.package_pricing p ON b.id IS NULL AND p.virtfusion_package_id = s.package_id
		WHERE s.status IN ('external', 'native') AND s.billing = 'off' AND s.billing_reason IN ('unpriced', 'disabled_by_skypanel')
		GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`, policy.HoursPerMonth)
	if err != nil {
		return nil, fmt.Errorf("add up what is not billed: %w", err)
	}
	return leaks, nil
}

// ReportedServer is a line of the report of external servers.
type ReportedServer struct {
	ListedServer
	UserEmail   string
	PackageName string
	// List is the package's price today, in dollars; invalid: it has none.
	List decimal.NullDecimal
	// FoundAt is when our row was made, BilledSince from when it bills, RunID the
	// run that made it. Nil, empty: the row is not of our making, or there is none.
	FoundAt     *time.Time
	BilledSince *time.Time
	RunID       string
}

// ExternalServers reads a page of the report of external servers, in the order of
// their ids, after the given one.
func ExternalServers(ctx context.Context, idb bun.IDB, after int64, limit int) ([]ReportedServer, error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return nil, err
	}
	servers, err := queryAll(ctx, idb, func(rows *sql.Rows) (ReportedServer, error) {
		var r ReportedServer
		var err error
		r.Server, err = scanServerAnd(rows, &r.Monthly, &r.Hours, &r.UserEmail, &r.PackageName, &r.List, &r.FoundAt, &r.BilledSince, &r.RunID)
		return r, err
	}, `
		SELECT `+serverColumns+`, b.monthly_price, CASE WHEN b.hours_in_month > 0 THEN b.hours_in_month ELSE $3 END,
			coalesce(u.email, ''), coalesce(b.package_name, p.name, ''), p.price / 100.0, r.created_at, coalesce(t.billing_period_start, r.created_at), coalesce(r.run_id, '')
		FROM (
			SELECT * FROM serversync.servers WHERE status = 'external' AND virtfusion_id > $1
			ORDER BY status, virtfusion_id LIMIT $2) s
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = s.billing_id
		LEFT JOIN public.users u ON u.id = s.user_id
		LEFT JOIN public.package_pricing p ON p.virtfusion_package_id = s.package_id
		LEFT JOIN serversync.billing_rows r ON r.billing_id = s.billing_id AND r.made_by = 'serversync'
		LEFT JOIN public.virtfusion_hourly_transactions t ON t.id = r.charge_id -- the first hour
		ORDER BY s.virtfusion_id`, after, limit, policy.HoursPerMonth)
	if err != nil {
		return nil, fmt.Errorf("read the external servers: %w", err)
	}
	return servers, nil
}

// Found is what was recorded of external servers within a day (UTC).
type Found struct {
	Day time.Time
	// Servers that were found for the first time; Recorded prices of the rows that
	// were made for them.
	Servers int64
	Monthly decimal.Decimal // dollars
	Hours   int64           // in a month, > 0
}

// FoundByDay counts the external servers that were found since the given time, by
// day and price. A server counts once, on the day of its first row, and not when
// that was taken back.
func FoundByDay(ctx context.Context, idb bun.IDB, since time.Time) ([]Found, error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return nil, err
	}
	found, err := queryAll(ctx, idb, func(rows *sql.Rows) (Found, error) {
		var f Found
		err := rows.Scan(&f.Day, &f.Monthly, &f.Hours, &f.Servers)
		return f, err
	}, `
		SELECT date_trunc('day', r.created_at, 'UTC'), r.monthly_price, CASE WHEN b.hours_in_month > 0 THEN b.hours_in_month ELSE $2 END, count(*)
		FROM serversync.billing_rows r
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = r.billing_id
		WHERE r.made_by = 'serversync' AND r.created_at >= $1 AND r.closed_reason IS DISTINCT FROM 'withdrawn'
			AND NOT EXISTS (
				SELECT FROM serversync.billing_rows o
				WHERE o.virtfusion_id = r.virtfusion_id AND o.made_by = 'serversync' AND o.billing_id < r.billing_id AND o.closed_reason IS DISTINCT FROM 'withdrawn')
		GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`, since, policy.HoursPerMonth)
	if err != nil {
		return nil, fmt.Errorf("count the external servers by day: %w", err)
	}
	return found, nil
}

// Tally is how many there were within an hour (UTC).
type Tally struct {
	Hour  time.Time
	Count int64
}

// ObservedByHour counts the observations since the given time that told something
// new of a server, by hour. What repeats what is known leaves no line, and is not
// counted.
func ObservedByHour(ctx context.Context, idb bun.IDB, since time.Time) ([]Tally, error) {
	tallies, err := queryAll(ctx, idb, func(rows *sql.Rows) (Tally, error) {
		var t Tally
		err := rows.Scan(&t.Hour, &t.Count)
		return t, err
	}, `
		SELECT date_trunc('hour', at, 'UTC'), count(*) FROM serversync.history
		WHERE kind = 'observed' AND at >= $1 GROUP BY 1 ORDER BY 1`, since)
	if err != nil {
		return nil, fmt.Errorf("count the observations by hour: %w", err)
	}
	return tallies, nil
}

// LagSample is how far the reconciler was behind at one time.
type LagSample struct {
	At      time.Time
	Events  int64    // not reconciled
	Seconds *float64 // the age of the oldest of them; nil: nobody could say
}

// lagKept is how long samples are kept: as long as a chart may reach back.
const lagKept = 91 * 24 * time.Hour

// SaveLag keeps a sample, one for each minute whoever looks, and forgets old ones.
func SaveLag(ctx context.Context, idb bun.IDB, s LagSample) error {
	minute := s.At.UTC().Truncate(time.Minute)
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.lag_samples (at, events, seconds) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, minute, s.Events, s.Seconds)
	if err != nil {
		return fmt.Errorf("save the lag: %w", err)
	}
	if _, err := nativeOf(idb).ExecContext(ctx, `DELETE FROM serversync.lag_samples WHERE at < $1`, minute.Add(-lagKept)); err != nil {
		return fmt.Errorf("forget old lag: %w", err)
	}
	return nil
}

// LagByHour reads the largest lag of each hour since the given time. Hours in
// which nobody looked are missing.
func LagByHour(ctx context.Context, idb bun.IDB, since time.Time) ([]LagSample, error) {
	samples, err := queryAll(ctx, idb, func(rows *sql.Rows) (LagSample, error) {
		var s LagSample
		err := rows.Scan(&s.At, &s.Events, &s.Seconds)
		return s, err
	}, `
		SELECT date_trunc('hour', at, 'UTC'), max(events), max(seconds) FROM serversync.lag_samples
		WHERE at >= $1 GROUP BY 1 ORDER BY 1`, since)
	if err != nil {
		return nil, fmt.Errorf("read the lag: %w", err)
	}
	return samples, nil
}

// Entry is a run or a change in a user's history: one of the two.
type Entry struct {
	At     time.Time
	RunID  string // the run; empty: a change
	Change *UserChange
}

// UserChange is a line of the history, with the name of its server.
type UserChange struct {
	History
	ServerName string
}

// EntryKey is the place of an entry: its time, and the run or the line.
type EntryKey struct {
	At    time.Time
	RunID string // empty: the line
	Line  int64
}

// Key is the entry's place.
func (e *Entry) Key() EntryKey {
	k := EntryKey{At: e.At, RunID: e.RunID}
	if e.Change != nil {
		k.Line = e.Change.ID
	}
	return k
}

// UserHistory reads a page of what happened to a SkyPANEL user's servers: runs of
// the user's and changes, newest first; of the same moment, runs come first. After
// is the last entry of the page before; nil begins.
func UserHistory(ctx context.Context, idb bun.IDB, userID int64, after *EntryKey, limit int) ([]Entry, error) {
	runsBefore, linesBefore := "true", "true"
	args := []any{userID, limit}
	switch {
	case after == nil:
	case after.RunID != "":
		runsBefore, linesBefore = "(started_at, id) < ($3, $4)", "h.at <= $3 AND $4::text IS NOT NULL"
		args = append(args, after.At, after.RunID)
	default:
		runsBefore, linesBefore = "started_at < $3 AND $4::bigint IS NOT NULL", "(h.at, h.id) < ($3, $4)"
		args = append(args, after.At, after.Line)
	}
	entries, err := queryAll(ctx, idb, scanEntry, `
		SELECT e.*, coalesce(s.name, '') FROM (
			(SELECT started_at AS at, id AS run, 0::bigint AS line, 0::bigint AS virtfusion_id, NULL::int AS billing_id, '' AS kind, '' AS reason,
				NULL::jsonb AS before, NULL::jsonb AS after, '' AS source, '' AS event_id, '' AS of_run
			FROM serversync.runs WHERE user_id = $1 AND NOT dry_run AND `+runsBefore+`
			ORDER BY started_at DESC, id DESC LIMIT $2)
			UNION ALL
			(SELECT h.at, '', h.id, h.virtfusion_id, h.billing_id, h.kind, h.reason, h.before, h.after, h.source, h.event_id, coalesce(h.run_id, '')
			FROM serversync.history h WHERE h.user_id = $1 AND `+linesBefore+`
			ORDER BY h.at DESC, h.id DESC LIMIT $2)
			ORDER BY at DESC, run DESC, line DESC LIMIT $2) e
		LEFT JOIN serversync.servers s ON s.virtfusion_id = e.virtfusion_id AND s.user_id = $1 -- another's by now has a name of theirs
		ORDER BY e.at DESC, e.run DESC, e.line DESC`, args...)
	if err != nil {
		return nil, fmt.Errorf("read the history of user %d: %w", userID, err)
	}
	return entries, nil
}

func scanEntry(rows *sql.Rows) (Entry, error) {
	var e Entry
	var c UserChange
	err := rows.Scan(&e.At, &e.RunID, &c.ID, &c.VirtfusionID, &c.BillingID, &c.Kind, &c.Reason, &c.Before, &c.After, &c.Source, &c.EventID, &c.RunID, &c.ServerName)
	if e.RunID == "" {
		c.At = e.At
		e.Change = &c
	}
	return e, err
}

// UserExists reports whether SkyPANEL has a user; [ErrNoUser] when it has not.
func UserExists(ctx context.Context, idb bun.IDB, userID int64) error {
	var one int
	err := idb.NewRaw(`SELECT 1 FROM public.users WHERE id = ?`, userID).Scan(ctx, &one)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoUser
	}
	if err != nil {
		return fmt.Errorf("look for user %d: %w", userID, err)
	}
	return nil
}

// RunsByID reads runs; those that are gone are missing.
func RunsByID(ctx context.Context, idb bun.IDB, ids []string) ([]Run, error) {
	var runs []Run
	if len(ids) == 0 {
		return runs, nil
	}
	if err := idb.NewSelect().Model(&runs).Where("id IN ?", bun.Tuple(ids)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read %d runs: %w", len(ids), err)
	}
	return runs, nil
}
