package api_test

import (
	"net/http"
	"strings"
	"testing"

	"serversync/api"
	"serversync/db"
)

// TestMonthlyReport counts each thing in its month, and whole quarters.
func TestMonthlyReport(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t) // one found on 28 February for $10 a month, one on 1 March for $20
	s.exec(t, `
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, before, after) VALUES
			('2026-01-31T23:59Z', 1, 'decided', '', '{"status": "external"}', '{"status": "conflict"}'),
			('2026-02-01T00:00Z', 2, 'decided', '', '{"status": "external"}', '{"status": "conflict"}'),
			('2026-02-02T00:00Z', 3, 'decided', '', '{"billing_on": false, "billing_reason": "unpriced"}', '{"billing_on": true, "billing_reason": ""}'),
			('2026-02-03T00:00Z', 3, 'decided', '', '{"billing_on": false, "billing_reason": "unpriced"}', '{"billing_on": true, "billing_reason": ""}'),
			('2026-02-03T00:00Z', 4, 'decided', '', '{"status": "unlinked", "billing_on": false}', '{"status": "external", "billing_on": true}'),
			('2026-02-03T00:00Z', 5, 'decided', '', '{"status": "settling", "billing_on": false}', '{"status": "external", "billing_on": true}'),
			('2026-02-03T00:00Z', 6, 'decided', '', '{"billing_on": true}', '{"billing_on": false, "billing_reason": "unpriced"}'),
			('2026-02-28T00:00Z', 7, 'refund_due', '', NULL, NULL), ('2025-12-31T23:59Z', 7, 'refund_due', '', NULL, NULL);
		INSERT INTO serversync.findings (rule, server_id, user_id, severity, evidence, first_seen_at, last_seen_at, cleared_at) VALUES
			('no_price', 1, 1, 'warning', '', now(), now(), '2026-02-10T00:00Z'), ('price_drift', 1, 1, 'info', '', now(), now(), '2026-02-10T00:00Z'), ('no_price', 2, 1, 'warning', '', now(), now(), NULL);
		INSERT INTO serversync.notices (subject, kind, severity, title, message, at) VALUES ('a', 'dead_letter', 'warning', '', '', '2026-02-10T00:00Z'), ('b', 'conflict', 'warning', '', '', '2026-02-10T00:00Z');
		INSERT INTO serversync.coverage_days (day, written_at, total, external_on, external_off, native, unlinked, conflict, settling, recorded_list, recorded_effective, leaking_servers, leaking_list, leaking_effective, leaks,
			sweep_run, sweep_at, virtfusion_total, known_least, known_most)
		SELECT d, d, total, 0, '{}', 0, 0, 0, 0, 0, total, 0, 0, 1.5, '[]', 'r', d, total, 90, 100
		FROM (VALUES ('2026-02-26'::date, 101), ('2026-02-27', 100), ('2026-01-05', 89)) AS v (d, total)`)
	for _, state := range []string{db.RunFailed, db.RunIncomplete, db.RunSucceeded} {
		s.addRun(t, db.Run{ID: "feb-" + state, Kind: db.RunSweep, State: state, StartedAt: noon().AddDate(0, 0, -5), EndedAt: new(noon().AddDate(0, 0, -5))})
	}
	s.addRun(t, db.Run{ID: "dry", Kind: db.RunSweep, State: db.RunFailed, DryRun: true, StartedAt: noon().AddDate(0, 0, -5), EndedAt: new(noon().AddDate(0, 0, -5))})
	report := data[api.MonthlyReport](t, s.admin(t, http.MethodGet, "/api/admin/reports/monthly?months=4"))
	var months []string
	for _, p := range report.Months {
		months = append(months, p.Period)
	}
	if got := strings.Join(months, " "); got != "2025-10 2025-11 2025-12 2026-01 2026-02 2026-03" || len(report.Quarters) != 2 || report.Quarters[0].Period != "2025-Q4" {
		t.Fatalf("%s, %+v", got, report.Quarters)
	}
	a := s.admin(t, http.MethodGet, "/api/admin/reports/monthly.csv?months=1")
	const want = `period,external_found,recorded_list,recorded_effective,leaks_closed,findings_cleared,conflicts,dead_letters,failed_runs,refunds_due,mismatch_days,last_day,servers,recorded_then,leaking_then
2026-01,0,0.00,0.00,0,0,1,0,0,0,1,2026-01-05,89,89.00,1.50
2026-02,1,10.00,7.30,2,1,1,1,2,1,1,2026-02-27,100,100.00,1.50
2026-03,1,20.00,21.90,0,0,0,0,0,0,0,,,,
2026-Q1,2,30.00,29.20,2,1,2,1,2,1,2,2026-02-27,100,100.00,1.50
`
	if a.raw != want {
		t.Errorf("%s\nwant\n%s", a.raw, want)
	}
	if p := report.Months[2]; p.RefundsDue != 1 {
		t.Errorf("December: %+v", p)
	}
	if report.Months[2].FailedRuns != nil || report.Quarters[0].FailedRuns != nil || report.Months[1].AtEnd != nil {
		t.Errorf("runs that are not kept are counted: %+v", report.Quarters[0])
	}
	for _, path := range []string{"monthly?months=0", "monthly?months=61", "monthly.csv?months=x"} {
		if a := s.admin(t, http.MethodGet, "/api/admin/reports/"+path); a.body.Error.Code != "bad_months" {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
}
