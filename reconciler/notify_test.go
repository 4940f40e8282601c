package reconciler

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"serversync/events"
)

// told are the notifications that SkyPANEL has, in order.
func (s *system) told() string {
	s.t.Helper()
	return s.text(`SELECT coalesce(string_agg(concat_ws(' | ', user_id, type, title, message, CASE WHEN created_at::timestamptz IS NULL THEN 'no time' END), E'\n' ORDER BY id), '') FROM notifications`)
}

// TestOwnersAreTold once of each new server that costs something, one owner's
// servers of a batch together.
func TestOwnersAreTold(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.r.notifyUsers = true
	b.hear(b.news(501, named("web\x1b[2J\u202eevil\n1")))
	want := `7 | info | New server: "web[2Jevil 1" | Your server "web[2Jevil 1" was created outside this panel and is now in your account. It costs $7.30 a month, from ` + clock(b.clock()) + ` on.`
	b.wantTold(want)
	b.want("true", `SELECT bool_and(created_at = '`+b.clock().Format("2006-01-02 15:04:05.999999")+`' AND NOT read) FROM notifications`)

	// Neither what is heard again, nor what is replayed, nor changes.
	b.pass(time.Minute)
	b.hear(b.news(501, packaged(large)))
	b.review(501)
	b.wantTold(want)

	// Many at once, of two owners; what costs nothing is not told.
	b.exec(`DELETE FROM notifications; INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (9, 'Odd', 1000)`)
	var many []*events.Event
	for id := int64(510); id < 517; id++ {
		many = append(many, b.news(id))
	}
	many = append(many, b.news(520, ownedBy(owner8), packaged(9)), b.news(521, packaged(unpriced)))
	b.hear(many...)
	at := clock(b.clock())
	b.wantTold(`7 | info | 7 new servers | 7 servers of yours were created outside this panel and are now in your account: "web510", "web511", "web512", "web513", "web514" and 2 more. Together they cost $51.10 a month, the first from ` + at + ` on.
8 | info | New server: "web520" | Your server "web520" was created outside this panel and is now in your account. It costs $10.00 a month by the list ($7.30 as it is charged, by the hour in whole tokens), from ` + at + ` on.`)

	// When it gets its price.
	b.exec(`DELETE FROM notifications; INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (5, 'Late', 1460)`)
	b.pass(2 * time.Hour)
	b.review(521)
	b.wantRows(521, "7 5 14.6000 on ours")
	b.wantTold(`7 | info | New server: "web521" | Your server "web521" was created outside this panel and is now in your account. It costs $14.60 a month, from ` + clock(b.clock()) + ` on.`)
}

func (s *system) wantTold(want string) {
	s.t.Helper()
	if got := s.told(); got != want {
		s.t.Errorf("told\n%s\nwant\n%s", got, want)
	}
}

// TestOwnersAreNotTold of what makes no row, or takes one back, nor when nobody
// asked for it.
func TestOwnersAreNotTold(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.hear(b.news(500))
	b.r.notifyUsers = true
	b.wantTold("")
	observing := b.other(Policy{ObserveOnly: true, InitialCharge: ChargeRecord})
	observing.notifyUsers = true
	hearWith(t, observing, b.news(501))
	b.wantTold("")
	if _, err := b.r.Preview(t.Context(), nil, sealed(t, b.news(502))); err != nil {
		t.Fatal(err)
	}
	b.wantTold("")
	b.hear(b.news(503, by("r")))
	b.exec(`DELETE FROM notifications`)
	b.pass(time.Minute)
	b.undo("r", 503)
	b.wantServer(503, "external off operator 7")
	b.wantTold("")
}

// TestNotificationsHoldUpNothing: without the table, or with one that refuses, or
// is locked, billing goes on, and the log says so.
func TestNotificationsHoldUpNothing(t *testing.T) {
	t.Parallel()
	b := withJob(t)
	b.r.notifyUsers = true
	b.exec(`ALTER TABLE notifications ADD COLUMN tenant integer NOT NULL`)
	b.hear(b.news(501))
	b.wantRows(501, "7 3 7.3000 on ours")
	if !strings.Contains(b.log.String(), "tenant") || !strings.Contains(b.log.String(), "billing goes on") {
		t.Errorf("log: %s", b.log)
	}
	b.exec(`ALTER TABLE notifications DROP COLUMN tenant`)

	tx, err := b.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	b.hear(b.news(502))
	b.wantRows(502, "7 3 7.3000 on ours")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.log.String(), "lock timeout") {
		t.Errorf("log: %s", b.log)
	}

	b.exec(`DROP TABLE notifications`)
	b.hear(b.news(503))
	b.wantRows(503, "7 3 7.3000 on ours")
	if !strings.Contains(b.log.String(), "notifications is missing") {
		t.Errorf("log: %s", b.log)
	}
}

func TestShownNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"":                               "number 7",
		" \t\u200b ":                     "number 7",
		"web":                            `"web"`,
		"  a \r\n b\u00a0c ":             `"a b c"`,
		"a\x00b\xffc\u2066d":             `"abcd"`,
		strings.Repeat("é", shownName):   `"` + strings.Repeat("é", shownName) + `"`,
		strings.Repeat("é", shownName+1): `"` + strings.Repeat("é", shownName-1) + `…"`,
		strings.Repeat("x", 1<<20):       `"` + strings.Repeat("x", shownName-1) + `…"`,
		"<img src=x onerror=alert(1)>":   `"<img src=x onerror=alert(1)>"`,
	} {
		if got := shown(name, 7); got != want || !utf8.ValidString(got) {
			t.Errorf("%.40q is shown as %q, want %q", name, got, want)
		}
	}
}
