package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"

	"serversync/db"
)

// withdrawal takes back a row as it was read.
func withdrawal(m db.BillingMatch, remove bool) db.Withdrawal {
	w := db.Withdrawal{Was: m.HourlyBilling, Record: *m.Record, Now: clock().Add(time.Minute), Delete: remove}
	w.Record.Enabled, w.Record.ClosedReason = false, "withdrawn"
	w.Record.UpdatedAt = w.Now
	return w
}

// withdraw does so in a transaction of its own.
func withdraw(ctx context.Context, database *bun.DB, withdrawals ...db.Withdrawal) error {
	return database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		return db.WithdrawBilling(ctx, tx, withdrawals)
	})
}

// books is all that a withdrawal may touch.
func books(t *testing.T, q querier) string {
	t.Helper()
	return table(t, q, `
		SELECT 'row', id, virtfusion_server_id, billing_enabled::text, updated_at::text FROM virtfusion_hourly_billing
		UNION ALL SELECT 'charge', id, billing_id, status, amount_charged::text FROM virtfusion_hourly_transactions
		UNION ALL SELECT 'record', billing_id, virtfusion_id, enabled::text, closed_reason FROM serversync.billing_rows
		ORDER BY 1 DESC, 2`)
}

func wantBooks(t *testing.T, q querier, want string) {
	t.Helper()
	if diff := gocmp.Diff(want, books(t, q)); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
}

func TestWithdrawDeletesWhatNobodyCharged(t *testing.T) {
	t.Parallel()
	database, match := one(t)
	insert(t, database, newBilling(2, match.UserID))
	if err := withdraw(t.Context(), database, withdrawal(match, true)); err != nil {
		t.Fatal(err)
	}
	wantBooks(t, database, `row|2|2|true|2026-02-28 22:30:15.123456
record|1|1|false|withdrawn
record|2|2|true|null
charge|2|2|pending|0.0068`)
	if err := withdraw(t.Context(), database, withdrawal(match, true)); !errors.Is(err, db.ErrStale) {
		t.Errorf("again: error %v, want ErrStale", err)
	}
	if err := withdraw(t.Context(), database); err != nil {
		t.Errorf("none: %v", err)
	}
}

// charge is what SkyPANEL's job writes when it bills row 1.
const charge = `
	INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, transaction_id, amount_charged, billing_period_start, billing_period_end, status)
	VALUES (1, 1, 1, 17, 0.01, now(), now(), 'completed')`

func TestWithdrawVoidsWhatSomebodyCharged(t *testing.T) {
	t.Parallel()
	database, match := one(t)
	insert(t, database, newBilling(2, match.UserID))
	exec(t, database, charge)
	if err := withdraw(t.Context(), database, withdrawal(match, true)); !errors.Is(err, db.ErrStale) {
		t.Errorf("to delete it: error %v, want ErrStale", err)
	}
	if err := withdraw(t.Context(), database, withdrawal(match, false)); err != nil {
		t.Fatal(err)
	}
	wantBooks(t, database, `row|1|1|false|2026-02-28 22:31:15.123456
row|2|2|true|2026-02-28 22:30:15.123456
record|1|1|false|withdrawn
record|2|2|true|null
charge|1|1|failed|0.0068
charge|2|2|pending|0.0068
charge|3|1|completed|0.0100`)
}

func TestWithdrawLeavesACollectedCharge(t *testing.T) {
	t.Parallel()
	for name, collected := range map[string]string{
		"completed": `UPDATE virtfusion_hourly_transactions SET status = 'completed', transaction_id = 17`,
		"under way": `UPDATE virtfusion_hourly_transactions SET transaction_id = 17`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, match := one(t)
			exec(t, database, collected)
			before := table(t, database, `SELECT * FROM virtfusion_hourly_transactions`)
			if err := withdraw(t.Context(), database, withdrawal(match, true)); !errors.Is(err, db.ErrStale) {
				t.Errorf("to delete it: error %v, want ErrStale", err)
			}
			if err := withdraw(t.Context(), database, withdrawal(match, false)); err != nil {
				t.Fatal(err)
			}
			wantTable(t, database, before, `SELECT * FROM virtfusion_hourly_transactions`)
			wantTable(t, database, "false", `SELECT billing_enabled FROM virtfusion_hourly_billing`)
		})
	}
}

// TestWithdrawWithoutTheReference: SkyPANEL's schema tool may drop our columns;
// we know our charge all the same.
func TestWithdrawWithoutTheReference(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		remove bool
		want   string
	}{
		"void":   {false, "row|1|1|false|2026-02-28 22:31:15.123456\nrecord|1|1|false|withdrawn\ncharge|1|1|failed|0.0068"},
		"delete": {true, "record|1|1|false|withdrawn"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, match := one(t)
			exec(t, database, `ALTER TABLE virtfusion_hourly_transactions DROP COLUMN reference_1; ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
			migrated(t, database, db.MigrateOptions{})
			if err := withdraw(t.Context(), database, withdrawal(match, tc.remove)); err != nil {
				t.Fatal(err)
			}
			wantBooks(t, database, tc.want)
		})
	}
}

func TestWithdrawOfAChangedRow(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]string{
		"billed":        `UPDATE virtfusion_hourly_billing SET last_billed_at = last_billed_at + interval '1 hour'`,
		"billing reset": `UPDATE virtfusion_hourly_billing SET last_billed_at = NULL`,
		"switched off":  `UPDATE virtfusion_hourly_billing SET billing_enabled = false`,
		"another owner": `UPDATE virtfusion_hourly_billing SET user_id = 2`,
		"deleted":       `DELETE FROM virtfusion_hourly_billing`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, match := one(t)
			customer(t, database, "boris")
			exec(t, database, meanwhile)
			before := books(t, database)
			for _, remove := range []bool{true, false} {
				if err := withdraw(t.Context(), database, withdrawal(match, remove)); !errors.Is(err, db.ErrStale) || db.Classify(err) != db.FaultPassing {
					t.Errorf("delete %t: error %v, want ErrStale, which passes", remove, err)
				}
				wantBooks(t, database, before)
			}
		})
	}
}

func TestWithdrawSomeOfEach(t *testing.T) {
	t.Parallel()
	database, first := one(t)
	more := insert(t, database, newBilling(2, first.UserID), newBilling(3, first.UserID), newBilling(4, first.UserID))
	exec(t, database, charge)
	err := withdraw(t.Context(), database, withdrawal(more[4], true), withdrawal(first, false), withdrawal(more[3], true))
	if err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "1|false\n2|true", `SELECT virtfusion_server_id, billing_enabled FROM virtfusion_hourly_billing ORDER BY 1`)
	wantTable(t, database, "1|failed\n1|completed\n2|pending", `SELECT server_id, status FROM virtfusion_hourly_transactions ORDER BY 1, id`)
	wantTable(t, database, "1|withdrawn\n2|null\n3|withdrawn\n4|withdrawn", `SELECT virtfusion_id, closed_reason FROM serversync.billing_rows ORDER BY 1`)
}

// TestWithdrawWaitsForSkyPANELsCharge: its job charges the row in a transaction
// that has not ended when we withdraw.
func TestWithdrawWaitsForSkyPANELsCharge(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		job   string
		stale bool
	}{
		"it has written its charge": {charge, true},
		"it has moved the row":      {`UPDATE virtfusion_hourly_billing SET last_billed_at = last_billed_at + interval '1 hour' WHERE id = 1`, true},
		"it looked, and locked it":  {`SELECT FROM virtfusion_hourly_billing WHERE id = 1 FOR UPDATE`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, match := one(t)
			job := begin(t, database)
			exec(t, job, tc.job)
			withdrawn := make(chan error)
			go func() { withdrawn <- withdraw(t.Context(), database, withdrawal(match, true)) }()
			awaitBlocked(t, database)
			commit(t, job)
			err := <-withdrawn
			if tc.stale && !errors.Is(err, db.ErrStale) || !tc.stale && err != nil {
				t.Errorf("error %v, want ErrStale: %t", err, tc.stale)
			}
			left := "1"
			if !tc.stale {
				left = "0"
			}
			wantTable(t, database, left, `SELECT count(*) FROM virtfusion_hourly_billing`)
		})
	}
}

// TestSkyPANELsChargeWaitsForAWithdrawal: the other way round its job is
// refused, and nothing is charged for a row that is gone.
func TestSkyPANELsChargeWaitsForAWithdrawal(t *testing.T) {
	t.Parallel()
	database, match := one(t)
	tx := begin(t, database)
	if err := db.WithdrawBilling(t.Context(), tx, []db.Withdrawal{withdrawal(match, true)}); err != nil {
		t.Fatal(err)
	}
	charged := make(chan error)
	go func() {
		_, err := database.ExecContext(t.Context(), charge)
		charged <- err
	}()
	awaitBlocked(t, database)
	commit(t, tx)
	var pg *pgconn.PgError
	if err := <-charged; !errors.As(err, &pg) || pg.Code != "23503" {
		t.Errorf("error %v, want a foreign key violation", err)
	}
	wantBooks(t, database, "record|1|1|false|withdrawn")
}
