package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Month is what happened within a calendar month (UTC), but for what was found,
// see [FoundByDay].
type Month struct {
	Begins time.Time
	// LeaksClosed counts servers that were not billed by mistake, or whose owner
	// was nobody, and are billed since; FindingsCleared the watchdog's, but for
	// those that were only good to know.
	LeaksClosed     int64
	FindingsCleared int64
	Conflicts       int64 // servers of which the evidence began to disagree
	RefundsDue      int64 // billing rows that were taken back after a charge
	DeadLetters     int64
	// FailedRuns counts runs that failed or could not see everything; nil: not all
	// of the month's runs are kept any more.
	FailedRuns *int64
	// Last is the last day of the month whose coverage was kept; nil: there is none.
	Last *MonthEnd
}

// MonthEnd is how things stood at the end of a month, in dollars a month.
type MonthEnd struct {
	Day        time.Time
	Servers    int64
	Recorded   string // as SkyPANEL charges it
	Leaking    string
	Mismatches int64 // days of the month on which VirtFusion counted other servers
}

// runsKept is how long runs are kept that no billing row names.
const runsKept = 90 * 24 * time.Hour

// reportLines are the lines of the history that a report counts: the index
// history_report has them.
const reportLines = `(h.kind = 'refund_due'
	OR h.kind = 'decided' AND (h.after->>'status' = 'conflict' OR h.after->>'billing_on' = 'true' AND (h.before->>'billing_reason' IN ('unpriced', 'disabled_by_skypanel') OR h.before->>'status' = 'unlinked')))`

// Monthly counts what happened in each month from the given one's beginning on,
// oldest first, up to now.
func Monthly(ctx context.Context, idb bun.IDB, from, now time.Time) ([]Month, error) {
	months, err := queryAll(ctx, idb, func(rows *sql.Rows) (Month, error) {
		var m Month
		var day *time.Time
		var end MonthEnd
		var servers *int64
		var recorded, leaking *string
		err := rows.Scan(&m.Begins, &m.LeaksClosed, &m.FindingsCleared, &m.Conflicts, &m.RefundsDue, &m.DeadLetters, &m.FailedRuns, &day, &servers, &recorded, &leaking, &end.Mismatches)
		if day != nil {
			end.Day, end.Servers, end.Recorded, end.Leaking = *day, *servers, *recorded, *leaking
			m.Last = &end
		}
		return m, err
	}, `
		WITH month AS (
			SELECT m AT TIME ZONE 'UTC' AS begins, (m + interval '1 month') AT TIME ZONE 'UTC' AS ends
			FROM generate_series($1::timestamp, $2::timestamp, interval '1 month') AS m),
		lines AS (
			SELECT date_trunc('month', h.at, 'UTC') AS begins,
				count(DISTINCT h.virtfusion_id) FILTER (WHERE h.kind = 'decided' AND h.after->>'billing_on' = 'true') AS closed,
				count(*) FILTER (WHERE h.kind = 'decided' AND h.after->>'status' = 'conflict') AS conflicts,
				count(*) FILTER (WHERE h.kind = 'refund_due') AS refunds
			FROM serversync.history h WHERE h.at >= $1::timestamp AT TIME ZONE 'UTC' AND `+reportLines+` GROUP BY 1)
		SELECT m.begins, coalesce(l.closed, 0),
			(SELECT count(*) FROM serversync.findings f WHERE f.cleared_at >= m.begins AND f.cleared_at < m.ends AND f.severity <> 'info'),
			coalesce(l.conflicts, 0), coalesce(l.refunds, 0),
			(SELECT count(*) FROM serversync.notices n WHERE n.kind = 'dead_letter' AND n.at >= m.begins AND n.at < m.ends),
			CASE WHEN m.begins >= $3 THEN (
				SELECT count(*) FROM serversync.runs r WHERE r.started_at >= m.begins AND r.started_at < m.ends AND r.state IN ('failed', 'incomplete') AND NOT r.dry_run) END,
			d.day, d.total, d.recorded_effective::text, d.leaking_effective::text,
			(SELECT count(*) FROM serversync.coverage_days c
				WHERE c.day >= (m.begins AT TIME ZONE 'UTC')::date AND c.day < (m.ends AT TIME ZONE 'UTC')::date AND c.`+mismatched+`)
		FROM month m
		LEFT JOIN lines l USING (begins)
		LEFT JOIN LATERAL (
			SELECT * FROM serversync.coverage_days c WHERE c.day >= (m.begins AT TIME ZONE 'UTC')::date AND c.day < (m.ends AT TIME ZONE 'UTC')::date
			ORDER BY c.day DESC LIMIT 1) d ON true
		ORDER BY m.begins`, from.UTC(), now.UTC(), now.Add(-runsKept))
	if err != nil {
		return nil, fmt.Errorf("count what happened by month: %w", err)
	}
	return months, nil
}
