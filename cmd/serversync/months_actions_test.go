package main_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/db"
	"serversync/db/skypanelsim"
	"serversync/events"
	"serversync/ingest"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// months is a [model] with the product's runs, in which somebody keeps watch of
// who had which server when.
type months struct {
	*model

	t       *testing.T
	random  *rand.Rand
	deducts bool
	runs    *ingest.Runs
	turn    sync.Mutex // of who has the reconcilers work
	ended   []string   // runs that may be undone

	jobUp, up      bool // SkyPANEL's job runs; serversync does
	most           int  // servers that there may be
	paidWithoutRow int  // orders in the ledger that have no row

	had   map[tenancy][]span
	on    map[int64][]span               // by billing row
	late  map[int64]bool                 // SkyPANEL's own rows that came when their user had lost the server
	taken map[int64][]skypanelsim.Charge // by billing row: what the job took, in its order
}

// chance is true once in n times.
func (m *months) chance(n int) bool { return m.random.IntN(n) == 0 }

// startRuns makes the product's runs, and what takes the credit of first charges.
func (m *months) startRuns() {
	m.Helper()
	unlimited, err := ingest.ParseMaxChanges("100%")
	if err != nil {
		m.Fatal(err)
	}
	client := func(context.Context) (*virtfusion.Client, error) { return m.client, nil }
	m.runs = ingest.NewRuns(ingest.RunsConfig{
		DB: m.db, Client: client, Publisher: monthsPublisher{m}, Books: m.workers[0], MaxChanges: unlimited,
		Now: m.clock, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(m.ctx)
	over := make(chan error, 1)
	go func() { over <- m.runs.RunSyncs(ctx) }()
	m.t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			m.Error(err)
		}
	})
}

// monthsPublisher has the reconcilers take what a run finds at once.
type monthsPublisher struct{ m *months }

// PublishAll implements ingest's publisher.
func (p monthsPublisher) PublishAll(ctx context.Context, all []*events.Event) error {
	p.m.turn.Lock()
	defer p.m.turn.Unlock()
	for _, e := range all {
		if _, err := p.m.stream.Publish(ctx, e); err != nil {
			return err
		}
	}
	return p.m.consume(p.m.stream.waits(), events.BatchSize, 1) //nolint:contextcheck // the reconcilers are the model's, and outlive the run
}

// live lets time go by. SkyPANEL's job runs each hour, unless it stands still.
func (m *months) live(d time.Duration) {
	m.Helper()
	for d > 0 {
		step := min(d, time.Hour)
		d -= step
		m.pass(step)
		m.bill()
	}
}

// bill runs SkyPANEL's job.
func (m *months) bill() {
	m.Helper()
	if !m.jobUp {
		return
	}
	report := m.tick(nil, skypanelsim.FailureSkips)
	for _, c := range report.Charges {
		m.checkHours(&c)
		m.taken[c.BillingID] = append(m.taken[c.BillingID], c)
	}
	if len(report.SwitchedOff) > 0 {
		m.observe()
	}
}

// work is what serversync does by itself, without a sweep.
func (m *months) work() {
	m.Helper()
	if !m.up {
		return
	}
	m.reconcileAll()
	m.settle()
	m.reviewBooks()
	m.ask(false)
	m.reconcileAll()
	m.take()
	m.observe()
}

// take takes the credit of first charges.
func (m *months) take() {
	m.Helper()
	m.takeCredit(oneOf(m.random, creditFaults()...))
}

// rest ends whatever stands still, and lets everything come to rest.
func (m *months) rest() {
	m.Helper()
	m.steps++
	m.note("everything comes to rest")
	m.panel.SetAPIFaults()
	m.panel.SetDeliveryFaults(virtfusionsim.DeliveryFaults{})
	m.panel.ReleaseShuffled()
	m.up, m.jobUp = true, true
	m.setMode(!m.chance(8))
	for i := range m.world.Users {
		m.setActive(i, !m.chance(5))
	}
	m.observe()
	for len(m.orders) > 0 {
		m.orderGoesOn(0, orderBooked)
	}
	m.live(modelSettleDelay)
	m.work()
	run := m.sweepNow(false)
	if run.State != db.RunSucceeded {
		m.Fatalf("the sweep is %s: %s, %+v", run.State, run.Note, run.Problems)
	}
	m.comeToRest()
	if m.settleCharges(oneOf(m.random, creditFaults()...)) {
		m.comeToRest()
	}
	m.bill()
}

// sweepNow does a sweep.
func (m *months) sweepNow(dryRun bool) db.Run {
	m.Helper()
	m.pass(time.Second)
	id, _, err := db.StartRun(m.ctx, m.db, db.NewSweep(dryRun, "months", m.clock()))
	if err != nil {
		m.Fatal(err)
	}
	if err := m.runs.Due(m.ctx); err != nil {
		m.Fatalf("sweep: %v", err)
	}
	run := m.read(id)
	if run.State == db.RunNeedsApproval { // an empty list
		if _, _, err := db.ApproveRun(m.ctx, m.db, id, "an admin", m.clock()); err != nil {
			m.Fatal(err)
		}
		if err := m.runs.Due(m.ctx); err != nil {
			m.Fatalf("sweep: %v", err)
		}
		run = m.read(id)
	}
	return run
}

// read reads a run that has ended.
func (m *months) read(id string) db.Run {
	m.Helper()
	run, err := db.ReadRun(m.ctx, m.db, id)
	if err != nil {
		m.Fatal(err)
	}
	m.note("%s %s (dry: %v) is %s: %s", run.Kind, run.ID, run.DryRun, run.State, run.Note)
	m.observe()
	return run
}

// await waits for a run that another goroutine works on.
func (m *months) await(id string, err error) db.Run {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
	deadline := time.NewTimer(fleetPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for m.text(`SELECT state FROM serversync.runs WHERE id = $1`, id) == db.RunRunning {
		select {
		case <-ticker.C:
		case <-deadline.C:
			m.Fatalf("run %s does not end", id)
		}
	}
	m.turn.Lock()
	defer m.turn.Unlock()
	return m.read(id)
}

// wish has an operator do something with servers.
func (m *months) wish(action string, ids ...int64) db.Run {
	m.Helper()
	m.pass(time.Second)
	slices.Sort(ids)
	m.note("an operator: %s %v", action, ids)
	return m.await(m.runs.StartBulk(m.ctx, ingest.BulkOrder{
		IDs: ids, Order: db.BulkOrder{Action: action, WishChange: bulkWishes[action], Reason: "months"}, By: "ann",
	}))
}

// undo takes a run back.
func (m *months) undo(id string) db.Run {
	m.Helper()
	m.pass(time.Second)
	m.note("run %s is undone", id)
	return m.await(m.runs.StartUndo(m.ctx, db.UndoOrder{RunID: id}, false, "ann"))
}

// monthsActions are what may happen, each as often as it is listed.
func monthsActions() []string {
	return slices.Concat(
		slices.Repeat([]string{"create"}, 6), slices.Repeat([]string{"order"}, 4), slices.Repeat([]string{"order goes on"}, 3),
		slices.Repeat([]string{"move"}, 5), slices.Repeat([]string{"destroy"}, 2), slices.Repeat([]string{"package"}, 3),
		slices.Repeat([]string{"price"}, 3), slices.Repeat([]string{"customer"}, 4), slices.Repeat([]string{"mode"}, 1),
		slices.Repeat([]string{"away"}, 2), slices.Repeat([]string{"job"}, 2), slices.Repeat([]string{"outage"}, 2),
		slices.Repeat([]string{"work"}, 12), slices.Repeat([]string{"sweep"}, 6), slices.Repeat([]string{"wish"}, 4),
		slices.Repeat([]string{"undo"}, 3), slices.Repeat([]string{"no UUID"}, 1), slices.Repeat([]string{"post"}, 1),
	)
}

// happen is one thing that happens.
func (m *months) happen(what string) {
	m.Helper()
	switch what {
	case "create":
		m.createServer(m.chance(3))
	case "order":
		m.orderServer()
	case "order goes on":
		if len(m.orders) > 0 {
			m.orderGoesOn(m.random.IntN(len(m.orders)), oneOf(m.random, orderBooked, orderBooked, orderBooked, orderLost, orderTraced))
		}
	case "move", "destroy", "package":
		m.changeServer(what)
	case "price":
		if m.chance(6) {
			m.setHours()
		} else {
			m.setPrice(m.random.IntN(len(m.world.Packages)))
		}
	case "customer":
		m.switchCustomer()
	case "mode":
		m.setMode(!m.hourly)
	case "away":
		m.away()
	case "job":
		m.jobUp = !m.jobUp
		m.note("SkyPANEL's job runs: %v", m.jobUp)
		m.bill()
	case "outage":
		m.up = !m.up
		m.note("serversync runs: %v", m.up)
		m.work()
	case "work":
		m.work()
	case "sweep":
		if m.up {
			m.ended = append(m.ended, m.sweepNow(false).ID)
		}
	case "wish":
		m.wishSomething()
	case "undo":
		if m.up && len(m.ended) > 0 {
			m.undo(oneOf(m.random, m.ended...))
		}
	case "no UUID":
		m.note("SkyPANEL's rows lose their UUIDs")
		m.exec(`UPDATE virtfusion_hourly_billing SET server_uuid = NULL WHERE reference_1 IS NULL AND id % 2 = 0`)
	case "post":
		m.note("what waited in the post arrives")
		m.panel.ReleaseShuffled()
	default:
		m.Fatalf("no such thing happens: %s", what)
	}
}

func (m *months) createServer(silent bool) {
	m.Helper()
	if len(m.panel.Servers()) >= m.most {
		return
	}
	args := virtfusionsim.CreateArgs{
		OwnerID: m.someAccount(), PackageID: oneOf[int64](m.random, packageSmall, packageSmall, packageLarge, packageCustom), Silent: silent, Built: true,
	}
	if m.chance(6) {
		args.SelfService = 1
	}
	if silent || m.chance(3) {
		args.Created = m.clock().Add(-oneOf(m.random, time.Hour, 24*time.Hour, 365*24*time.Hour))
	}
	s, err := m.panel.CreateServer(args)
	m.must(s, err)
	m.ever = append(m.ever, s.ID)
	m.note("server %d is created for account %d, package %d, silently: %v, created %s", s.ID, args.OwnerID, args.PackageID, args.Silent, s.Created)
}

func (m *months) someAccount() int64 {
	return oneOf[int64](m.random, accountBeatriz, accountBeatriz, accountChen, accountChen, accountKofi, accountInes, accountNobody)
}

func (m *months) orderServer() {
	m.Helper()
	buyers, plans := m.world.Buyers(), m.world.ForSale()
	if len(buyers) == 0 || len(m.panel.Servers()) >= m.most {
		return
	}
	m.order(oneOf(m.random, buyers...), oneOf(m.random, plans...))
	m.observe()
	if !m.chance(3) {
		m.pass(3 * time.Second)
		m.orderGoesOn(len(m.orders)-1, orderBooked)
	}
}

func (m *months) orderGoesOn(at int, end orderEnd) {
	m.Helper()
	o := m.orders[at]
	m.proceed(at, end)
	switch {
	case o.row != 0:
		r := m.rows()[o.row]
		had := m.had[tenancy{r.Server, r.UserID}]
		m.late[o.row] = len(had) == 0 || !had[len(had)-1].to.IsZero()
	case end != orderLost:
		m.paidWithoutRow++
	}
	m.observe()
}

func (m *months) changeServer(what string) {
	m.Helper()
	servers := m.panel.Servers()
	if len(servers) == 0 {
		return
	}
	id := oneOf(m.random, servers...).ID
	switch what {
	case "move":
		to := m.someAccount()
		m.note("server %d moves to account %d", id, to)
		m.must(m.panel.Move(id, to))
	case "destroy":
		m.note("server %d is destroyed", id)
		if m.chance(2) {
			m.must(nil, m.panel.DestroySilently(id))
		} else {
			m.must(m.panel.Destroy(id))
		}
	case "package":
		plan := oneOf[int64](m.random, packageSmall, packageLarge, packageCustom)
		m.note("server %d gets package %d", id, plan)
		m.must(m.panel.SetPackage(id, plan))
	}
}

// setPrice gives a package another price; the custom one has none at first.
func (m *months) setPrice(at int) {
	m.Helper()
	p := &m.world.Packages[at]
	if p.ID == packageCustom && m.steps == 0 {
		return
	}
	p.Price = oneOf(m.random, monthPrices()...)
	if p.PricingID == 0 {
		p.PricingID = 3
	}
	m.note("package %d costs %d", p.ID, p.Price)
	m.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES ($1, $2, $3)
		ON CONFLICT (virtfusion_package_id) DO UPDATE SET price = excluded.price`, p.ID, p.Name, p.Price)
}

// setMode has SkyPANEL bill by the hour, or by the month.
func (m *months) setMode(hourly bool) {
	m.Helper()
	m.hourly = hourly
	m.note("SkyPANEL bills by the hour: %v", m.hourly)
	m.exec(`UPDATE settings SET value = $1 WHERE key = 'virtfusion_self_service_hourly_credit'`, strconv.FormatBool(m.hourly))
}

// setHours gives the month other hours. Short months are billed as long ones are,
// and sooner over.
func (m *months) setHours() {
	m.Helper()
	m.hours = oneOf[int64](m.random, 48, 50, 60, 72, 96, 100)
	if m.chance(15) {
		m.hours = modelHoursInMonth
	}
	m.note("a month has %d hours", m.hours)
	m.exec(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, billing_on_first_enabled, hourly_billing_enabled) VALUES (true, $1, false, true)`, m.hours)
}

// switchCustomer switches a customer off, or on again.
func (m *months) switchCustomer() {
	m.Helper()
	at := m.random.IntN(len(m.world.Users))
	for i := range m.world.Users { // rather one who is off: months are long
		if m.world.Users[i].Inactive && m.chance(2) {
			at = i
		}
	}
	m.setActive(at, m.world.Users[at].Inactive)
}

func (m *months) setActive(at int, active bool) {
	m.Helper()
	u := &m.world.Users[at]
	u.Inactive = !active
	m.note("%s (user %d): inactive %v", u.Username, u.ID, u.Inactive)
	m.exec(`UPDATE users SET is_active = $2 WHERE id = $1`, u.ID, !u.Inactive)
}

// away is a time in which VirtFusion cannot be reached: SkyPANEL's job switches
// off what it asks for, and a sweep sees nothing.
func (m *months) away() {
	m.Helper()
	m.note("VirtFusion is away")
	m.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServiceUnavailable, Skip: m.random.IntN(4)})
	if m.chance(2) {
		m.bill()
	}
	if m.up && m.chance(2) {
		m.sweepNow(false)
	}
	m.panel.SetAPIFaults()
}

func (m *months) wishSomething() {
	m.Helper()
	var ids []int64
	for _, s := range m.inventory() {
		if m.chance(2) {
			ids = append(ids, s.VirtfusionID)
		}
	}
	if !m.up || len(ids) == 0 {
		return
	}
	m.ended = append(m.ended, m.wish(oneOf(m.random, "resync", "billing-on", "billing-off", "set-package", "ignore", "clear", "clear"), ids...).ID)
}
