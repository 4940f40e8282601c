package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"serversync/db/skypanelsim"
	"serversync/events"
)

// seedRound has the first draft's algorithm take in new servers: a tenth of
// them, since it is so slow.
func (b *bench) seedRound(ctx context.Context, m *measured, h *history) (err error) {
	k, err := b.books(ctx, templateName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.drop(ctx)) }()
	some := h.births()[:max(len(h.servers)/10, 1)]
	if err := k.settle(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, k.dsn)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	started := time.Now()
	for _, e := range some {
		if err := seedOne(ctx, conn, e); err != nil {
			return fmt.Errorf("server %d: %w", e.Server.ID, err)
		}
	}
	m.ceiling("new, seed", "events/s", perSecond(len(some), time.Since(started)))
	rows, err := k.count(ctx, "public.virtfusion_hourly_transactions")
	if err == nil && rows != int64(len(some)) {
		err = fmt.Errorf("%d servers have %d charges", len(some), rows)
	}
	return err
}

// seedOne is the first draft's algorithm: look for the row, make it, make its
// first charge.
func seedOne(ctx context.Context, conn *pgx.Conn, e *events.Event) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing is left after the commit
	var there int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM (
			SELECT FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 OR server_uuid = $2 LIMIT 1) AS t`,
		e.Server.ID, e.Server.UUID).Scan(&there); err != nil {
		return err
	}
	if there > 0 {
		return nil
	}
	plan := planOf(*e.Server.PackageID)
	monthly, hourly := float64(plan.Price)/100, float64(plan.Price)/73000
	reference := "external_server_" + strconv.FormatInt(e.Server.ID, 10)
	now := time.Now().UTC()
	var id int64
	if err := tx.QueryRow(ctx, `
		INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name,
			monthly_price, hourly_rate, hours_in_month, billing_enabled, server_created_at, last_billed_at, created_at, updated_at, reference_1)
		VALUES ($1, $2, $2, $3, $4, $5, $6, $7, 730, true, $8, $9, $9, $9, $10) RETURNING id`,
		*e.Server.Owner.ExtRelationID, e.Server.ID, e.Server.UUID, plan.ID, plan.Name, monthly, hourly, *e.Server.CreatedAt, now, reference).Scan(&id); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, server_uuid, transaction_type, hours_billed, amount_charged,
			billing_period_start, billing_period_end, status, created_at, reference_1, reference_2)
		VALUES ($1, $2, $3, $4, 'hourly_billing', 1, $5, $6, $7, 'pending', $6, $8, $4)`,
		id, *e.Server.Owner.ExtRelationID, e.Server.ID, e.Server.UUID, hourly, now, now.Add(time.Hour), reference); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func planOf(id int64) skypanelsim.Package {
	for _, p := range packages() {
		if p.ID == id {
			return p
		}
	}
	return skypanelsim.Package{}
}
