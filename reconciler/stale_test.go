package reconciler

import (
	"testing"
	"time"

	"github.com/uptrace/bun"
)

// meanwhile runs what SkyPANEL does in a transaction that is open when a batch
// begins and commits once the batch waits for it.
func (s *system) meanwhile(skypanel string, batch func()) {
	s.t.Helper()
	tx, err := s.db.BeginTx(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.execIn(tx, skypanel)
	batch()
	s.until("the batch waits for SkyPANEL", func() bool {
		return s.text(`SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == "true"
	})
	if err := tx.Commit(); err != nil {
		s.t.Fatal(err)
	}
	s.drained(0)
}

func (s *system) execIn(tx bun.Tx, statement string) {
	s.t.Helper()
	if _, err := tx.ExecContext(s.t.Context(), statement); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

func TestSkyPANELSwitchesARowOffMeanwhile(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(1)
	s.publish(s.news(501))
	s.drained(0)
	s.pass(time.Minute)
	s.meanwhile(`UPDATE virtfusion_hourly_billing SET billing_enabled = false`, func() {
		s.publish(s.news(501, packaged(large)))
	})
	s.want("f 4 14.6000", `SELECT concat_ws(' ', billing_enabled, package_id, monthly_price) FROM virtfusion_hourly_billing`)
	s.want("external off disabled_by_skypanel", `SELECT concat_ws(' ', status, billing, billing_reason) FROM serversync.servers`)

	s.pass(time.Minute)
	s.publish(s.news(501, packaged(large), named("b")))
	s.drained(0)
	s.want("false", `SELECT billing_enabled FROM virtfusion_hourly_billing`)
}

func TestSkyPANELChargesARowThatIsBeingWithdrawn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(1)
	s.publish(s.news(501))
	s.drained(0)
	s.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		VALUES (7, 501, 501, 'uuid-501', 3, 'Small', 7.3, 0.01, now())`)
	s.pass(time.Minute)
	s.meanwhile(`WITH charged AS (
			UPDATE virtfusion_hourly_billing SET last_billed_at = last_billed_at + interval '1 hour' WHERE reference_1 IS NOT NULL RETURNING id)
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, transaction_id, amount_charged, status)
		SELECT id, 7, 501, 1, 0.01, 'completed' FROM charged`, func() {
		s.publish(s.news(501))
	})
	s.want("f external, t native", `SELECT string_agg(concat_ws(' ', billing_enabled, CASE WHEN reference_1 IS NULL THEN 'native' ELSE 'external' END), ', ' ORDER BY id) FROM virtfusion_hourly_billing`)
	s.want("failed, completed", `SELECT string_agg(status, ', ' ORDER BY id) FROM virtfusion_hourly_transactions`)
	s.want("1", `SELECT count(*) FROM serversync.history WHERE kind = 'refund_due'`)
}

// A native row that is being inserted while ours is made is found by the next
// decision, whichever commits first.
func TestSkyPANELInsertsMeanwhile(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(1)
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.execIn(tx, `INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		VALUES (7, 501, 501, 'uuid-501', 3, 'Small', 7.3, 0.01, now())`)
	s.publish(s.news(501))
	s.drained(0)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s.want("2", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	s.pass(time.Minute)
	s.publish(s.news(501))
	s.drained(0)
	s.want("1 0", `SELECT concat_ws(' ', (SELECT count(*) FROM virtfusion_hourly_billing WHERE reference_1 IS NULL), (SELECT count(*) FROM virtfusion_hourly_transactions))`)
	s.want("1", `SELECT count(*) FROM virtfusion_hourly_billing`)
}
