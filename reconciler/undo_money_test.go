package reconciler

import (
	"strconv"
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
)

func selfService(e *events.Event) { e.Server.SelfService = new(int64(1)) }

// bulkTurn is a bulk action: a wish, and the decisions after it.
func (b *billed) bulkTurn(run, kind string, drop []string, ids ...int64) {
	b.t.Helper()
	b.startRun(run, ids...)
	tx, err := b.db.BeginTx(b.t.Context(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := db.ChangeWishes(b.t.Context(), tx, ids, db.WishChange{Set: kind, Drop: drop}, db.NewWish("mia", "why", b.clock()), run); err != nil {
		b.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		b.t.Fatal(err)
	}
	b.pass(time.Second)
	if _, err := b.r.RedecideFor(b.t.Context(), run, ids); err != nil {
		b.t.Fatal(err)
	}
}

// Undo of a move, after the server has come back to its first owner by itself: the
// first owner's row, which the run did not make, stays.
func TestUndoOfAMoveThatWentBack(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(90 * time.Minute)
	b.tick()
	b.hear(b.news(501, by("r"), ownedBy(owner8)))
	b.pass(time.Minute)
	b.hear(b.news(501)) // back to 7, nothing to do with r
	b.wantServer(501, "external on 7")
	b.pass(time.Minute)
	b.undo("r", 501)
	b.wantServer(501, "external on 7")
}

// Undo of a creation, then the server goes to another owner, who is billed.
func TestUndoneServerMoves(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Hour)
	b.hear(b.news(501, ownedBy(owner8)))
	b.wantServer(501, "external on 8")
}

// Undone, then moved back to an owner who was billed before the run.
func TestUndoneMoveThenBack(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(90 * time.Minute)
	b.tick()
	b.hear(b.news(501, by("r"), ownedBy(owner8)))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Hour)
	b.hear(b.news(501))
	b.wantServer(501, "external on 7")
}

// Keep must not let a gap be charged: the customer is inactive for ten hours.
func TestKeepThenInactive(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.wantRows(501, "7 3 7.3000 on ours")
	b.pass(time.Hour)
	b.tick()
	b.exec(`UPDATE users SET is_active = false WHERE id = 7`)
	b.review(501)
	b.pass(10 * time.Hour)
	b.review(501)
	b.exec(`UPDATE users SET is_active = true WHERE id = 7`)
	b.review(501)
	b.wantTaken("501/7 1h=1")
}

// The same by the billing mode: ten hours of monthly mode.
func TestKeepThenMonthly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Hour)
	b.tick()
	b.exec(monthly)
	b.review(501)
	b.pass(10 * time.Hour)
	b.review(501)
	b.exec(`UPDATE settings SET value = 'true' WHERE key = 'virtfusion_self_service_hourly_credit'`)
	b.review(501)
	b.wantTaken("501/7 1h=1")
}

// A run switched billing off since VirtFusion bills the server itself; taken
// back, it stays off, or the customer would pay both.
func TestUndoOfSelfService(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), selfService))
	b.wantServer(501, "external off self_service 7")
	b.pass(time.Minute)
	b.undo("r", 501)
	b.wantRows(501, "7 3 7.3000 off ours")
}

// The customer is not active: a row that is switched on would gather a gap.
func TestUndoOfInactive(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.exec(`UPDATE users SET is_active = false WHERE id = 7`)
	b.hear(b.news(501, by("r")))
	b.wantServer(501, "external off owner_inactive 7")
	b.pass(time.Minute)
	b.undo("r", 501)
	b.review(501)
	b.pass(10 * time.Hour)
	b.exec(`UPDATE users SET is_active = true WHERE id = 7`)
	b.review(501)
	got := b.taken()
	if got != "" && got != "501/7 1h=1" {
		t.Errorf("the job took %s", got)
	}
}

// An operator wanted billing off after the run: undo of the run does not switch it on.
func TestUndoAgainstALaterWish(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), selfService))
	b.pass(time.Minute)
	b.bulkTurn("bulk", db.WishBillingOff, nil, 501)
	b.wantServer(501, "external off operator 7")
	b.pass(time.Minute)
	b.undo("r", 501)
	b.wantRows(501, "7 3 7.3000 off ours")
	b.review(501)
	b.wantRows(501, "7 3 7.3000 off ours")
}

// Undo of an operator's billing-on: the row was off before.
func TestUndoOfBillingOn(t *testing.T) {
	t.Parallel()
	for _, native := range []bool{false, true} {
		t.Run(strconv.FormatBool(native), func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			if native {
				b.skypanelOrders(501)
			}
			b.hear(b.news(501))
			b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false`)
			b.review(501)
			b.bulkTurn("bulk", db.WishBillingOn, nil, 501)
			b.want("true", `SELECT billing_enabled::text FROM virtfusion_hourly_billing`)
			b.pass(time.Minute)
			b.undo("bulk", 501)
			b.wantLeft(501, "")
			b.want("false", `SELECT billing_enabled::text FROM virtfusion_hourly_billing`)
		})
	}
}

// Two of SkyPANEL's rows were closed at a (false) end; taken back, one is on.
func TestUndoOfAnEndOfTwoRows(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(501)
	b.skypanelOrders(501)
	b.hear(b.news(501))
	b.wantServer(501, "conflict on")
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), destroyed))
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	b.pass(time.Minute)
	b.hear(b.news(501, func(e *events.Event) { e.Source = events.SourceRefetch }))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

// Settling when the run is undone: it makes no row.
func TestUndoWhileSettling(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r"), created))
	b.wantServer(501, "settling off 7")
	b.undo("r", 501)
	b.pass(time.Hour)
	b.settle(b.r)
	b.want("0", `SELECT count(*) FROM serversync.billing_rows WHERE run_id = 'r'`)
}

// A row that was undone while the server is in conflict: what is known says so.
func TestUndoInConflict(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.exec(`UPDATE users SET virtfusion_id = 70 WHERE id = 8`)
	b.review(501)
	b.undo("r", 501)
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	b.want("off", `SELECT billing FROM serversync.servers`)
}

// Undo of an undo: the row is made again, and the words say that.
func TestUndoOfUndoOfCreation(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Minute)
	b.undo("undo-1", 501)
	b.wantServer(501, "external on 7")
	b.wantLeft(501, "")
	b.pass(time.Minute)
	b.undo("undo-2", 501)
	b.wantServer(501, "external off operator 7")
	b.wantLeft(501, "")
}

// SkyPANEL disables a native row under keep: the loss must be told.
func TestKeepHidesALeak(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		VALUES (7, 501, 501, 3, 'Small', 7.3, 0.01, '2026-03-01T13:00')`)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501) // the UUID that was filled in
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false`)
	b.pass(time.Minute)
	b.review(501)
	b.wantServer(501, "native off disabled_by_skypanel 7")
	report, err := db.Audit(t.Context(), b.db, db.AuditQuery{Now: b.clock(), Since: b.clock().Add(-time.Hour), BackBillHours: 24, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Findings) == 0 {
		t.Error("the watchdog says nothing")
	}
}

// Destroyed, rebuilt under the same id after an undo of the creation long ago.
func TestUndoneAndReborn(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.hear(b.news(501, destroyed))
	b.pass(24 * time.Hour)
	b.hear(b.news(501, func(e *events.Event) { e.Source = events.SourceSweep }))
	b.wantServer(501, "external on 7")
}

// Keep is of the rows of one owner: the next one is to be billed.
func TestKeptServerMoves(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Hour)
	b.hear(b.news(501, ownedBy(owner8)))
	b.wantServer(501, "external on 8")
}

// Undo pressed again on one server takes nothing more back.
func TestUndoOfOneServerTwice(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	for range 2 {
		b.pass(time.Minute)
		at, err := db.LastChange(t.Context(), b.db, 501)
		if err != nil {
			t.Fatal(err)
		}
		b.undoOf(db.UndoOrder{ServerID: 501, At: at}, 501)
	}
	b.wantServer(501, "external off operator 7")
}

// While only observing, an undo takes nothing back, says so, and leaves no wish.
func TestUndoWhileObserving(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	policy := b.r.policy
	policy.ObserveOnly = true
	full := b.r
	b.r = b.other(policy)
	b.pass(time.Minute)
	b.undo("r", 501)
	b.wantLeft(501, "nothing is taken back while OBSERVE_ONLY is set")
	b.r = full
	b.pass(time.Minute)
	b.review(501)
	b.wantRows(501, "7 4 14.6000 on ours")
	b.want("0", `SELECT count(*) FROM serversync.overrides`)
}
