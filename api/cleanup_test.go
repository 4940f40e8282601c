package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"serversync/api"
)

// mess makes a record of every kind to clean up.
func (s *system) mess(t *testing.T) {
	t.Helper()
	s.exec(t, `
		INSERT INTO users (id, email, username, password, full_name) VALUES (41, 'c', 'c', '!', 'C');
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, note, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, 41, status, 'a note', now(), '', '', now(), now()
		FROM (VALUES (11, 'native'), (12, 'external'), (13, 'conflict'), (14, 'gone'), (17, 'native'), (19, 'native')) AS v (id, status);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, reference_1)
		SELECT id, 41, server, server, 5, 'Small', 5, 0.006849, enabled, reference
		FROM (VALUES (110, 11, true, NULL), (111, 11, true, 'external_server_11'),
			(120, 12, true, 'external_server_12'), (121, 12, true, 'external_server_12'),
			(130, 13, true, NULL), (131, 13, true, 'external_server_13'),
			(140, 14, true, 'external_server_14'), (160, 16, true, 'external_server_16'),
			(170, 17, false, 'external_server_17'), (190, 19, true, NULL), (191, 19, true, NULL)) AS v (id, server, enabled, reference);
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, charge_id, closed_reason, created_at, updated_at)
		VALUES (170, 17, 'serversync', 41, false, 5, 5, 1, 'withdrawn', now(), now());
		INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id, amount_charged, status) VALUES (1, 170, 41, 17, 0.0068, 'pending')`)
}

func spell(c api.Cleanup) string {
	var b strings.Builder
	for _, f := range c.Findings {
		fmt.Fprintf(&b, "%s %d %v %v %s", f.Rule, f.ServerID, f.BillingIDs, f.ChargeIDs, f.Action)
		if f.Done != nil {
			fmt.Fprintf(&b, " %v", *f.Done)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestCleanupShowsWhatItWouldDo(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.mess(t)
	c := data[api.Cleanup](t, s.admin(t, http.MethodPost, "/api/admin/cleanup?dryRun=true"))
	want := `duplicate_rows 11 [110 111] [] withdraw
duplicate_rows 12 [120 121] [] withdraw
duplicate_rows 13 [130 131] [] review
duplicate_rows 19 [190 191] [] review
gone_server 14 [140] [] switch_off
unknown_server 16 [160] [] ask_virtfusion
orphaned_charge 17 [170] [1] void
`
	if got := spell(c); got != want || !c.DryRun || c.Truncated {
		t.Errorf("%+v\n%s\nwant\n%s", c, got, want)
	}
	for i, says := range []string{
		"server 11 is billed by row 110 (SkyPANEL's, user 41) and row 111 (ours, user 41): the customer pays twice: SkyPANEL's own row stays",
		"server 12 is billed by row 120 (ours, user 41) and row 121 (ours, user 41): the customer pays twice: one row of ours stays",
		"server 13 is billed by row 130 (SkyPANEL's, user 41) and row 131 (ours, user 41): the evidence disagrees, nothing is changed until a person has looked: a note",
		"server 19 is billed by row 190 (SkyPANEL's, user 41) and row 191 (SkyPANEL's, user 41): several rows are SkyPANEL's own",
		"server 14 is gone and still billed, by row 140 (ours, user 41): VirtFusion confirmed its end",
		"server 16 is billed by row 160 (ours, user 41), and the inventory does not know it: a server that is not listed is not proven gone",
		"server 17 has charge 1 of 0.0068 pending of row 170 (ours, user 41), withdrawn before: nobody collects",
	} {
		if got := c.Findings[i].What + ": " + c.Findings[i].Why; !strings.HasPrefix(got, says) {
			t.Errorf("finding %d says\n%s\nwant\n%s", i, got, says)
		}
	}
	if len(s.books.redecided) > 0 || s.books.voids > 0 {
		t.Error("a dry run changed the books")
	}
}

func TestCleanupDoesItAndSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.mess(t)
	s.books.redecide = func([]int64) (int, error) { // mends 11, not 12
		s.exec(t, `UPDATE virtfusion_hourly_billing SET billing_enabled = false WHERE id IN (111, 140)`)
		return 2, nil
	}
	c := data[api.Cleanup](t, s.admin(t, http.MethodPost, "/api/admin/cleanup"))
	want := `duplicate_rows 11 [110 111] [] withdraw true
duplicate_rows 12 [120 121] [] withdraw false
duplicate_rows 13 [130 131] [] review false
duplicate_rows 19 [190 191] [] review false
gone_server 14 [140] [] switch_off true
unknown_server 16 [160] [] ask_virtfusion false
orphaned_charge 17 [170] [1] void false
`
	if got := spell(c); got != want || c.DryRun || c.Changed != 2 || c.Voided != 1 {
		t.Errorf("%+v\n%s\nwant\n%s", c, got, want)
	}
	if got := fmt.Sprint(s.books.redecided); got != "[[11 12 14]]" || s.books.voids != 1 {
		t.Errorf("decided again: %s, voided %d times", got, s.books.voids)
	}
}

func TestCleanupOfOrder(t *testing.T) {
	t.Parallel()
	s := setup(t)
	c := data[api.Cleanup](t, s.admin(t, http.MethodPost, "/api/admin/cleanup?dryRun=false"))
	if c.Findings == nil || len(c.Findings) != 0 || len(s.books.redecided) > 0 || s.books.voids > 0 {
		t.Errorf("%+v, %+v", c, s.books)
	}
	if a := s.admin(t, http.MethodPost, "/api/admin/cleanup?dryRun=perhaps"); a.status != http.StatusBadRequest || a.body.Error.Code != "bad_dry_run" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	s.mess(t)
	s.books.redecide = func([]int64) (int, error) { return 0, errors.New("secret details") }
	if a := s.admin(t, http.MethodPost, "/api/admin/cleanup"); a.status != http.StatusInternalServerError || strings.Contains(a.raw, "secret") {
		t.Errorf("%d %s", a.status, a.raw)
	}
	s.books.redecide = func([]int64) (int, error) { return 0, fmt.Errorf("wrapped: %w", api.ErrNotReady) }
	if a := s.admin(t, http.MethodPost, "/api/admin/cleanup"); a.status != http.StatusServiceUnavailable || a.body.Error.Code != "not_ready" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.raw)
	}
}
