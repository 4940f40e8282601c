package main_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"serversync/virtfusion/virtfusionsim"
)

// maxRounds is after how many rounds without anything new the books must stand
// still.
const maxRounds = 6

// finish ends a history as time would: what is on its way arrives or is lost,
// SkyPANEL gets on with its orders, and a full pass looks at every server there
// ever was.
func (m *model) finish() {
	m.Helper()
	m.steps++
	m.note("the end")
	m.panel.SetDeliveryFaults(virtfusionsim.DeliveryFaults{})
	m.panel.ReleaseShuffled()
	for len(m.orders) > 0 {
		m.proceed(0, orderBooked)
	}
	m.pass(modelSettleDelay)
	m.reconcileAll()
	m.sweep()
	m.comeToRest()
	answers := creditFaults()
	if m.settleCharges(answers[m.steps%len(answers)]) {
		m.comeToRest()
	}
}

// sweep observes what a full sweep does: every server that VirtFusion has, and,
// by its 404, every one that the inventory holds to be there still.
func (m *model) sweep() {
	m.Helper()
	m.pass(time.Second)
	ids := map[int64]bool{}
	for _, s := range m.panel.Servers() {
		ids[s.ID] = true
	}
	for _, s := range m.inventory() {
		ids[s.VirtfusionID] = ids[s.VirtfusionID] || s.Status != "gone"
	}
	maps.DeleteFunc(ids, func(_ int64, due bool) bool { return !due })
	if err := m.asker.Refetch(m.ctx, slices.Sorted(maps.Keys(ids))); err != nil {
		m.Fatalf("sweep: %v", err)
	}
}

// comeToRest goes on with all that runs by itself until nothing changes any
// more.
func (m *model) comeToRest() {
	m.Helper()
	for round := range maxRounds {
		lines := m.text(`SELECT count(*)::text FROM serversync.history`)
		m.reconcileAll()
		m.pass(modelBooksEvery)
		m.settle()
		m.reviewBooks()
		m.ask(false)
		m.bed.figures.passes.Add(1)
		if m.stream.waits() == 0 && lines == m.text(`SELECT count(*)::text FROM serversync.history`) {
			return
		}
		if round == maxRounds-1 {
			for _, s := range m.inventory() {
				if s.Ask != "" {
					m.Fatalf("server %d is asked about for ever: %s%s", s.VirtfusionID, s.Ask, m.story(s.VirtfusionID))
				}
			}
			m.Fatalf("the books do not come to rest: %s", m.text(`
				SELECT string_agg(concat_ws(' ', at, virtfusion_id, kind, reason), E'\n' ORDER BY id) FROM (
					SELECT * FROM serversync.history ORDER BY id DESC LIMIT 10) h`))
		}
	}
}

// repeatEverything delivers everything again and expects that nothing changes:
// each event, in the given order; each webhook, lost ones too; and again each
// event. A webhook that had been lost may tell of a later change by VirtFusion's
// own time than was known (of a server's end, for one), or that a server which
// has settled was created, and nothing else.
func (m *model) repeatEverything(order []int) {
	m.Helper()
	m.pass(3 * time.Hour)
	before := m.dump()
	m.repeatEvents(order)
	m.wantSame("events were delivered again", before)

	lost := []string{"updated_at", "settle_until"}
	before = m.dump(lost...)
	m.stream.window = 0
	m.panel.Deliver(slices.DeleteFunc(m.panel.Journal(), func(d virtfusionsim.Delivery) bool {
		return m.known[d.ServerID].status == "" // it came and went unheard of
	})...)
	m.bed.figures.again.Add(int64(m.stream.waits()))
	m.comeToRest()
	m.wantSame("webhooks were delivered again", before, lost...)

	before = m.dump()
	m.repeatEvents(order)
	m.wantSame("webhooks and events were delivered again", before)
}

func (m *model) repeatEvents(order []int) {
	m.Helper()
	m.stream.again(order...)
	m.bed.figures.again.Add(int64(len(order)))
	m.comeToRest()
}

// dump is every row that SkyPANEL and we keep, without the given columns of the
// inventory.
func (m *model) dump(without ...string) []string {
	m.Helper()
	var all []string
	for _, table := range m.bed.tables {
		var left []string
		switch table {
		case "serversync.passes":
			continue // when a pass last ran is not what the books say
		case "serversync.servers":
			left = append(without, "asked_at") // an answer leaves when it was asked
		}
		var rows []string
		if err := m.db.NewRaw(`SELECT (to_jsonb(t) - string_to_array(?, ' '))::text FROM `+table+` t ORDER BY 1`, strings.Join(left, " ")).Scan(m.ctx, &rows); err != nil {
			m.Fatal(err)
		}
		for _, row := range rows {
			all = append(all, table+" "+row)
		}
	}
	return all
}

func (m *model) wantSame(what string, before []string, without ...string) {
	m.Helper()
	after := m.dump(without...)
	var differences []string
	for _, row := range before {
		if !slices.Contains(after, row) {
			differences = append(differences, "- "+row)
		}
	}
	for _, row := range after {
		if !slices.Contains(before, row) {
			differences = append(differences, "+ "+row)
		}
	}
	if len(differences) > 0 {
		m.Fatalf("%s, and the books changed:\n%s", what, strings.Join(differences, "\n"))
	}
}

// tell writes the history down when it failed.
func (m *model) tell() {
	if !m.Failed() {
		return
	}
	m.Logf("the history:\n%s", strings.Join(m.log, "\n"))
}

// story is what the books say of a server, for a failure's message.
func (m *model) story(server int64) string {
	m.Helper()
	return fmt.Sprintf("\nVirtFusion: %s\ninventory: %s\nrows: %s\ncharges: %s\nhistory:\n%s", m.panelSays(server),
		m.text(`SELECT coalesce(string_agg(to_jsonb(s)::text, ''), 'none') FROM serversync.servers s WHERE virtfusion_id = $1`, server),
		m.text(`SELECT coalesce(string_agg(concat_ws(' ', b.id, 'user', b.user_id, CASE WHEN b.billing_enabled THEN 'on' ELSE 'off' END, b.monthly_price, b.last_billed_at, r.made_by, r.enabled, r.closed_reason), '; ' ORDER BY b.id), 'none')
			FROM virtfusion_hourly_billing b LEFT JOIN serversync.billing_rows r ON r.billing_id = b.id WHERE virtfusion_server_id = $1`, server),
		m.text(`SELECT coalesce(string_agg(concat_ws(' ', 'row', billing_id, 'user', user_id, status, billing_period_start, 'made', created_at), '; ' ORDER BY id), 'none')
			FROM virtfusion_hourly_transactions WHERE server_id = $1`, server),
		m.text(`SELECT coalesce(string_agg(concat_ws(' ', to_char(at AT TIME ZONE 'UTC', 'DD HH24:MI:SS.MS'), kind, billing_id, left(reason, 200), source), E'\n' ORDER BY id), 'none') FROM serversync.history WHERE virtfusion_id = $1`, server))
}

func (m *model) panelSays(server int64) string {
	s, err := m.panel.Server(server)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%+v", s)
}
