package reconciler

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"serversync/db"
	"serversync/events"
	"serversync/internal/skypanel"
)

// bill is what a billing row says.
type bill struct {
	user, packageID, hours int64
	on                     bool
	collected              bool // SkyPANEL's job finds the row when it is on
	price                  string
}

// effective is what SkyPANEL charges of it a month.
func (b *bill) effective() decimal.Decimal {
	if !b.on || !b.collected {
		return decimal.Zero
	}
	return skypanel.EffectiveMonthly(decimal.RequireFromString(b.price), b.hours)
}

// happened is what was seen to happen to a server's books.
type happened struct {
	before, after map[int64]bill
	lines         map[LineKind][]int64 // rows of the lines, by kind
	state         State                // afterwards
	owned         int64                // by whom it was, 0: not known to us
}

// effect says in one word what happened.
func (h *happened) effect() string {
	created := false
	for id := range h.after {
		if _, was := h.before[id]; !was {
			created = true
		}
	}
	var moved, ended, changed bool
	for id, was := range h.before {
		now, stays := h.after[id]
		closed := slices.Contains(h.lines[LineClosed], id)
		withdrawn := slices.Contains(h.lines[LineWithdrawn], id)
		switch off := was.on && !now.on; {
		case off && closed && h.state.Status != StatusGone && (created || h.state.UserID != nil || h.owned != h.state.OwnerID):
			moved = true
		case off && (closed || withdrawn || h.state.Reason == ReasonOperator):
			ended = true
		case stays && was != now && !withdrawn:
			changed = true
		}
	}
	switch {
	case moved:
		return db.EffectMove
	case created:
		return db.EffectCreate
	case ended:
		return db.EffectEnd
	case changed:
		return db.EffectChange
	}
	return db.EffectNone
}

// check compares what was foreseen with what happened.
func (h *happened) check(t rapid.TB, e *db.RunEffect, changed bool) {
	t.Helper()
	if strings.HasPrefix(e.Why, ifConfirmed) { // what happens hangs on VirtFusion's answer
		if h.effect() != db.EffectNone || h.state.Ask != askStranger {
			t.Errorf("before VirtFusion was asked %s happened: %s", h.effect(), h.state.Ask)
		}
		return
	}
	sum := func(bills map[int64]bill) (list, effective decimal.Decimal) {
		for _, b := range bills {
			if b.on {
				price := decimal.RequireFromString(b.price)
				list = list.Add(price)
				effective = effective.Add(b.effective())
			}
		}
		return list, effective
	}
	if got := h.effect(); e.Effect != got {
		t.Errorf("foreseen %q, happened %q: %+v\nfrom %+v\nto %+v\nlines %v, %s", e.Effect, got, e, h.before, h.after, h.lines, h.state.Note)
	}
	list, effective := sum(h.before)
	if !e.ListBefore.Equal(list) || !e.EffectiveBefore.Equal(effective) {
		t.Errorf("before: foreseen %s and %s, was %s and %s", e.ListBefore, e.EffectiveBefore, list, effective)
	}
	list, effective = sum(h.after)
	if !e.ListAfter.Equal(list) || !e.EffectiveAfter.Equal(effective) {
		t.Errorf("after: foreseen %s and %s, is %s and %s", e.ListAfter, e.EffectiveAfter, list, effective)
	}
	s := &h.state
	if (e.Billing == billingOn) != s.BillingOn || e.Reason != string(s.Reason) || e.ServerID != s.ID || e.Name != s.Name ||
		(e.UserID == nil) != (s.UserID == nil) || s.UserID != nil && *e.UserID != *s.UserID {
		t.Errorf("foreseen %+v, is %+v", e, s)
	}
	if e.Changes != changed {
		t.Errorf("foreseen that something is written: %v; it was: %v: %+v", e.Changes, changed, e)
	}
	if e.Why == "" && changed {
		t.Errorf("nobody says why: %+v", e)
	}
}

// checkShares compares what was foreseen for each customer with what happened.
func (h *happened) checkShares(t rapid.TB, e *db.RunEffect) {
	t.Helper()
	changes := make(map[int64]decimal.Decimal)
	for _, side := range []struct {
		bills map[int64]bill
		sign  int64
	}{{h.before, -1}, {h.after, 1}} {
		for _, b := range side.bills {
			changes[b.user] = changes[b.user].Add(b.effective().Mul(decimal.NewFromInt(side.sign)))
		}
	}
	var rows db.RowChanges
	for _, share := range e.Shares {
		if got := share.Change(); !got.Equal(changes[share.UserID]) {
			t.Errorf("for user %d %s more a month were foreseen, it is %s: %+v", share.UserID, got, changes[share.UserID], e)
		}
		delete(changes, share.UserID)
		rows.Created += share.Rows.Created
		rows.Enabled += share.Rows.Enabled
		rows.Ended += share.Rows.Ended + share.Rows.Withdrawn + share.Rows.Moved + share.Rows.Disabled
	}
	for user, change := range changes {
		if !change.IsZero() {
			t.Errorf("nobody foresaw that user %d pays %s more a month: %+v", user, change, e)
		}
	}
	var seen db.RowChanges
	for id, now := range h.after {
		was, known := h.before[id]
		switch {
		case !known:
			seen.Created++
		case !was.on && now.on:
			seen.Enabled++
		}
	}
	for id, was := range h.before {
		if was.on && !h.after[id].on {
			seen.Ended++
		}
	}
	if rows != seen {
		t.Errorf("rows that come, go on and go off: %+v were foreseen, %+v did: %+v", rows, seen, e)
	}
}

// billing is what the rows that match the usual server say, by their ids.
func (b *books) billing() map[int64]bill {
	bills := make(map[int64]bill)
	for _, m := range b.rows {
		_, collected := b.prices[m.PackageID]
		collected = collected && slices.ContainsFunc(b.users, func(u User) bool { return u.ID == m.UserID && u.Active })
		bills[m.ID] = bill{m.UserID, m.PackageID, *m.HoursInMonth, *m.BillingEnabled, collected, m.MonthlyPrice.String()}
	}
	return bills
}

func checkForeseen(t *rapid.T, o *outlook, d *Decision, before, after map[int64]bill, known *State) {
	h := happened{before: before, after: after, lines: make(map[LineKind][]int64), state: d.State}
	for _, l := range d.Lines {
		h.lines[l.Kind] = append(h.lines[l.Kind], l.RowID)
	}
	if known != nil {
		h.owned = known.OwnerID
	}
	e := o.RunEffect
	if strings.HasPrefix(e.Why, ifConfirmed) {
		h.check(t, &e, writesAnything(d))
		return
	}
	e.ListBefore, e.ListAfter = decimal.Zero, decimal.Zero // rows of other servers are among the books
	e.EffectiveBefore, e.EffectiveAfter = decimal.Zero, decimal.Zero
	delta := func(foreseen decimal.Decimal, of func(b bill) decimal.Decimal) {
		var now decimal.Decimal
		for _, b := range after {
			if b.on {
				now = now.Add(of(b))
			}
		}
		for _, b := range before {
			if b.on {
				now = now.Sub(of(b))
			}
		}
		if !foreseen.Equal(now) {
			t.Errorf("foreseen %s a month more, happened %s", foreseen, now)
		}
	}
	price := func(b bill) decimal.Decimal { return decimal.RequireFromString(b.price) }
	delta(o.ListAfter.Sub(o.ListBefore), price)
	delta(o.EffectiveAfter.Sub(o.EffectiveBefore), func(b bill) decimal.Decimal { return b.effective() })
	blank := h
	blank.before, blank.after = off(before), off(after)
	if got := h.effect(); e.Effect != got {
		t.Errorf("foreseen %q, happened %q: %+v\nfrom %+v\nto %+v", e.Effect, got, d, before, after)
	}
	e.Effect = blank.effect()
	blank.check(t, &e, writesAnything(d))
	if s := &d.State; o.urgent != (len(d.Withdraw) > 0 || o.Effect == db.EffectEnd && (s.Status == StatusGone || s.Reason == ReasonOperator)) {
		t.Errorf("urgent: %v", o.urgent)
	}
}

// off are bills that are switched off.
func off(bills map[int64]bill) map[int64]bill {
	all := make(map[int64]bill, len(bills))
	for id, b := range bills {
		b.on = false
		all[id] = b
	}
	return all
}

// preview asks for one server's.
func (b *billed) preview(ids []int64, all ...*events.Event) []db.RunEffect {
	b.t.Helper()
	effects, err := b.r.Preview(b.t.Context(), ids, sealed(b.t, all...))
	if err != nil {
		b.t.Fatal(err)
	}
	return effects
}

func sealed(t *testing.T, all ...*events.Event) []events.Event {
	t.Helper()
	batch := make([]events.Event, len(all))
	for i, e := range all {
		if err := e.Seal(); err != nil {
			t.Fatal(err)
		}
		batch[i] = *e
	}
	return batch
}

// short is a preview in a line for each server.
func short(effects []db.RunEffect) string {
	var all []string
	for _, e := range effects {
		words := fmt.Sprintf("%d %s %s %s→%s %s→%s", e.ServerID, e.Effect, strings.TrimSpace(e.Billing+" "+e.Reason),
			e.ListBefore.StringFixed(2), e.ListAfter.StringFixed(2), e.EffectiveBefore.StringFixed(2), e.EffectiveAfter.StringFixed(2))
		if !e.FirstCharge.IsZero() {
			words += " first " + e.FirstCharge.String()
		}
		if !e.Changes {
			words += " unchanged"
		}
		all = append(all, words)
	}
	return strings.Join(all, "\n")
}

func TestPreviewOfEachKind(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (10, 'Ten', 1000), (11, 'Eleven', 1100), (12, 'Cheap', 360)`)
	b.hear(b.news(501), b.news(502), b.news(503), b.news(504), b.news(505), b.news(506), b.news(507, ownedBy(nobody)), b.news(508), b.news(509), b.news(510))
	b.pass(time.Minute)
	b.skypanelOrders(506)
	b.exec(`UPDATE virtfusion_hourly_billing SET server_uuid = NULL WHERE virtfusion_server_id = 508`)
	b.wish(509, "billing_off")
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false WHERE virtfusion_server_id = 510`)
	b.exec(`UPDATE serversync.billing_rows SET enabled = false WHERE virtfusion_id = 510`)
	got := short(b.preview([]int64{501, 506, 508, 509, 510, 777, 506},
		b.news(502, packaged(10)), b.news(503, ownedBy(owner8), packaged(11)), b.news(504, destroyed), b.news(505, ownedBy(nobody)),
		b.news(507, ownedBy(owner7)), b.news(601, packaged(12)), b.news(602, packaged(unpriced)), b.bornNow(603), b.news(604, ownedBy(nobody)),
		b.news(605, destroyed)))
	want := strings.TrimPrefix(`
501 none on 7.30→7.30 7.30→7.30 unchanged
502 change on 7.30→10.00 7.30→7.30
503 move on 7.30→11.00 7.30→14.60 first 0.0151
504 end off destroyed 7.30→0.00 7.30→0.00
505 move off 7.30→0.00 7.30→0.00
506 end on 14.60→7.30 14.60→7.30
507 create on 0.00→7.30 0.00→7.30 first 0.01
508 none on 7.30→7.30 7.30→7.30
509 end off operator 7.30→0.00 7.30→0.00
510 change on 0.00→7.30 0.00→7.30
601 create on 0.00→3.60 0.00→0.00 first 0.0049
602 create off unpriced 0.00→0.00 0.00→0.00
603 create on 0.00→7.30 0.00→7.30 first 0.01
604 none off 0.00→0.00 0.00→0.00
605 none off destroyed 0.00→0.00 0.00→0.00`, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	why := map[int64]string{
		502: "the price changed from 7.30 to 10.00 a month, as charged from 7.30 to 7.30", 503: "moved from SkyPANEL user 7 to SkyPANEL user 8", 504: "is gone",
		505: "nobody in SkyPANEL", 506: "turned up", 601: "billed 3.60 a month, 0.00 as charged (Cheap)", 604: "is nobody in SkyPANEL",
	}
	for _, e := range b.preview([]int64{506}, b.news(502, packaged(10)), b.news(503, ownedBy(owner8)), b.news(504, destroyed),
		b.news(505, ownedBy(nobody)), b.news(601, packaged(12)), b.news(604, ownedBy(nobody))) {
		if !strings.Contains(e.Why, why[e.ServerID]) {
			t.Errorf("%d: %s", e.ServerID, e.Why)
		}
	}
	// A customer's link that is lost is the end of billing, and no move.
	b.exec(`UPDATE users SET virtfusion_id = NULL WHERE id = 7`)
	if got, want := short(b.preview(nil, b.news(501))), "501 end off 7.30→0.00 7.30→0.00"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestPreviewByCustomer: of a move both customers have their part, and each kind
// of coming and going is counted as what it is.
func TestPreviewByCustomer(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (10, 'Ten', 1000), (11, 'Eleven', 1100)`)
	b.hear(b.news(502), b.news(503), b.news(504), b.news(506), b.news(510))
	b.pass(time.Minute)
	b.skypanelOrders(506)
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false WHERE virtfusion_server_id = 510`)
	b.exec(`UPDATE serversync.billing_rows SET enabled = false WHERE virtfusion_id = 510`)
	all := make(db.CustomerEffects)
	for _, e := range b.preview([]int64{506, 510}, b.news(502, packaged(10)), b.news(503, ownedBy(owner8), packaged(11)), b.news(504, destroyed), b.news(601, packaged(unpriced)), b.news(602)) {
		all.Add(&e)
	}
	var got []string
	for _, c := range all.Over(decimal.NewFromInt(-1)) {
		got = append(got, fmt.Sprintf("%d: %d servers %+v list %s→%s effective %s→%s first %d %s", c.UserID, c.Servers, c.Rows,
			c.ListBefore.StringFixed(2), c.ListAfter.StringFixed(2), c.EffectiveBefore.StringFixed(2), c.EffectiveAfter.StringFixed(2), c.FirstCharges, c.FirstChargeAmount))
	}
	want := []string{
		// 503 goes, 504 ends, one of 506's two rows is withdrawn, 510 and 602 come: 36.50 become 29.20.
		"8: 1 servers {Created:1 Ended:0 Withdrawn:0 Moved:0 Enabled:0 Disabled:0 Changed:0} list 0.00→11.00 effective 0.00→14.60 first 1 0.0151",
		"7: 7 servers {Created:2 Ended:1 Withdrawn:1 Moved:1 Enabled:1 Disabled:0 Changed:1} list 36.50→31.90 effective 36.50→29.20 first 1 0.01",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if over := all.Over(decimal.RequireFromString("7.30")); len(over) != 1 || over[0].UserID != 8 {
		t.Errorf("over 7.30, and not at it, is %+v", over)
	}
}

// Changes are of billing, or they are none: a package's name is not.
func TestPreviewOfANameIsNone(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.exec(`UPDATE package_pricing SET name = 'Tiny' WHERE virtfusion_package_id = 3`)
	if got, want := short(b.preview([]int64{501})), "501 none on 7.30→7.30 7.30→7.30"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.exec(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, hourly_billing_enabled) VALUES (true, 365, true)`)
	if got, want := short(b.preview([]int64{501})), "501 change on 7.30→7.30 7.30→7.30"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Nothing is written, and nothing is waited for but the database.
func TestPreviewWritesNothing(t *testing.T) {
	t.Parallel()
	database, tr := traced(t)
	b := &billed{system: setupOn(t, database)}
	b.r = b.reconciler()
	b.hear(b.news(501), b.news(502), b.bornNow(503))
	b.exec(`UPDATE package_pricing SET price = 1460`)
	b.r.hold(t, "sweep-1", []int64{502})
	b.startRun("sweep-1", 501, 502, 503)
	everything := func() string {
		var all strings.Builder
		for table := range strings.SplitSeq(b.text(`SELECT string_agg(format('%I.%I', schemaname, tablename), ' ' ORDER BY 1) FROM pg_tables WHERE schemaname IN ('public', 'serversync')`), " ") {
			fmt.Fprintf(&all, "%s\n%s\n", table, b.text(fmt.Sprintf(`SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY to_jsonb(t)::text) FROM %s t`, table)))
		}
		return all.String()
	}
	before := everything()
	err := database.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error { // somebody else decides them
		if err := db.LockServers(ctx, tx, []int64{501, 502, 503, 504}); err != nil {
			return err
		}
		tr.take()
		got := b.preview([]int64{501, 502, 503}, b.news(504), b.news(503, by("sweep-2"))) //nolint:contextcheck // another connection's work
		if len(got) != 4 || got[0].Effect != db.EffectChange || got[1].Effect != db.EffectChange {
			t.Errorf("it saw %s", short(got))
		}
		for _, sent := range tr.take() {
			for _, word := range []string{"insert", "update", "delete", "lock"} {
				if strings.Contains(strings.ToLower(sent.sql), word) && !strings.Contains(sent.sql, "last_billed") && !strings.Contains(sent.sql, "updated_at") {
					t.Errorf("it sends %s", sent.sql)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, before, everything())
}

// hold has servers wait.
func (r *Reconciler) hold(t *testing.T, run string, ids []int64, all ...*events.Event) {
	t.Helper()
	if err := r.Hold(t.Context(), run, ids, sealed(t, all...)); err != nil {
		t.Fatal(err)
	}
}

// What only observes shows what it would do otherwise.
func TestPreviewWhileObservingOnly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	observing := b.policy
	observing.ObserveOnly = true
	r := b.other(observing)
	hearWith(t, r, b.news(501))
	b.r = r
	if got, want := short(b.preview([]int64{501}, b.news(502))), "501 create on 0.00→7.30 0.00→7.30 first 0.01 unchanged\n502 create on 0.00→7.30 0.00→7.30 first 0.01"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The row to come is shown of a server that is new; one that the settler will
// see to by itself is no doing of a run.
func TestPreviewOfRowsToCome(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.bornNow(501), b.bornNow(502, failed), b.bornNow(503, ownedBy(nobody)))
	b.r.hold(t, "sweep-1", nil, b.bornNow(504))
	b.pass(time.Second)
	young := func(id int64, edit ...func(*events.Event)) *events.Event {
		return b.news(id, append(edit, born(t0))...)
	}
	got := short(b.preview([]int64{501, 504}, young(501, named("b")), young(502), young(503), young(505), young(506, ownedBy(nobody)), young(507, failed)))
	want := strings.TrimPrefix(`
501 none off 0.00→0.00 0.00→0.00
502 create on 0.00→7.30 0.00→7.30 first 0.01
503 create on 0.00→7.30 0.00→7.30 first 0.01
504 create on 0.00→7.30 0.00→7.30 first 0.01
505 create on 0.00→7.30 0.00→7.30 first 0.01
506 none off 0.00→0.00 0.00→0.00
507 none off 0.00→0.00 0.00→0.00`, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A server that nothing can decide does not stop the others.
func TestPreviewGoesOn(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	var all []*events.Event
	for id := int64(2*previewBatch + 5); id > 0; id-- {
		all = append(all, b.news(id))
	}
	all = append(all, b.news(7_000, func(e *events.Event) { e.Server.UUID = new("nul\x00") }))
	effects := b.preview(nil, all...)
	created := 0
	for _, e := range effects {
		if e.Effect == db.EffectCreate {
			created++
		}
	}
	if !slices.IsSortedFunc(effects, func(a, b db.RunEffect) int { return int(a.ServerID - b.ServerID) }) || created != 2*previewBatch+5 {
		t.Errorf("%d of %d are made", created, len(effects))
	}
	if last := effects[len(effects)-1]; last.ServerID != 7_000 || last.Effect != db.EffectNone || !last.Changes || !strings.Contains(last.Why, "cannot be decided") {
		t.Errorf("of the bad one it says %+v", last)
	}
	b.want("0", `SELECT count(*) FROM serversync.servers`)
}

// What Preview says is what then happens, whatever the books look like.
func TestPreviewIsWhatHappens(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (10, 'Ten', 1000), (11, 'Eleven', 1100), (12, 'Cheap', 360)`)
	next, runs, cases := int64(0), 0, 0
	effects := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		runs++
		b.exec(fmt.Sprintf(`UPDATE package_pricing SET price = %d WHERE virtfusion_package_id = 3`, rapid.SampledFrom([]int{730, 731, 1460}).Draw(t, "price before")))
		var scenes []*scene
		for range rapid.IntRange(1, 6).Draw(t, "servers") {
			next++
			scenes = append(scenes, b.scene(t, next))
		}
		b.pass(time.Second)
		b.exec(fmt.Sprintf(`UPDATE package_pricing SET price = %d WHERE virtfusion_package_id = 3`, rapid.SampledFrom([]int{730, 730, 360, 1460}).Draw(t, "price")))
		run := fmt.Sprintf("sweep-%d", runs)
		var ids []int64
		var news []*events.Event
		for _, c := range scenes {
			if c.news != nil {
				by(run)(c.news)
				news = append(news, c.news)
			} else {
				ids = append(ids, c.id)
			}
			c.look(t, b)
		}
		foreseen := make(map[int64]db.RunEffect)
		for _, e := range b.preview(ids, news...) {
			foreseen[e.ServerID] = e
		}
		if rapid.Bool().Draw(t, "held first") {
			b.r.hold(b.t, run, ids, news...)
			for _, c := range scenes {
				c.wantUnbilled(t, b)
				c.held = true
			}
		}
		if _, err := b.r.RedecideFor(b.t.Context(), run, ids); err != nil {
			t.Fatal(err)
		}
		b.hear(news...)
		for _, c := range scenes {
			c.compare(t, b, foreseen, true)
		}
		b.pass(b.policy.SettleDelay)
		b.settle(b.r)
		for _, c := range scenes {
			c.compare(t, b, foreseen, false)
			effects[foreseen[c.id].Effect]++
			cases++
		}
	})
	t.Logf("%d cases: %v", cases, effects)
}

// scene is one server, as it is before a run.
type scene struct {
	id      int64
	news    *events.Event
	coming  bool // the settler sees to it by itself
	held    bool
	happens happened
	line    int64 // the last of its history
}

// scene draws a server's past, and what the run hears of it.
func (b *billed) scene(t *rapid.T, id int64) *scene {
	edits := map[string]func(*events.Event){
		"": func(*events.Event) {}, "package": packaged(rapid.SampledFrom([]int64{small, large, unpriced, 10, 11, 12}).Draw(t, "package")),
		"renamed": named("b"), "other owner": ownedBy(owner8), "nobody's": ownedBy(nobody), "gone": destroyed,
		"self service": func(e *events.Event) { e.Server.SelfService = new(int64(1)) },
		"ownerless":    func(e *events.Event) { e.Server.Owner = nil },
		"other UUID":   func(e *events.Event) { e.Server.UUID = new(fmt.Sprintf("uuid-%d-b", id)) },
	}
	var past []string
	switch rapid.SampledFrom([]string{"unknown", "known", "known", "known", "settling"}).Draw(t, "past") {
	case "known":
		past = rapid.SliceOfN(rapid.SampledFrom([]string{"", "package", "other owner", "nobody's", "gone", "self service", ""}), 1, 2).Draw(t, "story")
		for _, what := range past {
			b.pass(time.Second)
			b.hear(b.news(id, edits[what]))
		}
	case "settling":
		b.hear(b.bornNow(id, edits[rapid.SampledFrom([]string{"", "nobody's", "ownerless"}).Draw(t, "whose")]))
	}
	row := fmt.Sprintf(` WHERE virtfusion_server_id = %d`, id)
	for _, what := range rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "native", "off", "on", "price", "no UUID", "deleted", "off by us", "billing_off", "billing_on", "ignore", "undone"}), 0, 2).Draw(t, "SkyPANEL") {
		switch what {
		case "native":
			b.skypanelOrders(id)
		case "off", "on":
			b.exec(fmt.Sprintf(`UPDATE virtfusion_hourly_billing SET billing_enabled = %v`, what == "on") + row)
		case "off by us":
			b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false` + row)
			b.exec(fmt.Sprintf(`UPDATE serversync.billing_rows SET enabled = false WHERE virtfusion_id = %d`, id))
		case "price":
			b.exec(`UPDATE virtfusion_hourly_billing SET monthly_price = 10` + row)
		case "no UUID":
			b.exec(`UPDATE virtfusion_hourly_billing SET server_uuid = NULL` + row)
		case "deleted":
			b.exec(`DELETE FROM virtfusion_hourly_billing` + row)
		case "":
		default:
			b.exec(fmt.Sprintf(`INSERT INTO serversync.overrides (virtfusion_id, kind) VALUES (%d, '%s') ON CONFLICT DO NOTHING`, id, what))
		}
	}
	c := &scene{id: id}
	b.pass(time.Second)
	if what := rapid.SampledFrom([]string{"none", "", "", "package", "renamed", "other owner", "nobody's", "gone", "self service", "ownerless", "other UUID", "young"}).Draw(t, "news"); what == "young" {
		c.news = b.bornNow(id)
	} else if what != "none" {
		c.news = b.news(id, edits[what])
	}
	return c
}

// look keeps how the server stands before the run.
func (c *scene) look(t *rapid.T, b *billed) {
	c.happens.before = b.bills(t, c.id)
	for _, s := range b.stored(t, c.id) {
		state := fromInventory(&s)
		c.coming, c.happens.owned = onItsWay(&state), s.OwnerID
	}
	c.line = b.number(t, `SELECT coalesce(max(id), 0) FROM serversync.history`)
}

// compare holds what happened against what was foreseen, at once for servers
// that need not settle or do so by themselves, else once they have.
func (c *scene) compare(t *rapid.T, b *billed, foreseen map[int64]db.RunEffect, atOnce bool) {
	e, ok := foreseen[c.id]
	stored := b.stored(t, c.id)
	if !ok {
		if len(stored) > 0 {
			t.Fatalf("server %d was not foreseen", c.id)
		}
		return
	}
	h := &c.happens
	h.state = fromInventory(&stored[0])
	if h.state.AwaitingRun != "" {
		t.Fatalf("server %d waits", c.id)
	}
	settling := h.state.Status == StatusSettling && settles(&h.state)
	if atOnce == (settling && !c.coming) || !atOnce && c.coming {
		return
	}
	h.after, h.lines = b.bills(t, c.id), b.linesSince(t, c.id, c.line)
	var charge decimal.Decimal
	if e.Effect == db.EffectCreate || e.Effect == db.EffectMove {
		if n := b.texts(t, fmt.Sprintf(`SELECT coalesce(sum(amount_charged), 0)::text FROM virtfusion_hourly_transactions t JOIN virtfusion_hourly_billing b ON b.id = t.billing_id
			WHERE b.virtfusion_server_id = %d AND b.id > %d`, c.id, slices.Max(append(ids(h.before), 0)))); n != "" {
			charge = decimal.RequireFromString(n)
		}
	}
	if !e.FirstCharge.Equal(charge) && !strings.HasPrefix(e.Why, ifConfirmed) {
		t.Errorf("server %d: first charge %s foreseen, %s recorded", c.id, e.FirstCharge, charge)
	}
	if c.held && h.state.Ask != "" { // until VirtFusion has answered, it says how the books stand
		h.state.BillingOn = e.Billing == billingOn
	}
	h.check(t, &e, e.Changes)
	if !strings.HasPrefix(e.Why, ifConfirmed) {
		h.checkShares(t, &e)
	}
	if strings.Contains(h.state.Note, "waits for approval") {
		t.Errorf("it waits no longer: %s", h.state.Note)
	}
	if !e.Changes && !c.held && len(h.lines) > 0 {
		t.Errorf("server %d: nothing was to be written, but there are lines %v", c.id, h.lines)
	}
	if t.Failed() {
		t.Fatalf("server %d: news %+v", c.id, c.news)
	}
}

// wantUnbilled checks that a server that waits is billed as before.
func (c *scene) wantUnbilled(t *rapid.T, b *billed) {
	if got := b.bills(t, c.id); fmt.Sprint(got) != fmt.Sprint(c.happens.before) {
		t.Fatalf("server %d waits, and its bills go from %v to %v", c.id, c.happens.before, got)
	}
	for _, s := range b.stored(t, c.id) {
		if s.AwaitingRun == "" {
			t.Fatalf("server %d does not wait", c.id)
		}
	}
}

func ids(bills map[int64]bill) []int64 {
	all := make([]int64, 0, len(bills))
	for id := range bills {
		all = append(all, id)
	}
	return all
}

func (b *billed) stored(t *rapid.T, id int64) []db.Server {
	stored, err := db.ServersByID(b.t.Context(), b.db, []int64{id})
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func (b *billed) bills(t *rapid.T, id int64) map[int64]bill {
	bills := make(map[int64]bill)
	b.each(t, fmt.Sprintf(`SELECT id, user_id, package_id, coalesce(hours_in_month, 730), billing_enabled, monthly_price::text,
			EXISTS (SELECT FROM users u WHERE u.id = user_id AND u.is_active) AND EXISTS (SELECT FROM package_pricing WHERE virtfusion_package_id = package_id)
		FROM virtfusion_hourly_billing WHERE virtfusion_server_id = %d`, id), func(rows *sql.Rows) error {
		var row int64
		var c bill
		err := rows.Scan(&row, &c.user, &c.packageID, &c.hours, &c.on, &c.price, &c.collected)
		bills[row] = c
		return err
	})
	return bills
}

func (b *billed) linesSince(t *rapid.T, id, line int64) map[LineKind][]int64 {
	lines := make(map[LineKind][]int64)
	b.each(t, fmt.Sprintf(`SELECT kind, coalesce(billing_id, 0) FROM serversync.history WHERE virtfusion_id = %d AND id > %d`, id, line), func(rows *sql.Rows) error {
		var kind LineKind
		var row int64
		err := rows.Scan(&kind, &row)
		lines[kind] = append(lines[kind], row)
		return err
	})
	return lines
}

func (b *billed) number(t *rapid.T, query string) (n int64) {
	b.each(t, query, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n
}

func (b *billed) texts(t *rapid.T, query string) (s string) {
	b.each(t, query, func(rows *sql.Rows) error { return rows.Scan(&s) })
	return s
}

func (b *billed) each(t *rapid.T, query string, scan func(*sql.Rows) error) {
	rows, err := b.db.QueryContext(b.t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
