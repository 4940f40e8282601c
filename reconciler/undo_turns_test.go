package reconciler

import (
	"testing"
	"time"

	"serversync/db"
)

// The package's price is taken away and comes back while keep holds the row's
// price: no gap is charged.
func TestKeepThenUnpriced(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Hour)
	b.tick()
	b.exec(`CREATE TABLE kept AS SELECT * FROM package_pricing WHERE virtfusion_package_id = 3; DELETE FROM package_pricing WHERE virtfusion_package_id = 3`)
	b.review(501)
	b.pass(10 * time.Hour)
	b.review(501)
	b.exec(`INSERT INTO package_pricing SELECT * FROM kept`)
	b.review(501)
	b.wantTaken("501/7 1h=1")
}

// A server of ours becomes self service while keep holds it: VirtFusion bills it
// itself from now on, and SkyPANEL does not.
func TestKeepThenSelfService(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.pass(time.Hour)
	b.hear(b.news(501, packaged(large), selfService))
	b.wantServer(501, "external off self_service 7")
}

// The undo of a run whose row SkyPANEL switched off meanwhile, by its API error:
// nothing switches it on again.
func TestUndoOfARowThatSkyPANELDisabled(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false`)
	b.pass(time.Minute)
	b.undo("r", 501)
	b.want("false", `SELECT billing_enabled::text FROM virtfusion_hourly_billing`)
	b.pass(time.Minute)
	b.undo("undo-1", 501)
	b.want("false", `SELECT billing_enabled::text FROM virtfusion_hourly_billing`)
	b.undo("undo-2", 501)
	b.want("false", `SELECT billing_enabled::text FROM virtfusion_hourly_billing`)
}

// A run in two decisions: what it switched off and on again is as before.
func TestUndoOfOffAndOn(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	before := b.money()
	b.pass(time.Minute)
	b.hear(b.news(501, by("r"), selfService))
	b.pass(time.Minute)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501)
	b.wantLeft(501, "")
	b.wantRows(501, "7 3 7.3000 on ours")
	wantSame(t, before, b.money())
}

// Many servers of one undo: the items complete, also of those that are unknown.
func TestUndoOfUnknownServers(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")))
	b.pass(time.Minute)
	b.undo("r", 501, 999)
	b.undoOf(db.UndoOrder{RunID: "no-such-run"}, 501, 998)
}

// Undo at the very end of the first hour, SkyPANEL's job between.
func TestUndoAtTheEndOfTheFirstHour(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, by("r")))
	b.pass(time.Hour)
	b.undo("r", 501)
	b.wantTaken("")
	b.pass(time.Hour)
	b.undo("undo-1", 501)
	b.pass(30 * time.Minute)
	b.tick()
	b.undo("undo-2", 501)
	b.wantNoHourTwice()
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

// An operator had a row switched on that was off; taken back, it is as it was, and
// so is until when it was billed.
func TestUndoOfBillingOnRestoresUntilWhenItWasBilled(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, selfService))
	b.wantServer(501, "external off self_service 7")
	before := b.money()
	b.pass(10 * time.Hour)
	b.bulkTurn("bulk", db.WishBillingOn, nil, 501)
	b.wantServer(501, "external on 7")
	b.pass(time.Second)
	b.undo("bulk", 501)
	wantSame(t, before, b.money())
	b.wantLeft(501, "")
}

// A run gave a server a package with a price, so that it was billed; taken back,
// the row has its former package, too.
func TestUndoOfAPackageThatIsBilled(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501, packaged(unpriced)))
	b.wantServer(501, "external off unpriced 7")
	before := b.money()
	b.pass(10 * time.Hour)
	b.hear(b.news(501, by("r"), packaged(large)))
	b.wantServer(501, "external on 7")
	b.pass(time.Second)
	b.undo("r", 501)
	wantSame(t, before, b.money())
	b.wantLeft(501, "")
	b.review(501)
	wantSame(t, before, b.money())
}

// That what was undone concerned another owner, so that the wish lapses, is written
// and is foreseen.
func TestPreviewOfALapsingWish(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`INSERT INTO serversync.overrides (virtfusion_id, kind, user_id) VALUES (501, 'undone', 8)`)
	if effects := b.preview([]int64{501}); len(effects) != 1 || !effects[0].Changes || effects[0].Effect != db.EffectNone {
		t.Errorf("the preview is %+v", effects)
	}
	b.review(501)
	b.want("0", `SELECT count(*)::text FROM serversync.overrides`)
	if effects := b.preview([]int64{501}); len(effects) != 1 || effects[0].Changes {
		t.Errorf("the preview afterwards is %+v", effects)
	}
}
