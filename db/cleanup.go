package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// CleanupRule names what is wrong with a record.
type CleanupRule string

// The rules, in the order in which they are reported.
const (
	CleanupDuplicate CleanupRule = "duplicate_rows"  // two or more rows that are on bill one server
	CleanupGone      CleanupRule = "gone_server"     // a row is on for a server that is gone
	CleanupUnknown   CleanupRule = "unknown_server"  // a row of ours is on for a server that the inventory does not know
	CleanupCharge    CleanupRule = "orphaned_charge" // a pending charge of ours whose row was withdrawn
)

// CleanupFinding is one server's records that break a rule.
type CleanupFinding struct {
	Rule     CleanupRule
	ServerID int64
	UserID   *int64 // SkyPANEL's: the server's owner, else the first row's
	Status   string // of the server in the inventory; empty: unknown there
	Note     string
	// Rows are the billing rows that break it, in the order of their ids. For
	// [CleanupCharge] they are those that were withdrawn, and may be deleted.
	Rows    []CleanupRow
	Charges []CleanupPending
}

// CleanupRow is a billing row of a finding.
type CleanupRow struct {
	ID     int64
	UserID int64
	Ours   bool
}

// CleanupPending is a pending charge of a finding.
type CleanupPending struct {
	ID     int64
	Amount decimal.NullDecimal // dollars
}

// FindCleanup looks for duplicate and orphaned records, at most limit servers
// for each rule, in the order of rules and servers. It changes nothing. More
// reports that a rule has found that many, so that there may be others.
func FindCleanup(ctx context.Context, idb bun.IDB, limit int) (findings []CleanupFinding, more bool, err error) {
	for _, look := range []func(context.Context, bun.IDB, int) ([]CleanupFinding, error){findDuplicates, findStray, findOrphanedCharges} {
		some, err := look(ctx, idb, limit)
		if err != nil {
			return nil, false, err
		}
		count := make(map[CleanupRule]int)
		for i := range some {
			count[some[i].Rule]++
		}
		for _, n := range count {
			more = more || n >= limit
		}
		findings = append(findings, some...)
	}
	return findings, more, nil
}

// oursSQL is whether billing row b, with our record r of it, is ours.
const oursSQL = `coalesce(r.made_by = 'serversync', b.reference_1 LIKE 'external_server_%', false)`

// findDuplicates looks for servers that several rows bill. Those of servers
// that are gone are found as such.
func findDuplicates(ctx context.Context, idb bun.IDB, limit int) ([]CleanupFinding, error) {
	findings, err := collectFindings(ctx, idb, `
		WITH twice AS (
			SELECT b.virtfusion_server_id AS id, s.status, s.note, s.user_id
			FROM public.virtfusion_hourly_billing b
			LEFT JOIN serversync.servers s ON s.virtfusion_id = b.virtfusion_server_id
			WHERE b.billing_enabled AND s.status IS DISTINCT FROM 'gone'
			GROUP BY b.virtfusion_server_id, s.status, s.note, s.user_id
			HAVING count(*) > 1
			ORDER BY 1 LIMIT $1)
		SELECT 'duplicate_rows', twice.id, twice.user_id, coalesce(twice.status, ''), coalesce(twice.note, ''),
			b.id, b.user_id, `+oursSQL+`, NULL, NULL
		FROM twice
		JOIN public.virtfusion_hourly_billing b ON b.virtfusion_server_id = twice.id AND b.billing_enabled
		LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id
		ORDER BY twice.id, b.id`, limit)
	if err != nil {
		return nil, fmt.Errorf("look for servers that are billed twice: %w", err)
	}
	return findings, nil
}

// findStray looks for rows that bill servers which are gone, and for rows of
// ours that bill servers nobody has heard of.
func findStray(ctx context.Context, idb bun.IDB, limit int) ([]CleanupFinding, error) {
	findings, err := collectFindings(ctx, idb, `
		WITH stray AS (
			SELECT CASE WHEN s.status = 'gone' THEN 'gone_server' ELSE 'unknown_server' END AS rule,
				b.virtfusion_server_id AS server_id, s.user_id, coalesce(s.status, '') AS status, coalesce(s.note, '') AS note,
				b.id, b.user_id AS row_user, `+oursSQL+` AS ours
			FROM public.virtfusion_hourly_billing b
			LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id
			LEFT JOIN serversync.servers s ON s.virtfusion_id = b.virtfusion_server_id
			WHERE b.billing_enabled AND (s.status = 'gone' OR s.virtfusion_id IS NULL AND `+oursSQL+`)),
		placed AS (SELECT *, dense_rank() OVER (PARTITION BY rule ORDER BY server_id) AS place FROM stray)
		SELECT rule, server_id, user_id, status, note, id, row_user, ours, NULL, NULL
		FROM placed WHERE place <= $1
		ORDER BY rule, server_id, id`, limit)
	if err != nil {
		return nil, fmt.Errorf("look for rows of servers that are gone: %w", err)
	}
	return findings, nil
}

// orphanedCharges are pending charges of ours, which nobody collected or will
// collect, of rows that were withdrawn and are off or deleted.
const orphanedCharges = `
	withdrawn AS (
		SELECT r.billing_id, r.virtfusion_id, r.user_id, r.charge_id
		FROM serversync.billing_rows r
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = r.billing_id
		WHERE r.closed_reason = 'withdrawn' AND r.made_by = 'serversync' AND b.billing_enabled IS NOT TRUE),
	orphans AS (
		SELECT w.*, t.id, t.amount_charged FROM withdrawn w
		JOIN public.virtfusion_hourly_transactions t ON t.id = w.charge_id AND coalesce(t.billing_id = w.billing_id, true)
		WHERE t.status = 'pending' AND t.transaction_id IS NULL AND NOT ` + openCharge + `
		UNION
		SELECT w.*, t.id, t.amount_charged FROM withdrawn w
		JOIN public.virtfusion_hourly_transactions t ON t.billing_id = w.billing_id
		WHERE t.status = 'pending' AND t.transaction_id IS NULL AND t.reference_1 LIKE 'external_server_%' AND NOT ` + openCharge + `)`

func findOrphanedCharges(ctx context.Context, idb bun.IDB, limit int) ([]CleanupFinding, error) {
	findings, err := collectFindings(ctx, idb, `
		WITH `+orphanedCharges+`,
		placed AS (SELECT *, dense_rank() OVER (ORDER BY virtfusion_id) AS place FROM orphans)
		SELECT 'orphaned_charge', p.virtfusion_id, s.user_id, coalesce(s.status, ''), coalesce(s.note, ''),
			p.billing_id, p.user_id, true, p.id, p.amount_charged::text
		FROM placed p LEFT JOIN serversync.servers s USING (virtfusion_id)
		WHERE place <= $1
		ORDER BY p.virtfusion_id, p.billing_id, p.id`, limit)
	if err != nil {
		return nil, fmt.Errorf("look for charges of withdrawn rows: %w", err)
	}
	return findings, nil
}

// VoidOrphanedCharges voids ('failed') the pending charges of ours whose
// billing rows were withdrawn, as [FindCleanup] finds them, and returns the
// history lines to write in the same transaction. A charge that somebody else
// is changing right now is left for the next time.
func VoidOrphanedCharges(ctx context.Context, idb bun.IDB, now time.Time) ([]History, error) {
	scan := func(rows *sql.Rows) (History, error) {
		var chargeID, billingID, userID int64
		var amount decimal.NullDecimal
		h := History{At: now, Kind: "charge_voided", Source: "cleanup", BillingID: &billingID, UserID: &userID}
		if err := rows.Scan(&chargeID, &billingID, &h.VirtfusionID, &userID, &amount); err != nil {
			return h, err
		}
		h.Reason = fmt.Sprintf("billing row %d was withdrawn: its pending charge %d, which nobody collected, is void", billingID, chargeID)
		var err error
		if h.Before, err = json.Marshal(map[string]any{"charge": chargeID, "status": "pending", "amount": amount}); err != nil {
			return h, err
		}
		h.After, err = json.Marshal(map[string]any{"charge": chargeID, "status": "failed"})
		return h, err
	}
	lines, err := queryAll(ctx, idb, scan, `
		WITH `+orphanedCharges+`,
		locked AS MATERIALIZED (
			SELECT t.id FROM public.virtfusion_hourly_transactions t
			WHERE t.id IN (SELECT id FROM orphans) ORDER BY t.id FOR UPDATE SKIP LOCKED),
		voided AS (
			UPDATE public.virtfusion_hourly_transactions t SET status = 'failed'
			FROM locked WHERE t.id = locked.id AND t.status = 'pending' AND t.transaction_id IS NULL AND NOT `+openCharge+`
			RETURNING t.id)
		SELECT o.id, o.billing_id, o.virtfusion_id, o.user_id, o.amount_charged::text
		FROM voided JOIN orphans o USING (id)
		ORDER BY o.virtfusion_id, o.id`)
	if err != nil {
		return nil, fmt.Errorf("void the charges of withdrawn rows: %w", err)
	}
	return lines, nil
}

// collectFindings reads rows of (rule, server, owner, status, note, billing
// row, its user, ours, charge, amount), in order, into a finding for each rule
// and server.
func collectFindings(ctx context.Context, idb bun.IDB, statement string, limit int) ([]CleanupFinding, error) {
	type line struct {
		CleanupFinding
		row    CleanupRow
		charge *int64
		amount decimal.NullDecimal
	}
	scan := func(rows *sql.Rows) (line, error) {
		var l line
		err := rows.Scan(&l.Rule, &l.ServerID, &l.UserID, &l.Status, &l.Note, &l.row.ID, &l.row.UserID, &l.row.Ours, &l.charge, &l.amount)
		return l, err
	}
	lines, err := queryAll(ctx, idb, scan, statement, limit)
	if err != nil {
		return nil, err
	}
	var findings []CleanupFinding
	for i := range lines {
		l := &lines[i]
		last := len(findings) - 1
		if last < 0 || findings[last].Rule != l.Rule || findings[last].ServerID != l.ServerID {
			if l.UserID == nil {
				l.UserID = &l.row.UserID
			}
			findings = append(findings, l.CleanupFinding)
			last++
		}
		f := &findings[last]
		if n := len(f.Rows); n == 0 || f.Rows[n-1].ID != l.row.ID {
			f.Rows = append(f.Rows, l.row)
		}
		if l.charge != nil {
			f.Charges = append(f.Charges, CleanupPending{ID: *l.charge, Amount: l.amount})
		}
	}
	return findings, nil
}
