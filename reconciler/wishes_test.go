package reconciler

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"serversync/events"
)

func (s *system) wish(id int64, kind string) {
	s.t.Helper()
	s.exec(fmt.Sprintf(`INSERT INTO serversync.overrides (virtfusion_id, kind, package_id, reason) VALUES (%d, '%s', %s, 'because')`,
		id, kind, map[bool]string{true: "4", false: "NULL"}[kind == "package"]))
}

// What an operator wishes is done at the next look, outlives whatever comes,
// and ends when the wish is taken back.
func TestWishes(t *testing.T) {
	t.Parallel()
	const (
		ours    = "external on 7"
		ourRow  = "7 3 7.3000 on ours"
		native  = "native on 7"
		itsRow  = "7 3 7.3000 on native"
		off     = `UPDATE virtfusion_hourly_billing SET billing_enabled = false`
		selfSrv = `SELECT 1`
	)
	for name, c := range map[string]struct {
		wish, before        string
		edit                func(*events.Event)
		server, row         string
		serverOver, rowOver string // when the wish is over
	}{
		"billing_off, external": {"billing_off", "", nil, "external off operator 7", "7 3 7.3000 off ours", ours, ourRow},
		"ignore, external":      {"ignore", "", nil, "external off operator 7", "7 3 7.3000 off ours", ours, ourRow},
		"undone, external":      {"undone", "", nil, "external off operator 7", "7 3 7.3000 off ours", ours, ourRow},
		"undone, withdrawn":     {"undone", `DELETE FROM virtfusion_hourly_billing`, nil, "external off operator 7", "", ours, ourRow},
		"ignore, withdrawn":     {"ignore", `DELETE FROM virtfusion_hourly_billing`, nil, "external off operator 7", "", ours, ourRow},
		"billing_on, external":  {"billing_on", "", nil, ours, ourRow, ours, ourRow},
		"billing_on, disabled":  {"billing_on", off, nil, ours, ourRow, ours, ourRow},
		"billing_on, self service": {
			"billing_on", selfSrv, func(e *events.Event) { e.Server.SelfService = new(int64(1)) },
			ours, ourRow, "external off self_service 7", "7 3 7.3000 off ours",
		},
		"billing_on, monthly":     {"billing_on", monthly, nil, "external off monthly_mode 7", "7 3 7.3000 off ours", "external off monthly_mode 7", "7 3 7.3000 off ours"},
		"package, external":       {"package", "", nil, ours, "7 4 14.6000 on ours", ours, ourRow},
		"package, unpriced":       {"package", "", packaged(unpriced), ours, "7 4 14.6000 on ours", "external off unpriced 7", "7 5 0.0000 off ours"},
		"billing_off, native":     {"billing_off", "", nil, "native off operator 7", "7 3 7.3000 off native", native, itsRow},
		"ignore, native":          {"ignore", "", nil, "native off operator 7", "7 3 7.3000 off native", native, itsRow},
		"undone, native":          {"undone", "", nil, native, itsRow, native, itsRow},
		"package, native":         {"package", "", nil, native, itsRow, native, itsRow},
		"billing_on, native":      {"billing_on", "", nil, native, itsRow, native, itsRow},
		"billing_on, native off":  {"billing_on", off, nil, native, itsRow, native, itsRow},
		"billing_off, native off": {"billing_off", off, nil, "native off operator 7", "7 3 7.3000 off native", "native off disabled_by_skypanel 7", "7 3 7.3000 off native"},
		"billing_on, traces":      {"billing_on", `DELETE FROM virtfusion_hourly_billing; DELETE FROM serversync.billing_rows; INSERT INTO server_uptime_logs (server_id, user_id) VALUES (501, 7)`, nil, ours, ourRow, ours, ourRow},
		"billing_off, before a row": {
			"billing_off", `DELETE FROM virtfusion_hourly_billing; DELETE FROM serversync.billing_rows; DELETE FROM serversync.servers; DELETE FROM serversync.history`, nil,
			"external off operator 7", "7 3 7.3000 off ours", ours, ourRow,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			edit := func(e *events.Event) {
				if c.edit != nil {
					c.edit(e)
				}
			}
			if strings.Contains(name, ", native") {
				b.skypanelOrders(501)
			}
			b.hear(b.news(501, edit))
			if c.before != "" {
				b.exec(c.before)
			}
			b.wish(501, c.wish)
			b.pass(2 * time.Hour)
			if strings.HasSuffix(name, "before a row") {
				b.hear(b.news(501, edit))
			}
			b.review(501)
			look := func(when, server, row string) {
				t.Helper()
				b.wantServer(501, server)
				b.wantRows(501, row)
				if t.Failed() {
					t.Fatal(when)
				}
			}
			look("at once", c.server, c.row)
			before := b.dump()
			b.review(501)
			wantSame(t, before, b.dump())
			for _, happen := range []func(*events.Event){named("b"), updated, created, func(e *events.Event) { e.Source = events.SourceSync }} {
				b.pass(time.Hour)
				b.hear(b.news(501, edit, happen))
				look("after news", c.server, c.row)
			}
			b.pass(24 * time.Hour)
			b.settle(b.r)
			look("after a day", c.server, c.row)
			b.tick()

			b.exec(`DELETE FROM serversync.overrides`)
			b.review(501)
			look("when it is over", c.serverOver, c.rowOver)
			before = b.dump()
			b.review(501)
			wantSame(t, before, b.dump())
			b.tick()
			b.pass(3 * time.Hour)
			b.tick()
			b.wantNoHourTwice()
		})
	}
}

// Off is stronger than on, and the end stronger than either.
func TestWishesAgainstEachOther(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(502)
	b.hear(b.news(501), b.news(502), b.news(503))
	for id := int64(501); id <= 502; id++ {
		b.wish(id, "billing_on")
		b.wish(id, "billing_off")
	}
	b.wish(503, "billing_on")
	b.review(501, 502)
	b.wantServer(501, "external off operator 7")
	b.wantServer(502, "native off operator 7")
	b.pass(time.Minute)
	b.hear(b.news(503, destroyed))
	b.wantServer(503, "gone off destroyed 7")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
}

// SkyPANEL's own row that an operator had switched off, and that somebody
// switches on again, is switched off again; once the wish is over, a later
// switch of SkyPANEL's is SkyPANEL's word.
func TestAWishForSkyPANELsRowAgainstOthers(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.skypanelOrders(501)
	b.hear(b.news(501))
	b.wish(501, "billing_off")
	b.review(501)
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = true`)
	b.review(501)
	b.wantRows(501, "7 3 7.3000 off native")

	b.exec(`DELETE FROM serversync.overrides; UPDATE virtfusion_hourly_billing SET billing_enabled = true`)
	b.review(501)
	b.wantServer(501, "native on 7")
	b.exec(`UPDATE virtfusion_hourly_billing SET billing_enabled = false`)
	b.review(501)
	b.wantServer(501, "native off disabled_by_skypanel 7")
	b.wantRows(501, "7 3 7.3000 off native")

	// A row without a UUID is switched and completed in one.
	b.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate)
		VALUES (7, 503, 503, 3, 'Small', 7.3, 0.01)`)
	b.wish(503, "ignore")
	b.hear(b.news(503))
	b.want("f uuid-503", `SELECT concat_ws(' ', billing_enabled, server_uuid) FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 503`)

	// Our filling in of a UUID is no such wish.
	b.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		VALUES (7, 502, 502, 3, 'Small', 7.3, 0.01, false)`)
	b.hear(b.news(502))
	b.want("uuid-502", `SELECT server_uuid FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 502`)
	b.review(502)
	b.wantServer(502, "native off disabled_by_skypanel 7")
	b.wantRows(502, "7 3 7.3000 off native")
}

// Observing only, no billing row is touched, whatever comes; what would be
// done is said; and it is done once this ends.
func TestObserveOnly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	observing := b.policy
	observing.ObserveOnly = true
	observer := b.other(observing)
	look := func(all ...*events.Event) {
		t.Helper()
		b.pass(time.Second)
		hearWith(t, observer, all...)
	}
	b.skypanelOrders(502) // SkyPANEL's own, whose UUID is missing, and another
	b.exec(`UPDATE virtfusion_hourly_billing SET server_uuid = NULL`)
	b.skypanelOrders(505)
	b.hear(b.news(503), b.news(504), b.news(506), b.news(507), b.news(509))
	b.exec(`UPDATE package_pricing SET price = 1460 WHERE virtfusion_package_id = 3`)
	b.skypanelOrders(506) // ours is to be withdrawn
	b.exec(`DELETE FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 509`)
	b.wish(505, "billing_off")
	b.wish(507, "billing_off")
	rows := func() string {
		return b.text(`SELECT concat(
			(SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY id) FROM virtfusion_hourly_billing t),
			(SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY id) FROM virtfusion_hourly_transactions t),
			(SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY billing_id) FROM serversync.billing_rows t))`)
	}
	before := rows()
	look(b.news(501), b.news(502), b.news(503), b.news(504, ownedBy(owner8)), b.news(505), b.news(506), b.news(507), b.bornNow(508), b.news(509))
	b.wish(501, "package")
	for range 2 {
		b.pass(5 * time.Minute)
		if _, err := observer.Redecide(t.Context(), []int64{501, 502, 503, 504, 505, 506, 507, 508, 509}); err != nil {
			t.Fatal(err)
		}
		b.settle(observer)
	}
	look(b.news(504, ownedBy(owner8), named("b")), b.news(506, destroyed))
	wantSame(t, before, rows())

	note := func(id int64) string {
		return b.text(fmt.Sprintf(`SELECT note FROM serversync.servers WHERE virtfusion_id = %d`, id))
	}
	for id, words := range map[int64]string{
		501: "billed 14.60 a month", 502: "UUID", 503: "from 7.30 to 14.60", 504: "moved from SkyPANEL user 7 to SkyPANEL user 8",
		505: "because", 506: "gone", 507: "operator", 508: "billed 14.60", 509: "billed 14.60",
	} {
		if got := note(id); !strings.HasPrefix(got, "observing only") || !strings.Contains(got, words) {
			t.Errorf("the note of %d does not tell %q: %s", id, words, got)
		}
	}
	// The inventory says how the books stand.
	b.want("501 off, 502 on, 503 on, 504 on, 505 on, 506 on, 507 on, 508 off, 509 off",
		`SELECT string_agg(concat_ws(' ', virtfusion_id, billing, billing_reason), ', ' ORDER BY virtfusion_id) FROM serversync.servers`)
	b.want("0", `SELECT count(*) FROM serversync.history WHERE kind LIKE 'billing%' AND at > '2026-03-01 12:00:00+00'`)

	// Decided again later, nothing is written.
	all := b.dump()
	b.pass(3 * time.Minute) // 504 is left out: VirtFusion is asked before a row is closed
	if _, err := observer.Redecide(t.Context(), []int64{501, 502, 503, 505, 506, 507, 508, 509}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, all, b.dump())

	b.reviewAll() // no longer observing
	b.wantRows(501, "7 4 14.6000 on ours")
	b.wantRows(502, "7 3 7.3000 on native")
	b.want("uuid-502", `SELECT server_uuid FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 502`)
	b.wantRows(503, "7 3 14.6000 on ours")
	b.wantServer(505, "native off operator 7")
	b.wantServer(506, "gone off destroyed 7")
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled AND virtfusion_server_id IN (505, 506, 507)`)
	b.wantRows(508, "7 3 14.6000 on ours")
	b.wantRows(509, "7 3 14.6000 on ours")
	b.pass(time.Minute)
	b.hear(b.news(504, ownedBy(owner8)))
	b.wantRows(504, "7 3 7.3000 off ours, 8 3 14.6000 on ours")
	b.tick()
	b.wantNoHourTwice()
}

// A settler that observes only comes to an end, however many are due.
func TestSettlerEndsWhileObservingOnly(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	observing := b.policy
	observing.ObserveOnly = true
	observer := b.other(observing)
	all := make([]*events.Event, events.BatchSize)
	for i := range all {
		all[i] = b.bornNow(int64(i) + 1)
	}
	hearWith(t, observer, all...)
	b.pass(b.policy.SettleDelay)
	b.settle(observer)
	b.want("0", `SELECT count(*) FROM virtfusion_hourly_billing`)
	b.reviewAll()
	b.want(strconv.Itoa(events.BatchSize), `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled`)
	b.hear(all...) // once more
	b.want(strconv.Itoa(events.BatchSize), `SELECT count(*) FROM virtfusion_hourly_billing`)
}
