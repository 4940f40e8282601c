package skypanelsim_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db/skypanelsim"
)

// ordered is an order that was taken: server 70 at t0.
func ordered(t testing.TB, database *bun.DB, world skypanelsim.World, pause skypanelsim.PauseFunc) skypanelsim.Receipt {
	t.Helper()
	create := func(context.Context, int64, int64) (skypanelsim.Server, error) {
		return skypanelsim.Server{ID: 70, UUID: "u-70", Created: t0}, nil
	}
	receipt, err := skypanelsim.Order(t.Context(), database, world.Users[2], world.Packages[1], create, pause) // Chen, Small: 5.00
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

func TestTheOrderPaysTheFirstHourAndTheJobTheRest(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	charge, err := skypanelsim.PayUpfront(t.Context(), database, ordered(t, database, world, nil))
	if err != nil {
		t.Fatal(err)
	}
	expectWords(t, "upfront", []skypanelsim.Charge{charge}, "70: 0-1 = 1 completed")
	if got := read(t, database, `SELECT user_id, amount, type, description, status FROM transactions`); got != "3|-0.01|debit|Server #70 - Small, first hour|completed" {
		t.Errorf("ledger %s", got)
	}
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{})
	if early := tick(t, job, hoursLater(1).Add(-time.Minute)); len(early.Charges) != 0 {
		t.Errorf("charged within the hour that is paid: %v", inWords(early.Charges))
	}
	tick(t, job, hoursLater(2))
	charges := books(t, database)
	expectWords(t, "the books", charges, "70: 0-1 = 1 completed", "70: 1-2 = 1 completed", "70: 2-3 = 1 completed")
	if overlaps := skypanelsim.Overlaps(charges); overlaps != nil {
		t.Errorf("charged twice: %v", overlaps)
	}
}

func TestTheFirstHourIsRoundedUpOnce(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	receipt := ordered(t, database, world, nil)
	receipt.Package.Price = 250 // 0.34 cents an hour
	execute(t, database, `UPDATE virtfusion_hourly_billing SET monthly_price = 2.5`)
	if _, err := skypanelsim.PayUpfront(t.Context(), database, receipt); err != nil {
		t.Fatal(err)
	}
	tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{}), hoursLater(1))
	expectWords(t, "the books", books(t, database), "70: 0-1 = 1 completed", "70: 1-2 = 0 completed")
}

func TestPayUpfrontLeavesATraceWithoutARow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, ledger string }{
		"its insert failed": {`ALTER TABLE virtfusion_hourly_billing RENAME TO away`, "-0.01|Server #70 - Small, first hour"},
		"monthly mode":      {`UPDATE settings SET value = 'false'`, "-5|Server #70 - Small, first month"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, world := seeded(t)
			receipt := ordered(t, database, world, func(ctx context.Context) error {
				_, err := database.DB.ExecContext(ctx, c.before)
				return err
			})
			charge, err := skypanelsim.PayUpfront(t.Context(), database, receipt)
			if err != nil || charge.ID != 0 || charge.LedgerID != 1 {
				t.Errorf("charge %+v, error %v; want a line in the ledger alone", charge, err)
			}
			if got := read(t, database, `SELECT amount, description FROM transactions`); got != c.ledger {
				t.Errorf("ledger %s, want %s", got, c.ledger)
			}
			if got := read(t, database, `SELECT count(*) FROM virtfusion_hourly_transactions`); got != "0" {
				t.Errorf("%s transactions, want none", got)
			}
		})
	}
}

func TestShopPaysUpfrontWhenTold(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shop, err := skypanelsim.NewShop(database, world, creator(panel(world)), skypanelsim.ShopConfig{
		Seed: 1, Rate: 1e6, FetchDelay: time.Nanosecond, PayUpfront: true,
		OnOrder: func(r skypanelsim.Receipt, err error) {
			if err = errors.Join(err, r.InsertErr); err != nil {
				t.Error(err)
			}
			if r.Server.ID == 3 {
				cancel()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := shop.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := read(t, database, `
		SELECT count(*), count(DISTINCT t.billing_id), bool_and(t.billing_period_start = b.server_created_at), bool_and(l.description LIKE 'Server #' || b.virtfusion_server_id || ' - %')
		FROM virtfusion_hourly_transactions t JOIN virtfusion_hourly_billing b ON b.id = t.billing_id JOIN transactions l ON l.id = t.transaction_id`); got != "3|3|true|true" {
		t.Errorf("charges|rows|first hours|traces %s, want 3|3|true|true", got)
	}
}
