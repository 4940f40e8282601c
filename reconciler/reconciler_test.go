package reconciler

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/pgserver"
	"serversync/events"
)

func TestWebhookBecomesABillingRecord(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(1)
	s.publish(s.news(501))
	s.drained(0)

	s.want(`{"id": 501, "on": true, "row": 501, "rate": 0.010000, "user": 7, "uuid": "uuid-501", "hours": 730, "price": 7.3000, "package": 3, "reference": "external_server_501", "last_billed_at": "2026-03-01T13:00:00", "server_created_at": "2025-03-01T12:00:00"}`,
		`SELECT jsonb_build_object('id', virtfusion_server_id, 'row', server_id, 'user', user_id, 'uuid', server_uuid, 'package', package_id,
			'price', monthly_price, 'rate', hourly_rate, 'hours', hours_in_month, 'on', billing_enabled, 'reference', reference_1,
			'last_billed_at', last_billed_at, 'server_created_at', server_created_at) FROM virtfusion_hourly_billing`)
	s.want(`{"end": "2026-03-01T13:00:00", "ref1": "external_server_501", "ref2": "uuid-501", "user": 7, "uuid": "uuid-501", "hours": 1.00, "start": "2026-03-01T12:00:00", "amount": 0.0100, "server": 501, "status": "pending"}`,
		`SELECT jsonb_build_object('user', user_id, 'server', server_id, 'hours', hours_billed, 'amount', amount_charged, 'status', status,
			'start', billing_period_start, 'end', billing_period_end, 'ref1', reference_1, 'ref2', reference_2, 'uuid', server_uuid)
			FROM virtfusion_hourly_transactions`)
	s.want(`501 external on 7 t {192.0.2.1,2001:db8::1}`,
		`SELECT concat_ws(' ', virtfusion_id, status, billing, billing_reason, user_id,
			billing_id = (SELECT id FROM virtfusion_hourly_billing), ip_addresses) FROM serversync.servers`)
	s.want(`501 serversync 7 t 7.3000 3 t`,
		`SELECT concat_ws(' ', virtfusion_id, made_by, user_id, enabled, monthly_price, package_id,
			charge_id = (SELECT id FROM virtfusion_hourly_transactions)) FROM serversync.billing_rows`)
	s.want(`observed,billing_created,decided`, `SELECT string_agg(kind, ',' ORDER BY id) FROM serversync.history`)
	s.want(`3`, `SELECT count(*) FROM serversync.history WHERE event_id <> '' AND source = 'sweep' AND user_id = 7 AND billing_id IS NOT NULL`)
	if log := s.log.String(); !strings.Contains(log, "made outside SkyPANEL") || !strings.Contains(log, `"server":501`) {
		t.Errorf("the log does not tell: %s", log)
	}
}

// life is a fleet's history, in its order.
func (s *system) life(servers int64) []*events.Event {
	var all []*events.Event
	for id := int64(1); id <= servers; id++ {
		story := []func(*events.Event){
			func(*events.Event) {},
			named("renamed"),
			packaged(large),
			func(e *events.Event) { updated(e); e.Server.Hostname = new("h.example.com") },
			ownedBy(owner8),
			func(e *events.Event) { packaged(unpriced)(e); ownedBy(owner8)(e) },
			func(e *events.Event) { ownedBy(nobody)(e) },
		}
		if id%3 == 0 {
			story = append(story, destroyed)
		}
		for i := range story[:2+int(id)%(len(story)-1)] {
			at := t0.Add(time.Duration(i+1) * time.Second)
			all = append(all, s.news(id, func(e *events.Event) {
				e.ObservedAt, e.Server.UpdatedAt = at, &at
				story[i](e)
			}))
		}
	}
	return all
}

func TestRedeliveryChangesNothing(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		VALUES (7, 2, 2, 3, 'Small', 7.3, 0.01, now()), (7, 9, 9, 3, 'Small', 7.3, 0.01, now())`)
	all := s.life(30)
	stop := s.run(1)
	for chunk := range 5 { // several batches
		for i := chunk; i < len(all); i += 5 {
			s.publish(all[i], all[i]) // twice
		}
	}
	s.drained(0)
	stop()
	before := s.dump()
	s.want("true", `SELECT bool_and(server_uuid IS NOT NULL) FROM virtfusion_hourly_billing`)

	s.pass(26 * time.Hour) // the time of the redelivery must not matter either
	s.again(1)
	wantSame(t, before, s.dump())
	s.again(2)
	wantSame(t, before, s.dump())
}

func TestLifeOfAServer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(1)
	step := func(edit ...func(*events.Event)) {
		t.Helper()
		s.pass(48 * time.Hour)
		s.publish(s.news(501, edit...))
		s.drained(0)
	}
	rows := `SELECT string_agg(concat_ws(' ', user_id, package_id, monthly_price, billing_enabled), ', ' ORDER BY id) FROM virtfusion_hourly_billing`
	server := `SELECT concat_ws(' ', status, billing, billing_reason, user_id) FROM serversync.servers`

	step(ownedBy(nobody))
	s.want("", rows)
	s.want("unlinked off", server)

	step(packaged(unpriced))
	s.want("7 5 0.0000 f", rows)
	s.want("external off unpriced 7", server)
	s.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)

	step(packaged(large))
	s.want("7 4 14.6000 t", rows)
	s.want(s.clock().Format("2006-01-02 15:04:05"), `SELECT last_billed_at::text FROM virtfusion_hourly_billing`)

	step(packaged(large), ownedBy(owner8))
	s.want("7 4 14.6000 f, 8 4 14.6000 t", rows)
	s.want("external on 8", server)
	s.want("moved", `SELECT closed_reason FROM serversync.billing_rows WHERE user_id = 7`)

	step(destroyed, packaged(large), ownedBy(owner8))
	s.want("7 4 14.6000 f, 8 4 14.6000 f", rows)
	s.want("gone off destroyed 8", server)
}

func TestLateNativeRowWins(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.run(1)
	s.publish(s.news(501), s.news(502))
	s.drained(0)
	s.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		SELECT 7, id, id, 'uuid-' || id, 3, 'Small', 7.3, 0.01, now() FROM generate_series(501, 502) id`)
	s.exec(`INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, transaction_id, amount_charged, status)
		SELECT id, 7, 502, 1, 0.01, 'completed' FROM virtfusion_hourly_billing WHERE reference_1 = 'external_server_502'`)
	s.pass(time.Minute)
	s.publish(s.news(501), s.news(502))
	s.drained(0)
	s.want("501 native t, 502 external f, 502 native t",
		`SELECT string_agg(concat_ws(' ', virtfusion_server_id, CASE WHEN reference_1 IS NULL THEN 'native' ELSE 'external' END, billing_enabled), ', '
			ORDER BY virtfusion_server_id, reference_1) FROM virtfusion_hourly_billing`)
	s.want("502 failed, 502 completed", `SELECT string_agg(concat_ws(' ', server_id, status), ', ' ORDER BY id) FROM virtfusion_hourly_transactions`)
	s.want("502", `SELECT string_agg(virtfusion_id::text, ',') FROM serversync.history WHERE kind = 'refund_due'`)
	s.want("2", `SELECT count(*) FROM serversync.servers WHERE status = 'native'`)
	before := s.dump()
	s.again(1)
	wantSame(t, before, s.dump())
}

func TestStatementsOfABatchAreConstant(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	s := setupOn(t, database)
	r := s.reconciler()
	next := int64(1)
	count := func(servers int) map[string]int {
		t.Helper()
		var batch []events.Event
		for range servers {
			e := s.news(next)
			next++
			if err := e.Seal(); err != nil {
				t.Fatal(err)
			}
			batch = append(batch, *e)
		}
		counts := make(map[string]int)
		for _, happen := range []struct {
			name string
			edit func(*events.Event)
		}{
			{"new", func(*events.Event) {}}, {"news", named("x")}, {"package", packaged(large)}, {"move", ownedBy(owner8)}, {"end", destroyed},
		} {
			s.pass(time.Second)
			for i := range batch {
				batch[i].ObservedAt = s.clock()
				happen.edit(&batch[i])
			}
			tr.take()
			if err := r.process(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			counts[happen.name] = len(tr.take())
		}
		return counts
	}
	few, many := count(2), count(events.BatchSize)
	for name, n := range few {
		t.Logf("%s: %d statements", name, n)
		if many[name] != n {
			t.Errorf("%s: %d statements for 2 servers, %d for %d", name, n, many[name], events.BatchSize)
		}
	}
}

func TestSeveralReconcilersSideBySide(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 4} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			all := s.life(60)
			random := rand.New(rand.NewPCG(1, uint64(n)))
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			stop := s.run(n)
			for len(all) > 0 { // a trickle, so that batches overlap
				k := min(len(all), 1+random.IntN(9))
				s.publish(all[:k]...)
				all = all[k:]
			}
			s.drained(0)
			stop()
			s.want("0", `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
			if log := s.log.String(); strings.Contains(log, "40P01") || strings.Contains(log, "trying again") {
				t.Errorf("not all went through at once: %s", log)
			}
			s.want("", `SELECT string_agg(virtfusion_server_id::text, ',') FROM (
				SELECT virtfusion_server_id FROM virtfusion_hourly_billing WHERE billing_enabled GROUP BY 1 HAVING count(*) > 1) d`)
			s.want("", `SELECT string_agg(virtfusion_id::text || ' ' || status, ',') FROM serversync.servers s
				WHERE (billing = 'on') <> EXISTS (SELECT FROM virtfusion_hourly_billing b WHERE b.virtfusion_server_id = s.virtfusion_id AND b.billing_enabled AND b.user_id = s.user_id)`)
			s.want("60", `SELECT count(*) FROM serversync.servers`)
			// The end of each story is what counts, whatever the order.
			inOrder := setup(t)
			stop = inOrder.run(1)
			inOrder.publish(inOrder.life(60)...)
			inOrder.drained(0)
			stop()
			state := `SELECT string_agg(concat_ws(' ', virtfusion_id, owner_id, CASE WHEN status <> 'gone' THEN user_id END, package_id, name, billing, billing_reason, status, updated_at), E'\n' ORDER BY virtfusion_id) FROM serversync.servers`
			wantSame(t, inOrder.text(state), s.text(state))
		})
	}
}

func TestSettlersShareTheWork(t *testing.T) {
	t.Parallel()
	s := setup(t)
	stop := s.run(1)
	for id := int64(1); id <= 700; id++ { // more than a batch
		s.publish(s.news(id, created, born(t0)))
	}
	s.drained(0)
	stop()
	s.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	if err := s.reconciler().SettleDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want("700", `SELECT count(*) FROM serversync.servers WHERE status = 'settling'`)

	s.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate)
		VALUES (7, 5, 5, 3, 'Small', 7.3, 0.01)`)
	s.pass(s.policy.SettleDelay)
	due := func() bool {
		return s.text(`SELECT count(*) FROM serversync.servers WHERE status = 'settling'`) != "0"
	}
	for due() { // what another settler holds is skipped, and looked at again
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := s.reconciler().SettleDue(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
	}
	s.want("700", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	s.want("700", `SELECT count(DISTINCT virtfusion_server_id) FROM virtfusion_hourly_billing`)
	s.want("699", `SELECT count(*) FROM virtfusion_hourly_transactions`)
	s.want("1", `SELECT count(*) FROM serversync.servers WHERE status = 'native'`)
	s.want("0", `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
}

func TestRunSettlerEndsCleanly(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := s.reconciler()
	go func() { done <- r.RunSettler(ctx) }()
	stop := s.run(1)
	s.publish(s.news(1, created))
	s.drained(0)
	stop()
	s.pass(s.policy.SettleDelay)
	s.until("the server is settled", func() bool { return s.text(`SELECT status FROM serversync.servers`) == "external" })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownFinishesTheBatchInHand(t *testing.T) {
	t.Parallel()
	s := setup(t)
	// Somebody else is deciding the server: the batch has to wait.
	holder, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.LockServers(t.Context(), holder, []int64{501}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	r := s.reconciler()
	go func() { done <- r.Run(ctx) }()
	s.publish(s.news(501), s.news(502))
	s.until("the batch waits for its lock", func() bool {
		return s.text(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == "1"
	})
	cancel()
	select {
	case err := <-done:
		t.Fatalf("Run left its batch: %v", err)
	default:
	}
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v", err)
	}
	s.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 501`)
	s.until("what was taken is acknowledged", func() bool {
		info, err := s.Consumer.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.NumAckPending == 0
	})
}

func TestPostgreSQLAwayLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startPostgreSQL(t, dir)
	dsn := server.DSN("postgres")
	database, err := db.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	if _, err := db.Migrate(t.Context(), database, db.MigrateOptions{CreateSkyPANEL: true}); err != nil {
		t.Fatal(err)
	}
	s := setupOn(t, database)
	stop := s.run(2)
	s.publish(s.news(1))
	s.drained(0)

	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all []*events.Event
	for id := int64(2); id <= 50; id++ {
		all = append(all, s.news(id))
	}
	s.publish(all...)
	s.until("the failure is noticed", func() bool { return strings.Contains(s.log.String(), "trying again") })
	server = startPostgreSQL(t, dir)
	if got := server.DSN("postgres"); got != dsn {
		t.Fatalf("the server moved from %s to %s", dsn, got)
	}
	s.drained(0)
	stop()
	s.want("50", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	s.want("50", `SELECT count(DISTINCT virtfusion_server_id) FROM virtfusion_hourly_billing`)
	s.want("0", `SELECT count(*) FROM serversync.faults`)
	if strings.Contains(s.log.String(), "cannot be reconciled") || len(s.buried()) > 0 {
		t.Errorf("an event was blamed for it: %s", s.log.String())
	}
}

func startPostgreSQL(t *testing.T, dir string) *pgserver.Server {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Config{Dir: dir, Durability: pgserver.Fast})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return server
}

func TestMatchUsesIndexes(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	s := setupOn(t, database)
	s.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, last_billed_at, reference_1)
		SELECT 7, id, id, 'uuid-' || id, 3, 'Small', 7.3, 0.01, now(), 'external_server_' || id FROM generate_series(1, 20000) id`)
	s.exec(`INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, user_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, 'uuid-' || id, 70, 7, 'external', '2026-01-01', 'sweep', 'x', '2026-01-01', '2026-01-01' FROM generate_series(1, 20000) id`)
	s.exec(`INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, last_billed_at, created_at, updated_at)
		SELECT id, virtfusion_server_id, 'serversync', 7, true, 3, 7.3, last_billed_at, now(), now() FROM virtfusion_hourly_billing`)
	s.exec(`ANALYZE`)
	r := s.reconciler()
	var batch []events.Event
	for id := int64(1); id <= 20; id++ {
		batch = append(batch, *s.news(id*900, packaged(large)))
	}
	tr.take()
	if err := r.process(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	all := tr.take()
	s.want("20", `SELECT count(*) FROM virtfusion_hourly_billing WHERE package_id = 4`)
	explained := 0
	for _, sent := range all {
		head := strings.ToUpper(strings.TrimSpace(sent.sql))
		if !strings.HasPrefix(head, "WITH") && !strings.HasPrefix(head, "SELECT") && !strings.HasPrefix(head, "UPDATE") {
			continue
		}
		plan := explain(t, database, sent)
		for _, table := range []string{"virtfusion_hourly_billing", "servers", "billing_rows"} {
			if strings.Contains(plan, "Seq Scan on "+table) {
				t.Errorf("it scans %s:\n%s\n%s", table, sent.sql, plan)
			}
		}
		if strings.Contains(plan, "serversync_billing_server_uuid") {
			explained++
		}
	}
	if explained != 1 {
		t.Errorf("%d statements match by UUID, want one", explained)
	}
}

func explain(t *testing.T, database *bun.DB, sent statement) string {
	t.Helper()
	tx, err := database.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	rows, err := tx.Tx.QueryContext(t.Context(), "EXPLAIN "+sent.sql, sent.args...)
	if err != nil {
		t.Fatalf("explain %s: %v", sent.sql, err)
	}
	defer func() { _ = rows.Close() }()
	var plan strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(line + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}
