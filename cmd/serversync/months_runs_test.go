package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db"
	"serversync/db/skypanelsim"
	"serversync/reconciler"
)

// rearrange changes some things at VirtFusion and SkyPANEL of which serversync is
// not told.
func (m *months) rearrange(whats ...string) {
	m.Helper()
	m.steps++
	m.panel.Hold()
	for range 6 {
		switch what := oneOf(m.random, whats...); what {
		case "create":
			m.createServer(true)
		default:
			m.happen(what)
		}
		m.observe()
	}
	m.panel.Discard()
	m.panel.Release()
}

// foresee has a sweep previewed and done, and SkyPANEL's job bill a whole month
// by it in which nothing else happens. What it takes is what was foreseen.
func (m *months) foresee() {
	m.Helper()
	if ids := m.heardOf(); m.chance(2) && len(ids) > 0 {
		m.wish("clear", ids...)
	}
	m.most += 6
	if !m.hourly && !m.chance(4) {
		m.setMode(true)
	}
	m.rearrange("create")
	m.rearrange("create", "create", "create", "order", "move", "destroy", "package", "price", "customer")
	for len(m.orders) > 0 {
		m.orderGoesOn(0, orderBooked)
	}
	m.bill()
	before := m.rows()
	dry := m.sweepNow(true)
	said := m.forecasts(dry.ID)
	credits := len(m.panel.Credits())
	run := m.sweepNow(false)
	if dry.State != db.RunSucceeded || run.State != db.RunSucceeded {
		m.Fatalf("the sweeps are %s and %s: %+v %+v", dry.State, run.State, dry.Problems, run.Problems)
	}
	if a, b := sums(dry.Preview), sums(run.Preview); a != b {
		m.Fatalf("the dry run foresaw\n%s, and the run\n%s", a, b)
	}
	m.settleCharges(oneOf(m.random, creditFaults()...))
	m.checkFirstCharges(&run, credits)

	paid := map[int64]int{} // charges that rows had by now
	var longest int64
	rows := m.rows()
	for id, r := range rows {
		paid[id] = len(m.taken[id])
		longest = max(longest, r.Hours)
	}
	for range 4 { // a month, and the first hour, which the job does not take
		m.live(time.Duration(longest/4+2) * time.Hour)
		m.work()
		quiet := m.sweepNow(false)
		if p := quiet.Preview; p.Changes != 0 {
			m.Fatalf("nothing happened, and a sweep changes something: %s", sums(p))
		}
	}

	foreseen, charged := map[int64]int64{}, map[int64]int64{}
	var month, was decimal.Decimal
	for id := range said {
		e := said[id]
		if e.Effect == db.EffectNone {
			continue
		}
		for _, r := range ofServer(before, id) {
			if r.Enabled && r.Collected {
				was = was.Add(skypanelsim.EffectiveMonthly(r.Price, r.Hours))
			}
		}
		var user int64
		if e.UserID != nil {
			user = *e.UserID
		}
		foreseen[user] += tokens(e.EffectiveAfter)
		for _, r := range ofServer(rows, id) {
			first := m.firstRounding(r, paid[r.ID])
			for i, c := range m.taken[r.ID][paid[r.ID]:] {
				if int64(i) < r.Hours {
					charged[c.UserID] += c.Cents.IntPart()
					month = month.Add(c.Cents.Shift(-2))
				}
			}
			charged[r.UserID] -= first
			month = month.Sub(decimal.New(first, -2))
		}
	}
	maps.DeleteFunc(foreseen, func(_, cents int64) bool { return cents == 0 })
	maps.DeleteFunc(charged, func(_, cents int64) bool { return cents == 0 })
	m.note("foreseen by customer: %v cents a month; charged: %v", foreseen, charged)
	if !maps.Equal(foreseen, charged) {
		m.Fatalf("run %s foresaw a month of %v cents by customer, and SkyPANEL's job took %v%s", run.ID, foreseen, charged, m.stories(said))
	}
	if got := month.Sub(was); !got.Equal(run.Preview.EffectiveMonthly) {
		m.Fatalf("run %s foresaw %s more a month, and SkyPANEL's job took %s where it took %s before: %s more%s",
			run.ID, run.Preview.EffectiveMonthly, month, was, got, m.stories(said))
	}
	m.bed.figures.foreseen.Add(int64(len(foreseen)))
}

// heardOf are the servers in the inventory.
func (m *months) heardOf() []int64 {
	m.Helper()
	var ids []int64
	for _, s := range m.inventory() {
		ids = append(ids, s.VirtfusionID)
	}
	return ids
}

// firstRounding is what SkyPANEL's job takes more for the first hour that it
// charges a row than for the others: it rounds that one up.
func (m *months) firstRounding(r *modelRow, paid int) int64 {
	m.Helper()
	all := m.taken[r.ID][paid:]
	if len(all) == 0 {
		return 0
	}
	if earlier := m.text(`SELECT count(*)::text FROM virtfusion_hourly_transactions WHERE billing_id = $1 AND status = 'completed' AND billing_period_start < $2`, r.ID, all[0].Start); earlier != "0" {
		return 0
	}
	return skypanelsim.FirstTokens(r.Price, r.Hours) - skypanelsim.HourlyTokens(r.Price, r.Hours)
}

// checkFirstCharges holds what a run foresaw of first charges against the books
// and, where credit is taken, against VirtFusion's, since so many calls.
func (m *months) checkFirstCharges(run *db.Run, credits int) {
	m.Helper()
	p := run.Preview
	said := fmt.Sprintf("%d, $%s in all", p.FirstCharges, p.FirstChargeAmount.StringFixed(4))
	made := m.text(`
		SELECT format('%s, $%s in all', count(*), coalesce(sum(t.amount_charged), 0)::numeric(10,4))
		FROM virtfusion_hourly_transactions t JOIN serversync.billing_rows r USING (billing_id)
		WHERE r.run_id = $1 AND r.made_by = 'serversync' AND t.reference_1 IS NOT NULL AND t.amount_charged > 0`, run.ID)
	if said != made {
		m.Fatalf("the first charges foreseen are %s; made: %s", said, made)
	}
	if p.Collected != (m.deducts && p.FirstCharges > 0) {
		m.Fatalf("the preview says that the first charges are collected: %v", p.Collected)
	}
	var took int64
	for _, c := range m.panel.Credits()[credits:] {
		took -= c.Tokens
	}
	refused, err := strconv.ParseInt(m.text(`
		SELECT coalesce(sum(c.tokens), 0)::text FROM serversync.charges c JOIN serversync.billing_rows r USING (billing_id) WHERE r.run_id = $1 AND c.state = 'failed'`, run.ID), 10, 64)
	if err != nil {
		m.Fatal(err)
	}
	if p.Collected && took+refused != tokens(p.FirstChargeAmount) {
		m.Fatalf("the first charges foreseen are %s, and VirtFusion took %d tokens", said, took)
	}
}

// forecasts are what a run foresaw of each server.
func (m *months) forecasts(run string) map[int64]db.RunEffect {
	m.Helper()
	rows, err := m.db.DB.QueryContext(m.ctx, `SELECT forecast::text FROM serversync.run_items WHERE run_id = $1 AND forecast IS NOT NULL`, run)
	if err != nil {
		m.Fatal(err)
	}
	defer rows.Close()
	said := map[int64]db.RunEffect{}
	for rows.Next() {
		var text string
		var e db.RunEffect
		if err := rows.Scan(&text); err != nil {
			m.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			m.Fatal(err)
		}
		said[e.ServerID] = e
	}
	if err := rows.Err(); err != nil {
		m.Fatal(err)
	}
	return said
}

// sums are the totals of a preview.
func sums(p *db.RunPreview) string {
	return fmt.Sprintf("create %d, change %d, move %d, end %d, none %d; off %v; %d customers; %d first charges, %s (collected: %v); %s a month by the list, %s as it is rounded",
		p.Create, p.Change, p.Move, p.End, p.None, p.Off, p.Customers, p.FirstCharges, p.FirstChargeAmount, p.Collected, p.ListMonthly, p.EffectiveMonthly)
}

func (m *months) stories(of map[int64]db.RunEffect) string {
	m.Helper()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(of)) {
		fmt.Fprintf(&b, "\n\nserver %d: %+v%s", id, of[id], m.story(id))
	}
	return b.String()
}

// money is SkyPANEL's three tables as text, by server; what a row does not tell of
// is under 0. Of a billing row it leaves out when it last changed: that is told,
// also of an undo. Of one that is on and was not billed in time (its user is not
// active, its package has no price) it leaves out until when it was: switched off
// and on again, it is billed from then on.
func (m *months) money() map[int64][]string {
	m.Helper()
	rows, err := m.db.DB.QueryContext(m.ctx, `
		SELECT virtfusion_server_id, 'billing ' || (to_jsonb(t) - 'updated_at' ||
			CASE WHEN billing_enabled AND coalesce(last_billed_at <= $1, true) THEN '{"last_billed_at": "due"}' ELSE '{}' END::jsonb)::text FROM virtfusion_hourly_billing t
		UNION ALL SELECT coalesce(server_id, 0), 'hour ' || to_jsonb(t)::text FROM virtfusion_hourly_transactions t
		UNION ALL SELECT 0, 'ledger ' || to_jsonb(t)::text FROM transactions t
		ORDER BY 1, 2`, m.clock())
	if err != nil {
		m.Fatal(err)
	}
	defer rows.Close()
	all := map[int64][]string{}
	for rows.Next() {
		var server int64
		var text string
		if err := rows.Scan(&server, &text); err != nil {
			m.Fatal(err)
		}
		all[server] = append(all[server], text)
	}
	if err := rows.Err(); err != nil {
		m.Fatal(err)
	}
	return all
}

// takeBack has a run do something, SkyPANEL's job bill it, or not, and the run
// undone. Where nobody charged, SkyPANEL's tables are then what they were, but
// for servers that by now are gone or somebody else's; where somebody was charged,
// it is said exactly what.
func (m *months) takeBack(billed bool) {
	m.Helper()
	m.rest()
	var run db.Run
	before := m.money()
	if m.chance(2) {
		m.rearrange("create", "create", "package", "price", "move", "destroy")
		run = m.sweepNow(false)
	} else {
		var ids []int64
		for _, s := range m.inventory() {
			if !m.chance(3) {
				ids = append(ids, s.VirtfusionID)
			}
		}
		if len(ids) == 0 {
			return
		}
		run = m.wish(oneOf(m.random, "billing-on", "billing-off", "set-package", "ignore", "clear"), ids...)
	}
	if run.State != db.RunSucceeded {
		m.Fatalf("run %s is %s: %+v", run.ID, run.State, run.Problems)
	}
	after := m.money()
	if billed {
		m.settleCharges(oneOf(m.random, creditFaults()...))
		m.live(time.Duration(1+m.random.IntN(5)) * time.Hour)
	}
	due := m.refundsOf(run.ID)
	undo := m.undo(run.ID)
	if said := m.refundsSaid(undo.ID); !maps.Equal(due, said) {
		m.Fatalf("run %s (%s) was undone; its rows were charged %v, and it is said that they were charged %v", run.ID, run.Kind, due, said)
	}
	m.bed.figures.undone.Add(1)
	m.bed.figures.undoneCharged.Add(int64(len(due)))
	if billed {
		return
	}
	m.wantMoney(&run, before, after)
	if m.sweepNow(false).State == db.RunSucceeded { // nor does a later sweep do it again
		m.wantMoney(&run, before, after)
	}
}

// wantMoney wants SkyPANEL's tables to be what they were before a run.
func (m *months) wantMoney(run *db.Run, before, after map[int64][]string) {
	m.Helper()
	now := m.money()
	for server := range merged(before, after) {
		if !slices.Equal(before[server], now[server]) && !m.passedOn(server) && !m.stayedOff(before[server], now[server]) {
			m.Fatalf("run %s (%s) was undone, and the books of server %d are not what they were:\n%s\nafter the run:\n%s\nnow:\n%s%s", run.ID, run.Kind, server,
				strings.Join(before[server], "\n"), strings.Join(after[server], "\n"), strings.Join(now[server], "\n"), m.story(server))
		}
	}
}

// stayedOff reports that all that is left of a run is a row that it made, off, and
// never charged. That is where rows have no first hour: SkyPANEL's job may be
// about to charge such a row at any time, so that it is not deleted.
func (m *months) stayedOff(before, now []string) bool {
	return m.policy.InitialCharge == reconciler.ChargeNone && len(before) == 0 && len(now) == 1 && strings.Contains(now[0], `"billing_enabled": false`)
}

func merged(a, b map[int64][]string) map[int64]bool {
	all := map[int64]bool{}
	for id := range a {
		all[id] = true
	}
	for id := range b {
		all[id] = true
	}
	return all
}

// passedOn reports that a server is gone or somebody else's, so that its rows are
// not to be as they were before: what is so now matters more.
func (m *months) passedOn(server int64) bool {
	m.Helper()
	s, err := m.panel.Server(server)
	if err != nil {
		return true
	}
	user, _ := m.ownerOf(s.OwnerID)
	return slices.ContainsFunc(ofServer(m.rows(), server), func(r *modelRow) bool { return user == nil || r.UserID != user.ID })
}

// refundsOf are how often, and with how much in all, SkyPANEL charged rows since a
// run made or changed them.
func (m *months) refundsOf(run string) map[int64]string {
	m.Helper()
	rows, err := m.db.DB.QueryContext(m.ctx, `
		SELECT t.billing_id, count(*), sum(t.amount_charged)::numeric(10,2)::text FROM (
			SELECT billing_id, min(at) AS at FROM serversync.history
			WHERE run_id = $1 AND kind IN ('billing_created', 'billing_changed', 'billing_closed') GROUP BY 1) h
		JOIN virtfusion_hourly_transactions t USING (billing_id)
		WHERE t.status = 'completed' AND t.created_at >= h.at AT TIME ZONE 'UTC'
		GROUP BY 1`, run)
	if err != nil {
		m.Fatal(err)
	}
	defer rows.Close()
	due := map[int64]string{}
	for rows.Next() {
		var row, n int64
		var amount string
		if err := rows.Scan(&row, &n, &amount); err != nil {
			m.Fatal(err)
		}
		due[row] = fmt.Sprintf("%d times, $%s", n, amount)
	}
	if err := rows.Err(); err != nil {
		m.Fatal(err)
	}
	return due
}

// refundWords are how an undo says what was charged.
var refundWords = regexp.MustCompile(`billing row (\d+) was charged (\d+) times since [^$]*\$([\d.]+) in all`)

// refundsSaid are what an undo says of the same.
func (m *months) refundsSaid(undo string) map[int64]string {
	m.Helper()
	items, err := db.ItemResults(m.ctx, m.db, undo, 0, 1000)
	if err != nil {
		m.Fatal(err)
	}
	said := map[int64]string{}
	for i := range items {
		for _, found := range refundWords.FindAllStringSubmatch(items[i].Error, -1) {
			row, err := strconv.ParseInt(found[1], 10, 64)
			if err != nil {
				m.Fatal(err)
			}
			said[row] = fmt.Sprintf("%s times, $%s", found[2], found[3])
		}
	}
	return said
}

// told are the figures of months that went well.
func (m *months) told() string {
	f := &m.bed.figures
	return fmt.Sprintf("%d servers, %s; %d charges, %d credits, %d customers' months foreseen, %d runs undone, %d rows of them charged",
		len(m.ever), m.clock().Sub(modelStart).Round(time.Hour), f.charges.Load(), f.credits.Load(), f.foreseen.Load(), f.undone.Load(), f.undoneCharged.Load())
}
