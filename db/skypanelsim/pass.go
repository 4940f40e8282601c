package skypanelsim

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db"
)

// pass is one worker's run of the job.
type pass struct {
	job    *Job
	now    time.Time
	hours  int64 // of a month, where a row does not say
	due    []dueRow
	report Report
}

// dueRow is a billing row as the job selected it.
type dueRow struct {
	billingID    int64
	userID       int64
	serverID     int64
	virtfusionID int64
	uuid         sql.NullString
	monthly      decimal.Decimal
	hours        sql.NullInt64
	created      *time.Time
	lastBilled   *time.Time
	account      sql.NullInt64 // users.virtfusion_id
	charged      bool          // it has a completed transaction
}

// choose reads whether the job runs at all, and the rows that it bills.
func (p *pass) choose(ctx context.Context) error {
	policy, err := db.ReadPolicy(ctx, p.job.database)
	if err != nil {
		return err
	}
	p.hours = policy.HoursPerMonth
	var enabled bool
	err = p.job.database.DB.QueryRowContext(ctx, `
		SELECT coalesce((
			SELECT enabled AND hourly_billing_enabled FROM public.virtfusion_cron_settings ORDER BY id DESC LIMIT 1), false)`).Scan(&enabled)
	switch {
	case err != nil:
		return fmt.Errorf("read whether SkyPANEL's job is on: %w", err)
	case !enabled:
		p.report.Off = OffDisabled
		return nil
	case !policy.HourlyMode:
		p.report.Off = OffMonthlyMode
		return nil
	}
	if err := p.selectRows(ctx); err != nil {
		return fmt.Errorf("select what SkyPANEL's job bills: %w", err)
	}
	p.report.Rows = len(p.due)
	return nil
}

// selectRows joins as SkyPANEL does: a row whose package has no price, or whose
// user is inactive, is not found, and nobody is told. Whether the package is
// still sold does not matter.
func (p *pass) selectRows(ctx context.Context) error {
	rows, err := p.job.database.DB.QueryContext(ctx, `
		SELECT b.id, b.user_id, b.server_id, b.virtfusion_server_id, b.server_uuid, b.monthly_price::text, b.hours_in_month,
			b.server_created_at, b.last_billed_at, u.virtfusion_id,
			EXISTS (SELECT FROM public.virtfusion_hourly_transactions t WHERE t.billing_id = b.id AND t.status = 'completed')
		FROM public.virtfusion_hourly_billing b
		JOIN public.users u ON u.id = b.user_id
		JOIN public.package_pricing p ON p.virtfusion_package_id = b.package_id
		WHERE b.billing_enabled AND u.is_active
		ORDER BY b.id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r dueRow
		if err := rows.Scan(&r.billingID, &r.userID, &r.serverID, &r.virtfusionID, &r.uuid, &r.monthly, &r.hours,
			&r.created, &r.lastBilled, &r.account, &r.charged); err != nil {
			return err
		}
		p.due = append(p.due, r)
	}
	return rows.Err()
}

// charge bills the selected rows, one after another. An error of one does not
// keep the others.
func (p *pass) charge(ctx context.Context) error {
	for i := range p.due {
		if err := p.billRow(ctx, &p.due[i]); err != nil {
			p.report.Errors = append(p.report.Errors, fmt.Errorf("bill row %d: %w", p.due[i].billingID, err))
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("SkyPANEL's job: %w", err)
		}
	}
	return nil
}

func (p *pass) billRow(ctx context.Context, r *dueRow) error {
	if !p.owned(ctx, r) {
		return p.switchOff(ctx, r.billingID)
	}
	length := p.job.config.Hour
	from, hours := owed(r.lastBilled, r.created, p.now, length)
	if from.IsZero() {
		p.report.NeverBilled = append(p.report.NeverBilled, r.billingID)
		return nil
	}
	for hour := range hours {
		start := from.Add(time.Duration(hour) * length)
		c := Charge{BillingID: r.billingID, UserID: r.userID, ServerID: r.virtfusionID, Start: start, End: start.Add(length)}
		err := p.billHour(ctx, r, &c)
		if c.LedgerID != 0 {
			p.report.Charges = append(p.report.Charges, c)
		}
		if err != nil {
			return err
		}
		if c.Status != StatusCompleted {
			continue
		}
		r.charged = true
		if p.job.config.Failure == FailureRetries {
			if err := p.paidUntil(ctx, r.billingID, c.End); err != nil {
				return err
			}
		}
	}
	if hours > 0 && p.job.config.Failure == FailureSkips {
		return p.paidUntil(ctx, r.billingID, from.Add(time.Duration(hours)*length))
	}
	return nil
}

// owned is SkyPANEL's check: whatever is not a clear yes is a no.
func (p *pass) owned(ctx context.Context, r *dueRow) bool {
	ask := p.job.config.Owner
	if ask == nil || r.uuid.String == "" {
		return true
	}
	if r.uuid.String == db.DeletedServerUUID {
		return false
	}
	owner, err := ask(ctx, r.virtfusionID)
	return err == nil && r.account.Valid && owner == r.account.Int64
}

// switchOff leaves no reason, as SkyPANEL leaves none.
func (p *pass) switchOff(ctx context.Context, billingID int64) error {
	if _, err := p.job.database.DB.ExecContext(ctx, `
		UPDATE public.virtfusion_hourly_billing SET billing_enabled = false, updated_at = $2 WHERE id = $1`, billingID, p.now); err != nil {
		return fmt.Errorf("switch it off: %w", err)
	}
	p.report.SwitchedOff = append(p.report.SwitchedOff, billingID)
	return nil
}

// billHour is SkyPANEL's sequence for one hour: a line in the ledger, the
// credit, the line's outcome, the transaction. Each step stands alone, so that
// a row that goes away meanwhile leaves a charge without a transaction.
func (p *pass) billHour(ctx context.Context, r *dueRow, c *Charge) error {
	hours := p.hours
	if r.hours.Int64 > 0 {
		hours = r.hours.Int64
	}
	tokens := HourlyTokens(r.monthly, hours)
	if !r.charged && !p.job.config.RoundFirst {
		tokens = FirstTokens(r.monthly, hours)
	}
	c.Cents, c.Status = decimal.NewFromInt(tokens), StatusPending
	var err error
	c.LedgerID, err = insertLedger(ctx, p.job.database.DB, ledgerLine{
		userID: r.userID, tokens: tokens, description: p.job.config.Describe(r.serverID), status: StatusPending, at: p.now,
	})
	if err != nil {
		return err
	}
	c.Status = StatusCompleted
	if tokens > 0 && p.job.config.Debit != nil {
		if err := p.job.config.Debit(ctx, r.userID, tokens, c.LedgerID); err != nil {
			c.Cents, c.Status = decimal.Zero, StatusFailed // SkyPANEL keeps no reason
		}
	}
	if _, err := p.job.database.DB.ExecContext(ctx, `UPDATE public.transactions SET status = $2 WHERE id = $1`, c.LedgerID, c.Status); err != nil {
		return fmt.Errorf("note the outcome of transaction %d: %w", c.LedgerID, err)
	}
	return insertHour(ctx, p.job.database.DB, r.serverID, p.now, c)
}

// paidUntil moves last_billed_at to where the job reckons it is, whatever has
// become of it since.
func (p *pass) paidUntil(ctx context.Context, billingID int64, until time.Time) error {
	if _, err := p.job.database.DB.ExecContext(ctx, `
		UPDATE public.virtfusion_hourly_billing SET last_billed_at = $2, updated_at = $3 WHERE id = $1`, billingID, until, p.now); err != nil {
		return fmt.Errorf("move last_billed_at: %w", err)
	}
	return nil
}
