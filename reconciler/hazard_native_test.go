package reconciler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"serversync/db/skypanelsim"
	"serversync/events"
)

const monthly = `INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false') ON CONFLICT (key) DO UPDATE SET value = 'false'`

// In monthly mode SkyPANEL makes no rows of its own, so that a missing one
// proves nothing; its traces of an order do, in either mode.
func TestHazard04MonthlyMode(t *testing.T) {
	t.Parallel()
	const (
		uptime = `INSERT INTO server_uptime_logs (server_id, user_id) VALUES (501, 7)`
		ledger = `INSERT INTO transactions (user_id, amount, type, description, status) VALUES (7, -7.3, 'debit', 'Server #501 - Small, first month', 'completed')`
	)
	for name, c := range map[string]struct{ setup, server, rows string }{
		"monthly, no trace":        {monthly, "external off monthly_mode 7", "7 3 7.3000 off ours"},
		"monthly, uptime":          {monthly + ";" + uptime, "native off monthly_mode 7", ""},
		"monthly, ledger":          {monthly + ";" + ledger, "native off monthly_mode 7", ""},
		"hourly, no trace":         {`SELECT 1`, "external on 7", "7 3 7.3000 on ours"},
		"hourly, uptime":           {uptime, "native off disabled_by_skypanel 7", ""},
		"hourly, ledger":           {ledger, "native off disabled_by_skypanel 7", ""},
		"both":                     {uptime + ";" + ledger, "native off disabled_by_skypanel 7", ""},
		"another server's":         {`INSERT INTO transactions (user_id, amount, type, description, status) VALUES (7, 1, 'debit', 'Server #5010 - a', ''), (7, 1, 'debit', 'Server #50 - a', ''), (7, 1, 'debit', 'VirtFusion Server #501 - a', ''), (7, 1, 'debit', 'Server #501: a', '')`, "external on 7", "7 3 7.3000 on ours"},
		"monthly, ledger of 8":     {monthly + ";" + `INSERT INTO transactions (user_id, amount, type, description, status) VALUES (8, 1, 'debit', 'Server #501 - Small', '')`, "external off monthly_mode 7", "7 3 7.3000 off ours"},
		"hourly, uptime of 8":      {`INSERT INTO server_uptime_logs (server_id, user_id) VALUES (501, 8)`, "external on 7", "7 3 7.3000 on ours"},
		"hourly, ledger of 8, 7":   {ledger + `; INSERT INTO transactions (user_id, amount, type, description, status) VALUES (8, 1, 'debit', 'Server #501 - Small', '')`, "native off disabled_by_skypanel 7", ""},
		"hourly, without the logs": {`DROP TABLE server_uptime_logs`, "external on 7", "7 3 7.3000 on ours"},
		"without a user in them":   {`ALTER TABLE server_uptime_logs DROP COLUMN user_id; INSERT INTO server_uptime_logs (server_id) VALUES (501)`, "native off disabled_by_skypanel 7", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := withJob(t)
			b.exec(c.setup)
			b.hear(b.news(501))
			b.wantServer(501, c.server)
			b.wantRows(501, c.rows)
			if !strings.Contains(c.server, " on ") {
				b.want("0", `SELECT count(*) FROM virtfusion_hourly_transactions`)
			}
			if n := b.review(501); n != 0 {
				t.Error("decided again, it changed")
			}
			b.pass(time.Minute)
			b.hear(b.news(501, named("b")))
			b.wantServer(501, c.server)
		})
	}
}

// A switch of the mode: nothing is charged in monthly mode, nor its months
// afterwards.
func TestHazard04TheModeChanges(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(501))
	b.want("0", `SELECT count(*) FROM server_uptime_logs`) // never: a second billing engine reads it
	b.pass(70 * time.Minute)
	b.wantTaken("501/7 1h=1") // until 14:00
	b.exec(monthly)
	b.exec(`INSERT INTO transactions (user_id, amount, type, description, status) VALUES (7, -7.3, 'debit', 'Server #502 - Small', 'completed')`)
	b.hear(b.news(502))
	b.review(501)
	b.wantServer(501, "external off monthly_mode 7")
	b.wantServer(502, "native off monthly_mode 7")
	b.pass(900 * time.Hour)
	b.wantTaken("")
	b.exec(`UPDATE settings SET value = 'true'`)
	b.review(501, 502)
	b.wantServer(501, "external on 7")
	b.wantServer(502, "native off disabled_by_skypanel 7")
	b.wantTaken("501/7 1h=1")
	b.wantNoHourTwice()
}

// SkyPANEL's job leaves traces for our rows too. They are no order: whoever
// deletes our row does not make the server SkyPANEL's.
func TestHazard04TracesOfOurOwnRow(t *testing.T) {
	t.Parallel()
	b := withJob(t, func(c *skypanelsim.JobConfig) {
		c.Describe = func(id int64) string { return fmt.Sprintf("Server #%d - Hourly Billing", id) }
	})
	b.hear(b.news(501))
	b.pass(3 * time.Hour)
	b.wantTaken("501/7 3h=3")
	b.exec(`INSERT INTO server_uptime_logs (server_id, user_id) VALUES (501, 7)`)
	b.hear(b.news(501, named("b")))
	b.wantServer(501, "external on 7")
	b.exec(`DELETE FROM virtfusion_hourly_billing`)
	b.pass(2 * time.Hour)
	b.review(501)
	b.wantServer(501, "external on 7")
	b.wantRows(501, "7 3 7.3000 on ours")
	b.wantTaken("") // the first hour is recorded again, from now on
	b.want("2026-03-01 18:00:00", `SELECT last_billed_at::text FROM virtfusion_hourly_billing`)
	b.exec(`DELETE FROM virtfusion_hourly_billing`)
	b.hear(b.news(501, ownedBy(owner8))) // nor for the next owner
	b.wantServer(501, "external on 8")
}

// What SkyPANEL sold to the first owner is no order of the second one's.
func TestHazard04TracesOfTheOwnerBefore(t *testing.T) {
	t.Parallel()
	for _, trace := range []string{
		`INSERT INTO server_uptime_logs (server_id, user_id) VALUES (501, 7)`,
		`INSERT INTO transactions (user_id, amount, type, description, status) VALUES (7, -7.3, 'debit', 'Server #501 - Small', 'completed')`,
	} {
		for _, row := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s row=%v", trace[12:18], row), func(t *testing.T) {
				t.Parallel()
				b := withJob(t)
				b.exec(trace)
				if row {
					b.skypanelOrders(501)
				}
				b.hear(b.news(501))
				b.want("native", `SELECT status FROM serversync.servers`)
				b.pass(time.Hour)
				b.hear(b.news(501, ownedBy(owner8)))
				b.wantServer(501, "external on 8")
				b.review(501)
				b.wantServer(501, "external on 8")
				b.pass(time.Minute)
				b.hear(b.news(501)) // and back
				if row {
					b.wantServer(501, "external on 7")
				}
				b.pass(3 * time.Hour)
				b.tick()
				b.wantNoHourTwice()
			})
		}
	}
}

// SkyPANEL's job reads any error of VirtFusion's as "not the owner", and
// switches rows off. That is reported; only an operator turns them on.
func TestHazard11SkyPANELSwitchesRowsOff(t *testing.T) {
	t.Parallel()
	away := errors.New("503")
	b := withJob(t)
	b.skypanelOrders(502)
	b.hear(b.news(501), b.news(502), b.news(503, func(e *events.Event) { e.Server.UUID = nil }))
	b.pass(time.Hour)
	job := skypanelsim.NewJob(b.db, skypanelsim.JobConfig{Owner: failing(away)})
	report, err := job.Tick(t.Context(), b.clock())
	if err != nil || len(report.SwitchedOff) != 2 {
		t.Fatalf("%d rows were switched off, %v", len(report.SwitchedOff), err)
	}
	b.review(501, 502, 503)
	b.wantServer(501, "external off disabled_by_skypanel 7")
	b.wantServer(502, "native off disabled_by_skypanel 7")
	b.wantServer(503, "external on 7") // no UUID, no check
	b.want("2", `SELECT count(*) FROM serversync.history WHERE kind = 'decided' AND after->>'billing_reason' = 'disabled_by_skypanel'`)
	b.pass(10 * time.Hour)
	b.hear(b.news(501, packaged(large)), b.news(502, named("b"))) // news is no word of an operator's
	b.wantRows(501, "7 4 14.6000 off ours")
	b.wantRows(502, "7 3 7.3000 off native")
	b.wantServer(501, "external off disabled_by_skypanel 7")

	b.exec(`INSERT INTO serversync.overrides (virtfusion_id, kind, reason) VALUES (501, 'billing_on', 'it exists'), (502, 'billing_on', '')`)
	b.review(501, 502)
	b.wantServer(501, "external on 7")
	b.wantServer(502, "native on 7")
	b.exec(`DELETE FROM virtfusion_hourly_billing WHERE virtfusion_server_id = 503`)
	b.wantTaken("502/7 1h=1, 501/7 1h=2") // and not the ten hours between
	b.exec(`DELETE FROM serversync.overrides`)
	b.review(501, 502)
	b.wantServer(501, "external on 7")
	b.wantServer(502, "native on 7")
	b.wantNoHourTwice()
}

func failing(err error) skypanelsim.OwnerFunc {
	return func(context.Context, int64) (int64, error) { return 0, err }
}
