package skypanelsim_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"serversync/db/dbtest"
	"serversync/db/skypanelsim"
)

// Of the demo's world: Chen (user 3, account 5) and the package Medium (11.00
// a month: 2 cents an hour).
const (
	chen, chensAccount = 3, 5
	medium             = 4
)

// row is a billing row of the demo's world; its zero values are a server of
// Chen's, created at t0 and never billed.
type row struct {
	server     int64
	uuid       string
	user, plan int64
	price      string
	hours      *int64
	created    *time.Time
	lastBilled *time.Time
}

// bill inserts a billing row and returns its id.
func bill(t testing.TB, database *bun.DB, r row) int64 {
	t.Helper()
	if r.user == 0 {
		r.user = chen
	}
	if r.plan == 0 {
		r.plan = medium
	}
	if r.price == "" {
		r.price = "11"
	}
	var id int64
	err := database.DB.QueryRowContext(t.Context(), `
		INSERT INTO virtfusion_hourly_billing (
			user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, hours_in_month,
			server_created_at, last_billed_at)
		VALUES ($1, $2, $2, nullif($3, ''), $4, 'A package', $5::text::numeric, 9, $6, $7, $8) RETURNING id`,
		r.user, r.server, r.uuid, r.plan, r.price, r.hours, r.created, r.lastBilled).Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func execute(t testing.TB, database *bun.DB, query string, args ...any) {
	t.Helper()
	if _, err := database.DB.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// tick runs the job once, and fails t for any error.
func tick(t testing.TB, job *skypanelsim.Job, now time.Time) skypanelsim.Report {
	t.Helper()
	report, err := job.Tick(t.Context(), now)
	if err = errors.Join(append(report.Errors, err)...); err != nil {
		t.Fatal(err)
	}
	return report
}

// books reads all charges.
func books(t testing.TB, database *bun.DB) []skypanelsim.Charge {
	t.Helper()
	charges, err := skypanelsim.Charges(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	return charges
}

// in words: "server: hours after t0 = cents status", one a line.
func inWords(charges []skypanelsim.Charge) []string {
	var all []string
	for _, c := range charges {
		all = append(all, fmt.Sprintf("%d: %v-%v = %s %s", c.ServerID, c.Start.Sub(t0).Hours(), c.End.Sub(t0).Hours(), c.Cents, c.Status))
	}
	return all
}

func expectWords(t *testing.T, what string, charges []skypanelsim.Charge, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, inWords(charges)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestTickCharges(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	id := bill(t, database, row{server: 70, uuid: "u-70", created: &t0})
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{})

	if report := tick(t, job, hoursLater(1).Add(-time.Second)); report.Rows != 1 || len(report.Charges) != 0 {
		t.Errorf("report %+v, want a row that owes nothing yet", report)
	}
	now := hoursLater(2)
	report := tick(t, job, now)
	want := skypanelsim.Report{At: now, Rows: 1, Charges: []skypanelsim.Charge{
		{ID: 1, BillingID: id, UserID: chen, ServerID: 70, Cents: decimal.NewFromInt(2), Start: hoursLater(1), End: hoursLater(2), Status: "completed", LedgerID: 1},
		{ID: 2, BillingID: id, UserID: chen, ServerID: 70, Cents: decimal.NewFromInt(2), Start: hoursLater(2), End: hoursLater(3), Status: "completed", LedgerID: 2},
	}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(report.Charges, books(t, database)); diff != "" {
		t.Errorf("books (-report +books):\n%s", diff)
	}
	if got, want := read(t, database, `
		SELECT billing_id, user_id, server_id, transaction_id, hours_billed, amount_charged, billing_period_start, billing_period_end, status, created_at
		FROM virtfusion_hourly_transactions WHERE id = 1`),
		"1|3|70|1|1.00|0.0200|2026-03-01T11:20:30|2026-03-01T12:20:30|completed|2026-03-01T12:20:30"; got != want {
		t.Errorf("transaction %s\nwant        %s", got, want)
	}
	if got, want := read(t, database, `SELECT user_id, amount, type, description, status, payment_method, virtfusion_credit_id, created_at FROM transactions WHERE id = 1`),
		"3|-0.02|debit|Server #70 - Hourly billing (1 hour)|completed|virtfusion_tokens|null|2026-03-01T12:20:30"; got != want {
		t.Errorf("ledger %s\nwant   %s", got, want)
	}
	if got := read(t, database, `SELECT last_billed_at, updated_at FROM virtfusion_hourly_billing`); got != "2026-03-01T13:20:30|2026-03-01T12:20:30" {
		t.Errorf("paid until %s", got)
	}
	if report := tick(t, job, now); len(report.Charges) != 0 {
		t.Errorf("charged again: %v", inWords(report.Charges))
	}
}

func TestTickKeepsTimesInUTC(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{}), t0.In(time.FixedZone("east", 3*3600)))
	if got := read(t, database, `SELECT last_billed_at, updated_at FROM virtfusion_hourly_billing`); got != "2026-03-01T11:20:30|2026-03-01T10:20:30" {
		t.Errorf("paid until %s, want UTC", got)
	}
}

// Hazard 1.
func TestJobBackBills(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, created: new(hoursLater(-72))})
	never := bill(t, database, row{server: 71})
	bill(t, database, row{server: 72, created: new(hoursLater(-72)), lastBilled: &t0})
	report := tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{}), t0)
	hours := map[int64]int{}
	for _, c := range report.Charges {
		hours[c.ServerID]++
	}
	if diff := cmp.Diff(map[int64]int{70: 72, 72: 1}, hours); diff != "" {
		t.Errorf("hours by server (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{never}, report.NeverBilled); diff != "" {
		t.Errorf("never billed (-want +got):\n%s", diff)
	}
}

// Hazard 2.
func TestReEnablingBackBills(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]struct{ off, on string }{
		"the row":      {`UPDATE virtfusion_hourly_billing SET billing_enabled = false`, `UPDATE virtfusion_hourly_billing SET billing_enabled = true`},
		"the user":     {`UPDATE users SET is_active = false WHERE id = 3`, `UPDATE users SET is_active = true WHERE id = 3`},
		"the job":      {`UPDATE virtfusion_cron_settings SET enabled = false`, `UPDATE virtfusion_cron_settings SET enabled = true`},
		"hourly":       {`UPDATE virtfusion_cron_settings SET hourly_billing_enabled = false`, `UPDATE virtfusion_cron_settings SET hourly_billing_enabled = true`},
		"a later row":  {`INSERT INTO virtfusion_cron_settings (enabled) VALUES (false)`, `INSERT INTO virtfusion_cron_settings (enabled) VALUES (true)`},
		"no settings":  {`DELETE FROM virtfusion_cron_settings`, `INSERT INTO virtfusion_cron_settings (enabled) VALUES (true)`},
		"monthly mode": {`UPDATE settings SET value = 'false'`, `DELETE FROM settings`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, _ := seeded(t)
			bill(t, database, row{server: 70, lastBilled: &t0})
			job := skypanelsim.NewJob(database, skypanelsim.JobConfig{RoundFirst: true})
			execute(t, database, off.off)
			report := tick(t, job, hoursLater(2))
			if len(report.Charges) != 0 {
				t.Errorf("charged while off: %v", inWords(report.Charges))
			}
			execute(t, database, off.on)
			expectWords(t, "the gap is charged", tick(t, job, hoursLater(2)).Charges,
				"70: 0-1 = 2 completed", "70: 1-2 = 2 completed", "70: 2-3 = 2 completed")
		})
	}
}

func TestJobSaysWhyItIsOff(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Workers: 2, Together: true})
	execute(t, database, `UPDATE settings SET value = 'false'`)
	if got := tick(t, job, t0).Off; got != skypanelsim.OffMonthlyMode {
		t.Errorf("off because %q", got)
	}
	execute(t, database, `UPDATE virtfusion_cron_settings SET enabled = NULL`)
	if got := tick(t, job, t0).Off; got != skypanelsim.OffDisabled {
		t.Errorf("off because %q", got)
	}
}

// Hazard 5.
func TestJobJoinsPricing(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	const classic, custom, ines = 6, 7, 9 // withdrawn, unpriced, inactive
	bill(t, database, row{server: 70, plan: custom, lastBilled: &t0})
	bill(t, database, row{server: 71, plan: 0xdead, lastBilled: &t0})
	bill(t, database, row{server: 72, user: ines, lastBilled: &t0})
	bill(t, database, row{server: 73, plan: classic, lastBilled: &t0})
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{})
	report := tick(t, job, t0)
	expectWords(t, "only the withdrawn package", report.Charges, "73: 0-1 = 2 completed")
	if report.Rows != 1 || report.NeverBilled != nil {
		t.Errorf("report %+v, want the others untold", report)
	}
	execute(t, database, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (7, 'Custom', 1)`)
	expectWords(t, "a price appears, and the gap is charged at the row's own", tick(t, job, hoursLater(1)).Charges,
		"70: 0-1 = 2 completed", "70: 1-2 = 2 completed", "73: 1-2 = 2 completed")
}

// Hazard 6. The rows' hourly_rate is 9 dollars, and nobody minds.
func TestJobBillsTheRowsPrice(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, price: "11", lastBilled: &t0})
	bill(t, database, row{server: 71, price: "29.2", lastBilled: &t0})
	bill(t, database, row{server: 72, price: "29.2", hours: new(int64(365)), lastBilled: &t0})
	bill(t, database, row{server: 73, price: "29.2", hours: new(int64(0)), lastBilled: &t0})
	execute(t, database, `UPDATE package_pricing SET price = 99900`)
	execute(t, database, `UPDATE virtfusion_cron_settings SET hours_per_month = 1460`)
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{})
	expectWords(t, "prices are frozen, hours where the row has some", tick(t, job, t0).Charges,
		"70: 0-1 = 1 completed", "71: 0-1 = 2 completed", "72: 0-1 = 8 completed", "73: 0-1 = 2 completed")
}

// Hazard 7.
func TestJobRounds(t *testing.T) {
	t.Parallel()
	for _, roundFirst := range []bool{false, true} {
		t.Run(strconv.FormatBool(roundFirst), func(t *testing.T) {
			t.Parallel()
			database, _ := seeded(t)
			bill(t, database, row{server: 70, price: "2.5", hours: new(int64(730)), lastBilled: &t0})
			bill(t, database, row{server: 71, price: "10", hours: new(int64(730)), lastBilled: &t0})
			first := map[bool][2]string{false: {"1", "2"}, true: {"0", "1"}}[roundFirst]
			job := skypanelsim.NewJob(database, skypanelsim.JobConfig{RoundFirst: roundFirst})
			expectWords(t, "two hours at once", tick(t, job, hoursLater(1)).Charges,
				"70: 0-1 = "+first[0]+" completed", "70: 1-2 = 0 completed",
				"71: 0-1 = "+first[1]+" completed", "71: 1-2 = 1 completed")
			expectWords(t, "a third", tick(t, job, hoursLater(2)).Charges, "70: 2-3 = 0 completed", "71: 2-3 = 1 completed")
		})
	}
}

// Hazard 11.
func TestJobReadsAnErrorAsNotOwned(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	const joana = 10 // has no virtfusion_id
	bill(t, database, row{server: 70, uuid: "u-70", lastBilled: &t0})
	bill(t, database, row{server: 71, uuid: "u-71", lastBilled: &t0})                // VirtFusion is away
	bill(t, database, row{server: 72, uuid: "u-72", lastBilled: new(hoursLater(9))}) // another's, and not even due
	bill(t, database, row{server: 73, lastBilled: &t0})                              // has no UUID
	bill(t, database, row{server: 74, uuid: "DELETED_SERVER", lastBilled: &t0})
	bill(t, database, row{server: 75, uuid: "u-75", user: joana, lastBilled: &t0})
	asked := map[int64]bool{}
	owner := func(_ context.Context, server int64) (int64, error) {
		asked[server] = true
		switch server {
		case 71:
			return chensAccount, errors.New("503")
		case 72:
			return chen, nil
		case 75:
			return 0, nil
		}
		return chensAccount, nil
	}
	report := tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{Owner: owner}), t0)
	expectWords(t, "who still pays", report.Charges, "70: 0-1 = 2 completed", "73: 0-1 = 2 completed")
	if diff := cmp.Diff([]int64{2, 3, 5, 6}, report.SwitchedOff); diff != "" {
		t.Errorf("switched off (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[int64]bool{70: true, 71: true, 72: true, 75: true}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if got := read(t, database, `SELECT string_agg(virtfusion_server_id::text, ' ' ORDER BY id) FROM virtfusion_hourly_billing WHERE NOT billing_enabled`); got != "71 72 74 75" {
		t.Errorf("off: %s", got)
	}
}

func TestFailuresSkipHours(t *testing.T) {
	t.Parallel()
	// Of three hours the first and the last cannot be charged; then all can.
	for _, c := range []struct {
		failure skypanelsim.Failure
		then    []string
		paid    string
	}{
		{skypanelsim.FailureSkips, []string{"70: 3-4 = 2 completed"}, "2026-03-01T13:20:30"},
		{skypanelsim.FailureRetries, []string{"70: 2-3 = 2 completed", "70: 3-4 = 2 completed"}, "2026-03-01T12:20:30"},
	} {
		t.Run(fmt.Sprint(c.failure), func(t *testing.T) {
			t.Parallel()
			database, _ := seeded(t)
			bill(t, database, row{server: 70, lastBilled: &t0})
			calls := 0
			job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Failure: c.failure, Debit: func(_ context.Context, user, tokens, reference int64) error {
				if calls++; user != chen || tokens != 2 || reference != int64(calls) {
					t.Errorf("debit %d of user %d for %d tokens, reference %d", calls, user, tokens, reference)
				}
				if calls == 1 || calls == 3 {
					return errors.New("no credit")
				}
				return nil
			}})
			expectWords(t, "three hours", tick(t, job, hoursLater(2)).Charges, "70: 0-1 = 0 failed", "70: 1-2 = 2 completed", "70: 2-3 = 0 failed")
			if got := read(t, database, `SELECT last_billed_at FROM virtfusion_hourly_billing`); got != c.paid {
				t.Errorf("paid until %s, want %s", got, c.paid)
			}
			expectWords(t, "the next run", tick(t, job, hoursLater(3)).Charges, c.then...)
			if got := read(t, database, `SELECT string_agg(status || ' ' || amount, ', ' ORDER BY id) FROM transactions WHERE id <= 3`); got != "failed -0.02, completed -0.02, failed -0.02" {
				t.Errorf("ledger: %s", got)
			}
			if overlaps := skypanelsim.Overlaps(books(t, database)); overlaps != nil {
				t.Errorf("charged twice: %v", overlaps)
			}
		})
	}
}

func TestNoCreditIsAskedForNothing(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, price: "2.5", lastBilled: &t0})
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{RoundFirst: true, Debit: func(context.Context, int64, int64, int64) error {
		return errors.New("VirtFusion takes no 0 tokens")
	}})
	expectWords(t, "an hour for nothing", tick(t, job, t0).Charges, "70: 0-1 = 0 completed")
}

func TestDescribeWordsTheLedger(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	tick(t, skypanelsim.NewJob(database, skypanelsim.JobConfig{Describe: func(server int64) string { return fmt.Sprintf("VirtFusion Server %d - an hour", server) }}), t0)
	if got := read(t, database, `SELECT description FROM transactions`); got != "VirtFusion Server 70 - an hour" {
		t.Errorf("description %q", got)
	}
}

// TestCatchingUpCostsWhatTickingCosts runs two SkyPANELs with the same rows:
// one whose job runs now and then, and one whose job runs once at the end.
func TestCatchingUpCostsWhatTickingCosts(t *testing.T) {
	t.Parallel()
	often, _ := seeded(t)
	once, _ := seeded(t)
	rapid.Check(t, func(rt *rapid.T) {
		config := skypanelsim.JobConfig{RoundFirst: rapid.Bool().Draw(rt, "round first"), Failure: rapid.SampledFrom([]skypanelsim.Failure{
			skypanelsim.FailureSkips, skypanelsim.FailureRetries,
		}).Draw(rt, "failure")}
		r := row{
			server: 70, price: decimal.New(rapid.Int64Range(0, 500_000).Draw(rt, "price"), -4).String(),
			hours: new(rapid.SampledFrom([]int64{672, 720, 730, 744}).Draw(rt, "hours")), created: &t0,
		}
		if rapid.Bool().Draw(rt, "billed before") {
			r.lastBilled = new(t0.Add(time.Duration(rapid.Int64Range(-5*3600, 10*3600).Draw(rt, "last billed")) * time.Second))
		}
		now := t0
		for _, database := range []*bun.DB{often, once} {
			execute(t, database, `TRUNCATE virtfusion_hourly_billing, virtfusion_hourly_transactions, transactions RESTART IDENTITY`)
			bill(t, database, r)
		}
		job := skypanelsim.NewJob(often, config)
		for _, step := range rapid.SliceOfN(rapid.Int64Range(0, 3*3600), 1, 6).Draw(rt, "steps") {
			now = now.Add(time.Duration(step) * time.Second)
			tick(t, job, now)
		}
		tick(t, skypanelsim.NewJob(once, config), now)
		if diff := cmp.Diff(books(t, once), books(t, often)); diff != "" {
			rt.Fatalf("charges (-at once +by and by):\n%s", diff)
		}
		const paid = `SELECT last_billed_at FROM virtfusion_hourly_billing`
		if a, b := read(t, once, paid), read(t, often, paid); a != b {
			rt.Fatalf("paid until %s at once, %s by and by", a, b)
		}
		if overlaps := skypanelsim.Overlaps(books(t, often)); overlaps != nil {
			rt.Fatalf("charged twice: %v", overlaps)
		}
	})
}

func TestTickThatCannotRun(t *testing.T) {
	t.Parallel()
	t.Run("without tables", func(t *testing.T) {
		t.Parallel()
		if _, err := skypanelsim.NewJob(dbtest.NewEmpty(t), skypanelsim.JobConfig{}).Tick(t.Context(), t0); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a pause that fails", func(t *testing.T) {
		t.Parallel()
		database, _ := seeded(t)
		killed := errors.New("killed")
		if _, err := skypanelsim.NewJob(database, skypanelsim.JobConfig{Pause: func(context.Context) error { return killed }}).Tick(t.Context(), t0); !errors.Is(err, killed) {
			t.Errorf("error %v, want the pause's", err)
		}
	})
	t.Run("an ended context", func(t *testing.T) {
		t.Parallel()
		database, _ := seeded(t)
		bill(t, database, row{server: 70, uuid: "u-70", lastBilled: &t0})
		ctx, cancel := context.WithCancel(t.Context())
		report, err := skypanelsim.NewJob(database, skypanelsim.JobConfig{Pause: func(context.Context) error { cancel(); return nil }}).Tick(ctx, t0)
		if !errors.Is(err, context.Canceled) || len(report.Charges) != 0 {
			t.Errorf("error %v, %d charges", err, len(report.Charges))
		}
	})
}

func TestOneRowsErrorKeepsNoOther(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	gone := bill(t, database, row{server: 70, lastBilled: &t0})
	bill(t, database, row{server: 71, lastBilled: &t0})
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Pause: func(ctx context.Context) error {
		_, err := database.DB.ExecContext(ctx, `DELETE FROM virtfusion_hourly_billing WHERE id = $1`, gone)
		return err
	}})
	report, err := job.Tick(t.Context(), t0)
	if err != nil || len(report.Errors) != 1 {
		t.Fatalf("error %v, rows' errors %v", err, report.Errors)
	}
	expectWords(t, "what was taken", report.Charges, "70: 0-1 = 2 completed", "71: 0-1 = 2 completed")
	if report.Charges[0].ID != 0 || report.Charges[0].LedgerID != 1 {
		t.Errorf("charge %+v, want the customer's money and no record of the hour", report.Charges[0])
	}
	expectWords(t, "what the books say", books(t, database), "71: 0-1 = 2 completed")
}

func TestRunTicksUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	database, _ := seeded(t)
	bill(t, database, row{server: 70, lastBilled: &t0})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reports []skypanelsim.Report
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{
		Interval: time.Millisecond,
		Clock:    func() time.Time { return hoursLater(len(reports)) },
		Pause: func(context.Context) error { // the third tick is in hand when the context ends
			if len(reports) == 2 {
				cancel()
			}
			return nil
		},
		OnTick: func(r skypanelsim.Report, err error) {
			if err != nil {
				t.Error(err)
			}
			reports = append(reports, r)
		},
	})
	if err := job.Run(ctx); err != nil || len(reports) != 3 {
		t.Fatalf("error %v after %d ticks, want none after 3", err, len(reports))
	}
	expectWords(t, "an hour each", books(t, database), "70: 0-1 = 2 completed", "70: 1-2 = 2 completed", "70: 2-3 = 2 completed")
}

func TestRunGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := 0
	job := skypanelsim.NewJob(dbtest.NewEmpty(t), skypanelsim.JobConfig{Interval: time.Millisecond, OnTick: func(_ skypanelsim.Report, err error) {
		if err == nil {
			t.Error("no error without tables")
		}
		if failed++; failed == 2 {
			cancel()
		}
	}})
	if err := job.Run(ctx); err != nil || failed != 2 {
		t.Errorf("error %v after %d failures", err, failed)
	}
}

func TestFastClock(t *testing.T) {
	t.Parallel()
	before := time.Now()
	clock := skypanelsim.FastClock(t0, 3600)
	first, second := clock(), clock()
	limit := t0.Add(time.Since(before) * 3600)
	if first.Before(t0) || !second.After(first) || second.After(limit) {
		t.Errorf("%s, then %s; want times from %s to %s", first, second, t0, limit)
	}
}

// TestAnHourMayLastLess: everything but the length is as ever, so that whole hours
// are charged, each once, at the same price.
func TestAnHourMayLastLess(t *testing.T) {
	t.Parallel()
	database, world := seeded(t)
	receipt := ordered(t, database, world, nil) // Small: 5.00
	upfront, err := skypanelsim.PayUpfrontFor(t.Context(), database, receipt, 10*time.Second)
	if err != nil || !upfront.End.Equal(t0.Add(10*time.Second)) {
		t.Fatalf("the order paid until %s, %v", upfront.End, err)
	}
	if got := read(t, database, `SELECT last_billed_at FROM virtfusion_hourly_billing`); got != "2026-03-01T10:20:40" {
		t.Errorf("the row is billed until %s", got)
	}
	job := skypanelsim.NewJob(database, skypanelsim.JobConfig{Hour: 10 * time.Second})
	tick(t, job, t0.Add(9*time.Second))
	tick(t, job, t0.Add(35*time.Second))
	tick(t, job, t0.Add(35*time.Second))
	charges := books(t, database)
	if len(charges) != 4 {
		t.Fatalf("%d charges, want the order's and three: %v", len(charges), charges)
	}
	for i, c := range charges {
		if want := t0.Add(time.Duration(i) * 10 * time.Second); !c.Start.Equal(want) || c.End.Sub(c.Start) != 10*time.Second || c.Cents.IntPart() != 1 {
			t.Errorf("charge %d: %+v", i, c)
		}
	}
	if overlaps := skypanelsim.Overlaps(charges); overlaps != nil {
		t.Errorf("charged twice: %v", overlaps)
	}
}
