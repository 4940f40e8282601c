package api

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"serversync/db"
	"serversync/db/dbtest"
)

// TestTheWatchdog looks every hour, tells of each case once, and again when it is
// back.
func TestTheWatchdog(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	var log strings.Builder
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	a, err := New(Config{DB: database, AdminToken: "x", Now: func() time.Time { return now }, Log: zerolog.New(&log)})
	if err != nil {
		t.Fatal(err)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := database.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	look := func(later time.Duration) string {
		t.Helper()
		now = now.Add(later)
		log.Reset()
		if err := a.auditDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	exec(`
		INSERT INTO users (id, email, username, password, full_name, is_active) VALUES (41, 'c', 'c', '!', 'C', true);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, last_billed_at)
		VALUES (160, 41, 16, 16, 5, 'Small', 11, 0.015068, true, '2026-01-31T12:30')`)
	if got := look(0); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"rule":"no_price"`) || !strings.Contains(got, `"server":16`) || !strings.Contains(got, `"remedy":"give the package a price`) {
		t.Errorf("at first: %s", got)
	}
	exec(`UPDATE virtfusion_hourly_billing SET last_billed_at = NULL`)
	if got := look(59 * time.Minute); got != "" {
		t.Errorf("within the hour: %s", got)
	}
	if got := look(time.Minute); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"rule":"no_start"`) {
		t.Errorf("after an hour: %s", got)
	}
	exec(`INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (5, 'Small', 1100)`)
	if got := look(time.Hour); got != "" {
		t.Errorf("one is cleared: %s", got)
	}
	exec(`DELETE FROM package_pricing`)
	if got := look(time.Hour); !strings.Contains(got, `"rule":"no_price"`) {
		t.Errorf("it is back: %s", got)
	}

	// A rule that fails is told of, and keeps what it found.
	exec(`ALTER TABLE package_pricing RENAME TO away`)
	if got := look(time.Hour); !strings.Contains(got, "could not look by a rule") || !strings.Contains(got, `"rule":"no_price"`) {
		t.Errorf("a rule fails: %s", got)
	}
	exec(`ALTER TABLE away RENAME TO package_pricing`)
	if got := look(time.Hour); got != "" {
		t.Errorf("it is back: %s", got)
	}

	// A look that fails is made again at once.
	exec(`ALTER TABLE serversync.findings RENAME TO away; UPDATE virtfusion_hourly_billing SET last_billed_at = '2026-01-31T12:30'`)
	now = now.Add(time.Hour)
	if err := a.auditDue(t.Context()); err == nil {
		t.Error("a look that failed is told as one that did not")
	}
	exec(`ALTER TABLE serversync.away RENAME TO findings`)
	look(time.Second)
	counts, err := db.OpenFindings(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if want := map[db.AuditRule]int64{db.AuditNoPrice: 1}[c.Rule]; c.Findings != want {
			t.Errorf("after a look that failed, %s: %d open, want %d", c.Rule, c.Findings, want)
		}
	}
}

// TestRulesAreDocumented holds docs/watchdog.md to the rules.
func TestRulesAreDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/watchdog.md")
	if err != nil {
		t.Fatal(err)
	}
	written := strings.Count(string(document), "\n| `")
	for _, r := range db.AuditRules() {
		if line := "\n| `" + string(r.Rule) + "` | " + string(r.Severity) + " |"; !strings.Contains(string(document), line) {
			t.Errorf("docs/watchdog.md has no line %q", line)
		}
	}
	if len(db.AuditRules()) != written {
		t.Errorf("docs/watchdog.md has %d rules, there are %d", written, len(db.AuditRules()))
	}
}
