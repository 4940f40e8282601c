package reconciler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/events"
)

// startRun makes a run whose items of these servers were handed on.
func (s *system) startRun(id string, servers ...int64) {
	s.t.Helper()
	s.exec(fmt.Sprintf(`INSERT INTO serversync.runs (id, kind, state, started_at, beat_at) VALUES ('%s', 'bulk', 'running', '2026-03-01', '2026-03-01')`, id))
	for _, server := range servers {
		s.exec(fmt.Sprintf(`INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, event) VALUES ('%s', %d, 'changed', 'sent', '{}')`, id, server))
	}
}

// wantItems checks the items of a run: "server outcome", in order.
func (s *system) wantItems(run, want string) {
	s.t.Helper()
	s.want(want, fmt.Sprintf(`SELECT string_agg(concat_ws(' ', virtfusion_id, CASE state WHEN 'done' THEN outcome ELSE state END), ', ' ORDER BY virtfusion_id)
		FROM serversync.run_items WHERE run_id = '%s'`, run))
}

// Each item of a run gets the outcome of its server, in the same transaction;
// the first outcome stands.
func TestItemsAreCompleted(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(502), b.news(503), b.news(504))
	b.skypanelOrders(504)
	b.startRun("sweep-1", 501, 502, 503, 504, 505)
	b.startRun("sweep-2", 501, 503)
	b.pass(time.Second)
	first, second := b.news(501, by("sweep-1")), b.news(502, by("sweep-1"), packaged(large))
	overtaken := b.news(503, by("sweep-1"), named("b"))
	withdrawn := b.news(504, by("sweep-1"))
	b.pass(time.Second)
	latest := b.news(503, by("sweep-2"), named("c"))
	all := []*events.Event{first, second, overtaken, withdrawn, latest}
	b.hear(all...)
	b.wantItems("sweep-1", "501 new, 502 updated, 503 unchanged, 504 updated, 505 sent")
	b.wantItems("sweep-2", "501 sent, 503 unchanged")
	before := b.dump()
	b.pass(time.Hour)
	b.hear(all...)
	wantSame(t, before, b.dump())
	b.wantItems("sweep-1", "501 new, 502 updated, 503 unchanged, 504 updated, 505 sent")
	b.want("0", `SELECT count(*) FROM serversync.run_items WHERE state = 'done' AND event IS NOT NULL`)

	// An observation that is older than what is known completes its item too.
	late := b.news(501, by("sweep-2"))
	late.ObservedAt, late.Server.UpdatedAt = t0.Add(-time.Hour), new(t0.Add(-time.Hour))
	b.hear(late)
	b.wantItems("sweep-2", "501 unchanged, 503 unchanged")
	b.want("sweep-1", `SELECT run_id FROM serversync.billing_rows WHERE virtfusion_id = 501`)
	b.want("sweep-1", `SELECT string_agg(DISTINCT run_id, ',') FROM serversync.history WHERE virtfusion_id = 501`)
}

// Of a batch that fails, no item is completed; of its good halves, all are.
func TestItemsOfABatchThatFails(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.startRun("sweep-1", 1, 2, 3, 4, 5)
	s.exec(`ALTER TABLE serversync.servers ADD CONSTRAINT refused CHECK (virtfusion_id <> 3)`)
	r := s.reconciler()
	r.retryDelay = func(int) time.Duration { return time.Millisecond }
	s.start(r)
	for id := int64(1); id <= 5; id++ {
		s.publish(s.news(id, by("sweep-1")))
	}
	s.until("the bad one is given up", func() bool { return len(s.buried()) == 1 })
	s.drained(0)
	s.wantItems("sweep-1", "1 new, 2 new, 3 failed, 4 new, 5 new")
	s.want("true", `SELECT bool_and(error LIKE '%refused%dead letter%requeue%') FROM serversync.run_items WHERE outcome = 'failed'`)
	if log := s.log.String(); strings.Contains(log, "could not be written") {
		t.Errorf("the log says %s", log)
	}

	// Requeued and done at last, it does not count again.
	s.exec(`ALTER TABLE serversync.servers DROP CONSTRAINT refused`)
	s.publish(s.news(3, by("sweep-1"), named("b")))
	s.drained(0)
	s.wantItems("sweep-1", "1 new, 2 new, 3 failed, 4 new, 5 new")
}

// The row of a server that settled belongs to the run that found it.
func TestSettledRowBelongsToItsRun(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.startRun("sweep-1", 501)
	b.hear(b.news(501, by("sweep-1"), born(t0)), b.bornNow(502))
	b.wantItems("sweep-1", "501 unchanged")
	b.want("sweep-1", `SELECT string_agg(run_id, ',') FROM serversync.servers`)
	b.pass(b.policy.SettleDelay)
	b.settle(b.r)
	b.want("501 sweep-1, 502", `SELECT string_agg(concat_ws(' ', virtfusion_id, run_id), ', ' ORDER BY virtfusion_id) FROM serversync.billing_rows`)
	b.want("billing_created,decided", `SELECT string_agg(kind, ',' ORDER BY id) FROM serversync.history WHERE source = 'settler' AND run_id = 'sweep-1'`)
	b.want("2", `SELECT count(*) FROM serversync.history WHERE source = 'settler' AND run_id IS NULL`)
	b.want("2", `SELECT count(*) FROM serversync.servers WHERE run_id IS NULL`)
	b.wantItems("sweep-1", "501 unchanged")
}

// On behalf of a run, servers are decided as if nothing were waited for.
func TestRedecideFor(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501), b.news(502), b.news(503), b.news(504))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	b.exec(`DELETE FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 504`)
	b.startRun("sweep-1", 501, 503, 504, 777)
	b.r.hold(t, "sweep-1", []int64{501, 502, 503, 504})
	b.exec(`ALTER TABLE serversync.history ADD CONSTRAINT refused CHECK (virtfusion_id <> 503 OR source <> 'books') NOT VALID`)
	b.review(501, 502, 503, 504)
	b.wantRows(501, "7 3 7.3000 on ours")
	changed, err := b.r.RedecideFor(t.Context(), "sweep-1", []int64{777, 503, 501, 504})
	if err != nil || changed != 2 {
		t.Errorf("%d changed: %v", changed, err)
	}
	b.wantItems("sweep-1", "501 updated, 503 failed, 504 new, 777 unchanged")
	b.want("true", `SELECT bool_and(error LIKE '%refused%log%') FROM serversync.run_items WHERE outcome = 'failed'`)
	b.wantRows(501, "7 3 14.6000 on ours")
	b.wantRows(502, "7 3 7.3000 on ours")
	b.want("502 503", `SELECT string_agg(virtfusion_id::text, ' ' ORDER BY virtfusion_id) FROM serversync.servers WHERE awaiting_run = 'sweep-1'`)
	b.want("sweep-1", `SELECT run_id FROM serversync.billing_rows WHERE virtfusion_id = 504 AND closed_reason IS NULL AND enabled AND billing_id IN (SELECT id FROM virtfusion_hourly_billing)`)
	b.want("billing_changed,decided", `SELECT string_agg(kind, ',' ORDER BY id) FROM serversync.history WHERE virtfusion_id = 501 AND source = 'books' AND run_id = 'sweep-1'`)
}

// The statements that complete items are one for a batch, and none where no run
// is concerned.
func TestStatementsOfCompletion(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	s := setupOn(t, database)
	s.startRun("sweep-1", 3, 4)
	r := s.reconciler()
	for want, all := range [][]*events.Event{{s.news(1), s.news(2)}, {s.news(3, by("sweep-1")), s.news(4, by("sweep-1"))}} {
		tr.take()
		hearWith(t, r, all...)
		got := 0
		for _, sent := range tr.take() {
			if strings.Contains(sent.sql, "run_items") {
				got++
			}
		}
		if got != want {
			t.Errorf("%d statements, want %d", got, want)
		}
	}
}
