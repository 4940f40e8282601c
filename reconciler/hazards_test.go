package reconciler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/db/skypanelsim"
	"serversync/events"
)

// The fifteen hazards of SkyPANEL's side, one test each: what its tables say,
// and what its own billing job then charges. Hazards 4 and 11 are in
// hazard_native_test.go.

// billed is a system whose reconciler is called directly, with SkyPANEL's job.
type billed struct {
	undos int
	*system

	r   *Reconciler
	job *skypanelsim.Job
}

func withJob(t *testing.T, configure ...func(*skypanelsim.JobConfig)) *billed {
	t.Helper()
	b := &billed{system: setup(t)}
	b.exec(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, hourly_billing_enabled) VALUES (true, 730, true)`)
	var config skypanelsim.JobConfig
	for _, f := range configure {
		f(&config)
	}
	b.r, b.job = b.reconciler(), skypanelsim.NewJob(b.db, config)
	return b
}

// other is a reconciler of another policy, on the same books.
func (s *system) other(policy Policy) *Reconciler {
	return New(Config{
		DB: s.db, Consumer: s.Consumer, DeadLetters: events.NewDeadLetters(s.JetStream), Policy: policy, Now: s.clock,
		Log: zerolog.New(s.log).Level(zerolog.InfoLevel), Metrics: prometheus.NewRegistry(),
	})
}

// hear processes events as one batch.
func (b *billed) hear(all ...*events.Event) {
	b.t.Helper()
	hearWith(b.t, b.r, all...)
}

func hearWith(t *testing.T, r *Reconciler, all ...*events.Event) {
	t.Helper()
	batch := make([]events.Event, len(all))
	for i, e := range all {
		if err := e.Seal(); err != nil {
			t.Fatal(err)
		}
		batch[i] = *e
	}
	if err := r.process(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// reviewAll decides every server again without news, those that are gone while
// they are billed, and says how many there were and in how many something
// changed: "servers changed". (Sweeps leave out what a join shows to be in step.)
func (b *billed) reviewAll() string {
	b.t.Helper()
	var ids []int64
	if err := b.db.NewRaw(`
		SELECT virtfusion_id FROM serversync.servers s
		WHERE awaiting_run = '' AND (status <> 'gone' OR EXISTS (
			SELECT FROM virtfusion_hourly_billing b
			WHERE b.virtfusion_server_id = s.virtfusion_id AND (b.billing_enabled OR b.id > coalesce(s.billing_id, 0))))
		ORDER BY 1`).Scan(b.t.Context(), &ids); err != nil {
		b.t.Fatal(err)
	}
	changed := 0
	if len(ids) > 0 {
		changed = b.review(ids...)
	}
	return fmt.Sprintf("%d %d", len(ids), changed)
}

// review decides servers again without news, as the books pass does.
func (b *billed) review(ids ...int64) int {
	b.t.Helper()
	changed, err := b.r.Redecide(b.t.Context(), ids)
	if err != nil {
		b.t.Fatal(err)
	}
	return changed
}

// tick runs SkyPANEL's job now.
func (b *billed) tick() skypanelsim.Report {
	b.t.Helper()
	report, err := b.job.Tick(b.t.Context(), b.clock())
	if err = errors.Join(append(report.Errors, err)...); err != nil {
		b.t.Fatal(err)
	}
	return report
}

// taken is what the job takes now: "server/user hours=cents", by server.
func (b *billed) taken() string {
	b.t.Helper()
	type key struct{ server, user int64 }
	var order []key
	hours, cents := make(map[key]int), make(map[key]int64)
	for _, c := range b.tick().Charges {
		k := key{c.ServerID, c.UserID}
		if hours[k] == 0 {
			order = append(order, k)
		}
		hours[k]++
		cents[k] += c.Cents.IntPart()
	}
	words := make([]string, 0, len(order))
	for _, k := range order {
		words = append(words, fmt.Sprintf("%d/%d %dh=%d", k.server, k.user, hours[k], cents[k]))
	}
	return strings.Join(words, ", ")
}

// wantTaken checks what the job takes now.
func (b *billed) wantTaken(want string) {
	b.t.Helper()
	if got := b.taken(); got != want {
		b.t.Errorf("at %s SkyPANEL's job took %q, want %q", b.clock().Format(time.DateTime), got, want)
	}
}

// wantNoHourTwice checks that no time of a server is charged twice.
func (b *billed) wantNoHourTwice() {
	b.t.Helper()
	charges, err := skypanelsim.Charges(b.t.Context(), b.db)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, o := range skypanelsim.Overlaps(charges) {
		b.t.Error(o.String())
	}
}

// wantServer checks status, billing, its reason and the user of a server.
func (s *system) wantServer(id int64, want string) {
	s.t.Helper()
	s.want(want, fmt.Sprintf(`SELECT concat_ws(' ', status, billing, billing_reason, user_id) FROM serversync.servers WHERE virtfusion_id = %d`, id))
}

// wantRows checks a server's billing rows: "user package price switch whose".
func (s *system) wantRows(id int64, want string) {
	s.t.Helper()
	s.want(want, fmt.Sprintf(`SELECT string_agg(concat_ws(' ', b.user_id, b.package_id, b.monthly_price,
			CASE WHEN b.billing_enabled THEN 'on' ELSE 'off' END, CASE WHEN r.made_by = 'serversync' THEN 'ours' ELSE 'native' END), ', ' ORDER BY b.id)
		FROM virtfusion_hourly_billing b LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id WHERE b.virtfusion_server_id = %d`, id))
}

// skypanelOrders inserts a billing row for user 7 as SkyPANEL does.
func (s *system) skypanelOrders(id int64) {
	s.t.Helper()
	s.exec(fmt.Sprintf(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, server_created_at)
		VALUES (7, %d, %[1]d, 'uuid-%[1]d', 3, 'Small', 7.3, 0.01, '%s')`, id, s.clock().Format(time.DateTime)))
}

// bornNow is the news of a creation at this moment.
func (s *system) bornNow(id int64, edit ...func(*events.Event)) *events.Event {
	return s.news(id, append(edit, created, born(s.clock()))...)
}

func (s *system) settle(r *Reconciler) {
	s.t.Helper()
	if err := r.SettleDue(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// A server that has existed for a year is billed from its discovery: the first
// hour is ours, and SkyPANEL goes on with one hour at a time.
func TestHazard01BackBilling(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.want("2026-03-01 13:00:00", `SELECT last_billed_at::text FROM virtfusion_hourly_billing`)
	b.wantTaken("")
	b.pass(59 * time.Minute)
	b.wantTaken("")
	b.pass(time.Minute)
	b.wantTaken("501/7 1h=1")
	b.wantTaken("")
	b.pass(30 * time.Hour)
	b.wantTaken("501/7 30h=30")
	b.wantNoHourTwice()

	// Nor where the first hour is not recorded, or where nothing is billed yet.
	none := b.policy
	none.InitialCharge = ChargeNone
	hearWith(t, b.other(none), b.news(502))
	b.hear(b.news(503, packaged(unpriced)), b.news(504, func(e *events.Event) { e.Server.CreatedAt = nil }))
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE last_billed_at IS NULL OR last_billed_at < '2026-03-02 18:00:00' AND virtfusion_server_id > 501`)
	b.pass(time.Minute)
	b.wantTaken("502/7 1h=1")

	// Billing from creation is possible, and back-bills only who asked for it.
	reach := b.policy
	reach.StartAtCreation = true
	hearWith(t, b.other(reach), b.news(505, born(b.clock().Add(-5*time.Hour))))
	b.wantTaken("505/7 5h=5")
	b.wantNoHourTwice()
}

// Whatever switches a row of ours on again, nobody pays for the gap.
func TestHazard02ReEnablingBackBills(t *testing.T) {
	t.Parallel()
	for name, gap := range map[string]struct{ off, on string }{
		"a customer":      {`UPDATE users SET is_active = false`, `UPDATE users SET is_active = true`},
		"a price":         {`DELETE FROM package_pricing`, `INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (3, 'Small', 730)`},
		"the mode":        {`INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false')`, `UPDATE settings SET value = 'true'`},
		"an operator":     {`INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (501, 'billing_off')`, `DELETE FROM serversync.overrides`},
		"SkyPANEL":        {`UPDATE virtfusion_hourly_billing SET billing_enabled = false`, `INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (501, 'billing_on')`},
		"a lost relation": {`UPDATE users SET virtfusion_id = NULL`, `UPDATE users SET virtfusion_id = id * 10`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			b.hear(b.news(501))
			b.pass(90 * time.Minute)
			b.wantTaken("501/7 1h=1") // paid until 14:00
			b.exec(gap.off)
			b.pass(10 * time.Minute)
			b.hear(b.news(501, named("b"))) // fresh, as closing needs it
			b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
			b.pass(100 * time.Hour)
			b.wantTaken("")
			b.exec(gap.on)
			if n := b.review(501); n != 1 {
				t.Fatalf("%d servers changed, want 1", n)
			}
			b.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
			b.pass(61 * time.Minute)
			if got := b.taken(); got != "501/7 2h=2" && got != "501/7 1h=1" { // one of them is the new row's own first hour
				t.Errorf("after the gap SkyPANEL's job took %q", got)
			}
			b.wantNoHourTwice()
		})
	}
	t.Run("at once", func(t *testing.T) { // what was paid in advance is not paid again
		t.Parallel()
		b := withJob(t)
		b.hear(b.news(501))
		b.exec(`INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (501, 'billing_off')`)
		b.review(501)
		b.exec(`DELETE FROM serversync.overrides`)
		b.pass(time.Minute)
		b.review(501)
		b.want("t 2026-03-01 13:00:00", `SELECT concat_ws(' ', billing_enabled, last_billed_at) FROM virtfusion_hourly_billing`)
		b.wantTaken("")
	})
}

// SkyPANEL calls VirtFusion first and inserts its own row afterwards.
func TestHazard03CreateRace(t *testing.T) {
	t.Parallel()
	t.Run("the webhook is first", func(t *testing.T) {
		t.Parallel()
		b := withJob(t)
		b.hear(b.bornNow(501))
		b.wantServer(501, "settling off 7")
		b.pass(b.policy.SettleDelay - time.Second)
		b.settle(b.r)
		b.wantRows(501, "")
		b.skypanelOrders(501)
		b.pass(time.Second)
		b.settle(b.r)
		b.wantServer(501, "native on 7")
		b.wantRows(501, "7 3 7.3000 on native")
	})
	t.Run("hours later, uncharged", func(t *testing.T) {
		t.Parallel()
		b := withJob(t)
		b.hear(b.bornNow(501))
		b.pass(b.policy.SettleDelay)
		b.settle(b.r)
		b.wantRows(501, "7 3 7.3000 on ours")
		b.pass(50 * time.Minute)
		b.skypanelOrders(501)
		b.review(501)
		b.wantServer(501, "native on 7")
		b.wantRows(501, "7 3 7.3000 on native")
		b.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)
		b.pass(2 * time.Hour)
		b.wantTaken("501/7 2h=2")
		b.wantNoHourTwice()
	})
	t.Run("after a charge", func(t *testing.T) {
		t.Parallel()
		b := withJob(t)
		b.hear(b.news(501))
		b.pass(time.Hour)
		b.wantTaken("501/7 1h=1")
		b.skypanelOrders(501)
		b.review(501)
		b.wantServer(501, "native on 7")
		b.wantRows(501, "7 3 7.3000 off ours, 7 3 7.3000 on native")
		b.want("failed, completed", `SELECT string_agg(status, ', ' ORDER BY id) FROM virtfusion_hourly_transactions`)
		b.want("1", `SELECT count(*) FROM serversync.history WHERE kind = 'refund_due'`)
		if n := b.review(501); n != 0 {
			t.Error("a withdrawn row is withdrawn again")
		}
	})
	t.Run("somebody touched it", func(t *testing.T) { // then it is not ours to delete
		t.Parallel()
		for name, touch := range map[string]string{
			"the price":   `UPDATE virtfusion_hourly_billing SET monthly_price = 9`,
			"the package": `UPDATE virtfusion_hourly_billing SET package_id = 4`,
			"the time":    `UPDATE virtfusion_hourly_billing SET last_billed_at = last_billed_at + interval '1 hour'`,
			"the switch":  `UPDATE virtfusion_hourly_billing SET billing_enabled = false`,
			"a charge":    `INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, status) SELECT id, 7, 501, 'failed' FROM virtfusion_hourly_billing`,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := withJob(t)
				b.hear(b.news(501))
				b.exec(touch)
				b.skypanelOrders(501)
				b.review(501)
				b.want("f serversync withdrawn, t", `SELECT string_agg(concat_ws(' ', billing_enabled, made_by, closed_reason), ', ' ORDER BY b.id)
					FROM virtfusion_hourly_billing b LEFT JOIN serversync.billing_rows ON billing_id = b.id`)
				b.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions WHERE status = 'pending'`)
			})
		}
	})
	t.Run("an order", func(t *testing.T) { // in SkyPANEL's real sequence, the reconciler in its pause
		t.Parallel()
		b := withJob(t)
		seven := skypanelsim.User{ID: 7, VirtFusionID: owner7}
		meanwhile := func() {
			b.hear(b.bornNow(501))
			b.pass(time.Hour) // far beyond the settling time
			b.settle(b.r)
		}
		plan := skypanelsim.Package{ID: small, PricingID: 1, Name: "Small", Price: 730}
		receipt, err := skypanelsim.Order(t.Context(), b.db, seven, plan, func(context.Context, int64, int64) (skypanelsim.Server, error) {
			return skypanelsim.Server{ID: 501, UUID: "uuid-501", Created: b.clock()}, nil
		}, func(context.Context) error {
			meanwhile()
			return nil
		})
		if err != nil || receipt.InsertErr != nil {
			t.Fatal(err, receipt.InsertErr)
		}
		b.pass(time.Minute)
		if err := b.r.BooksPassDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.wantRows(501, "7 3 7.3000 on native")
		b.pass(time.Hour)
		b.tick()
		b.wantNoHourTwice()
	})
}

// A row whose package has no price is never billed by SkyPANEL: it is shown,
// and billed from the moment that the price appears.
func TestHazard05JoinOnPricing(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, packaged(unpriced)), b.news(502, func(e *events.Event) { e.Server.PackageID = nil }))
	b.wantServer(501, "external off unpriced 7")
	b.wantServer(502, "external off unpriced 7")
	b.wantRows(501, "7 5 0.0000 off ours")
	b.wantRows(502, "7 0 0.0000 off ours")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)
	b.pass(50 * time.Hour)
	b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price, enabled) VALUES (5, 'Withdrawn', 1460, false)`)
	b.review(501, 502)
	b.wantServer(501, "external on 7")
	b.wantRows(501, "7 5 14.6000 on ours")
	b.wantServer(502, "external off unpriced 7")
	b.wantTaken("501/7 1h=2") // SkyPANEL charges an hour at its beginning
	b.pass(time.Hour)
	b.wantTaken("501/7 1h=2")
	b.wantNoHourTwice()

	// An inactive customer is not joined either.
	b.exec(`UPDATE users SET is_active = false WHERE id = 7`)
	b.review(501)
	b.wantServer(501, "external off owner_inactive 7")
	b.wantRows(501, "7 5 14.6000 off ours")
}

// Prices are frozen in the rows: ours follow, SkyPANEL's own are left alone.
func TestHazard06FrozenPrices(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(502)
	b.hear(b.news(501), b.news(502))
	b.exec(`UPDATE package_pricing SET price = 2190 WHERE virtfusion_package_id = 3`)
	b.pass(time.Hour)
	b.review(501, 502)
	b.wantRows(501, "7 3 21.9000 on ours")
	b.wantRows(502, "7 3 7.3000 on native")
	b.want("2026-03-01 13:00:00", `SELECT last_billed_at::text FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 501`)
	b.wantTaken("502/7 1h=1, 501/7 1h=3")
	b.hear(b.news(501, packaged(large)), b.news(502, packaged(large)))
	b.wantRows(501, "7 4 14.6000 on ours")
	b.wantRows(502, "7 3 7.3000 on native")
}

// What a row costs is SkyPANEL's rounding of its price: what it will read is
// the list price, exactly, and the hours of today.
func TestHazard07Rounding(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (10, 'Pico', 364), (11, 'Ten', 1000), (12, 'Eleven', 1100)`)
	b.hear(b.news(510, packaged(10)), b.news(511, packaged(11)), b.news(512, packaged(12)))
	b.want("3.6400 0.004986 0.0050, 10.0000 0.013699 0.0137, 11.0000 0.015068 0.0151",
		`SELECT string_agg(concat_ws(' ', monthly_price, hourly_rate, amount_charged), ', ' ORDER BY virtfusion_server_id)
			FROM virtfusion_hourly_billing b JOIN virtfusion_hourly_transactions t ON t.billing_id = b.id`)
	b.pass(2 * time.Hour)
	b.wantTaken("510/7 2h=1, 511/7 2h=3, 512/7 2h=4") // the job's first is rounded up
	b.pass(10 * time.Hour)
	b.wantTaken("510/7 10h=0, 511/7 10h=10, 512/7 10h=20")
}

// VirtFusion bills self service itself.
func TestHazard08SelfService(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	selfService := func(e *events.Event) { e.Server.SelfService = new(int64(2)) }
	b.hear(b.news(501, selfService))
	b.wantServer(501, "external off self_service 7")
	b.wantRows(501, "7 3 7.3000 off ours")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)
	b.pass(10 * time.Hour)
	b.wantTaken("")

	bill := b.policy
	bill.BillSelfService = true
	hearWith(t, b.other(bill), b.news(502, selfService))
	b.wantServer(502, "external on 7")

	b.hear(b.news(501)) // it ends: billed from now on
	b.wantServer(501, "external on 7")
	b.wantTaken("501/7 1h=1")
	b.pass(time.Minute)
	b.hear(b.news(501, selfService))
	b.wantRows(501, "7 3 7.3000 off ours")
	b.wantNoHourTwice()
}

// A server moves: nobody pays for the other's hours.
func TestHazard09Ownership(t *testing.T) {
	t.Parallel()
	for _, native := range []bool{false, true} {
		t.Run(fmt.Sprintf("native=%v", native), func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			if native {
				b.skypanelOrders(501)
			}
			b.hear(b.news(501))
			b.pass(90 * time.Minute)
			b.wantTaken("501/7 1h=1") // until 14:00
			b.hear(b.news(501, ownedBy(owner8)))
			b.wantServer(501, "external on 8")
			b.want("7 f, 8 t", `SELECT string_agg(concat_ws(' ', user_id, billing_enabled), ', ' ORDER BY id) FROM virtfusion_hourly_billing`)
			b.want("2026-03-01 15:00:00", `SELECT last_billed_at::text FROM virtfusion_hourly_billing WHERE user_id = 8`)
			b.pass(2 * time.Hour)
			b.wantTaken("501/8 1h=1")
			b.hear(b.news(501)) // and back
			b.wantServer(501, "external on 7")
			b.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled AND user_id = 7`)
			b.pass(5 * time.Hour)
			b.tick()
			b.wantNoHourTwice()
		})
	}
}

// Moved within an hour that was charged already, the new owner's first hour
// lies ahead. A server that ends before it has begun leaves no charge for it.
func TestHazard09NoChargeForAnHourThatNeverCame(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, ownedBy(owner8)))
	b.pass(time.Minute)
	const charges = `SELECT string_agg(concat_ws(' ', user_id, status), ', ' ORDER BY id) FROM virtfusion_hourly_transactions`
	b.want("7 pending, 8 pending", charges)
	b.hear(b.news(501, destroyed))
	b.want("7 pending, 8 failed", charges)
	b.want("1", `SELECT count(*) FROM serversync.history WHERE kind = 'billing_closed' AND reason LIKE '%is void'`)
}

// A server that is gone stops billing at once; its row and charges stay.
func TestHazard10GoneServers(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(502)
	b.hear(b.news(501), b.news(502))
	b.pass(70 * time.Minute)
	b.tick()
	charges := b.text(`SELECT count(*) FROM virtfusion_hourly_transactions`)
	b.hear(b.news(501, destroyed), b.news(502, destroyed, failed))
	b.wantServer(501, "gone off destroyed 7")
	b.wantServer(502, "native on 7") // a failed destroy ends nothing
	b.hear(b.news(502, func(e *events.Event) {
		e.Kind, e.Source, e.Server = events.KindDestroyed, events.SourceRefetch, events.Server{ID: 502}
	}))
	b.wantServer(502, "gone off destroyed 7")
	b.wantRows(501, "7 3 7.3000 off ours")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	b.want(charges, `SELECT count(*) FROM virtfusion_hourly_transactions`)
	b.pass(10 * time.Hour)
	b.wantTaken("")
	b.hear(b.news(501, updated)) // a late delivery brings nothing back
	b.wantServer(501, "gone off destroyed 7")
	b.hear(b.news(501)) // VirtFusion, asked, does
	b.wantServer(501, "external on 7")
	b.wantTaken("501/7 1h=1")
	b.wantNoHourTwice()
}

// The money is decimal: cents become dollars, an hour has six decimals, and
// the hours of a month are the latest settings'.
func TestHazard12Money(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (10, 'Odd', 1999)`)
	b.exec(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 720)`)
	b.hear(b.news(501, packaged(10)))
	b.want("19.9900 0.027764 720 0.0278", `SELECT concat_ws(' ', monthly_price, hourly_rate, hours_in_month, amount_charged)
		FROM virtfusion_hourly_billing b JOIN virtfusion_hourly_transactions t ON t.billing_id = b.id`)
	b.exec(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 0)`) // nonsense: the default
	b.review(501)
	b.want("19.9900 0.027384 730", `SELECT concat_ws(' ', monthly_price, hourly_rate, hours_in_month) FROM virtfusion_hourly_billing`)
}

// Suspended and stopped servers are billed all the same.
func TestHazard13SuspendedServers(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, func(e *events.Event) { e.Server.Suspended, e.Server.State = new(true), new("stopped") }))
	b.wantServer(501, "external on 7")
	b.pass(time.Hour)
	b.wantTaken("501/7 1h=1")
	b.hear(b.news(501, func(e *events.Event) { e.Server.Suspended = new(false) }))
	b.wantRows(501, "7 3 7.3000 on ours")
}

// The sentinel of deleted users stands on many rows and names no server.
func TestHazard14DeletedServerSentinel(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate)
		SELECT 8, id, id, 'DELETED_SERVER', 3, 'Small', 7.3, 0.01 FROM generate_series(901, 903) id`)
	b.hear(b.news(501, func(e *events.Event) { e.Server.UUID = new("DELETED_SERVER") }))
	b.wantServer(501, "external on 7")
	b.want("3", `SELECT count(*) FROM virtfusion_hourly_billing WHERE server_uuid = 'DELETED_SERVER' AND billing_enabled AND user_id = 8`)
	// On the server's own row it contradicts nothing.
	b.hear(b.news(901, ownedBy(owner8)))
	b.wantServer(901, "native on 8")
	b.hear(b.news(901, ownedBy(owner8), destroyed))
	b.wantServer(901, "gone off destroyed 8")
	b.want("2", `SELECT count(*) FROM virtfusion_hourly_billing WHERE server_uuid = 'DELETED_SERVER' AND billing_enabled AND user_id = 8`)
}

// SkyPANEL's schema tool drops columns of ours while we run.
func TestHazard15SchemaTool(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1;
		ALTER TABLE virtfusion_hourly_transactions DROP COLUMN reference_1, DROP COLUMN reference_2, DROP COLUMN server_uuid, DROP COLUMN transaction_type`)
	b.pass(time.Minute)
	b.hear(b.news(501, packaged(large)), b.news(502))
	b.wantRows(501, "7 4 14.6000 on ours")
	b.wantRows(502, "7 3 7.3000 on ours")
	b.want("external_server_501,external_server_502", `SELECT string_agg(reference_1, ',' ORDER BY reference_1) FROM virtfusion_hourly_billing`)

	// Also without any event.
	b.exec(`ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
	b.exec(`UPDATE package_pricing SET price = 2920 WHERE virtfusion_package_id = 4`)
	b.review(501, 502)
	b.wantRows(501, "7 4 29.2000 on ours")
	// A row is ours by our own record, though its reference be lost for good.
	b.exec(`UPDATE virtfusion_hourly_billing SET reference_1 = NULL`)
	b.exec(`UPDATE package_pricing SET price = 1460 WHERE virtfusion_package_id = 4`)
	b.review(501, 502)
	b.wantRows(501, "7 4 14.6000 on ours")
	// And a late row of SkyPANEL's takes back ours, whose charge is known by its id.
	b.skypanelOrders(502)
	b.review(502)
	b.wantRows(502, "7 3 7.3000 on native")
	if log := b.log.String(); !strings.Contains(log, "drizzle-kit push") {
		t.Errorf("nobody is told: %s", log)
	}
}

// Policy is read afresh with every batch.
func TestPolicyIsReadWithEveryBatch(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	for _, change := range []struct{ what, do, server, row string }{
		{"a price", `UPDATE package_pricing SET price = 1460, name = 'Petite'`, "external on 7", "7 3 14.6000 on ours"},
		{"the mode", `INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false')`, "external off monthly_mode 7", "7 3 14.6000 off ours"},
		{"the mode back", `DELETE FROM settings`, "external on 7", "7 3 14.6000 on ours"},
		{"the customer", `UPDATE users SET is_active = false WHERE id = 7`, "external off owner_inactive 7", "7 3 14.6000 off ours"},
		{"the customer back", `UPDATE users SET is_active = true WHERE id = 7`, "external on 7", "7 3 14.6000 on ours"},
		{"an override", `INSERT INTO serversync.overrides (virtfusion_id, kind, package_id) VALUES (501, 'package', 4)`, "external on 7", "7 4 14.6000 on ours"},
		{"two customers", `UPDATE users SET virtfusion_id = 70 WHERE id = 8`, "conflict on 7", "7 4 14.6000 on ours"},
		{"the link", `UPDATE users SET virtfusion_id = CASE id WHEN 7 THEN 99 ELSE 70 END`, "external on 8", "7 4 14.6000 off ours, 8 4 14.6000 on ours"},
		{"the hours", `INSERT INTO virtfusion_cron_settings (hours_per_month) VALUES (500)`, "external on 8", "7 4 14.6000 off ours, 8 4 14.6000 on ours"},
	} {
		b.pass(2 * time.Hour)
		b.exec(change.do)
		b.hear(b.news(501))
		if t.Failed() {
			return
		}
		b.wantServer(501, change.server)
		b.wantRows(501, change.row)
		if t.Failed() {
			t.Fatalf("after %s", change.what)
		}
	}
	b.want("500", `SELECT hours_in_month FROM virtfusion_hourly_billing WHERE billing_enabled`)
	b.tick()
	b.wantNoHourTwice()
}

// together runs something in n goroutines at once.
func together(n int, do func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(do)
	}
	wg.Wait()
}

// In the demo an hour of SkyPANEL's billing lasts less: everything that is reckoned
// by it does, and nothing is charged twice.
func TestAnHourMayLastLess(t *testing.T) {
	t.Parallel()
	const hour = 10 * time.Second
	b := withJob(t, func(c *skypanelsim.JobConfig) { c.Hour = hour })
	short := b.policy
	short.Hour = hour
	b.r = b.other(short)
	b.hear(b.news(501))
	b.want("2026-03-01 12:00:10", `SELECT last_billed_at::text FROM virtfusion_hourly_billing`)
	b.wantTaken("")
	b.pass(25 * time.Second)
	b.wantTaken("501/7 2h=2")
	// It moves within an hour that was charged, and on before the next one begins.
	b.hear(b.news(501, ownedBy(owner8)))
	b.want("2026-03-01 12:00:40", `SELECT last_billed_at::text FROM virtfusion_hourly_billing WHERE user_id = 8`)
	b.pass(time.Second)
	b.hear(b.news(501))
	b.want("failed", `SELECT status FROM virtfusion_hourly_transactions t JOIN virtfusion_hourly_billing b ON b.id = t.billing_id WHERE b.user_id = 8`)
	b.pass(hour)
	b.tick()
	b.wantNoHourTwice()
}
