package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// DeletedServerUUID is what SkyPANEL writes into server_uuid when it deletes a
// user: on many rows, so nothing may ever be matched by it.
const DeletedServerUUID = "DELETED_SERVER"

// BillingMatch is a SkyPANEL billing row together with our own record of it,
// where we have one.
type BillingMatch struct {
	HourlyBilling
	Record *BillingRecord
}

// BillingByServer finds the billing rows that carry one of the VirtFusion
// server ids or one of the UUIDs, in the order of their ids. The match is a
// union of two joins: written with OR, a plan could scan the whole table.
// UUIDs must not include the empty string or [DeletedServerUUID].
func BillingByServer(ctx context.Context, idb bun.IDB, serverIDs []int64, uuids []string) ([]BillingMatch, error) {
	matches, err := queryAll(ctx, idb, scanBillingMatch, `
		WITH hits AS (
			SELECT b.id FROM unnest($1::int[]) AS k (id)
			JOIN public.virtfusion_hourly_billing b ON b.virtfusion_server_id = k.id
			UNION
			SELECT b.id FROM unnest($2::text[]) AS k (uuid)
			JOIN public.virtfusion_hourly_billing b ON b.server_uuid = k.uuid)
		SELECT b.id, b.user_id, b.server_id, b.virtfusion_server_id, b.server_uuid,
			b.package_id, b.package_name, b.monthly_price::text, b.hourly_rate::text, b.hours_in_month,
			b.billing_enabled, b.server_created_at, b.last_billed_at, b.reference_1,
			r.virtfusion_id, r.made_by, r.user_id, r.enabled, r.package_id, r.monthly_price::text,
			r.last_billed_at, r.charge_id, r.closed_reason, r.run_id, r.created_at, r.updated_at
		FROM hits
		JOIN public.virtfusion_hourly_billing b USING (id)
		LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id
		ORDER BY b.id`, serverIDs, uuids)
	if err != nil {
		return nil, fmt.Errorf("find the billing rows of %d servers: %w", len(serverIDs), err)
	}
	return matches, nil
}

func scanBillingMatch(rows *sql.Rows) (BillingMatch, error) {
	var (
		m                            BillingMatch
		virtfusionID, userID         *int64
		packageID, chargeID          *int64
		madeBy, closedReason, runID  *string
		enabled                      *bool
		monthlyPrice                 decimal.NullDecimal
		lastBilledAt, created, moved *time.Time
	)
	err := rows.Scan(&m.ID, &m.UserID, &m.ServerID, &m.VirtfusionServerID, &m.ServerUUID,
		&m.PackageID, &m.PackageName, &m.MonthlyPrice, &m.HourlyRate, &m.HoursInMonth,
		&m.BillingEnabled, &m.ServerCreatedAt, &m.LastBilledAt, &m.Reference1,
		&virtfusionID, &madeBy, &userID, &enabled, &packageID, &monthlyPrice,
		&lastBilledAt, &chargeID, &closedReason, &runID, &created, &moved)
	if err != nil || virtfusionID == nil {
		return m, err
	}
	m.Record = &BillingRecord{
		BillingID: m.ID, VirtfusionID: *virtfusionID, MadeBy: *madeBy, UserID: *userID, Enabled: *enabled,
		PackageID: *packageID, MonthlyPrice: monthlyPrice.Decimal, LastBilledAt: lastBilledAt, ChargeID: chargeID,
		CreatedAt: *created, UpdatedAt: *moved,
	}
	if closedReason != nil {
		m.Record.ClosedReason = *closedReason
	}
	if runID != nil {
		m.Record.RunID = *runID
	}
	return m, nil
}

// ChargedBeside reports, for each of the billing rows, whether it has charges
// other than the pending first one that we recorded ourselves (known by its
// id, or by our reference where the id is not known). That one counts, too, once
// its credit is being taken; not when nothing was taken after all.
func ChargedBeside(ctx context.Context, idb bun.IDB, billingIDs []int64, chargeIDs []*int64) (map[int64]bool, error) {
	ids, err := queryAll(ctx, idb, scanID, `
		SELECT k.billing_id
		FROM unnest($1::int[], $2::int[]) AS k (billing_id, charge_id)
		WHERE EXISTS (
			SELECT FROM public.virtfusion_hourly_transactions t
			WHERE t.billing_id = k.billing_id
				AND NOT ((t.status = 'pending' AND t.transaction_id IS NULL AND NOT `+inHand+`
						OR t.status = 'failed' AND EXISTS (SELECT FROM serversync.charges c WHERE c.transaction_id = t.id AND c.state IN ('failed', 'cancelled')))
					AND coalesce(t.id = k.charge_id, t.reference_1 LIKE 'external_server_%', false)))`,
		billingIDs, chargeIDs)
	if err != nil {
		return nil, fmt.Errorf("look for charges of %d billing rows: %w", len(billingIDs), err)
	}
	charged := make(map[int64]bool, len(ids))
	for _, id := range ids {
		charged[id] = true
	}
	return charged, nil
}

// NewBilling is a billing row of ours to be made, with its first charge where
// one is recorded.
type NewBilling struct {
	HourlyBilling
	// Charge is the pending transaction of the first hour; nil records none.
	Charge *HourlyTransaction
	// Tokens are to be taken for it from the credit of VirtFusion's user OwnerID,
	// not before its hour begins; 0: nobody collects it.
	Tokens  int64
	OwnerID int64
	RunID   string
	Now     time.Time
}

// InsertBilling makes billing rows, their first charges, what is to be taken for
// these and our own records of them in one statement, and returns the billing row's id by VirtFusion id.
// There may be one row per server in a call.
func InsertBilling(ctx context.Context, idb bun.IDB, rows []NewBilling) (map[int64]int64, error) {
	if len(rows) == 0 {
		return map[int64]int64{}, nil
	}
	type pair struct{ server, billing int64 }
	scan := func(r *sql.Rows) (pair, error) {
		var p pair
		err := r.Scan(&p.server, &p.billing)
		return p, err
	}
	charge := func(n *NewBilling) HourlyTransaction {
		if n.Charge == nil {
			return HourlyTransaction{}
		}
		return *n.Charge
	}
	pairs, err := queryAll(ctx, idb, scan, `
		WITH input AS (
			SELECT * FROM unnest(
				$1::int[], $2::int[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bool[],
				$10::timestamp[], $11::timestamp[], $12::text[], $13::timestamp[],
				$14::bool[], $15::text[], $16::timestamp[], $17::timestamp[], $18::text[], $19::bigint[], $20::bigint[])
			AS v (user_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, hours_in_month, billing_enabled,
				server_created_at, last_billed_at, reference_1, at,
				charged, amount, period_start, period_end, run_id, tokens, owner_id)),
		made AS (
			INSERT INTO public.virtfusion_hourly_billing (
				user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name,
				monthly_price, hourly_rate, hours_in_month, billing_enabled,
				server_created_at, last_billed_at, created_at, updated_at, reference_1)
			SELECT user_id, virtfusion_server_id, virtfusion_server_id, server_uuid, package_id, package_name,
				monthly_price::numeric, hourly_rate::numeric, hours_in_month, billing_enabled,
				server_created_at, last_billed_at, at, at, reference_1
			FROM input
			RETURNING id, virtfusion_server_id),
		charges AS (
			INSERT INTO public.virtfusion_hourly_transactions (
				billing_id, user_id, server_id, server_uuid, transaction_type, hours_billed, amount_charged,
				billing_period_start, billing_period_end, status, created_at, reference_1, reference_2)
			SELECT made.id, user_id, virtfusion_server_id, server_uuid, 'hourly_billing', 1.0, amount::numeric,
				period_start, period_end, 'pending', at, reference_1, server_uuid
			FROM made JOIN input USING (virtfusion_server_id)
			WHERE charged
			RETURNING id, billing_id),
		outbox AS (
			INSERT INTO serversync.charges (transaction_id, billing_id, virtfusion_id, user_id, owner_id, tokens, reference, created_at, due_at)
			SELECT charges.id, made.id, virtfusion_server_id, user_id, owner_id, tokens,
				'serversync-' || coalesce((SELECT min(id) FROM serversync.installation), '0') || '-' || charges.id
					|| to_char(at, '"-"YYYYMMDD"T"HH24MISS"Z"'), -- after a restore the ids come once more
				at AT TIME ZONE 'UTC', greatest(at, period_start) AT TIME ZONE 'UTC'
			FROM made JOIN input USING (virtfusion_server_id) JOIN charges ON charges.billing_id = made.id
			WHERE tokens > 0),
		records AS (
			INSERT INTO serversync.billing_rows (
				billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price,
				last_billed_at, charge_id, run_id, created_at, updated_at)
			SELECT made.id, virtfusion_server_id, 'serversync', user_id, billing_enabled, package_id, monthly_price::numeric,
				last_billed_at, charges.id, run_id, at AT TIME ZONE 'UTC', at AT TIME ZONE 'UTC'
			FROM made JOIN input USING (virtfusion_server_id)
			LEFT JOIN charges ON charges.billing_id = made.id)
		SELECT virtfusion_server_id, id FROM made`,
		column(rows, func(n *NewBilling) int64 { return n.UserID }),
		column(rows, func(n *NewBilling) int64 { return n.VirtfusionServerID }),
		column(rows, func(n *NewBilling) *string { return n.ServerUUID }),
		column(rows, func(n *NewBilling) int64 { return n.PackageID }),
		column(rows, func(n *NewBilling) string { return n.PackageName }),
		column(rows, func(n *NewBilling) string { return n.MonthlyPrice.String() }),
		column(rows, func(n *NewBilling) string { return n.HourlyRate.String() }),
		column(rows, func(n *NewBilling) *int64 { return n.HoursInMonth }),
		column(rows, func(n *NewBilling) *bool { return n.BillingEnabled }),
		column(rows, func(n *NewBilling) *time.Time { return timestamp(n.ServerCreatedAt) }),
		column(rows, func(n *NewBilling) *time.Time { return timestamp(n.LastBilledAt) }),
		column(rows, func(n *NewBilling) *string { return n.Reference1 }),
		column(rows, func(n *NewBilling) *time.Time { return timestamp(&n.Now) }),
		column(rows, func(n *NewBilling) bool { return n.Charge != nil }),
		column(rows, func(n *NewBilling) string { return charge(n).AmountCharged.String() }),
		column(rows, func(n *NewBilling) *time.Time { return timestamp(charge(n).BillingPeriodStart) }),
		column(rows, func(n *NewBilling) *time.Time { return timestamp(charge(n).BillingPeriodEnd) }),
		column(rows, func(n *NewBilling) *string { return nullIfEmpty(n.RunID) }),
		column(rows, func(n *NewBilling) int64 { return n.Tokens }),
		column(rows, func(n *NewBilling) int64 { return n.OwnerID }))
	if err != nil {
		return nil, fmt.Errorf("make %d billing rows: %w", len(rows), err)
	}
	ids := make(map[int64]int64, len(pairs))
	for _, p := range pairs {
		ids[p.server] = p.billing
	}
	return ids, nil
}

// BillingChange alters a billing row. Was is the row as it was read: when its
// owner, switch, package, price or UUID is another by now, nothing is changed
// and [ErrStale] is returned.
type BillingChange struct {
	Was HourlyBilling
	Now time.Time

	Enable       *bool            // billing_enabled
	UUID         *string          // server_uuid
	PackageID    *int64           // package_id
	PackageName  *string          // package_name
	MonthlyPrice *decimal.Decimal // monthly_price
	HourlyRate   *decimal.Decimal // hourly_rate
	Hours        *int64           // hours_in_month
	// ResumeAt moves last_billed_at forward, never back: whoever turns billing
	// on must not charge the gap.
	ResumeAt *time.Time
	// RewindTo sets last_billed_at back, of a row that is switched off again and
	// that nobody charged meanwhile: see [BillingChange.Rewind].
	RewindTo *time.Time
	Rewind   bool
	// ClearUUID takes out the UUID that we filled in.
	ClearUUID bool
	// VoidAhead voids ('failed') the pending first charge that we recorded, if
	// its hour has not begun.
	VoidAhead bool

	Record BillingRecord // our record of the row as it will be
}

// ChangeBilling alters billing rows, and our records of them, one statement
// for each table.
func ChangeBilling(ctx context.Context, idb bun.IDB, changes []BillingChange) error {
	if len(changes) == 0 {
		return nil
	}
	result, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE public.virtfusion_hourly_billing b SET
			billing_enabled = coalesce(v.enable, b.billing_enabled),
			server_uuid     = CASE WHEN v.clear_uuid THEN NULL ELSE coalesce(v.uuid, b.server_uuid) END,
			package_id      = coalesce(v.package_id, b.package_id),
			package_name    = coalesce(v.package_name, b.package_name),
			monthly_price   = coalesce(v.monthly_price::numeric, b.monthly_price),
			hourly_rate     = coalesce(v.hourly_rate::numeric, b.hourly_rate),
			hours_in_month  = coalesce(v.hours, b.hours_in_month),
			last_billed_at  = CASE WHEN v.rewind THEN v.rewind_to ELSE greatest(b.last_billed_at, v.resume_at) END,
			updated_at      = v.at
		FROM unnest(
			$1::int[], $2::int[], $3::bool[], $4::text[], $5::int[], $6::text[],
			$7::bool[], $8::text[], $9::int[], $10::text[], $11::text[], $12::text[], $13::int[], $14::timestamp[], $15::timestamp[],
			$16::bool[], $17::timestamp[], $18::bool[], $19::timestamp[])
			AS v (id, was_user, was_enabled, was_uuid, was_package, was_price,
				enable, uuid, package_id, package_name, monthly_price, hourly_rate, hours, resume_at, at,
				rewind, rewind_to, clear_uuid, was_billed)
		WHERE b.id = v.id
			AND b.user_id = v.was_user
			AND b.billing_enabled IS NOT DISTINCT FROM v.was_enabled
			AND b.server_uuid IS NOT DISTINCT FROM v.was_uuid
			AND b.package_id = v.was_package
			AND b.monthly_price = v.was_price::numeric
			AND (NOT v.rewind OR b.last_billed_at IS NOT DISTINCT FROM v.was_billed)`,
		column(changes, func(c *BillingChange) int64 { return c.Was.ID }),
		column(changes, func(c *BillingChange) int64 { return c.Was.UserID }),
		column(changes, func(c *BillingChange) *bool { return c.Was.BillingEnabled }),
		column(changes, func(c *BillingChange) *string { return c.Was.ServerUUID }),
		column(changes, func(c *BillingChange) int64 { return c.Was.PackageID }),
		column(changes, func(c *BillingChange) string { return c.Was.MonthlyPrice.String() }),
		column(changes, func(c *BillingChange) *bool { return c.Enable }),
		column(changes, func(c *BillingChange) *string { return c.UUID }),
		column(changes, func(c *BillingChange) *int64 { return c.PackageID }),
		column(changes, func(c *BillingChange) *string { return c.PackageName }),
		column(changes, func(c *BillingChange) *string { return text(c.MonthlyPrice) }),
		column(changes, func(c *BillingChange) *string { return text(c.HourlyRate) }),
		column(changes, func(c *BillingChange) *int64 { return c.Hours }),
		column(changes, func(c *BillingChange) *time.Time { return timestamp(c.ResumeAt) }),
		column(changes, func(c *BillingChange) *time.Time { return timestamp(&c.Now) }),
		column(changes, func(c *BillingChange) bool { return c.Rewind }),
		column(changes, func(c *BillingChange) *time.Time { return timestamp(c.RewindTo) }),
		column(changes, func(c *BillingChange) bool { return c.ClearUUID }),
		column(changes, func(c *BillingChange) *time.Time { return timestamp(c.Was.LastBilledAt) }))
	if err != nil {
		return fmt.Errorf("change %d billing rows: %w", len(changes), err)
	}
	if err := expect(result, len(changes)); err != nil {
		return fmt.Errorf("change %d billing rows: %w", len(changes), err)
	}
	if err := voidAhead(ctx, idb, changes); err != nil {
		return err
	}
	return writeRecords(ctx, idb, column(changes, func(c *BillingChange) BillingRecord { return c.Record }))
}

// voidAhead voids first charges of ours for hours that have not begun, so that
// no credit is taken for them. It costs nothing where there are none.
func voidAhead(ctx context.Context, idb bun.IDB, changes []BillingChange) error {
	var charges []int64
	var now time.Time
	for i := range changes {
		if c := &changes[i]; c.VoidAhead && c.Record.ChargeID != nil {
			charges, now = append(charges, *c.Record.ChargeID), c.Now
		}
	}
	if len(charges) == 0 {
		return nil
	}
	if err := cancelCharges(ctx, idb, nil, charges, "billing ended before the hour began", now); err != nil {
		return err
	}
	if _, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE public.virtfusion_hourly_transactions t SET status = 'failed'
		WHERE id = ANY ($1::int[]) AND status = 'pending' AND transaction_id IS NULL AND billing_period_start > $2::timestamp AND NOT `+inHand,
		charges, timestamp(&now)); err != nil {
		return fmt.Errorf("void %d charges for hours that have not begun: %w", len(charges), err)
	}
	return nil
}

func text(d *decimal.Decimal) *string {
	if d == nil {
		return nil
	}
	s := d.String()
	return &s
}

func expect(result sql.Result, want int) error {
	got, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if got != int64(want) {
		return fmt.Errorf("%w: %d of %d are as they were read", ErrStale, got, want)
	}
	return nil
}

// writeRecords keeps our memory of billing rows. A row that we made before our
// memory of it was lost is adopted here.
func writeRecords(ctx context.Context, idb bun.IDB, records []BillingRecord) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.billing_rows (
			billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price,
			last_billed_at, charge_id, closed_reason, run_id, created_at, updated_at)
		SELECT v.billing_id, v.virtfusion_id, v.made_by, v.user_id, v.enabled, v.package_id, v.monthly_price::numeric,
			b.last_billed_at, v.charge_id, v.closed_reason, v.run_id, v.created_at, v.updated_at
		FROM unnest($1::int[], $2::bigint[], $3::text[], $4::int[], $5::bool[], $6::int[], $7::text[],
				$8::int[], $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[])
			AS v (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price,
				charge_id, closed_reason, run_id, created_at, updated_at)
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = v.billing_id
		ON CONFLICT (billing_id) DO UPDATE SET
			user_id = excluded.user_id, enabled = excluded.enabled, package_id = excluded.package_id,
			monthly_price = excluded.monthly_price, closed_reason = excluded.closed_reason,
			last_billed_at = excluded.last_billed_at, updated_at = excluded.updated_at`,
		column(records, func(r *BillingRecord) int64 { return r.BillingID }),
		column(records, func(r *BillingRecord) int64 { return r.VirtfusionID }),
		column(records, func(r *BillingRecord) string { return r.MadeBy }),
		column(records, func(r *BillingRecord) int64 { return r.UserID }),
		column(records, func(r *BillingRecord) bool { return r.Enabled }),
		column(records, func(r *BillingRecord) int64 { return r.PackageID }),
		column(records, func(r *BillingRecord) string { return r.MonthlyPrice.String() }),
		column(records, func(r *BillingRecord) *int64 { return r.ChargeID }),
		column(records, func(r *BillingRecord) *string { return nullIfEmpty(r.ClosedReason) }),
		column(records, func(r *BillingRecord) *string { return nullIfEmpty(r.RunID) }),
		column(records, func(r *BillingRecord) time.Time { return r.CreatedAt }),
		column(records, func(r *BillingRecord) time.Time { return r.UpdatedAt }))
	if err != nil {
		return fmt.Errorf("write %d records of billing rows: %w", len(records), err)
	}
	return nil
}

// Withdrawal takes back a billing row of ours.
type Withdrawal struct {
	Was    HourlyBilling
	Record BillingRecord // as it will be
	Now    time.Time
	// Delete removes the row and its pending charge, which is right only while
	// nothing was charged; otherwise the row is switched off and its pending
	// charge voided ('failed').
	Delete bool
}

// WithdrawBilling takes back billing rows of ours. It locks them first, so
// that SkyPANEL's job can charge none of them meanwhile, and returns
// [ErrStale] when one is no longer as it was read or has been charged.
func WithdrawBilling(ctx context.Context, idb bun.IDB, withdrawals []Withdrawal) error {
	if len(withdrawals) == 0 {
		return nil
	}
	ids := column(withdrawals, func(w *Withdrawal) int64 { return w.Was.ID })
	charges := column(withdrawals, func(w *Withdrawal) *int64 { return w.Record.ChargeID })
	if _, err := nativeOf(idb).ExecContext(ctx, `
		SELECT id FROM public.virtfusion_hourly_billing WHERE id = ANY ($1::int[]) ORDER BY id FOR UPDATE`, ids); err != nil {
		return fmt.Errorf("lock %d billing rows to withdraw: %w", len(ids), err)
	}
	// From here on nobody takes credit for them, or somebody has begun to.
	if err := cancelCharges(ctx, idb, ids, nil, "its billing row was taken back", withdrawals[0].Now); err != nil {
		return err
	}
	charged, err := ChargedBeside(ctx, idb, ids, charges)
	if err != nil {
		return err
	}
	for i := range withdrawals {
		if withdrawals[i].Delete && charged[withdrawals[i].Was.ID] {
			return fmt.Errorf("withdraw billing row %d: %w: it was charged meanwhile", withdrawals[i].Was.ID, ErrStale)
		}
	}
	remove := column(withdrawals, func(w *Withdrawal) bool { return w.Delete })

	// The first charge goes with its row, or is voided when the row stays; one
	// whose credit is being taken stays as it is until it is known what was taken.
	if _, err := nativeOf(idb).ExecContext(ctx, `
		WITH v AS (SELECT * FROM unnest($1::int[], $2::bool[], $3::int[]) AS v (billing_id, remove, charge_id)),
		pending AS (
			SELECT t.id, v.remove FROM v JOIN public.virtfusion_hourly_transactions t USING (billing_id)
			WHERE t.status = 'pending' AND t.transaction_id IS NULL AND NOT `+inHand+`
				AND (t.id = v.charge_id OR t.reference_1 LIKE 'external_server_%')),
		deleted AS (
			DELETE FROM public.virtfusion_hourly_transactions t USING pending p WHERE t.id = p.id AND p.remove)
		UPDATE public.virtfusion_hourly_transactions t SET status = 'failed' FROM pending p WHERE t.id = p.id AND NOT p.remove`,
		ids, remove, charges); err != nil {
		return fmt.Errorf("void the charges of %d withdrawn billing rows: %w", len(ids), err)
	}

	var gone, stay int
	for _, r := range remove {
		if r {
			gone++
		} else {
			stay++
		}
	}
	unchanged := `b.id = v.id AND b.user_id = v.was_user
			AND b.billing_enabled IS NOT DISTINCT FROM v.was_enabled
			AND b.last_billed_at IS NOT DISTINCT FROM v.was_billed`
	input := `unnest($1::int[], $2::int[], $3::bool[], $4::timestamp[], $5::bool[], $6::timestamp[])
			AS v (id, was_user, was_enabled, was_billed, remove, at)`
	args := []any{
		ids,
		column(withdrawals, func(w *Withdrawal) int64 { return w.Was.UserID }),
		column(withdrawals, func(w *Withdrawal) *bool { return w.Was.BillingEnabled }),
		column(withdrawals, func(w *Withdrawal) *time.Time { return timestamp(w.Was.LastBilledAt) }),
		remove,
		column(withdrawals, func(w *Withdrawal) *time.Time { return timestamp(&w.Now) }),
	}
	result, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE public.virtfusion_hourly_billing b SET billing_enabled = false, updated_at = v.at
		FROM `+input+` WHERE `+unchanged+` AND NOT v.remove`, args...)
	if err != nil {
		return fmt.Errorf("switch off %d withdrawn billing rows: %w", stay, err)
	}
	if err := expect(result, stay); err != nil {
		return fmt.Errorf("switch off %d withdrawn billing rows: %w", stay, err)
	}
	result, err = nativeOf(idb).ExecContext(ctx, `
		DELETE FROM public.virtfusion_hourly_billing b
		USING `+input+` WHERE `+unchanged+` AND v.remove`, args...)
	if err != nil {
		return fmt.Errorf("delete %d withdrawn billing rows: %w", gone, err)
	}
	if err := expect(result, gone); err != nil {
		return fmt.Errorf("delete %d withdrawn billing rows: %w", gone, err)
	}
	return writeRecords(ctx, idb, column(withdrawals, func(w *Withdrawal) BillingRecord { return w.Record }))
}
