package api_test

import (
	"net/http"
	"strings"
	"testing"

	"serversync/api"
)

const (
	serverUUID = "5a2d2f0e-6a63-4be4-9d62-3e0f3a3a7c11"
	hostile    = "<img src=x onerror=alert(1)>\x1b[2J"
)

// tell fills the database with server 7 and all that belongs to its story.
func (s *system) tell(t *testing.T) {
	t.Helper()
	s.exec(t, `
		INSERT INTO users (id, email, username, password, full_name, virtfusion_id) VALUES (41, 'c', 'c', '!', 'C', 70);
		INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (5, 'Small', 1000);
		INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 720);
		INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, user_id, name, status, billing, billing_id, note, package_id, ip_addresses,
			created_at, settle_until, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (7, ?0, 70, 41, ?1, 'external', 'on', 1, 'made outside SkyPANEL', 5, '{192.0.2.7,192.0.2.8}',
				'2026-03-01 10:00Z', '2026-03-01 10:02Z', '2026-03-01 10:00:01Z', 'webhook', 'ev1', '2026-03-01 10:00:02Z', '2026-03-01 10:00:03Z'),
			(8, '', 0, NULL, '', 'unlinked', 'off', NULL, '', NULL, '{}', NULL, NULL, now(), 'webhook', '', now(), now());
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate,
			billing_enabled, server_created_at, last_billed_at, reference_1, hours_in_month)
		VALUES (1, 41, 7, 7, ?0, 5, 'Small', 10, 0.013699, true, '2026-03-01 10:00', '2026-03-01 12:30', 'external_server_7', 730),
			(2, 41, 7, 7, NULL, 6, 'Old', 12.5, 0.017361, false, NULL, NULL, NULL, NULL);
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, closed_reason, created_at, updated_at)
		VALUES (2, 7, 'skypanel', 41, false, 6, 12.5, 'moved', now(), now());
		INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id, amount_charged, billing_period_start, billing_period_end, status, transaction_id)
		VALUES (1, 1, 41, 7, 0.0137, '2026-03-01 10:30', '2026-03-01 11:30', 'pending', NULL),
			(2, 1, 41, 7, NULL, '2026-03-01 11:30', '2026-03-01 12:30', 'completed', 99);
		INSERT INTO serversync.overrides (virtfusion_id, kind, reason, set_by) VALUES (7, 'billing_on', 'as agreed', 'admin');
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, before, after, source, event_id, run_id, billing_id, user_id) VALUES
			('2026-03-01 10:00:02Z', 7, 'observed', 'first seen', NULL, ?2, 'webhook', 'ev1', NULL, NULL, NULL),
			('2026-03-01 10:02Z', 7, 'billing_created', 'made outside SkyPANEL', NULL, '{"user_id": 41}', 'settler', '', 'run1', 1, 41),
			('2026-03-01 11:00Z', 7, 'billing_changed', 'price', '{"a": 1}', '{"a": 2}', 'books', '', NULL, 1, 41)`,
		serverUUID, hostile, `{"name": "<img>"}`)
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.tell(t)
	a := s.admin(t, http.MethodGet, "/api/admin/servers/7/timeline")
	story := data[api.Timeline](t, a)
	v := story.Server
	if v.ID != 7 || v.UUID != serverUUID || *v.UserID != 41 || v.Owner != 70 || v.Name != hostile || v.Status != "external" || v.Billing != "on" ||
		v.BillingReason != nil || *v.BillingID != 1 || v.Note != "made outside SkyPANEL" || strings.Join(v.IPAddresses, " ") != "192.0.2.7 192.0.2.8" ||
		v.Package.ID != 5 || *v.Package.Name != "Small" || *v.Package.MonthlyPrice != "10.00" || v.SettleUntil == nil || v.ObservedSource != "webhook" {
		t.Errorf("server: %+v", v)
	}
	if len(story.BillingRows) != 2 {
		t.Fatalf("rows: %+v", story.BillingRows)
	}
	ours, theirs := story.BillingRows[0], story.BillingRows[1]
	if ours.ID != 1 || ours.MadeBy != "serversync" || !ours.Enabled || !ours.UserActive || ours.MonthlyPrice != "10.0000" || ours.HourlyRate != "0.013699" || ours.HoursInMonth != 730 {
		t.Errorf("our row: %+v", ours)
	}
	if n := ours.NextCharge; n.At == nil || n.At.Format("15:04") != "12:30" || n.Because != nil || n.Tokens != 1 || n.EffectiveMonthly != "7.30" || n.HoursDue != 0 {
		t.Errorf("our next charge: %+v", n)
	}
	if ours.ChargesInAll != 2 || len(ours.Charges) != 2 || ours.Charges[0].ID != 2 || ours.Charges[0].Amount != nil || *ours.Charges[0].TransactionID != 99 || *ours.Charges[1].Amount != "0.0137" {
		t.Errorf("our charges: %+v", ours.Charges)
	}
	if theirs.MadeBy != "skypanel" || theirs.Enabled || *theirs.ClosedReason != "moved" || theirs.HoursInMonth != 720 ||
		theirs.NextCharge.At != nil || *theirs.NextCharge.Because != "switched_off" || len(theirs.Charges) != 0 {
		t.Errorf("their row: %+v", theirs)
	}
	if len(story.Overrides) != 1 || story.Overrides[0].Kind != "billing_on" || story.Overrides[0].Reason != "as agreed" {
		t.Errorf("overrides: %+v", story.Overrides)
	}
	h := story.History
	if len(h.Items) != 3 || h.NextCursor != nil || h.Items[0].Kind != "billing_changed" || string(h.Items[0].Before) != `{"a":1}` ||
		h.Items[1].EventID != nil || *h.Items[1].RunID != "run1" || *h.Items[1].BillingID != 1 || *h.Items[2].EventID != "ev1" || string(h.Items[2].Before) != "null" {
		t.Errorf("history: %+v", h)
	}
	if strings.ContainsAny(a.raw, "<>\x1b") {
		t.Errorf("the JSON holds what a page or a terminal could take for more than text: %s", a.raw)
	}
}

func TestTimelinePages(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.tell(t)
	var kinds []string
	for path, cursor := "/api/admin/servers/"+strings.ToUpper(serverUUID)+"/timeline?order=oldest&limit=2", ""; ; {
		page := data[api.Timeline](t, s.admin(t, http.MethodGet, path+cursor)).History
		for _, line := range page.Items {
			kinds = append(kinds, line.Kind)
		}
		if page.NextCursor == nil {
			break
		}
		kinds = append(kinds, "|")
		cursor = "&cursor=" + *page.NextCursor
	}
	if got := strings.Join(kinds, " "); got != "observed billing_created | billing_changed" {
		t.Errorf("pages: %s", got)
	}
	if page := data[api.Timeline](t, s.admin(t, http.MethodGet, "/api/admin/servers/8/timeline?limit=9999")); page.History.Items == nil || page.BillingRows == nil || page.Server.Package != nil {
		t.Errorf("a server without a story: %+v", page)
	}
}

func TestTimelineRefuses(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.tell(t)
	s.exec(t, `INSERT INTO serversync.servers (virtfusion_id, uuid, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (9, ?, 'conflict', now(), '', '', now(), now())`, serverUUID)
	for _, test := range []struct {
		path   string
		status int
		code   string
	}{
		{"/api/admin/servers/10/timeline", 404, "unknown_server"},
		{"/api/admin/servers/9223372036854775807/timeline", 404, "unknown_server"},
		{"/api/admin/servers/00000000-0000-0000-0000-000000000000/timeline", 404, "unknown_server"},
		{"/api/admin/servers/" + serverUUID + "/timeline", 409, "ambiguous_uuid"},
		{"/api/admin/servers/0/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/-7/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/+7/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/7.0/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/abc/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/9223372036854775808/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/%27%20OR%201=1/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/DELETED_SERVER/timeline", 400, "bad_server_id"},
		{"/api/admin/servers/7/timeline?order=up", 400, "bad_order"},
		{"/api/admin/servers/7/timeline?limit=0", 400, "bad_limit"},
		{"/api/admin/servers/7/timeline?limit=x", 400, "bad_limit"},
		{"/api/admin/servers/7/timeline?cursor=-1", 400, "bad_cursor"},
		{"/api/admin/servers/7/timeline?cursor=x", 400, "bad_cursor"},
	} {
		if a := s.admin(t, http.MethodGet, test.path); a.status != test.status || a.body.Error.Code != test.code {
			t.Errorf("%s = %d %s, want %d %s", test.path, a.status, a.raw, test.status, test.code)
		}
	}
}

func TestWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.exec(t, `DROP TABLE serversync.history`) // as before the first migration
	if a := s.admin(t, http.MethodPost, "/api/admin/cleanup"); a.status != http.StatusOK {
		t.Errorf("cleanup = %d %s", a.status, a.raw)
	}
	s.tellNothing(t)
	a := s.admin(t, http.MethodGet, "/api/admin/servers/8/timeline")
	if a.status != http.StatusServiceUnavailable || a.body.Error.Code != "database_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("timeline = %d %s", a.status, a.raw)
	}
}

// tellNothing makes server 8, of which nothing is known.
func (s *system) tellNothing(t *testing.T) {
	t.Helper()
	s.exec(t, `INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (8, 'unlinked', now(), '', '', now(), now())`)
}
