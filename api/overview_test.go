package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

// fleet makes servers of every status, for users 41 and 42.
func (s *system) fleet(t *testing.T) {
	t.Helper()
	s.exec(t, `
		INSERT INTO users (id, email, username, password, full_name) VALUES (41, 'c', 'c', '!', 'C'), (42, 'd', 'd', '!', 'D');
		INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 720);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, hours_in_month)
		VALUES (1, 41, 1, 1, 5, 'S', 10, 0.01, true, 730), (2, 41, 2, 2, 5, 'S', 10, 0.01, true, NULL), (3, 41, 3, 3, 5, 'S', 99, 0.1, false, NULL),
			(4, 41, 4, 4, 5, 'S', 99, 0.1, true, NULL), (9, 41, 9, 9, 5, 'S', 99, 0.1, false, NULL), (10, 41, 77, 77, 5, 'S', 99, 0.1, true, NULL), (11, 42, 8, 8, 5, 'S', 5, 0.1, true, NULL);
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, billing, billing_reason, billing_id, ask, awaiting_run, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, owner, status, billing, reason, row, ask, awaits, now(), '', '', now(), now()
		FROM (VALUES (1, 41, 'external', 'on', NULL, 1, '', ''), (2, 41, 'external', 'on', NULL, 2, '', 'r'), (3, 41, 'external', 'off', 'unpriced', 3, 'why', ''),
			(4, 41, 'native', 'off', NULL, 4, '', ''), (5, 41, 'unlinked', 'off', NULL, NULL, '', ''), (6, 41, 'conflict', 'on', NULL, NULL, '', ''), (7, 41, 'settling', 'off', NULL, NULL, '', ''),
			(8, 42, 'external', 'off', NULL, 11, '', ''), (9, 41, 'gone', 'off', 'destroyed', 9, '', 'r'), (10, 42, 'external', 'off', 'unpriced', NULL, '', '')
			) AS v (id, owner, status, billing, reason, row, ask, awaits)`)
}

func TestOverview(t *testing.T) {
	t.Parallel()
	s := setup(t)
	empty := data[api.Overview](t, s.admin(t, http.MethodGet, "/api/admin/overview"))
	if empty.Coverage.Total != 0 || empty.Coverage.Off == nil || empty.LastSweep != nil || empty.Waiting == nil || empty.Sweeping || *empty.Lag != 12 || *empty.DeadLetters != 0 ||
		empty.Revenue.RecordedMonthly.List != "0.00" {
		t.Errorf("of nothing: %+v", empty)
	}

	s.fleet(t)
	s.addRun(t, db.Run{ID: "first", State: db.RunNeedsApproval, StartedAt: noon().Add(-time.Hour)})
	s.addRun(t, db.Run{ID: "last", State: db.RunIncomplete})
	s.addRun(t, db.Run{ID: "tried", State: db.RunNeedsApproval, DryRun: true, StartedAt: noon().Add(time.Hour)})
	s.addRun(t, db.Run{ID: "sync", Kind: db.RunSync, State: db.RunNeedsApproval, UserID: new(int64(41)), StartedAt: noon().Add(time.Hour)})
	lead, err := db.TryLead(t.Context(), s.db)
	if err != nil || lead == nil {
		t.Fatalf("lead: %v, %v", lead, err)
	}
	t.Cleanup(func() { _ = lead.Release(t.Context()) })
	s.queue, s.dead = func() (int64, error) { return 0, errors.New("the broker is away") }, func() (int64, error) { return 3, nil }

	s.exec(t, `
		INSERT INTO serversync.charges (transaction_id, billing_id, virtfusion_id, user_id, owner_id, tokens, reference, state, created_at, due_at, taking_at)
		SELECT n, 1, 1, 41, 70, 1, 'r' || n, CASE WHEN n < 3 THEN 'unclear' ELSE 'taken' END, now(), now(), now() FROM generate_series(1, 3) AS n`)

	o := data[api.Overview](t, s.admin(t, http.MethodGet, "/api/admin/overview"))
	c := o.Coverage
	if c.Total != 9 || c.On != 2 || fmt.Sprint(c.Off) != "map[unknown:1 unpriced:2]" || c.Native != 1 || c.Unlinked != 1 || c.Conflict != 1 || c.Settling != 1 {
		t.Errorf("coverage: %+v", c)
	}
	sum := c.On + c.Native + c.Unlinked + c.Conflict + c.Settling
	for _, n := range c.Off {
		sum += n
	}
	if sum != c.Total {
		t.Errorf("the parts add up to %d of %d", sum, c.Total)
	}
	// 10 a month in 730 hours is charged as 7.30; in the 720 of the settings, as 7.20.
	if r := o.Revenue.RecordedMonthly; r.List != "20.00" || r.Effective != "14.50" {
		t.Errorf("revenue: %+v", r)
	}
	if o.AwaitingApproval != 1 || o.Lag != nil || *o.DeadLetters != 3 || o.UnclearCharges != 2 || o.LastSweep.ID != "last" || !o.Sweeping || len(o.Waiting) != 2 || o.Waiting[0].ID != "sync" || o.Waiting[1].ID != "first" {
		t.Errorf("overview: %+v", o)
	}
	if !strings.Contains(s.log.String(), "the broker is away") {
		t.Error("nobody is told that the broker is away")
	}
}

func TestAUsersStatus(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.fleet(t)
	const path = "/api/admin/users/41/servers/sync/status"
	if a := s.admin(t, http.MethodGet, path); string(a.body.Data) != `{"lastSync":null,"totalServers":7,"syncedServers":2,"externalServers":3,"billingRecords":5}` {
		t.Errorf("never synchronized: %s", a.raw)
	}
	for i, r := range []db.Run{
		{Kind: db.RunSync, UserID: new(int64(41)), State: db.RunSucceeded},
		{Kind: db.RunSync, UserID: new(int64(41)), State: db.RunFailed},
		{Kind: db.RunSync, UserID: new(int64(42)), State: db.RunSucceeded},
		{Kind: db.RunSync, UserID: new(int64(41)), State: db.RunSucceeded, DryRun: true},
		{Kind: db.RunSweep, State: db.RunIncomplete},
	} {
		r.ID, r.EndedAt = fmt.Sprint("run", i), new(noon().Add(time.Duration(i)*time.Minute))
		s.addRun(t, r)
	}
	lastSync := func() string {
		t.Helper()
		var v struct{ LastSync string }
		if err := json.Unmarshal(s.admin(t, http.MethodGet, path).body.Data, &v); err != nil {
			t.Fatal(err)
		}
		return v.LastSync
	}
	if got := lastSync(); got != "2026-03-01T12:00:00Z" {
		t.Errorf("the last sync: %s", got)
	}
	s.addRun(t, db.Run{ID: "sweep", State: db.RunSucceeded, EndedAt: new(noon().Add(time.Hour))})
	if got := lastSync(); got != "2026-03-01T13:00:00Z" {
		t.Errorf("the last sweep: %s", got)
	}
	s.exec(t, `INSERT INTO users (id, email, username, password, full_name) VALUES (43, 'e', 'e', '!', 'E')`)
	if a := s.admin(t, http.MethodGet, "/api/admin/users/43/servers/sync/status"); !strings.Contains(a.raw, `"totalServers":0`) {
		t.Errorf("without servers: %s", a.raw)
	}
}
