package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"serversync/db"
	"serversync/db/dbtest"
)

// TestAuditOfAnExternalDatabase needs no service.
func TestAuditOfAnExternalDatabase(t *testing.T) {
	dsn := dbtest.NewDSN(t)
	t.Setenv("DATABASE_URL", dsn)
	t.Chdir(t.TempDir())
	audit := func(args ...string) (code int, out, errs string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), append([]string{"serversync", "audit"}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	if code, out, errs := audit(); code != exitDone || !strings.HasPrefix(out, "Nothing is wrong with SkyPANEL's billing") || errs != "" {
		t.Errorf("sound books: %d, %s%s", code, out, errs)
	}
	database, err := db.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = database.Close() }()
	if _, err := database.ExecContext(t.Context(), `
		INSERT INTO users (id, email, username, password, full_name, is_active) VALUES (41, 'c', 'c', '!', 'C', true);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, last_billed_at)
		VALUES (160, 41, 16, 16, 5, 'Small', 11, 0.015068, true, now())`); err != nil {
		t.Fatal(err)
	}
	code, out, errs := audit()
	if code != exitFailed || !strings.Contains(out, "no_price (warning)\n  server 16: row 160 is on") || !strings.Contains(out, "\n  → give the package a price") || !strings.Contains(errs, "1 findings") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	code, out, _ = audit("--json")
	var found struct {
		Findings []struct {
			Rule, Severity, Evidence, Remedy string
			ServerID, UserID                 *int64
		}
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitFailed || len(found.Findings) != 1 {
		t.Fatalf("%d, %v:\n%s", code, err, out)
	}
	if f := found.Findings[0]; f.Rule != "no_price" || f.Severity != "warning" || *f.ServerID != 16 || *f.UserID != 41 || f.Evidence == "" || f.Remedy == "" {
		t.Errorf("%+v", f)
	}

	// A rule that fails is told, and is no proof that nothing is wrong.
	if _, err := database.ExecContext(t.Context(), `DELETE FROM virtfusion_hourly_billing; ALTER TABLE package_pricing RENAME COLUMN name TO title`); err != nil {
		t.Fatal(err)
	}
	code, out, errs = audit()
	if code != exitFailed || !strings.HasPrefix(out, "By these rules it could not be looked:\n  price_drift: ") || strings.Contains(out, "Nothing is wrong") || !strings.Contains(errs, "0 findings, and by 1 rules") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if code, out, _ = audit("--json"); code != exitFailed || !strings.Contains(out, `"rule": "price_drift"`) {
		t.Errorf("%d\n%s", code, out)
	}
}
