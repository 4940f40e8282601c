package main_test

import (
	"flag"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db/skypanelsim"
	"serversync/reconciler"
	"serversync/virtfusion/virtfusionsim"
)

// What TestMonths tries: so many seeds, or one alone.
var (
	monthsSeeds = flag.Uint64("months", 5, "how many random months TestMonths goes through")
	monthsSeed  = flag.Uint64("months.seed", 0, "the only random months that TestMonths goes through; 0: those from 1 to -months")
)

// TestMonths proves the money over random weeks and months of a small company.
// Servers are made in and outside SkyPANEL, destroyed, moved; packages, prices
// and the hours of a month change, prices come late; customers are switched off
// and on; VirtFusion is away while SkyPANEL's job asks it, so that rows are
// switched off; the job, or serversync, stands still for days; operators have
// their wishes, and runs are undone. SkyPANEL's job runs at least each hour of
// the model's own time. Runs are those of the product; the rest is as in
// TestModel, which proves more of webhooks and of what the books end up as.
//
// Of every charge, when it is made:
//
//   - Its hour touches time in which the server existed under that customer, or
//     serversync had no way to know otherwise yet (checkHours).
//   - Its hour touches time in which its row was switched on: no gap is charged.
//   - A row of ours is charged for no time before it was made.
//
// Then, and after each of these:
//
//   - No hour of a server is charged twice, whoever pays (but for what nobody but
//     SkyPANEL can prevent: checkCharges), and nobody is charged for more hours
//     than they had the server since its discovery. What VirtFusion's credit calls
//     and the job took is in the books and in the ledger, once.
//   - What a sweep's preview says of the month to come is what the job then takes
//     of each customer over a month's hours, to the cent (foresee), but that it
//     rounds up the first hour that it ever collects of a row.
//   - What a run did and nobody charged is undone without a trace in SkyPANEL's
//     tables, but for when a row last changed; where somebody was charged, it is
//     said exactly what (takeBack). With BILLING_INITIAL_CHARGE=none a row that was
//     made stays, switched off.
//
// A failure names its seed. To see it again, and for a long run:
//
//	go test ./cmd/serversync -run TestMonths -months.seed=17
//	go test ./cmd/serversync -run TestMonths -months=500 -timeout 60m
func TestMonths(t *testing.T) {
	t.Parallel()
	first, last := uint64(1), *monthsSeeds
	if *monthsSeed != 0 {
		first, last = *monthsSeed, *monthsSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			m := newMonths(t, seed)
			m.pastMonths()
			m.rest()
			m.checkMoney()
			m.foresee()
			m.checkMoney()
			m.takeBack(false)
			m.takeBack(true)
			m.rest()
			m.checkMoney()
			t.Log(m.told())
		})
	}
}

// monthPrices are cents a month, chosen for how they are rounded by the hour.
func monthPrices() []int64 {
	return []int64{1, 250, 364, 365, 500, 730, 731, 1095, 1100, 1460, 2499, 9999}
}

// newMonths begins a company whose months are drawn from a seed.
func newMonths(t *testing.T, seed uint64) *months {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0x6d6f6e7468))
	chance := []float64{0, 0.1, 0.3}
	o := modelOptions{
		seed: seed, precision: oneOf(random, time.Second, time.Minute), window: 10 * time.Minute,
		charge: []reconciler.InitialCharge{reconciler.ChargeRecord, reconciler.ChargeDeduct, reconciler.ChargeNone}[seed%3], // each in CI
		faults: virtfusionsim.DeliveryFaults{
			Lose: oneOf(random, chance...), Repeat: oneOf(random, chance...), Delay: oneOf(random, chance...), Reorder: oneOf(random, chance...),
		},
	}
	m := &months{
		model: newModel(t, t.Context(), newModelBed(t), o), t: t, random: random, deducts: o.charge == reconciler.ChargeDeduct,
		had: map[tenancy][]span{}, on: map[int64][]span{}, late: map[int64]bool{}, taken: map[int64][]skypanelsim.Charge{}, jobUp: true, up: true, most: 8,
	}
	t.Cleanup(m.tell)
	t.Cleanup(m.abandon)
	m.unchecked = m.chance(2)
	m.note("seed %d: %s, SkyPANEL's job asks for owners: %v", seed, o.charge, !m.unchecked)
	m.setHours()
	for i := range m.world.Packages {
		m.setPrice(i)
	}
	m.startRuns()
	m.observe()
	return m
}

func oneOf[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

// pastMonths lets things happen.
func (m *months) pastMonths() {
	m.Helper()
	for range 50 {
		m.steps++
		m.live(oneOf(m.random, time.Second, time.Minute, 10*time.Minute, 40*time.Minute, time.Hour, 5*time.Hour, 26*time.Hour))
		m.happen(oneOf(m.random, monthsActions()...))
		m.observe()
	}
}

// span is a time in which something was so; to is zero while it still is.
type span struct{ from, to time.Time }

// touches reports that a charge's hour and a span have time in common.
func (s span) touches(c *skypanelsim.Charge) bool {
	return s.from.Before(c.End) && (s.to.IsZero() || c.Start.Before(s.to))
}

// tenancy is a server under one of SkyPANEL's users.
type tenancy struct{ server, user int64 }

// mark begins and ends spans, so that those of the given keys are open.
func mark[K comparable](spans map[K][]span, open map[K]bool, now time.Time) {
	for k, all := range spans {
		if last := &all[len(all)-1]; last.to.IsZero() && !open[k] {
			last.to = now
		}
	}
	for k := range open {
		if all := spans[k]; len(all) == 0 || !all[len(all)-1].to.IsZero() {
			spans[k] = append(all, span{from: now})
		}
	}
}

// observe keeps who has which server, by VirtFusion's word and by what
// serversync knows, and which rows are on.
func (m *months) observe() {
	m.Helper()
	m.look()
	had, on := map[tenancy]bool{}, map[int64]bool{}
	for _, s := range m.panel.Servers() {
		if user, conflict := m.ownerOf(s.OwnerID); user != nil && !conflict {
			had[tenancy{s.ID, user.ID}] = true
		}
	}
	for _, s := range m.inventory() {
		if s.UserID != nil && s.Status != "gone" {
			had[tenancy{s.VirtfusionID, *s.UserID}] = true
		}
	}
	for k, all := range m.had {
		// Of a server that serversync has not heard of, it cannot know that it
		// went; and where evidence disagrees a person must look.
		s, heard := m.known[k.server]
		if (!heard || s.status == "conflict" || s.ask != "") && all[len(all)-1].to.IsZero() {
			had[k] = true
		}
	}
	for id, r := range m.rows() {
		if r.Enabled {
			on[id] = true
			if len(m.on[id]) == 0 && !r.Ours { // SkyPANEL bills its own from the order on, however late the row came
				m.on[id] = []span{{from: modelStart}}
			}
		}
	}
	mark(m.had, had, m.clock())
	mark(m.on, on, m.clock())
}

// checkHours holds a charge that was just made against who had the server when,
// and when its row was on.
func (m *months) checkHours(c *skypanelsim.Charge) {
	m.Helper()
	within := func(spans []span) bool {
		for _, s := range spans {
			if s.touches(c) {
				return true
			}
		}
		return false
	}
	if !m.late[c.BillingID] && !within(m.had[tenancy{c.ServerID, c.UserID}]) {
		m.Fatalf("user %d was charged for server %d from %s to %s, and did not have it then: %v%s", c.UserID, c.ServerID, c.Start, c.End,
			m.had[tenancy{c.ServerID, c.UserID}], m.story(c.ServerID))
	}
	if !within(m.on[c.BillingID]) {
		m.Fatalf("row %d was charged for the hour from %s, and was off then: %v%s", c.BillingID, c.Start, m.on[c.BillingID], m.story(c.ServerID))
	}
}

// checkMoney holds all charges there are against each other, against the time for
// which customers had servers, and against the ledger.
func (m *months) checkMoney() {
	m.Helper()
	m.observe()
	rows := m.rows()
	m.checkCharges(rows)
	charges, err := skypanelsim.Charges(m.ctx, m.db)
	if err != nil {
		m.Fatal(err)
	}
	hours := map[tenancy]int64{}
	since := map[tenancy]time.Time{}
	for i := range charges {
		c := &charges[i]
		k := tenancy{c.ServerID, c.UserID}
		if !c.Stands() || rows[c.BillingID].Refund || m.late[c.BillingID] {
			continue
		}
		hours[k]++
		if from := m.discovered(rows[c.BillingID], charges); since[k].IsZero() || from.Before(since[k]) {
			since[k] = from
		}
	}
	for k, n := range hours {
		var most int64
		for _, s := range m.had[k] {
			if s.to.IsZero() {
				s.to = m.clock()
			}
			if s.from.Before(since[k]) {
				s.from = since[k]
			}
			if d := s.to.Sub(s.from); d >= 0 {
				most += int64((d + time.Hour) / time.Hour) // an hour that has begun is charged whole
			}
		}
		if n > most {
			m.Fatalf("user %d was charged %d hours of server %d, and had it for %d since its discovery at %s: %v%s", k.user, n, k.server, most, since[k], m.had[k], m.story(k.server))
		}
	}
	m.checkLedger()
}

// discovered is from when a row may bill: of ours, since it was made; of
// SkyPANEL's own, since the order's first hour.
func (m *months) discovered(r *modelRow, charges []skypanelsim.Charge) time.Time {
	if r.Ours {
		return r.Made.UTC()
	}
	first := m.sky.madeAt[r.ID]
	for i := range charges {
		if c := &charges[i]; c.BillingID == r.ID && c.Start.Before(first) {
			first = c.Start
		}
	}
	return first
}

// checkLedger wants each line of the ledger to have its hour, with its amount; but
// for orders that SkyPANEL has no row of.
func (m *months) checkLedger() {
	m.Helper()
	if got, want := m.text(`
		SELECT count(*)::text FROM transactions l
		WHERE NOT EXISTS (SELECT FROM virtfusion_hourly_transactions t WHERE t.transaction_id = l.id)
			AND NOT EXISTS (SELECT FROM serversync.charges c WHERE c.ledger_id = l.id AND c.state = 'failed')`), strconv.Itoa(m.paidWithoutRow); got != want {
		m.Fatalf("%s lines of the ledger have no hour, want %s: %s", got, want, m.text(`
			SELECT string_agg(to_jsonb(l)::text, E'\n') FROM transactions l WHERE NOT EXISTS (SELECT FROM virtfusion_hourly_transactions t WHERE t.transaction_id = l.id)`))
	}
	if odd := m.text(`
		SELECT coalesce(string_agg(to_jsonb(t)::text, E'\n'), '') FROM virtfusion_hourly_transactions t LEFT JOIN transactions l ON l.id = t.transaction_id
		WHERE t.status = 'completed' AND (l.id IS NULL OR l.status <> 'completed' OR l.user_id <> t.user_id OR (-l.amount)::numeric(10,2) <> t.amount_charged)`); odd != "" {
		m.Fatalf("hours that were taken are not in the ledger:\n%s", odd)
	}
	creditBooks{m, m.ctx, m.db, m.panel}.agree()
	if m.Failed() {
		m.FailNow()
	}
}

// tokens are an amount in dollars in cents.
func tokens(amount decimal.Decimal) int64 { return amount.Shift(2).IntPart() }
