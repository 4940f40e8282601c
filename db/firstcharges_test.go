package db_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// collected is a billing row whose first charge is to be taken.
func collected(serverID, userID int64) db.NewBilling {
	n := newBilling(serverID, userID)
	n.Tokens, n.OwnerID, n.Charge.AmountCharged = 2, 70, dec("0.02")
	return n
}

// oneCollected makes a database with one customer and one such row.
func oneCollected(t *testing.T) (*bun.DB, db.BillingMatch) {
	t.Helper()
	database := dbtest.New(t)
	return database, insert(t, database, collected(1, customer(t, database, "anna")))[1]
}

// claim takes the next charge in hand.
func claim(t *testing.T, database *bun.DB) (c db.FirstCharge, found bool) {
	t.Helper()
	tx, err := database.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, found, err = db.ClaimCharge(t.Context(), tx, clock().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return c, found
}

func TestOutboxIsWrittenWithTheRow(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	later := collected(3, anna)
	later.Charge.BillingPeriodStart = new(clock().Add(20 * time.Minute))
	insert(t, database, newBilling(1, anna), collected(2, anna), later)
	wantTable(t, database, strings.Join([]string{
		"2|2|2|1|70|2|2|due|0|2026-02-28T22:30:15.123456+00:00|2026-02-28T22:30:15.123456+00:00",
		"3|3|3|1|70|2|3|due|0|2026-02-28T22:30:15.123456+00:00|2026-02-28T22:50:15.123456+00:00",
	}, "\n"), `
		SELECT c.billing_id, c.transaction_id, virtfusion_id, c.user_id, owner_id, tokens, split_part(reference, '-', 3) AS tx, state, attempts, c.created_at, due_at
		FROM serversync.charges c JOIN virtfusion_hourly_transactions t ON t.id = c.transaction_id AND t.billing_id = c.billing_id
		ORDER BY c.id`)
	wantTable(t, database, "true|1", `
		SELECT bool_and(reference ~ '^serversync-[0-9a-f]{10}-[0-9]+-20260228T223015Z$' AND split_part(reference, '-', 2) = i.id), count(DISTINCT i.id)
		FROM serversync.charges, serversync.installation i`)
	if c, found := claim(t, database); !found || c.ServerID != 2 || c.State != db.ChargeTaking || c.Attempts != 1 {
		t.Errorf("claimed %+v, %v", c, found)
	}
	if c, found := claim(t, database); found { // the other one is not due yet
		t.Errorf("claimed %+v", c)
	}
}

// TestReferencesOutlastARestore: a database of yesterday numbers the hours of today
// once more, and VirtFusion still has the records of those that it gave the numbers
// to first.
func TestReferencesOutlastARestore(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	anna := customer(t, database, "anna")
	reference := func(n db.NewBilling) (r string) {
		t.Helper()
		insert(t, database, n)
		if err := database.NewRaw(`SELECT reference FROM serversync.charges WHERE transaction_id = 1`).Scan(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := reference(collected(1, anna))
	// As if the first had not been made yet.
	if _, err := database.ExecContext(t.Context(),
		`TRUNCATE serversync.charges, serversync.billing_rows, virtfusion_hourly_billing, virtfusion_hourly_transactions RESTART IDENTITY`); err != nil {
		t.Fatal(err)
	}
	other := collected(2, anna)
	other.Now = other.Now.Add(time.Hour)
	if after := reference(other); after == before {
		t.Errorf("two charges are %s in VirtFusion's records", after)
	}
}

// TestWithdrawalAndClaimMeet: one of them is first, and the other sees it.
func TestWithdrawalAndClaimMeet(t *testing.T) {
	t.Parallel()
	t.Run("the claim is first", func(t *testing.T) {
		t.Parallel()
		database, match := oneCollected(t)
		tx, err := database.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, found, err := db.ClaimCharge(t.Context(), tx, clock()); err != nil || !found {
			t.Fatal(found, err)
		}
		withdrawn := make(chan error, 1)
		go func() { withdrawn <- withdraw(t.Context(), database, withdrawal(match, true)) }()
		waiting(t, database)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := <-withdrawn; !errors.Is(err, db.ErrStale) {
			t.Errorf("withdraw: %v, want ErrStale", err)
		}
		if err := withdraw(t.Context(), database, withdrawal(match, false)); err != nil {
			t.Error(err)
		}
		wantTable(t, database, "taking|pending|false", `SELECT c.state, t.status, b.billing_enabled
			FROM serversync.charges c JOIN virtfusion_hourly_transactions t ON t.id = c.transaction_id JOIN virtfusion_hourly_billing b ON b.id = t.billing_id`)
	})
	t.Run("the withdrawal is first", func(t *testing.T) {
		t.Parallel()
		database, match := oneCollected(t)
		tx, err := database.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.WithdrawBilling(t.Context(), tx, []db.Withdrawal{withdrawal(match, true)}); err != nil {
			t.Fatal(err)
		}
		if c, found := claim(t, database); found {
			t.Errorf("claimed %+v", c)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if c, found := claim(t, database); found {
			t.Errorf("claimed %+v", c)
		}
		wantTable(t, database, "cancelled|its billing row was taken back|0", `SELECT state, reason, (SELECT count(*) FROM virtfusion_hourly_billing) FROM serversync.charges`)
	})
}

// waiting waits until some statement waits for a lock.
func waiting(t *testing.T, database *bun.DB) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for table(t, database, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == "0" {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatal("nobody waits for a lock")
		}
	}
}

func TestEndCharge(t *testing.T) {
	t.Parallel()
	database, _ := oneCollected(t)
	c, _ := claim(t, database)
	end := func(e db.ChargeEnd) error {
		e.ID, e.Now = c.ID, clock().Add(time.Hour)
		return database.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
			_, err := db.EndCharge(ctx, tx, e)
			return err
		})
	}
	taking := []db.ChargeState{db.ChargeTaking}
	if err := end(db.ChargeEnd{From: taking, Attempt: 1, State: db.ChargeDue, Reason: "the token was refused", DueAt: clock()}); err != nil {
		t.Fatal(err)
	}
	c, _ = claim(t, database)
	for name, wrong := range map[string]db.ChargeEnd{
		"of the attempt before": {From: taking, Attempt: 1, State: db.ChargeTaken},
		"from another state":    {From: []db.ChargeState{db.ChargeUnclear}, Attempt: 2, State: db.ChargeTaken},
	} {
		if err := end(wrong); !errors.Is(err, db.ErrChargeState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	exec(t, database, `DELETE FROM virtfusion_hourly_billing`)
	exec(t, database, `DELETE FROM users`)
	for range 2 { // the second time it is known
		if err := end(db.ChargeEnd{From: taking, Attempt: 2, State: db.ChargeTaken, CreditID: "9"}); err != nil {
			t.Fatal(err)
		}
	}
	wantTable(t, database, "taken|; SkyPANEL|9|null|0|1", `SELECT state, substr('; ' || reason, 1, 10), credit_id, ledger_id,
		(SELECT count(*) FROM transactions), (SELECT count(*) FROM serversync.history) FROM serversync.charges`)
	c.ID = 99
	if err := end(db.ChargeEnd{From: taking, State: db.ChargeTaken}); !errors.Is(err, db.ErrNoCharge) {
		t.Errorf("%v, want ErrNoCharge", err)
	}
}

// TestCleanupLeavesOpenChargesAlone: what becomes of them is not its to say.
func TestCleanupLeavesOpenChargesAlone(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"due", "taking", "unclear"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			database, _ := oneCollected(t)
			exec(t, database, `UPDATE serversync.charges SET state = ?`, state)
			exec(t, database, `UPDATE virtfusion_hourly_billing SET billing_enabled = false`)
			exec(t, database, `UPDATE serversync.billing_rows SET closed_reason = 'withdrawn', enabled = false`)
			if found, _, err := db.FindCleanup(t.Context(), database, 10); err != nil || len(found) != 0 {
				t.Errorf("%+v, %v", found, err)
			}
			if lines, err := db.VoidOrphanedCharges(t.Context(), database, clock()); err != nil || len(lines) != 0 {
				t.Errorf("%+v, %v", lines, err)
			}
			wantTable(t, database, "pending", `SELECT status FROM virtfusion_hourly_transactions`)
		})
	}
}

func TestLedgerObstacles(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	want := func(want string) {
		t.Helper()
		found, err := db.LedgerObstacles(t.Context(), database)
		if got := strings.Join(found, ", "); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	want("")
	exec(t, database, `ALTER TABLE transactions DROP COLUMN payment_method`)
	want("transactions has no column payment_method")
	exec(t, database, `ALTER TABLE transactions ADD COLUMN payment_method text`)
	exec(t, database, `ALTER TABLE transactions RENAME TO away`)
	want("there is no table transactions")
	exec(t, database, `ALTER TABLE away RENAME TO transactions`)
	tx, err := database.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // the role goes with it
	role := "guest_" + table(t, tx, `SELECT current_database()`)
	exec(t, tx, `CREATE ROLE ?`, bun.Ident(role))
	exec(t, tx, `GRANT SELECT ON transactions TO ?`, bun.Ident(role))
	exec(t, tx, `SET LOCAL ROLE ?`, bun.Ident(role))
	found, err := db.LedgerObstacles(t.Context(), tx)
	if got := strings.Join(found, ", "); err != nil || got != "INSERT on transactions is not granted, USAGE on the sequence public.transactions_id_seq is not granted" {
		t.Errorf("%q, %v", got, err)
	}
}
