package api

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"serversync/db/dbtest"
)

func TestTheMonthlyPreview(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	var log strings.Builder
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	a, err := New(Config{DB: database, AdminToken: "x", Now: func() time.Time { return now }, Log: zerolog.New(&log)})
	if err != nil {
		t.Fatal(err)
	}
	look := func() string {
		t.Helper()
		log.Reset()
		if err := a.previewDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	if got := look(); !strings.Contains(got, "there are none") {
		t.Errorf("the first look: %s", got)
	}
	_, err = database.ExecContext(t.Context(), `
		INSERT INTO users (id, email, username, password, full_name) VALUES (41, 'c', 'c', '!', 'C');
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, reference_1)
		VALUES (160, 41, 16, 16, 5, 'Small', 5, 0.006849, true, 'external_server_16')`)
	if err != nil {
		t.Fatal(err)
	}
	now = time.Date(2026, 2, 27, 12, 0, 0, 0, time.UTC)
	if got := look(); got != "" {
		t.Errorf("within a month: %s", got)
	}
	now = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	got := look()
	if !strings.Contains(got, "unknown_server") || !strings.Contains(got, `"server":16`) || !strings.Contains(got, "nothing was changed") {
		t.Errorf("a month later: %s", got)
	}
	if got := look(); got != "" {
		t.Errorf("twice in a month: %s", got)
	}
	var finished bool
	if err := database.NewRaw(`SELECT finished_at IS NOT NULL AND servers = 1 FROM serversync.passes WHERE name = 'cleanup_preview'`).Scan(t.Context(), &finished); err != nil || !finished {
		t.Errorf("the pass is not recorded: %v", err)
	}

	// A look that fails is made again.
	if _, err := database.ExecContext(t.Context(), `ALTER TABLE serversync.billing_rows RENAME TO away`); err != nil {
		t.Fatal(err)
	}
	now = now.AddDate(0, 2, 0)
	if err := a.previewDue(t.Context()); err == nil {
		t.Error("a look without its tables succeeded")
	}
	if _, err := database.ExecContext(t.Context(), `ALTER TABLE serversync.away RENAME TO billing_rows`); err != nil {
		t.Fatal(err)
	}
	if got := look(); !strings.Contains(got, "unknown_server") {
		t.Errorf("after a failed look: %s", got)
	}
}
