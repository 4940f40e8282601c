package reconciler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
)

// undo takes back what a run did, as another run.
func (b *billed) undo(run string, servers ...int64) {
	b.t.Helper()
	b.undoOf(db.UndoOrder{RunID: run}, servers...)
}

func (b *billed) undoOf(order db.UndoOrder, servers ...int64) {
	b.t.Helper()
	b.undos++
	id := fmt.Sprintf("undo-%d", b.undos)
	b.startRun(id, servers...)
	b.exec(fmt.Sprintf(`UPDATE serversync.runs SET kind = 'undo' WHERE id = '%s'`, id))
	foreseen, err := b.r.PreviewUndo(b.t.Context(), order, servers)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.r.Undo(b.t.Context(), id, order, servers, "mia"); err != nil {
		b.t.Fatal(err)
	}
	b.want("0", fmt.Sprintf(`SELECT count(*) FROM serversync.run_items WHERE run_id = '%s' AND outcome IS NULL`, id))
	for i := range foreseen { // what a preview leaves is left
		b.want(foreseen[i].Left, fmt.Sprintf(`SELECT error FROM serversync.run_items WHERE run_id = '%s' AND virtfusion_id = %d`, id, foreseen[i].ServerID))
	}
}

// wantLeft checks what the last undo left of a server, in part.
func (b *billed) wantLeft(server int64, want string) {
	b.t.Helper()
	got := b.text(fmt.Sprintf(`SELECT coalesce(error, '') FROM serversync.run_items WHERE run_id = 'undo-%d' AND virtfusion_id = %d`, b.undos, server))
	if !strings.Contains(got, want) || want == "" && got != "" {
		b.t.Errorf("left of server %d: %q, want %q in it", server, got, want)
	}
}

// money are SkyPANEL's tables, but for when a row last changed.
func (b *billed) money() string {
	b.t.Helper()
	return b.text(`SELECT concat_ws(E'\n',
		(SELECT string_agg((to_jsonb(t) - 'updated_at')::text, E'\n' ORDER BY id) FROM virtfusion_hourly_billing t),
		(SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY id) FROM virtfusion_hourly_transactions t))`)
}

func TestUndoOfNewRows(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(500))
	before := b.money()
	b.pass(time.Minute)
	b.hear(b.news(501, by("r")), b.news(502, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501, 502)
	wantSame(t, before, b.money())
	b.wantServer(501, "external off operator 7")
	b.wantLeft(501, "")

	// Nothing makes them again, until an operator says so.
	b.pass(time.Minute)
	b.hear(b.news(501, named("b")), b.news(502, packaged(large)))
	b.review(501, 502)
	wantSame(t, before, b.money())
	after := b.dump()
	b.undo("r", 501, 502)
	wantSame(t, after, b.dump())
	b.exec(`DELETE FROM serversync.overrides`)
	b.review(501, 502)
	b.wantRows(502, "7 4 14.6000 on ours")
}

func TestUndoOfRowsThatWereCharged(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")), b.news(502, by("r")))
	b.pass(3 * time.Hour)
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false WHERE virtfusion_server_id = 502`) // not charged
	b.tick()
	b.want("0.03", `SELECT sum(amount_charged)::numeric(10,2) FROM virtfusion_hourly_transactions WHERE status = 'completed'`)
	b.undo("r", 501, 502)
	b.wantRows(501, "7 3 7.3000 off ours")
	b.wantLeft(501, "was charged 3 times since 2026-03-01")
	b.wantLeft(501, "$0.03 in all: see what of it user 7 gets back")
	b.wantLeft(502, "")
	b.want("failed", `SELECT DISTINCT status FROM virtfusion_hourly_transactions WHERE reference_1 IS NOT NULL`)
	b.want("501", `SELECT string_agg(virtfusion_id::text, ',') FROM serversync.history WHERE kind = 'refund_due'`)
	after := b.dump()
	b.pass(time.Hour)
	b.tick()
	b.undo("r", 501, 502)
	wantSame(t, after, b.dump())
	b.wantLeft(501, "$0.03 in all")
}

func TestUndoOfChanges(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		VALUES (7, 502, 502, 3, 'Small', 7.3, 0.01, '2026-03-01T13:00')`)
	b.hear(b.news(501), b.news(503), b.news(504), b.news(505))
	before := b.money()
	b.pass(time.Minute)
	moved := b.news(504, by("r"), ownedBy(owner8))
	b.hear(b.news(501, by("r"), packaged(large)), b.news(502, by("r")), b.news(503, by("r"), destroyed), moved, b.news(505, by("r"), packaged(large)))
	b.wantRows(501, "7 4 14.6000 on ours")
	b.exec(`UPDATE virtfusion_hourly_billing SET monthly_price = 20 WHERE virtfusion_server_id = 505`)
	b.pass(time.Minute)
	b.undo("r", 501, 502, 503, 504, 505)
	b.wantRows(501, "7 3 7.3000 on ours")
	b.wantLeft(501, "")
	b.want("null", `SELECT coalesce(server_uuid, 'null') FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 502`)
	b.wantServer(502, "native on 7")
	b.wantRows(503, "7 3 7.3000 off ours")
	b.wantLeft(503, "stays off: the server is gone")
	b.wantRows(504, "7 3 7.3000 off ours")
	b.wantServer(504, "external off operator 8")
	b.wantLeft(504, "the server does not belong to user 7 any more")
	b.wantRows(505, "7 4 14.6000 on ours") // rows of ours follow the price
	b.wantLeft(505, "was decided anew, by what is so now")

	// What was put back stays, whatever comes; what ends, ends.
	b.pass(time.Minute)
	b.hear(b.news(501, packaged(large), named("b")), b.news(502, named("b")))
	b.review(501, 502)
	b.wantRows(501, "7 3 7.3000 on ours")
	b.wantServer(501, "external on 7")
	b.want("null", `SELECT coalesce(server_uuid, 'null') FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 502`)
	b.exec(`DELETE FROM virtfusion_hourly_billing WHERE virtfusion_server_id IN (503, 504, 505); DELETE FROM virtfusion_hourly_transactions WHERE server_id IN (503, 504, 505)`)
	for line := range strings.SplitSeq(b.money(), "\n") {
		if !strings.Contains(before, line) {
			t.Errorf("was not there before: %s", line)
		}
	}
	b.undo("undo-1", 501) // an undo can be taken back too
	b.wantRows(501, "7 4 14.6000 on ours")
	b.pass(time.Minute)
	b.hear(b.news(502, destroyed))
	b.want("false", `SELECT billing_enabled::text FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 502`)
}

func TestUndoOfWishes(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(502)
	b.hear(b.news(501), b.news(502))
	before := b.money()
	turn := func(run, kind string, drop ...string) {
		t.Helper()
		b.startRun(run, 501, 502)
		change := db.WishChange{Set: kind, Drop: drop}
		tx, err := b.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.ChangeWishes(t.Context(), tx, []int64{501, 502}, change, db.NewWish("mia", "why", b.clock()), run); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.r.RedecideFor(t.Context(), run, []int64{501, 502}); err != nil {
			t.Fatal(err)
		}
	}
	turn("bulk-1", db.WishBillingOff)
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	b.undo("bulk-1", 501, 502)
	b.want("0", `SELECT count(*) FROM serversync.overrides`)
	b.want("2026-03-01T13:00:00Z", `SELECT last_billed_at FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 502`) // no gap is charged
	b.exec(`UPDATE virtfusion_hourly_billing SET last_billed_at = NULL WHERE virtfusion_server_id = 502`)
	wantSame(t, before, b.money())

	turn("bulk-2", db.WishBillingOff)
	b.wish(501, "ignore")
	b.undo("bulk-2", 501, 502)
	b.wantLeft(501, "what operators want of it was changed again since")
	b.wantRows(501, "7 3 7.3000 off ours")
	b.wantServer(502, "native on 7")
}

func TestUndoOfOneChange(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, packaged(large)))
	at, err := db.LastChange(t.Context(), b.db, 501)
	if err != nil || !at.Equal(b.clock()) {
		t.Fatalf("%s, %v", at, err)
	}
	b.pass(time.Minute)
	b.undoOf(db.UndoOrder{ServerID: 501, At: at}, 501)
	b.wantRows(501, "7 3 7.3000 on ours")
	if _, err := db.LastChange(t.Context(), b.db, 502); err != db.ErrNoChange { //nolint:errorlint // it is not wrapped
		t.Errorf("a server that nobody knows: %v", err)
	}
}

// TestUndoRestoresTheBooks has random runs taken back within the hour: where
// nobody charged, SkyPANEL's tables are what they were. (A row that was off at
// first, and that the run's second step switched on, is due at once: it is not
// deleted then, since SkyPANEL's job may be about to charge it.)
func TestUndoRestoresTheBooks(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	random := rand.New(rand.NewPCG(7, 2026))
	next := int64(1000)
	for round := range 25 {
		var servers []int64
		var was, is []*events.Event
		old := make(map[int64]bool) // what VirtFusion bills by now is not switched on again
		edits := func(id int64, off bool) []func(*events.Event) {
			all := []func(*events.Event){by(fmt.Sprintf("r%d", round))}
			some := []func(*events.Event){named("n"), packaged(large), packaged(unpriced), func(e *events.Event) { e.Server.SelfService = new(int64(1)) }}
			switch {
			case !off:
				some = some[:2]
			case old[id]:
				some = some[:3]
			}
			for _, edit := range some {
				if random.IntN(2) == 0 {
					all = append(all, edit)
				}
			}
			return all
		}
		for range 8 {
			next++
			servers = append(servers, next)
			kind := random.IntN(4)
			old[next] = kind < 3
			switch kind {
			case 0:
				was = append(was, b.news(next))
			case 1:
				b.skypanelOrders(next)
				was = append(was, b.news(next))
			case 2: // a row without a UUID, which is switched off or on
				b.exec(fmt.Sprintf(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, last_billed_at)
					VALUES (7, %[1]d, %[1]d, 3, 'Small', 7.3, 0.01, %[2]t, '%[3]s')`, next, random.IntN(2) == 0, b.clock().Add(time.Hour).Format(time.DateTime)))
			}
		}
		if len(was) > 0 {
			b.hear(was...)
		}
		before := b.money()
		b.pass(time.Second)
		for _, id := range servers {
			is = append(is, b.news(id, edits(id, round%2 == 1)...))
		}
		b.hear(is...)
		if round%2 == 0 { // in two steps
			b.pass(time.Second)
			for i, id := range servers {
				is[i] = b.news(id, edits(id, true)...)
			}
			b.hear(is...)
		}
		b.pass(time.Second)
		b.undo(fmt.Sprintf("r%d", round), servers...)
		wantSame(t, before, b.money())
		b.review(servers...)
		wantSame(t, before, b.money())
	}
}
