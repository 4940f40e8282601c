package reconciler

import (
	"testing"
	"time"

	"serversync/db"
	"serversync/events"
)

// A bulk action on a server that is kept, taken back: keep comes back, and so
// must what the action changed of the row.
func TestUndoOfABulkActionOnAKeptServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind string
	}{"package": {db.WishPackage}, "billing off": {db.WishBillingOff}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			b.hear(b.news(501))
			b.pass(time.Minute)
			b.hear(b.news(501, by("r"), packaged(large)))
			b.pass(time.Minute)
			b.undo("r", 501)
			b.wantRows(501, "7 3 7.3000 on ours")
			b.pass(time.Minute)
			change := db.WishChange{Set: c.kind, Drop: []string{db.WishKeep, db.WishBillingOn}}
			if c.kind == db.WishPackage {
				change.PackageID = new(int64(large))
			}
			b.startRun("bulk", 501)
			tx, err := b.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.ChangeWishes(t.Context(), tx, []int64{501}, change, db.NewWish("mia", "why", b.clock()), "bulk"); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if _, err := b.r.RedecideFor(t.Context(), "bulk", []int64{501}); err != nil {
				t.Fatal(err)
			}
			b.pass(time.Minute)
			b.undo("bulk", 501)
			b.wantLeft(501, "")
			b.review(501)
			b.wantRows(501, "7 3 7.3000 on ours")
		})
	}
}

// Two servers, one run that moved a server away and back; and a run that is
// undone after a later one moved the server on: user 8's row is not of user 9.
func TestUndoOfTheFirstOfTwoMoves(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO users (id, email, username, password, full_name, virtfusion_id, is_active) VALUES (9, 'z@x.test', 'z', '!', 'Z', 95, true)`)
	b.hear(b.news(501))
	b.pass(90 * time.Minute)
	b.tick()
	b.hear(b.news(501, by("r1"), ownedBy(owner8)))
	b.pass(90 * time.Minute)
	b.tick()
	b.hear(b.news(501, by("r2"), ownedBy(95)))
	b.wantServer(501, "external on 9")
	b.pass(time.Minute)
	b.undo("r1", 501) // must not end user 9's billing
	b.wantServer(501, "external on 9")
}

// The undo of a run that created rows, redelivered while SkyPANEL switches rows.
func TestRedeliveryAfterUndo(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	e := b.news(501, by("r"))
	b.hear(e)
	b.pass(time.Minute)
	b.undo("r", 501)
	before := b.dump()
	again := *e
	b.hear(&again)
	again = *e
	again.RunID = "r"
	b.hear(&again)
	wantSame(t, before, b.dump())
	b.settle(b.r)
	wantSame(t, before, b.dump())
}

// A preview of an undo says what the undo then does to what is billed.
func TestPreviewOfUndo(t *testing.T) {
	t.Parallel()
	for name, edits := range map[string][]func(*events.Event){
		"created":      nil,
		"self service": {selfService},
		"moved":        {ownedBy(owner8)},
		"package":      {packaged(large)},
		"destroyed":    {destroyed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			if edits != nil {
				b.hear(b.news(501))
				b.pass(time.Minute)
			}
			b.hear(b.news(501, append(edits, by("r"))...))
			b.pass(time.Minute)
			effects, err := b.r.PreviewUndo(t.Context(), db.UndoOrder{RunID: "r"}, []int64{501})
			if err != nil {
				t.Fatal(err)
			}
			b.undo("r", 501)
			sum := b.text(`SELECT coalesce(sum(monthly_price) FILTER (WHERE billing_enabled), 0)::numeric(10,2)::text FROM virtfusion_hourly_billing`)
			e := effects[0]
			if e.ListAfter.StringFixed(2) != sum {
				t.Errorf("foreseen %s, is %s", e.ListAfter, sum)
			}
			if on := b.text(`SELECT billing FROM serversync.servers`); on != e.Billing {
				t.Errorf("foreseen %s, is %s", e.Billing, on)
			}
		})
	}
}
