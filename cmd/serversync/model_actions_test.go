package main_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"pgregory.net/rapid"

	"serversync/db/skypanelsim"
	"serversync/reconciler"
	"serversync/virtfusion/virtfusionsim"
)

// modelActions are what may happen, each as often as it is listed.
func modelActions(flips bool) []string {
	weights := []struct {
		name   string
		weight int
	}{
		{"time", 4},
		{"events", 6},
		{"order", 4},
		{"order goes on", 3},
		{"create", 4},
		{"change", 7},
		{"move", 6},
		{"destroy", 2},
		{"failed create", 1},
		{"price", 1},
		{"customer", 2},
		{"job", 4},
		{"settle", 2},
		{"books", 2},
		{"ask", 2},
		{"post", 1},
		{"again", 1},
		{"pull", 2},
		{"parallel", 1},
		{"credit", 4},
		{"person", 1},
	}
	var names []string
	for _, w := range weights {
		names = append(names, slices.Repeat([]string{w.name}, w.weight)...)
	}
	if flips {
		names = append(names, "mode", "mode")
	}
	return names
}

// act does one thing of the kind.
func (m *model) act(t *rapid.T, name string) {
	m.steps++
	m.pass(rapid.SampledFrom([]time.Duration{0, time.Millisecond, 700 * time.Millisecond, 5 * time.Second}).Draw(t, "passed"))
	switch name {
	case "time":
		m.letTimePass(t)
	case "events":
		m.reconcile(rapid.IntRange(1, 12).Draw(t, "events"), rapid.SampledFrom([]int{1, 2, 3, 5, 500}).Draw(t, "batch"), 1)
	case "parallel":
		m.sideBySide(t)
	case "order":
		m.orderSomething(t)
	case "order goes on":
		if len(m.orders) == 0 {
			t.Skip("no order")
		}
		at := rapid.IntRange(0, len(m.orders)-1).Draw(t, "order")
		m.proceed(at, rapid.SampledFrom([]orderEnd{orderBooked, orderBooked, orderBooked, orderBooked, orderLost, orderTraced}).Draw(t, "end"))
	case "create", "failed create":
		m.createDirectly(t, name == "failed create")
	case "change":
		m.change(t)
	case "move":
		id := m.existing(t)
		to := m.account(t)
		m.note("server %d moves to account %d", id, to)
		m.must(m.panel.Move(id, to))
	case "destroy":
		id := m.existing(t)
		silent := rapid.IntRange(0, 2).Draw(t, "silent") == 2
		m.note("server %d is destroyed, silently: %v", id, silent)
		if silent {
			m.must(nil, m.panel.DestroySilently(id))
		} else {
			m.must(m.panel.Destroy(id))
		}
	case "price":
		m.changePrice(t)
	case "customer":
		m.changeCustomer(t)
	case "mode":
		m.hourly = !m.hourly
		m.note("SkyPANEL bills by the hour: %v", m.hourly)
		m.exec(`UPDATE settings SET value = $1 WHERE key = 'virtfusion_self_service_hourly_credit'`, strconv.FormatBool(m.hourly))
	case "job":
		m.runJob(t)
	case "settle":
		m.settle()
	case "books":
		m.reviewBooks()
	case "ask":
		m.withAPIFaults(t, false, func(fails bool) { m.ask(fails) })
	case "post":
		m.changePost(t)
	case "again":
		m.repeatSome(t)
	case "pull":
		m.pull(t)
	case "credit":
		m.takeCredit(rapid.SampledFrom(creditFaults()).Draw(t, "credit"))
	case "person":
		creditBooks{m, m.ctx, m.db, m.panel}.resolve(m.workers[0].Reconciler)
	default:
		m.Fatalf("no such action: %s", name)
	}
}

// must fails when VirtFusion or SkyPANEL, as simulated, could not do something.
func (m *model) must(_ any, err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *model) letTimePass(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{
		20 * time.Second, time.Minute, modelSettleDelay, 10 * time.Minute, 40 * time.Minute, time.Hour, 5 * time.Hour, 26 * time.Hour,
	}).Draw(t, "time")
	m.pass(d)
	m.note("%s later", d)
}

// sideBySide runs everything that may run at once, at once.
func (m *model) sideBySide(t *rapid.T) {
	n := m.stream.published()
	for range rapid.IntRange(0, 4).Draw(t, "repeats") {
		if n > 0 {
			m.stream.again(rapid.IntRange(0, n-1).Draw(t, "event"))
		}
	}
	m.bed.figures.parallel.Add(1)
	errs := make(chan error, 2)
	ended := m.clock().Add(modelBooksEvery)
	m.micros.Store(ended.UnixMicro())
	go func() { errs <- m.workers[modelReconcilers-1].SettleDue(m.ctx) }()
	go func() { errs <- m.review() }()
	m.reconcile(m.stream.waits(), rapid.IntRange(1, 4).Draw(t, "batch"), modelReconcilers)
	for range 2 {
		if err := <-errs; err != nil {
			m.Fatalf("side by side: %v", err)
		}
	}
	m.look()
	m.note("reconcilers side by side")
}

// orderSomething has a customer order who can.
func (m *model) orderSomething(t *rapid.T) {
	buyers, plans := m.world.Buyers(), m.world.ForSale()
	if len(buyers) == 0 || len(m.ever) >= 8 {
		t.Skip("nobody can order")
	}
	m.order(rapid.SampledFrom(buyers).Draw(t, "buyer"), rapid.SampledFrom(plans).Draw(t, "plan"))
	if rapid.Bool().Draw(t, "quickly") {
		m.pass(3 * time.Second)
		m.proceed(len(m.orders)-1, orderBooked)
	}
}

// createDirectly is an admin's work in VirtFusion.
func (m *model) createDirectly(t *rapid.T, fails bool) {
	args := virtfusionsim.CreateArgs{
		OwnerID:   m.account(t),
		PackageID: rapid.SampledFrom([]int64{packageSmall, packageSmall, packageLarge, packageCustom, 0}).Draw(t, "package"),
		ByHand:    rapid.Bool().Draw(t, "by hand"),
	}
	if fails {
		m.note("a creation for account %d fails", args.OwnerID)
		m.must(nil, m.panel.FailCreate(args))
		return
	}
	if len(m.ever) >= 8 {
		t.Skip("enough servers")
	}
	args.Silent = rapid.IntRange(0, 4).Draw(t, "silent") == 4
	args.Built = rapid.Bool().Draw(t, "built")
	if rapid.IntRange(0, 5).Draw(t, "self service") == 5 {
		args.SelfService = 1
	}
	if rapid.IntRange(0, 3).Draw(t, "old") == 3 {
		args.Created = m.clock().AddDate(-1, 0, 0)
	}
	s, err := m.panel.CreateServer(args)
	m.must(s, err)
	m.ever = append(m.ever, s.ID)
	m.note("server %d is created for account %d, package %d, silently: %v, created %s", s.ID, args.OwnerID, args.PackageID, args.Silent, s.Created)
}

func (m *model) account(t *rapid.T) int64 {
	ids := []int64{accountBeatriz, accountBeatriz, accountChen, accountChen, accountKofi, accountInes, accountJoana, accountNobody}
	return rapid.SampledFrom(ids).Draw(t, "account")
}

// existing picks a server that VirtFusion has.
func (m *model) existing(t *rapid.T) int64 {
	servers := m.panel.Servers()
	if len(servers) == 0 {
		t.Skip("no server")
	}
	return servers[rapid.IntRange(0, len(servers)-1).Draw(t, "server")].ID
}

// change changes a server in a way that SkyPANEL does not care for, but for the
// package.
func (m *model) change(t *rapid.T) {
	id := m.existing(t)
	what := rapid.SampledFrom([]string{"build", "rename", "suspend", "unsuspend", "package", "package", "fail build", "fail destroy"}).Draw(t, "change")
	m.note("server %d: %s", id, what)
	switch what {
	case "build":
		m.must(m.panel.Build(id))
	case "rename":
		name := rapid.SampledFrom([]string{"web", "db", "mail"}).Draw(t, "name")
		m.must(m.panel.Rename(id, name, name+".example.net"))
	case "suspend":
		m.must(m.panel.Suspend(id))
	case "unsuspend":
		m.must(m.panel.Unsuspend(id))
	case "package":
		m.must(m.panel.SetPackage(id, rapid.SampledFrom([]int64{packageSmall, packageLarge, packageCustom}).Draw(t, "package")))
	case "fail build":
		m.must(m.panel.FailBuild(id))
	case "fail destroy":
		m.must(m.panel.FailDestroy(id))
	}
}

// changePrice gives a package a price, another price, or a month other hours.
func (m *model) changePrice(t *rapid.T) {
	if rapid.IntRange(0, 5).Draw(t, "hours") == 5 {
		m.hours = rapid.SampledFrom([]int64{720, modelHoursInMonth}).Draw(t, "hours in month")
		m.note("a month has %d hours", m.hours)
		m.exec(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, billing_on_first_enabled, hourly_billing_enabled) VALUES (true, $1, false, true)`, m.hours)
		return
	}
	p := &m.world.Packages[rapid.IntRange(0, len(m.world.Packages)-1).Draw(t, "package")]
	p.Price = rapid.SampledFrom([]int64{500, 1460, 9999}).Draw(t, "price")
	if p.PricingID == 0 {
		p.PricingID = 3
	}
	m.note("package %d costs %d", p.ID, p.Price)
	m.exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES ($1, $2, $3)
		ON CONFLICT (virtfusion_package_id) DO UPDATE SET price = excluded.price`, p.ID, p.Name, p.Price)
}

// changeCustomer switches a customer on or off, or links another account.
func (m *model) changeCustomer(t *rapid.T) {
	u := &m.world.Users[rapid.IntRange(0, len(m.world.Users)-1).Draw(t, "customer")]
	links := map[int64][]int64{
		userBeatriz: {accountBeatriz, 0}, userJoana: {0, accountJoana}, userKofi: {accountKofi, 0},
		userLiv: {0, accountNobody, accountBeatriz},
	}[u.ID]
	if len(links) == 0 || rapid.Bool().Draw(t, "switch") {
		u.Inactive = !u.Inactive
	} else {
		u.VirtFusionID = rapid.SampledFrom(links).Draw(t, "link")
	}
	m.note("%s (user %d): inactive %v, linked to account %d", u.Username, u.ID, u.Inactive, u.VirtFusionID)
	m.exec(`UPDATE users SET is_active = $2, virtfusion_id = nullif($3, 0) WHERE id = $1`, u.ID, !u.Inactive, u.VirtFusionID)
}

// changePost holds webhooks back, or lets them go, or loses them.
func (m *model) changePost(t *rapid.T) {
	what := rapid.SampledFrom([]string{"release", "release shuffled", "hold", "lose"}).Draw(t, "post")
	m.note("post: %s", what)
	switch what {
	case "hold":
		m.panel.Hold()
	case "release":
		m.panel.Release()
	case "release shuffled":
		m.panel.ReleaseShuffled()
	case "lose":
		m.panel.Discard()
	}
}

// repeatSome has the broker deliver events again, as after a crash before the
// acknowledgement.
func (m *model) repeatSome(t *rapid.T) {
	n := m.stream.published()
	if n == 0 {
		t.Skip("no events")
	}
	for range rapid.IntRange(1, 6).Draw(t, "repeats") {
		at := rapid.IntRange(0, n-1).Draw(t, "event")
		m.stream.again(at)
		m.bed.figures.again.Add(1)
		m.note("event %d is to come again", at+1)
	}
}

// pull asks VirtFusion for a server without any reason, as a sweep or a user's
// sync does.
func (m *model) pull(t *rapid.T) {
	if len(m.ever) == 0 {
		t.Skip("no server")
	}
	id := rapid.SampledFrom(m.ever).Draw(t, "server")
	m.withAPIFaults(t, false, func(fails bool) {
		if err := m.asker.Refetch(m.ctx, []int64{id}); err != nil && !fails {
			m.Fatal(err)
		}
	})
	m.note("server %d is pulled", id)
}

// withAPIFaults does something while VirtFusion's API may fail, or, where lies
// are allowed, say what is not so.
func (m *model) withAPIFaults(t *rapid.T, lies bool, do func(fails bool)) {
	kinds := []virtfusionsim.Fault{
		virtfusionsim.FaultNone, virtfusionsim.FaultNone, virtfusionsim.FaultNone, virtfusionsim.FaultServerError,
		virtfusionsim.FaultNotFoundPage, virtfusionsim.FaultUnauthorizedText, virtfusionsim.FaultHTML, virtfusionsim.FaultTruncatedJSON,
	}
	if lies {
		kinds = append(kinds, virtfusionsim.FaultNotFound, virtfusionsim.FaultWrongOwner, virtfusionsim.FaultStale)
	}
	kind := rapid.SampledFrom(kinds).Draw(t, "API")
	if kind != virtfusionsim.FaultNone {
		m.note("VirtFusion's API: %s", kind)
		m.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: kind, Op: virtfusionsim.OpGet, Skip: rapid.IntRange(0, 2).Draw(t, "skip")})
	}
	do(kind != virtfusionsim.FaultNone)
	m.panel.SetAPIFaults()
}

// runJob is a tick of SkyPANEL's billing job.
func (m *model) runJob(t *rapid.T) {
	var debit skypanelsim.DebitFunc
	if rapid.IntRange(0, 5).Draw(t, "no credit") == 5 {
		debit = func(context.Context, int64, int64, int64) error { return errors.New("no credit left") }
	}
	failure := rapid.SampledFrom([]skypanelsim.Failure{skypanelsim.FailureSkips, skypanelsim.FailureRetries}).Draw(t, "failure")
	m.withAPIFaults(t, true, func(bool) { m.tick(debit, failure) })
}

// tick runs the job, and checks what it charged. It returns what it did.
func (m *model) tick(debit skypanelsim.DebitFunc, failure skypanelsim.Failure) skypanelsim.Report {
	m.Helper()
	owner := func(ctx context.Context, id int64) (int64, error) {
		s, err := m.client.GetServer(ctx, id)
		if err != nil || s.Server.OwnerID == nil {
			return 0, errors.Join(err, errors.New("no owner"))
		}
		return *s.Server.OwnerID, nil
	}
	if m.unchecked {
		owner = nil
	}
	job := skypanelsim.NewJob(m.db, skypanelsim.JobConfig{Debit: debit, Failure: failure, Owner: owner})
	rows := m.rows()
	report, err := job.Tick(m.ctx, m.clock())
	if err := errors.Join(append(report.Errors, err)...); err != nil {
		m.Fatalf("SkyPANEL's job: %v", err)
	}
	for _, id := range report.SwitchedOff {
		m.sky.switchedOff[id] = true
	}
	m.bed.figures.charges.Add(int64(len(report.Charges)))
	m.note("SkyPANEL's job: %d charges, rows switched off: %v", len(report.Charges), report.SwitchedOff)
	for i := range report.Charges {
		m.checkCharge(&report.Charges[i], rows)
	}
	return report
}

// modelCharges are the ways of BILLING_INITIAL_CHARGE.
func modelCharges() []reconciler.InitialCharge {
	return []reconciler.InitialCharge{reconciler.ChargeRecord, reconciler.ChargeDeduct, reconciler.ChargeDeduct, reconciler.ChargeNone}
}
