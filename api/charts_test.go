package api_test

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"serversync/api"
)

// texts reads the texts of a drawing, which must be XML and hold nothing that
// runs.
func texts(t *testing.T, a answer) []string {
	t.Helper()
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "image/svg+xml" {
		t.Fatalf("%d %v %s", a.status, a.header, a.raw)
	}
	var all []string
	var inText bool
	for decoder := xml.NewDecoder(strings.NewReader(a.raw)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v: %s", err, a.raw)
		}
		switch v := token.(type) {
		case xml.StartElement:
			inText = v.Name.Local == "text"
			switch v.Name.Local {
			case "svg", "path", "text", "circle", "g":
			default:
				t.Errorf("the drawing has a %s", v.Name.Local)
			}
			for _, attribute := range v.Attr {
				if strings.HasPrefix(attribute.Name.Local, "on") || strings.Contains(attribute.Value, "url(") || attribute.Name.Local == "href" {
					t.Errorf("the drawing has %s=%q", attribute.Name.Local, attribute.Value)
				}
			}
		case xml.CharData:
			if inText {
				all = append(all, string(v))
			}
		case xml.EndElement:
			inText = false
		}
	}
}

func TestCharts(t *testing.T) {
	t.Parallel()
	s := setup(t)
	titles := map[string]string{
		"external": "External servers found", "events": "Events that told something new of a server", "lag": "Events not reconciled yet, the most in each hour", "revenue": "Revenue recorded, by day of recording",
		"coverage": "Servers by what becomes of their billing, at the end of each day",
	}
	for name, title := range titles {
		for _, query := range []string{"", "?days=1", "?days=90"} {
			got := strings.Join(texts(t, s.admin(t, http.MethodGet, "/api/admin/charts/"+name+".svg"+query)), "|")
			if !strings.Contains(got, title) || !strings.Contains(got, "nothing to show in ") {
				t.Errorf("%s%s of nothing: %s", name, query, got)
			}
		}
	}
	s.people(t)
	s.listed(t)
	s.exec(t, `INSERT INTO serversync.history (at, virtfusion_id, kind, reason) SELECT '2026-03-01T08:30Z', 9001, 'observed', '' FROM generate_series(1, 37)`)
	if err := api.CoverageDue(t.Context(), s.api); err != nil {
		t.Fatal(err)
	}
	for name, title := range titles {
		a := s.admin(t, http.MethodGet, "/api/admin/charts/"+name+".svg?days=2")
		if got := strings.Join(texts(t, a), "|"); !strings.Contains(got, title) || strings.Contains(got, "nothing to show") || !strings.Contains(got, "UTC") || !strings.Contains(got, "28 Feb") || !strings.Contains(got, "1 Mar") {
			t.Errorf("%s: %s", name, got)
		}
		if a.header.Get("Content-Security-Policy") != "default-src 'none'; style-src 'unsafe-inline'" || !strings.Contains(a.raw, "viewBox") ||
			!slices.Contains(a.header.Values("Vary"), "Accept-Encoding") {
			t.Errorf("%s: %v", name, a.header)
		}
	}
	for _, query := range []string{"days=0", "days=91", "days=x", "days=-1"} {
		if a := s.admin(t, http.MethodGet, "/api/admin/charts/lag.svg?"+query); a.body.Error.Code != "bad_days" {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
	if a := s.admin(t, http.MethodGet, "/api/admin/charts/lag.svg?title=<script>"); a.body.Error.Code != "unknown_parameter" {
		t.Errorf("%s", a.raw)
	}
	if a := s.admin(t, http.MethodGet, "/api/admin/charts/none.svg"); a.status != http.StatusNotFound {
		t.Errorf("%s", a.raw)
	}
}

func TestLeakingRevenue(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.exec(t, `
		INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 720);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, hours_in_month)
		SELECT i, 41, i, i, 5, 'S', CASE WHEN i = 3 THEN 11 ELSE 10 END, 0.01, false, CASE WHEN i = 2 THEN NULL ELSE 730 END FROM generate_series(1, 9) AS i;
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, billing, billing_reason, billing_id, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, 41, status, 'off', reason, row, now(), '', '', now(), now()
		FROM (VALUES (1, 'external', 'disabled_by_skypanel', 1), (2, 'external', 'disabled_by_skypanel', 2), (3, 'native', 'disabled_by_skypanel', 3), (4, 'native', 'disabled_by_skypanel', NULL),
			(5, 'external', 'unpriced', 5), (6, 'external', 'operator', 6), (7, 'external', 'monthly_mode', 7), (8, 'gone', 'disabled_by_skypanel', 8), (9, 'external', 'self_service', 9)) AS v (id, status, reason, row)`)
	a := s.admin(t, http.MethodGet, "/api/admin/overview")
	// 10 a month is charged as 7.30 in 730 hours and as 7.20 in 720, 11 as 14.60.
	const want = `"leakingMonthly":{"list":"31.00","effective":"29.10","servers":5,"reasons":[` +
		`{"list":"20.00","effective":"14.50","status":"external","reason":"disabled_by_skypanel","servers":2,"withoutPrice":0},` +
		`{"list":"0.00","effective":"0.00","status":"external","reason":"unpriced","servers":1,"withoutPrice":1},` +
		`{"list":"11.00","effective":"14.60","status":"native","reason":"disabled_by_skypanel","servers":2,"withoutPrice":1}]}`
	if !strings.Contains(a.raw, want) {
		t.Errorf("%s\nwant %s", a.raw, want)
	}
	if o := data[api.Overview](t, a); *o.LagSeconds != 1.5 {
		t.Errorf("%+v", o)
	}
	s.behind = func() (time.Duration, error) { return 0, errors.New("the broker is away") }
	if o := data[api.Overview](t, s.admin(t, http.MethodGet, "/api/admin/overview")); o.LagSeconds != nil {
		t.Errorf("%+v", o)
	}
}

// The lag is written down as soon as somebody looks after it.
func TestSampleLag(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.api.SampleLag(ctx) }()
	for deadline := time.Now().Add(time.Minute); s.count(t, `SELECT count(*) FROM serversync.lag_samples WHERE at = '2026-03-01T12:00Z' AND events = 12 AND seconds = 1.5`) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is written down")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
