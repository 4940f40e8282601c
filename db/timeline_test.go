package db_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

const storyUUID = "5a2d2f0e-6a63-4be4-9d62-3e0f3a3a7c11"

// told is a database with server 7, its two billing rows, their charges and
// five history lines, and another server's beside each.
func told(t *testing.T) *bun.DB {
	t.Helper()
	database := dbtest.New(t)
	active, passive := customer(t, database, "active"), customer(t, database, "passive")
	exec(t, database, `UPDATE users SET is_active = false WHERE id = ?`, passive)
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, uuid, user_id, name, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (7, ?0, ?1, 'seven', 'native', now(), 'webhook', 'e', now(), now()),
			(8, ?0, ?1, 'eight', 'gone', now(), 'webhook', 'e', now(), now()),
			(3000000000, 'large', NULL, '', 'conflict', now(), 'webhook', 'e', now(), now());
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		VALUES (1, ?1, 7, 7, NULL, 5, 'Small', 10, 0.013699, true),
			(2, ?2, 7, 7, ?0, 5, 'Small', 10, 0.013699, false),
			(3, ?1, 9, 9, NULL, 5, 'Small', 10, 0.013699, true);
		INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id, amount_charged, status)
		SELECT i, CASE WHEN i % 5 = 0 THEN 3 ELSE 1 END, ?1, 7, 0.01, CASE WHEN i = 1 THEN 'completed' ELSE 'pending' END FROM generate_series(1, 20) AS i;
		INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id) VALUES (21, 2, ?1, 7);
		INSERT INTO package_pricing (virtfusion_package_id, name, price) VALUES (5, 'Small', 1000);
		INSERT INTO serversync.overrides (virtfusion_id, kind, reason, set_by) VALUES (7, 'ignore', 'a friend', 'admin'), (9, 'ignore', '', '');
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, before, after, run_id)
		SELECT now(), CASE WHEN i % 2 = 0 THEN 9 ELSE 7 END, 'decided', 'line ' || i, '{"a": 1}', NULL, 'run' FROM generate_series(1, 10) AS i`,
		storyUUID, active, passive)
	return database
}

func reasons(s db.Story) string {
	var all []string
	for _, h := range s.History {
		all = append(all, strings.TrimPrefix(h.Reason, "line "))
	}
	return strings.Join(all, " ")
}

func TestReadStory(t *testing.T) {
	t.Parallel()
	s, err := db.ReadStory(t.Context(), told(t), db.StoryQuery{ServerID: 7, Lines: 10, Charges: 3})
	if err != nil {
		t.Fatal(err)
	}
	if s.Server.Name != "seven" || len(s.Rows) != 2 || s.Rows[0].ID != 1 || s.Rows[1].ID != 2 {
		t.Errorf("server %+v, rows %+v", s.Server, s.Rows)
	}
	var charges []string
	for _, c := range s.Charges {
		charges = append(charges, fmt.Sprintf("%d/%d/%d/%s/%v", c.BillingID, c.ID, c.Siblings, c.Amount.Decimal, c.Collected))
	}
	if got := strings.Join(charges, " "); got != "1/19/16/0.01/true 1/18/16/0.01/true 1/17/16/0.01/true 2/21/1/0/false" {
		t.Errorf("charges %s", got)
	}
	if !s.Active[1] || s.Active[2] || len(s.Active) != 2 {
		t.Errorf("active %v", s.Active)
	}
	if s.Prices[5].Price != 1000 || s.Job.Enabled || s.Job.HoursPerMonth != 730 || !s.Job.HourlyMode {
		t.Errorf("prices %v, job %+v", s.Prices, s.Job)
	}
	if len(s.Overrides) != 1 || s.Overrides[0].Reason != "a friend" {
		t.Errorf("overrides %+v", s.Overrides)
	}
	if reasons(s) != "9 7 5 3 1" || s.More || string(s.History[0].Before) != `{"a": 1}` || s.History[0].After != nil || s.History[0].RunID != "run" {
		t.Errorf("history %+v, more %v", s.History, s.More)
	}
}

func TestStoryPages(t *testing.T) {
	t.Parallel()
	database := told(t)
	for _, test := range []struct {
		oldestFirst bool
		want        string
	}{{false, "9 7|5 3|1"}, {true, "1 3|5 7|9"}} {
		q := db.StoryQuery{ServerID: 7, OldestFirst: test.oldestFirst, Lines: 2}
		var pages []string
		for more := true; more; {
			s, err := db.ReadStory(t.Context(), database, q)
			if err != nil {
				t.Fatal(err)
			}
			pages, more = append(pages, reasons(s)), s.More
			q.Cursor = s.History[len(s.History)-1].ID
		}
		q.Cursor, q.Lines = 0, 5
		if s, err := db.ReadStory(t.Context(), database, q); err != nil || s.More {
			t.Errorf("a page that holds all says that there are more: %v", err)
		}
		if got := strings.Join(pages, "|"); got != test.want {
			t.Errorf("oldest first %v: %s, want %s", test.oldestFirst, got, test.want)
		}
	}
}

func TestStoryFindsTheServer(t *testing.T) {
	t.Parallel()
	database := told(t)
	for _, test := range []struct {
		q    db.StoryQuery
		want int64
		err  error
	}{
		{db.StoryQuery{UUID: storyUUID}, 7, nil}, // 8 is gone
		{db.StoryQuery{UUID: strings.ToUpper(storyUUID)}, 7, nil},
		{db.StoryQuery{ServerID: 8}, 8, nil},
		{db.StoryQuery{ServerID: 3000000000}, 3000000000, nil}, // does not fit SkyPANEL's columns
		{db.StoryQuery{ServerID: 9}, 0, db.ErrNoServer},
		{db.StoryQuery{UUID: "other"}, 0, db.ErrNoServer},
	} {
		s, err := db.ReadStory(t.Context(), database, test.q)
		if !errors.Is(err, test.err) || s.Server.VirtfusionID != test.want {
			t.Errorf("%+v: server %d, %v", test.q, s.Server.VirtfusionID, err)
		}
	}
	exec(t, database, `UPDATE serversync.servers SET status = 'conflict' WHERE virtfusion_id = 8`)
	if _, err := db.ReadStory(t.Context(), database, db.StoryQuery{UUID: storyUUID}); !errors.Is(err, db.ErrAmbiguousUUID) {
		t.Errorf("two living servers with one UUID: %v", err)
	}
}

func TestReadBillingJob(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	for _, test := range []struct {
		statement string
		want      db.BillingJob
	}{
		{`SELECT 1`, db.BillingJob{Policy: db.Policy{HourlyMode: true, HoursPerMonth: 730}}},
		{`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month) VALUES (true, 720)`, db.BillingJob{Enabled: true, Policy: db.Policy{HourlyMode: true, HoursPerMonth: 720}}},
		{`INSERT INTO virtfusion_cron_settings (enabled, hourly_billing_enabled) VALUES (true, false)`, db.BillingJob{Policy: db.Policy{HourlyMode: true, HoursPerMonth: 730}}},
		{`INSERT INTO virtfusion_cron_settings (enabled) VALUES (NULL)`, db.BillingJob{Policy: db.Policy{HourlyMode: true, HoursPerMonth: 730}}},
		{`INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false')`, db.BillingJob{Policy: db.Policy{HoursPerMonth: 730}}},
	} {
		exec(t, database, test.statement)
		if got, err := db.ReadBillingJob(t.Context(), database); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v", test.statement, got, err)
		}
	}
}

// A grown database is not read whole to tell of one server.
func TestStoryUsesTheIndexes(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO users (id, email, username, password, full_name) VALUES (1, 'a', 'a', '!', 'A');
		INSERT INTO serversync.servers (virtfusion_id, uuid, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, 'uuid-' || i, 'external', now(), '', '', now(), now() FROM generate_series(1, 20000) AS i;
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate)
		SELECT i, 1, i, i, 'uuid-' || i, 5, 'Small', 5, 0.006849 FROM generate_series(1, 20000) AS i;
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, status)
		SELECT 1 + i % 20000, 1, 1, 'completed' FROM generate_series(1, 100000) AS i;
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason)
		SELECT now(), 1 + i % 20000, 'decided', '' FROM generate_series(1, 100000) AS i`)
	exec(t, database, `ANALYZE`)
	one := open(t, dsn(t, database, ""))
	one.SetMaxOpenConns(1) // one session, whose statistics are read
	look := func(q db.StoryQuery) {
		t.Helper()
		s, err := db.ReadStory(t.Context(), one, q)
		if err != nil || len(s.Rows) != 1 || len(s.Charges) != 5 || len(s.History) != 5 {
			t.Fatalf("%d rows, %d charges, %d lines, %v", len(s.Rows), len(s.Charges), len(s.History), err)
		}
	}
	names := []string{"serversync.servers", "serversync.history", "public.virtfusion_hourly_billing", "public.virtfusion_hourly_transactions"}
	read := func() (all []int) {
		t.Helper()
		exec(t, one, `SELECT pg_stat_force_next_flush()`)
		for _, name := range names {
			var whole int
			if err := one.NewRaw(`SELECT seq_scan FROM pg_stat_user_tables WHERE relid = to_regclass(?)`, name).Scan(t.Context(), &whole); err != nil {
				t.Fatal(err)
			}
			all = append(all, whole)
		}
		return all
	}
	before := read()
	for i := range int64(10) {
		look(db.StoryQuery{ServerID: 1 + 1000*i, Lines: 50, Charges: 20})
		look(db.StoryQuery{UUID: fmt.Sprintf("uuid-%d", 1+1000*i), Lines: 50, Charges: 20, OldestFirst: true})
	}
	for i, whole := range read() {
		if whole != before[i] {
			t.Errorf("%s was read whole", names[i])
		}
	}
}
