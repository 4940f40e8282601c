package main_test

import (
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db/skypanelsim"
)

// modelRow is a billing row with our record of it.
type modelRow struct {
	bun.BaseModel

	ID         int64
	UserID     int64
	Server     int64
	PackageID  int64
	Price      decimal.Decimal
	Rate       decimal.Decimal
	Hours      int64
	Enabled    bool
	Collected  bool // its user is active and its package has a price: SkyPANEL's job finds it when it is on
	LastBilled *time.Time
	Ours       bool
	Made       *time.Time // of rows of ours
	Closed     string
	Refund     bool       // a person was asked to refund it
	RefundAt   *time.Time // the last time that was
}

// rows reads all billing rows, by id.
func (m *model) rows() map[int64]*modelRow {
	m.Helper()
	var rows []*modelRow
	err := m.db.NewRaw(`
		SELECT b.id, b.user_id, b.virtfusion_server_id AS server, b.package_id, b.monthly_price AS price, b.hourly_rate AS rate,
			b.hours_in_month AS hours, b.billing_enabled AS enabled, b.last_billed_at AS last_billed,
			EXISTS (SELECT FROM public.users u WHERE u.id = b.user_id AND u.is_active)
				AND EXISTS (SELECT FROM public.package_pricing p WHERE p.virtfusion_package_id = b.package_id) AS collected,
			coalesce(r.made_by = 'serversync', false) AS ours, r.created_at AS made, coalesce(r.closed_reason, '') AS closed,
			EXISTS (SELECT FROM serversync.history h WHERE h.kind = 'refund_due' AND h.billing_id = b.id) AS refund,
			(SELECT max(at) FROM serversync.history h WHERE h.kind = 'refund_due' AND h.billing_id = b.id) AS refund_at
		FROM public.virtfusion_hourly_billing b LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id
		ORDER BY b.id`).Scan(m.ctx, &rows)
	if err != nil {
		m.Fatal(err)
	}
	byID := make(map[int64]*modelRow, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
		if _, native := m.sky.native[r.ID]; native == r.Ours {
			m.Fatalf("row %d of server %d: SkyPANEL made it: %v; we made it: %v", r.ID, r.Server, native, r.Ours)
		}
	}
	return byID
}

// ofServer are a server's rows, by id.
func ofServer(rows map[int64]*modelRow, server int64) []*modelRow {
	var found []*modelRow
	for id := range int64(len(rows)) + 1000 {
		if r := rows[id]; r != nil && r.Server == server {
			found = append(found, r)
		}
	}
	return found
}

// checkCharge holds a charge of the job against what was known when it was made:
//
//   - Once a move is in the books, the owner before is charged no more, unless
//     SkyPANEL makes a row of its own for them afterwards, or a question to
//     VirtFusion is open, or evidence disagrees.
//   - A row of ours is never charged for time before it was made.
func (m *model) checkCharge(c *skypanelsim.Charge, rows map[int64]*modelRow) {
	m.Helper()
	row, known := rows[c.BillingID], m.known[c.ServerID]
	if row == nil {
		m.Fatalf("SkyPANEL charged row %d, which is not there", c.BillingID)
	}
	if row.Ours && c.Start.Before(row.Made.UTC()) {
		m.Fatalf("row %d of server %d was made at %s, and charged from %s on", row.ID, c.ServerID, row.Made.UTC(), c.Start)
	}
	if known.status == "" || known.status == "conflict" || known.ask != "" || known.user == c.UserID {
		return
	}
	if row.Ours || m.sky.native[row.ID] < known.since {
		m.Fatalf("server %d is known to be user %d's (%s), and user %d was charged by row %d", c.ServerID, known.user, known.status, c.UserID, row.ID)
	}
}
