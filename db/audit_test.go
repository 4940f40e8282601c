package db_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// auditAt is the time of the audits here.
func auditAt() time.Time { return time.Date(2026, 3, 10, 12, 30, 0, 0, time.UTC) }

func audit(t *testing.T, database *bun.DB) (findings []db.AuditFinding, counts map[db.AuditRule]int64) {
	t.Helper()
	report, err := db.Audit(t.Context(), database, db.AuditQuery{
		Now: auditAt(), Since: auditAt().AddDate(0, -1, 0), BackBillHours: 6, Limit: 100,
	})
	if err != nil || len(report.Failed) > 0 {
		t.Fatal(report.Failed, err)
	}
	counts = map[db.AuditRule]int64{}
	for _, c := range report.Counts {
		counts[c.Rule] = c.Findings
	}
	return report.Findings, counts
}

// soundBooks are a customer (7) with two servers in order (1 SkyPANEL's, 2 ours)
// and SkyPANEL's job at work: nothing of it breaks a rule.
func soundBooks(t *testing.T) *bun.DB {
	t.Helper()
	database := dbtest.New(t)
	exec(t, database, `
		INSERT INTO users (id, email, username, password, full_name, virtfusion_id, is_active) VALUES
			(7, 'a@company.test', 'anna', '!', 'Anna', 70, true), (8, 'b@company.test', 'bert', '!', 'Bert', 80, true);
		INSERT INTO package_pricing (virtfusion_package_id, name, price, enabled) VALUES (5, 'Small', 1100, true), (6, 'Tiny', 300, true);
		INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, hourly_billing_enabled) VALUES (true, 730, true);
		INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at)
			VALUES ('s1', 'sweep', 'succeeded', '2026-03-10T12:00Z', '2026-03-10T12:01Z', '2026-03-10T12:01Z')`)
	for _, n := range []int{1, 2} {
		auditServer(t, database, n, "native", "on", "")
		auditRow(t, database, n, n, "")
	}
	exec(t, database, `
		UPDATE serversync.servers SET status = 'external' WHERE virtfusion_id = 2;
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, created_at, updated_at)
			VALUES (2, 2, 'serversync', 7, true, 5, 11, now(), now());
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, amount_charged, billing_period_start, billing_period_end, status, created_at)
			SELECT i, 7, i, 0.02, p, p + interval '1 hour', 'completed', p FROM generate_series(1, 2) AS i,
				generate_series('2026-03-10T09:15'::timestamp, '2026-03-10T12:15', '1 hour') AS p`)
	return database
}

// auditServer puts a server of user 7 into the inventory.
func auditServer(t *testing.T, database *bun.DB, id int, status, billing, reason string) {
	t.Helper()
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, owner_id, user_id, status, billing, billing_reason, billing_id, package_id, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		VALUES (?0, 70, 7, ?1, ?2, nullif(?3, ''), ?0, 5, now(), '', '', now(), now())`, id, status, billing, reason)
}

// auditRow adds a billing row that is in order, but for what set changes of it.
func auditRow(t *testing.T, database *bun.DB, id, server int, set string) {
	t.Helper()
	exec(t, database, `
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, server_created_at, last_billed_at, created_at, updated_at)
		VALUES (?0, 7, ?1, ?1, 'uuid-' || ?1, 5, 'Small', 11, 0.015068, '2026-03-01T10:15', '2026-03-10T13:15', '2026-03-01T10:15', '2026-03-10T12:15')`, id, server)
	if set != "" {
		exec(t, database, `UPDATE virtfusion_hourly_billing SET `+set+` WHERE id = ?`, id)
	}
}

func TestAuditFindsNothingInSoundBooks(t *testing.T) {
	t.Parallel()
	findings, counts := audit(t, soundBooks(t))
	if len(findings) > 0 || len(counts) != len(db.AuditRules()) {
		t.Errorf("%+v, %v", findings, counts)
	}
}

// TestAudit has one cause for each rule, beside what comes near to it and is in
// order.
func TestAudit(t *testing.T) {
	t.Parallel()
	row := func(id, server int, set string) func(*testing.T, *bun.DB) {
		return func(t *testing.T, database *bun.DB) { t.Helper(); auditRow(t, database, id, server, set) }
	}
	server := func(id int, status, billing, reason string) func(*testing.T, *bun.DB) {
		return func(t *testing.T, database *bun.DB) {
			t.Helper()
			auditServer(t, database, id, status, billing, reason)
		}
	}
	do := func(statement string) func(*testing.T, *bun.DB) {
		return func(t *testing.T, database *bun.DB) { t.Helper(); exec(t, database, statement) }
	}
	charge := func(row int, start, status string) func(*testing.T, *bun.DB) {
		return do(fmt.Sprintf(`
			INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, amount_charged, billing_period_start, billing_period_end, status, created_at)
			VALUES (%d, 7, 1, 0.02, '%s', '%[2]s'::timestamp + interval '1 hour', '%[3]s', '%[2]s')`, row, start, status))
	}
	for name, c := range map[string]struct {
		rule      db.AuditRule
		given     []func(*testing.T, *bun.DB)
		want      string // server, customer, rows and amount of each finding
		evidence  string // of the first
		otherwise []db.AuditRule
	}{
		"two rows, by id": {
			rule: db.AuditTwoRows, given: []func(*testing.T, *bun.DB){row(3, 1, "server_uuid = 'DELETED_SERVER', user_id = 8, monthly_price = 3.65, package_id = 6"), row(4, 2, "billing_enabled = false")},
			want: "1 7 [1 3] 7.30", evidence: "2 billing rows are on for one server: 1 (user 7, since 2026-03-01 10:15 UTC), 3 (user 8",
			otherwise: []db.AuditRule{db.AuditWrongOwner, db.AuditPriceDrifted},
		},
		"two rows, by UUID": {
			rule:  db.AuditTwoRows,
			given: []func(*testing.T, *bun.DB){server(3, "native", "on", ""), row(3, 3, "server_uuid = 'UUID-1'"), server(4, "native", "on", ""), server(5, "native", "on", ""), row(4, 4, "server_uuid = 'DELETED_SERVER'"), row(5, 5, "server_uuid = 'DELETED_SERVER'")},
			want:  "1 7 [1 3] 14.60", evidence: "Together they cost $29.20 a month, one alone $14.60",
		},
		"charged twice": {
			rule: db.AuditChargedTwice, given: []func(*testing.T, *bun.DB){charge(1, "2026-03-10 10:20", "completed"), charge(1, "2026-03-10 10:30", "completed"), charge(2, "2026-03-10 10:15", "failed"), charge(2, "2026-03-10 10:15", "pending")},
			want: "1 7 [1] 0.06", evidence: "3 charges, $0.06 in all",
		},
		"charged by a row of the same UUID": {
			rule: db.AuditChargedTwice, given: []func(*testing.T, *bun.DB){
				server(3, "external", "off", "operator"), row(3, 3, "server_uuid = 'UUID-1', billing_enabled = false"), charge(3, "2026-03-10 12:15", "completed"), charge(3, "2026-03-10 13:15", "completed"),
				row(4, 4, "server_uuid = 'DELETED_SERVER', billing_enabled = false"), charge(4, "2026-03-10 12:15", "completed"), row(5, 5, "server_uuid = 'DELETED_SERVER', billing_enabled = false"), charge(5, "2026-03-10 12:15", "completed"),
			},
			want: "3 7 [3] 0.02", evidence: "charged already: ",
		},
		"charged nothing, and without a server": {
			rule: db.AuditChargedTwice, given: []func(*testing.T, *bun.DB){
				charge(1, "2026-03-10 10:15", "completed"), do(`UPDATE virtfusion_hourly_transactions SET amount_charged = 0 WHERE billing_id = 1`),
				row(3, 0, "server_uuid = 'DELETED_SERVER', billing_enabled = false"), charge(3, "2026-03-10 10:15", "completed"), row(4, 0, "server_uuid = NULL, billing_enabled = false"), charge(4, "2026-03-10 10:15", "completed"),
			},
		},
		"a row without a server charged twice": {
			rule: db.AuditChargedTwice, given: []func(*testing.T, *bun.DB){row(3, 0, "billing_enabled = false"), charge(3, "2026-03-10 10:15", "completed"), charge(3, "2026-03-10 10:15", "completed")},
			want: "0 7 [3] 0.02",
		},
		"charged long ago, and a minute": {
			rule: db.AuditChargedTwice, given: []func(*testing.T, *bun.DB){charge(1, "2026-01-10 10:15", "completed"), charge(1, "2026-01-10 10:15", "completed"), charge(1, "2026-03-10 13:14:30", "completed")},
		},
		"charged by another row of the server": {
			rule: db.AuditChargedTwice, given: []func(*testing.T, *bun.DB){row(3, 1, "billing_enabled = false"), charge(3, "2026-03-10 13:00", "completed")},
			want: "1 7 [3] 0.02", evidence: "charged already: ",
		},
		"gone": {
			rule: db.AuditGone, given: []func(*testing.T, *bun.DB){server(3, "gone", "off", "destroyed"), row(3, 3, ""), server(4, "gone", "off", "destroyed"), row(4, 4, "billing_enabled = false")},
			want: "3 7 [3] 14.60", evidence: "row 3 is on at $14.60 a month, and the server is gone since",
		},
		"wrong owner": {
			rule: db.AuditWrongOwner, given: []func(*testing.T, *bun.DB){server(3, "native", "on", ""), row(3, 3, "user_id = 8"), server(4, "conflict", "on", ""), row(4, 4, "user_id = 8")},
			want: "3 8 [3] 14.60", evidence: "row 3 charges user 8 $14.60 a month for a server that belongs to user 7",
			otherwise: []db.AuditRule{db.AuditDisputed},
		},
		"disputed owner": {
			rule: db.AuditDisputed, given: []func(*testing.T, *bun.DB){
				server(3, "conflict", "on", ""), row(3, 3, "user_id = 8"), server(4, "conflict", "on", ""), row(4, 4, ""), server(5, "conflict", "on", ""), row(5, 5, "user_id = 8, billing_enabled = false"),
				do(`UPDATE serversync.servers SET note = 'as its note says' WHERE virtfusion_id = 3`),
			},
			want: "3 8 [3] 14.60", evidence: "row 3 charges user 8 $14.60 a month; by VirtFusion the server belongs to user 7, and evidence disagrees. as its note says",
		},
		"back-billing": {
			rule: db.AuditBackBill, given: []func(*testing.T, *bun.DB){
				server(3, "native", "on", ""), row(3, 3, "last_billed_at = '2026-03-10T05:30'"), server(4, "native", "on", ""), row(4, 4, "last_billed_at = NULL"),
				server(5, "native", "on", ""), row(5, 5, "last_billed_at = '2026-03-10T06:30:01'"), server(6, "external", "off", "operator"), row(6, 6, "last_billed_at = NULL, billing_enabled = false"),
			},
			want: "3 7 [3] 0.16\n4 7 [4] 4.36", evidence: "SkyPANEL's next job charges row 3 8 hours at once, $0.16: it is billed until 2026-03-10 05:30 UTC",
		},
		"back-billing by a job that is off": {
			rule: db.AuditBackBill, given: []func(*testing.T, *bun.DB){do(`UPDATE virtfusion_cron_settings SET enabled = false; UPDATE virtfusion_hourly_billing SET last_billed_at = '2026-03-01T00:00'`)},
			otherwise: []db.AuditRule{db.AuditJobOff},
		},
		"back-billing in monthly mode": {
			rule: db.AuditBackBill, given: []func(*testing.T, *bun.DB){do(`
				INSERT INTO settings (key, value) VALUES ('virtfusion_self_service_hourly_credit', 'false');
				UPDATE virtfusion_hourly_billing SET last_billed_at = '2026-03-01T00:00'; UPDATE virtfusion_cron_settings SET hourly_billing_enabled = false`)},
		},
		"unknown server": {
			rule: db.AuditUnknown, given: []func(*testing.T, *bun.DB){row(3, 3, ""), row(4, 4, "created_at = '2026-03-10T12:10'")},
			want: "3 7 [3] 14.60", evidence: "VirtFusion did not list its server on 2026-03-10 12:00 UTC",
		},
		"switched off": {
			rule: db.AuditSwitchedOff, given: []func(*testing.T, *bun.DB){
				server(3, "native", "off", "disabled_by_skypanel"), row(3, 3, "billing_enabled = false"), server(4, "external", "off", "operator"), row(4, 4, "billing_enabled = false"),
				server(5, "external", "off", "disabled_by_skypanel"), row(5, 5, "billing_enabled = false, user_id = 8"),
				do(`INSERT INTO serversync.runs (id, kind, state, started_at, ended_at, beat_at) VALUES ('f1', 'sweep', 'failed', '2026-03-10T12:20Z', '2026-03-10T12:21Z', '2026-03-10T12:21Z')`),
			},
			want: "3 7 [3] 14.60", evidence: "$14.60 a month are not billed. VirtFusion was out of reach at that time: a sweep begun on 2026-03-10 12:20 UTC",
		},
		"switched off, and not decided yet": {
			rule: db.AuditSwitchedOff, given: []func(*testing.T, *bun.DB){
				server(3, "native", "on", ""), row(3, 3, "billing_enabled = NULL"), server(4, "conflict", "on", ""), row(4, 4, "billing_enabled = false"),
			},
			want: "3 7 [3] 14.60", evidence: "SkyPANEL switched row 3 off",
		},
		"sold without a row": {
			rule: db.AuditSoldWithout, given: []func(*testing.T, *bun.DB){server(3, "native", "off", "disabled_by_skypanel"), do(`UPDATE serversync.servers SET billing_id = NULL, note = 'as its note says' WHERE virtfusion_id = 3`)},
			want: "3 7 [] 14.60", evidence: "it has no billing row for it. as its note says",
		},
		"no start": {
			rule: db.AuditNoStart, given: []func(*testing.T, *bun.DB){server(3, "native", "on", ""), row(3, 3, "last_billed_at = NULL, server_created_at = NULL")},
			want: "3 7 [3] 14.60", evidence: "SkyPANEL's job never bills it",
		},
		"no price": {
			rule: db.AuditNoPrice, given: []func(*testing.T, *bun.DB){server(3, "native", "on", ""), row(3, 3, "package_id = 99, last_billed_at = '2026-03-01T00:00'")},
			want: "3 7 [3] <nil>", evidence: "package_pricing has no VirtFusion package 99",
		},
		"inactive owner, and none": {
			rule: db.AuditNoPayer, given: []func(*testing.T, *bun.DB){
				do(`UPDATE users SET is_active = false WHERE id = 8; ALTER TABLE virtfusion_hourly_billing DISABLE TRIGGER ALL`), server(3, "native", "on", ""), server(4, "native", "on", ""),
				row(3, 3, "user_id = 8, last_billed_at = '2026-03-01T00:00'"), row(4, 4, "user_id = 99"), do(`UPDATE serversync.servers SET user_id = 8 WHERE virtfusion_id = 3`),
			},
			want: "3 8 [3] 14.60\n4 99 [4] 14.60", evidence: "row 3 is on, and user 8 is not active",
			otherwise: []db.AuditRule{db.AuditWrongOwner},
		},
		"charges fail": {
			rule: db.AuditChargesFail, given: []func(*testing.T, *bun.DB){
				server(3, "native", "on", ""), row(3, 3, ""), charge(3, "2026-03-10 08:15", "failed"), charge(3, "2026-03-10 09:15", "failed"), charge(3, "2026-03-10 10:15", "failed"), charge(3, "2026-03-10 07:15", "completed"),
				server(4, "native", "on", ""), row(4, 4, ""), charge(4, "2026-03-10 08:15", "failed"), charge(4, "2026-03-10 09:15", "failed"), charge(4, "2026-03-10 10:15", "failed"), charge(4, "2026-03-10 11:15", "completed"),
				server(5, "native", "on", ""), row(5, 5, ""), charge(5, "2026-03-10 08:15", "failed"), charge(5, "2026-03-10 09:15", "failed"),
			},
			want: "3 7 [3] 0.06", evidence: "3 charges of row 3 failed since 2026-03-10 08:15 UTC, $0.06 in all",
		},
		"a proof's mismatch": {
			rule: db.AuditProofMismatch, given: []func(*testing.T, *bun.DB){do(`
				INSERT INTO serversync.proofs (id, state, requested_by, started_at, ended_at, mismatches, details) VALUES
					('old', 'complete', 'clock', '2026-03-01', '2026-03-01T00:05', 1, '[{"serverId": 9, "field": "name", "ours": "a", "theirs": "b"}]'),
					('new', 'complete', 'clock', '2026-03-08', '2026-03-08T00:05', 3, '[{"serverId": 1, "userId": 7, "field": "package_id", "ours": "5", "theirs": "6"}, {"serverId": 1, "userId": 7, "field": "billing", "ours": "external, billed", "theirs": "no row"},
						{"serverId": 4, "field": "existence", "ours": "unknown", "theirs": "exists"}, {"serverId": 0, "field": "total", "ours": "2", "theirs": "3"}]'),
					('newer', 'incomplete', 'ada', '2026-03-09', '2026-03-09T00:05', 0, '[]'),
					('now', 'running', 'ada', '2026-03-10', NULL, 0, '[]')`)},
			want: "1 7 [] <nil>\n4 <nil> [] <nil>\n<nil> <nil> [] <nil>", evidence: "the full proof of 2026-03-08 00:05 UTC found: billing is external, billed here and no row in SkyPANEL; package_id is 5 here and 6 in VirtFusion",
		},
		"no proof for long": {
			rule: db.AuditProofOverdue, given: []func(*testing.T, *bun.DB){do(`
				INSERT INTO serversync.proofs (id, state, requested_by, started_at, ended_at, note) VALUES
					('old', 'complete', 'clock', '2026-02-28', '2026-02-28T00:05', ''), ('new', 'incomplete', 'clock', '2026-03-08', '2026-03-08T00:05', 'it could not see everything')`)},
			want: "<nil> <nil> [] <nil>", evidence: "no full proof has been complete since 2026-02-28 00:05 UTC: the last one is incomplete, it could not see everything",
		},
		"job off": {
			rule: db.AuditJobOff, given: []func(*testing.T, *bun.DB){do(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, hourly_billing_enabled) VALUES (true, 730, false)`)},
			want: "<nil> <nil> [] 29.20", evidence: "2 rows are not billed, $29.20 a month",
		},
		"odd values": {
			rule: db.AuditOdd, given: []func(*testing.T, *bun.DB){
				server(3, "native", "on", ""), row(3, 3, "last_billed_at = 'infinity'"), server(4, "native", "on", ""), row(4, 4, "last_billed_at = '-infinity'"),
				server(5, "native", "on", ""), row(5, 5, "last_billed_at = NULL, server_created_at = 'infinity'"), server(6, "native", "on", ""), row(6, 6, "monthly_price = 'NaN'"),
				server(7, "native", "on", ""), row(7, 7, ""), charge(7, "2026-03-10 10:15", "failed"), charge(7, "2026-03-10 10:15", "completed"), charge(7, "2026-03-10 10:15", "completed"),
				do(`UPDATE virtfusion_hourly_transactions SET amount_charged = 'NaN' WHERE billing_id = 7`),
				server(8, "native", "on", ""), row(8, 8, "created_at = 'infinity', updated_at = '-infinity', hours_in_month = 0, last_billed_at = '2026-03-10T13:15'"),
				do(`INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, amount_charged, billing_period_start, billing_period_end, status, created_at)
					SELECT 8, 7, 8, 0.02, '-infinity', v::timestamp, 'completed', v::timestamp FROM unnest(ARRAY['infinity', NULL]) v`),
			},
			want:     "3 7 [3] <nil>\n4 7 [4] <nil>\n5 7 [5] <nil>\n6 7 [6] <nil>\n7 7 [7] <nil>",
			evidence: "row 3 cannot be reckoned with: monthly_price 11.0000, last_billed_at infinity",
		},
		"less than nothing, and paid far ahead": {
			rule: db.AuditOdd, given: []func(*testing.T, *bun.DB){
				server(3, "native", "on", ""), row(3, 3, "last_billed_at = '2036-03-10T13:15'"), server(4, "native", "on", ""), row(4, 4, "last_billed_at = NULL, server_created_at = '2026-03-10T19:00'"),
				server(5, "native", "on", ""), row(5, 5, "monthly_price = -11"), server(6, "native", "on", ""), row(6, 6, "last_billed_at = '2026-03-10T15:15'"),
				server(7, "external", "off", "operator"), row(7, 7, "billing_enabled = false, monthly_price = -11, last_billed_at = '2036-03-10T13:15'"),
				server(8, "native", "on", ""), row(8, 8, "monthly_price = 3, package_id = 6, last_billed_at = '2036-03-10T13:15'"), // costs nothing
			},
			want:      "3 7 [3] 14.60\n4 7 [4] 14.60\n5 7 [5] <nil>",
			evidence:  "row 3 is on and paid until 2036-03-10 13:15 UTC: SkyPANEL's job charges nothing of $14.60 a month before",
			otherwise: []db.AuditRule{db.AuditPriceDrifted, db.AuditCostsNothing},
		},
		"costs nothing": {
			rule: db.AuditCostsNothing, given: []func(*testing.T, *bun.DB){server(3, "native", "on", ""), row(3, 3, "monthly_price = 3, package_id = 6"), server(4, "native", "on", ""), row(4, 4, "monthly_price = 0, package_id = 99")},
			want: "3 7 [3] 3.00", evidence: "row 3 says $3.00 a month; by 730 hours that is less than half a token each",
			otherwise: []db.AuditRule{db.AuditNoPrice},
		},
		"price drift": {
			rule: db.AuditPriceDrifted, given: []func(*testing.T, *bun.DB){do(`UPDATE package_pricing SET price = 1200 WHERE virtfusion_package_id = 5`)},
			want: "1 7 [1] 1.00", evidence: "row 1 bills $11.00 a month, its package Small costs $12.00 today",
		},
		"hours drift": {
			rule: db.AuditHoursDrifted, given: []func(*testing.T, *bun.DB){do(`INSERT INTO virtfusion_cron_settings (enabled, hours_per_month, hourly_billing_enabled) VALUES (true, 720, true)`)},
			want: "1 7 [1] 0.20", evidence: "row 1 divides its price by 730 hours a month, SkyPANEL's settings say 720",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := soundBooks(t)
			for _, change := range c.given {
				change(t, database)
			}
			findings, counts := audit(t, database)
			var got []string
			for i := range findings {
				f := &findings[i]
				if f.Rule != c.rule {
					if !slices.Contains(c.otherwise, f.Rule) {
						t.Errorf("also found: %+v", f)
					}
					continue
				}
				amount := "<nil>"
				if f.Amount.Valid {
					amount = f.Amount.Decimal.StringFixed(2)
				}
				got = append(got, fmt.Sprint(pointed(f.ServerID), " ", pointed(f.UserID), " ", f.Rows, " ", amount))
				if len(got) == 1 && !strings.Contains(f.Evidence, c.evidence) {
					t.Errorf("evidence: %q, want %q in it", f.Evidence, c.evidence)
				}
				if f.Severity == "" || f.Remedy == "" || strings.Contains(f.Remedy, "%") {
					t.Errorf("severity %q, remedy %q", f.Severity, f.Remedy)
				}
			}
			if strings.Join(got, "\n") != c.want || counts[c.rule] != int64(len(got)) {
				t.Errorf("found\n%s\nwant\n%s\n(%d counted)", strings.Join(got, "\n"), c.want, counts[c.rule])
			}
		})
	}
}

func pointed(n *int64) any {
	if n == nil {
		return nil
	}
	return *n
}

func TestAuditReadsSoManyAndCountsAll(t *testing.T) {
	t.Parallel()
	database := soundBooks(t)
	for n := 10; n < 15; n++ {
		auditServer(t, database, n, "gone", "off", "destroyed")
		auditRow(t, database, n, n, "")
	}
	report, err := db.Audit(t.Context(), database, db.AuditQuery{Now: auditAt(), Since: auditAt(), BackBillHours: 6, Limit: 2})
	if err != nil || len(report.Findings) != 2 || *report.Findings[1].ServerID != 11 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, c := range report.Counts {
		if want := map[bool]int64{true: 5}[c.Rule == db.AuditGone]; c.Findings != want {
			t.Errorf("%s: %d, want %d", c.Rule, c.Findings, want)
		}
	}
}

// TestARuleThatFailsFailsAlone has a rule whose column is not there, and some that
// wait for a table.
func TestARuleThatFailsFailsAlone(t *testing.T) {
	t.Parallel()
	database := soundBooks(t)
	auditServer(t, database, 3, "gone", "off", "destroyed")
	auditRow(t, database, 3, 3, "")
	failing := func(timeout time.Duration) string {
		t.Helper()
		report, err := db.Audit(t.Context(), database, db.AuditQuery{Now: auditAt(), Since: auditAt().AddDate(0, -1, 0), BackBillHours: 6, Limit: 100, RuleTimeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Findings) != 1 || report.Findings[0].Rule != db.AuditGone || len(report.Counts) != len(db.AuditRules()) {
			t.Errorf("found %+v, %v", report.Findings, report.Counts)
		}
		var failed []string
		for _, f := range report.Failed {
			failed = append(failed, string(f.Rule))
			if !strings.Contains(f.Err.Error(), string(f.Rule)) {
				t.Errorf("%s: %v", f.Rule, f.Err)
			}
		}
		return strings.Join(failed, ", ")
	}
	exec(t, database, `ALTER TABLE package_pricing RENAME COLUMN name TO title`)
	if got := failing(0); got != "price_drift" {
		t.Errorf("without a column: %s", got)
	}
	exec(t, database, `ALTER TABLE package_pricing RENAME COLUMN title TO name`)
	tx, err := database.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE users`); err != nil {
		t.Fatal(err)
	}
	if got := failing(250 * time.Millisecond); got != "back_bill_ahead, inactive_owner" {
		t.Errorf("with a table that somebody keeps locked: %s", got)
	}
}

func TestAnAuditThatFailsWhole(t *testing.T) {
	t.Parallel()
	database := soundBooks(t)
	exec(t, database, `ALTER TABLE virtfusion_hourly_billing RENAME TO away; ALTER TABLE virtfusion_hourly_transactions RENAME TO away_too; DROP SCHEMA serversync CASCADE`)
	if _, err := db.Audit(t.Context(), database, db.AuditQuery{Now: auditAt(), Since: auditAt(), Limit: 1}); err == nil || !strings.Contains(err.Error(), "coverage_gap") {
		t.Errorf("%v; want why the first rule failed", err)
	}
}

// What an earlier look found in older charges is found again while it is so, and
// what is charged late is compared to them.
func TestALookAtNewCharges(t *testing.T) {
	t.Parallel()
	database := soundBooks(t)
	twice := func(look string, since time.Time) string {
		t.Helper()
		report, err := db.Audit(t.Context(), database, db.AuditQuery{
			Now: auditAt(), Since: since, SuspectsSince: auditAt().AddDate(0, 0, -35), BackBillHours: 6, Limit: 100,
		})
		if err != nil || len(report.Failed) > 0 {
			t.Fatal(look, report.Failed, err)
		}
		if _, err := db.KeepFindings(t.Context(), database, report, auditAt()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range report.Findings {
			f := &report.Findings[i]
			got = append(got, fmt.Sprint(f.Rule, " ", *f.ServerID, " ", f.Amount.Decimal.StringFixed(2)))
		}
		return strings.Join(got, ", ")
	}
	charge := func(row int, start, created string) {
		t.Helper()
		exec(t, database, `
			INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, amount_charged, billing_period_start, billing_period_end, status, created_at)
			VALUES (?0, 7, ?0, 0.02, ?1, ?1::timestamp + interval '1 hour', 'completed', ?2)`, row, start, created)
	}
	day := auditAt().AddDate(0, 0, -1)
	charge(1, "2026-03-01T10:15", "2026-03-01T10:15")
	charge(1, "2026-03-01T10:30", "2026-03-01T10:30")
	charge(2, "2026-03-01T10:15", "2026-03-01T10:15")
	if got := twice("at new ones alone", day); got != "" {
		t.Errorf("found in what is new: %s", got)
	}
	if got := twice("at all", auditAt().AddDate(0, 0, -35)); got != "period_charged_twice 1 0.02" {
		t.Errorf("found in all: %s", got)
	}
	if got := twice("again", day); got != "period_charged_twice 1 0.02" {
		t.Errorf("found again: %s", got)
	}
	charge(2, "2026-03-01T10:15", "2026-03-10T12:20")
	if got := twice("at a late one", day); got != "period_charged_twice 1 0.02, period_charged_twice 2 0.02" {
		t.Errorf("found of what was charged late: %s", got)
	}
	exec(t, database, `UPDATE virtfusion_hourly_transactions SET status = 'failed' WHERE billing_period_start = '2026-03-01T10:30' OR created_at = '2026-03-10T12:20'`)
	if got := twice("when voided", day); got != "" {
		t.Errorf("found of what was voided: %s", got)
	}
}

func TestKeepFindings(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	finding := func(rule db.AuditRule, server int64, evidence string) db.AuditFinding {
		return db.AuditFinding{Rule: rule, Severity: db.AuditCritical, ServerID: &server, UserID: new(int64(7)), Evidence: evidence, Amount: decimal.NewNullDecimal(dec("1.50"))}
	}
	keep := func(day int, findings ...db.AuditFinding) string {
		t.Helper()
		news, err := db.KeepFindings(t.Context(), database, db.AuditReport{Findings: findings}, auditAt().AddDate(0, 0, day))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range news {
			got = append(got, fmt.Sprint(news[i].Rule, " ", *news[i].ServerID, " ", news[i].Evidence))
		}
		slices.Sort(got)
		return strings.Join(got, ", ")
	}
	job := db.AuditFinding{Rule: db.AuditJobOff, Severity: db.AuditWarning, Evidence: "off"}
	if got := keep(0, finding(db.AuditGone, 1, "a"), finding(db.AuditGone, 1, "again"), finding(db.AuditGone, 2, "b")); got != "gone_server_billed 1 a, gone_server_billed 2 b" {
		t.Errorf("first: %s", got)
	}
	if got := keep(1, finding(db.AuditGone, 1, "c")); got != "" {
		t.Errorf("known: %s", got)
	}
	if news, err := db.KeepFindings(t.Context(), database, db.AuditReport{Findings: []db.AuditFinding{finding(db.AuditGone, 1, "d"), finding(db.AuditGone, 2, "e"), job}}, auditAt().AddDate(0, 0, 2)); err != nil || len(news) != 2 {
		t.Errorf("back, and without a server: %+v, %v", news, err)
	}
	wantTable(t, database, "billing_job_off|0|0|warning|off|null|2|null\ngone_server_billed|1|7|critical|d|1.5|0|null\ngone_server_billed|2|7|critical|e|1.5|2|null", `
		SELECT rule, server_id, user_id, severity, evidence, amount, extract(day FROM first_seen_at - '2026-03-10T12:30Z')::int, cleared_at FROM serversync.findings ORDER BY 1, 2`)
	counts, err := db.OpenFindings(t.Context(), database)
	if err != nil || len(counts) != len(db.AuditRules()) {
		t.Errorf("%v, %v", counts, err)
	}
	for _, c := range counts {
		if want := map[db.AuditRule]int64{db.AuditGone: 2, db.AuditJobOff: 1}[c.Rule]; c.Findings != want {
			t.Errorf("%s: %d open, want %d", c.Rule, c.Findings, want)
		}
	}
	// What a rule found that failed now is kept.
	if _, err := db.KeepFindings(t.Context(), database, db.AuditReport{Failed: []db.AuditFailure{{Rule: db.AuditGone}}}, auditAt().AddDate(0, 0, 2).Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "gone_server_billed\ngone_server_billed", `SELECT rule FROM serversync.findings WHERE cleared_at IS NULL`)
	if got := keep(3); got != "" {
		t.Errorf("none: %s", got)
	}
	wantTable(t, database, "2", `SELECT count(*) FROM serversync.findings WHERE cleared_at = '2026-03-13T12:30Z'`)
	// A clock tells nanoseconds, PostgreSQL does not.
	if _, err := db.KeepFindings(t.Context(), database, db.AuditReport{Findings: []db.AuditFinding{job}}, auditAt().AddDate(0, 0, 4).Add(123456789)); err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "billing_job_off", `SELECT rule FROM serversync.findings WHERE cleared_at IS NULL`)
}
