package api_test

import (
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

// sweepEnded adds a complete sweep that ended now, in which VirtFusion counted so
// many servers.
func (s *system) sweepEnded(t *testing.T, id string, total int64) {
	t.Helper()
	s.addRun(t, db.Run{
		ID: id, Kind: db.RunSweep, State: db.RunSucceeded, Phase: db.PhaseEnded, StartedAt: s.now().Add(-2 * time.Minute), EndedAt: new(s.now()),
		Progress: db.RunProgress{Total: total, Since: s.now().Add(-time.Minute), Scanned: true, Whole: true},
	})
}

// TestCoverageIsKept looks every hour and after each complete sweep, and says of
// each day how every server stood.
func TestCoverageIsKept(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	s.listed(t)
	look := func(later time.Duration, want int) []api.CoverageDay {
		t.Helper()
		s.wait(later)
		if err := api.CoverageDue(t.Context(), s.api); err != nil {
			t.Fatal(err)
		}
		days := data[[]api.CoverageDay](t, s.admin(t, http.MethodGet, "/api/admin/coverage?days=400"))
		if len(days) != want {
			t.Fatalf("%d days, want %d", len(days), want)
		}
		return days
	}
	first := look(0, 1)[0]
	if first.Day != "2026-03-01" || !first.WrittenAt.Equal(noon()) || first.Sweep != nil {
		t.Errorf("%+v", first)
	}
	c := first.Coverage
	if c.Total != 5 || c.On != 1 || c.Off["disabled_by_skypanel"] != 1 || c.Native != 1 || c.Unlinked != 1 || c.Settling != 1 || c.Conflict != 0 {
		t.Errorf("%+v", c)
	}
	if r := first.Revenue; r.RecordedMonthly.Effective != "7.30" || r.LeakingMonthly.Servers != 1 || len(r.LeakingMonthly.Reasons) != 1 || r.LeakingMonthly.Reasons[0].List != "20.00" {
		t.Errorf("%+v", r)
	}
	s.exec(t, `UPDATE serversync.servers SET status = 'native' WHERE status = 'settling'`)
	if d := look(59*time.Minute, 1)[0]; !d.WrittenAt.Equal(noon()) {
		t.Errorf("within the hour: %+v", d)
	}
	if d := look(time.Minute, 1)[0]; d.WrittenAt.Equal(noon()) || d.Coverage.Native != 2 {
		t.Errorf("after an hour: %+v", d)
	}

	// A sweep that counts what is known, and one that does not.
	overview := func() *api.SweepCount {
		t.Helper()
		return data[api.Overview](t, s.admin(t, http.MethodGet, "/api/admin/overview")).Mismatch
	}
	s.wait(time.Minute)
	s.sweepEnded(t, "agrees", 5)
	if d := look(time.Second, 1)[0]; d.Sweep == nil || d.Sweep.RunID != "agrees" || d.Sweep.Mismatch || overview() != nil {
		t.Errorf("after a sweep: %+v", d.Sweep)
	}
	s.wait(time.Minute)
	s.sweepEnded(t, "differs", 7)
	look(time.Second, 1)
	if m := overview(); m == nil || m.RunID != "differs" || m.VirtFusionTotal != 7 || m.KnownLeast != 5 || m.KnownMost != 5 || !m.Mismatch {
		t.Errorf("VirtFusion counts two more: %+v", m)
	}
	audit := func(later time.Duration) string {
		t.Helper()
		s.wait(later)
		before := len(s.log.String())
		if err := api.AuditDue(t.Context(), s.api); err != nil {
			t.Fatal(err)
		}
		return s.log.String()[before:]
	}
	if got := audit(0); strings.Count(got, `"level":"error"`) != 1 || !strings.Contains(got, `"rule":"coverage_gap"`) || !strings.Contains(got, "2 are missing here") {
		t.Errorf("the alarm: %s", got)
	}
	if got := audit(time.Hour); strings.Contains(got, "coverage_gap") {
		t.Errorf("the alarm is told again: %s", got)
	}

	// The next day has a row of its own.
	days := look(12*time.Hour, 2)
	if days[0].Day != "2026-03-02" || days[0].Sweep != nil || days[1].Day != "2026-03-01" || days[1].Sweep.RunID != "differs" {
		t.Errorf("%+v", days)
	}
	a := s.admin(t, http.MethodGet, "/api/admin/coverage.csv")
	lines, err := csv.NewReader(strings.NewReader(a.raw)).ReadAll()
	if err != nil || len(lines) != 3 || !strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="coverage-`) {
		t.Fatalf("%v, %s", err, a.raw)
	}
	if got := strings.Join(lines[1], "|"); !strings.HasPrefix(got, "2026-03-01|") || !strings.Contains(got, "|5|1|1|disabled_by_skypanel 1|2|1|0|0|10.00|7.30|1|20.00|21.90|external disabled_by_skypanel 21.90|differs|") || !strings.HasSuffix(got, "|7|5|5|true") {
		t.Errorf("%s", got)
	}
	if got := data[[]api.CoverageDay](t, s.admin(t, http.MethodGet, "/api/admin/coverage?days=1")); len(got) != 1 || got[0].Day != "2026-03-02" {
		t.Errorf("one day: %+v", got)
	}
	for path, code := range map[string]string{"coverage?days=401": "bad_days", "coverage.csv?days=x": "bad_days", "coverage?user=1": "unknown_parameter"} {
		if a := s.admin(t, http.MethodGet, "/api/admin/"+path); a.body.Error.Code != code {
			t.Errorf("%s: %s", path, a.raw)
		}
	}

	// A look that fails is made again at once.
	s.exec(t, `ALTER TABLE serversync.coverage_days RENAME TO away`)
	s.wait(2 * time.Hour)
	if err := api.CoverageDue(t.Context(), s.api); err == nil {
		t.Error("a look that failed is told as one that did not")
	}
	s.exec(t, `ALTER TABLE serversync.away RENAME TO coverage_days`)
	if d := look(time.Second, 2)[0]; !d.WrittenAt.Equal(s.now()) {
		t.Errorf("after a look that failed: %s", d.WrittenAt)
	}
}
