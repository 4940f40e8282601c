package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/db"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	a := administer(t)
	code, out, errs := a.command(t, "status")
	want := `Servers       0
  0  external: billed by a row of ours
  0  native: SkyPANEL made them
  0  unlinked: their owner is nobody in SkyPANEL
  0  conflict: the evidence disagrees, a person must look
  0  settling: SkyPANEL's own row may still come
Recorded      0.00 a month, of which SkyPANEL charges 0.00 (whole tokens an hour)
Last sweep    never: serversync sweep begins one
Queue         12 events
Dead letters  unknown: see the service's log
No process with the role sweep is running: nothing is swept. Start serversync serve with that role.
`
	if code != exitDone || out != want {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}

	a.exec(t, `
		INSERT INTO users (id, email, username, password, full_name) VALUES (41, 'c', 'c', '!', 'C');
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		VALUES (1, 41, 1, 1, 5, 'S', 10, 0.01, true);
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, billing, billing_reason, billing_id, awaiting_run, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, 41, CASE WHEN i < 4 THEN 'external' ELSE 'native' END, CASE i WHEN 1 THEN 'on' ELSE 'off' END, CASE i WHEN 2 THEN 'unpriced' END,
			CASE i WHEN 1 THEN 1 END, CASE i WHEN 4 THEN 'waits' ELSE '' END, now(), '', '', now(), now() FROM generate_series(1, 12) AS i`)
	a.add(t, "waits", db.RunNeedsApproval, false)
	lead, err := db.TryLead(t.Context(), a.db)
	if err != nil || lead == nil {
		t.Fatalf("lead: %v, %v", lead, err)
	}
	t.Cleanup(func() { _ = lead.Release(t.Context()) })
	code, out, errs = a.command(t, "status")
	for _, says := range []string{
		"Servers       12\n", "\n   1  external: billed", "\n   1  external, not billed: unknown\n", "\n   1  external, not billed: unpriced\n", "\n   9  native",
		"  of which 1 await approval\n", "Recorded      10.00 a month, of which SkyPANEL charges 7.30",
		"Last sweep    waits for approval (waits), ended ", "Waiting       Sweep (waits), since 2026-03-01 12:00:00 UTC: serversync sweep --approve waits\n",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("it does not say %q", says)
		}
	}
	if code != exitDone || strings.Contains(out, "No process") || t.Failed() {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	a.exec(t, `UPDATE serversync.runs SET state = 'running', phase = 'listing', ended_at = NULL, approved_at = now()`)
	if _, out, _ := a.command(t, "status"); !strings.Contains(out, "Last sweep    running (waits), begun ") || !strings.Contains(out, " ago, at 2026-03-01 12:00:00 UTC; listing: page 3 of 3") {
		t.Errorf("while a sweep runs:\n%s", out)
	}
	_, out, _ = a.command(t, "status", "--json")
	var o api.Overview
	if err := json.Unmarshal([]byte(out), &o); err != nil || o.Coverage.Total != 12 || o.LastSweep.ID != "waits" || !o.Sweeping {
		t.Errorf("as JSON: %v:\n%s", err, out)
	}
}

func TestStatusOfAUser(t *testing.T) {
	t.Parallel()
	a := administer(t)
	a.exec(t, `
		INSERT INTO users (id, email, username, password, full_name) VALUES (41, 'c', 'c', '!', 'C');
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (1, 41, 'native', now(), '', '', now(), now()), (2, 41, 'settling', now(), '', '', now(), now())`)
	if code, out, errs := a.command(t, "status", "--user", "41"); code != exitDone ||
		out != "User 41 has 2 servers, 1 in step with the books, 0 made outside SkyPANEL.\n0 billing records of theirs.\nNever synchronized: serversync sweep --user 41\n" {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	a.add(t, "done", db.RunSucceeded, false)
	if _, out, _ := a.command(t, "status", "--user", "41"); !strings.Contains(out, "ago, at 2026-03-01 12:01:00 UTC.") {
		t.Errorf("after a sweep:\n%s", out)
	}
	_, out, _ := a.command(t, "status", "--user", "41", "--json")
	var s api.UserStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.TotalServers != 2 || s.LastSync == nil {
		t.Errorf("as JSON: %v:\n%s", err, out)
	}
	if code, _, errs := a.command(t, "status", "--user", "7"); code != exitFailed || !strings.Contains(errs, "SkyPANEL has no user with this id") {
		t.Errorf("nobody: exit %d: %s", code, errs)
	}
	if code, _, _ := a.command(t, "status", "--user", "x"); code != exitUsage {
		t.Errorf("no id: exit %d", code)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{-time.Hour: "0s", 59900 * time.Millisecond: "59s", time.Minute: "1 minute", 61 * time.Minute: "1h01m", 47 * time.Hour: "47h00m", 49 * time.Hour: "2 days"} {
		if got := age(now.Add(-ago), now); got != want {
			t.Errorf("%s: %s, want %s", ago, got, want)
		}
	}
}
