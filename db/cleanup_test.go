package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// untidy is a database with every kind of record to clean up, and others
// beside them that look alike and are in order. Servers 10 and 20 to 29 are
// fine.
func untidy(t *testing.T) *bun.DB {
	t.Helper()
	database := dbtest.New(t)
	owner := customer(t, database, "owner")
	exec(t, database, `
		INSERT INTO serversync.servers (virtfusion_id, user_id, status, note, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, ?0, status, 'a note', now(), 'webhook', '', now(), now()
		FROM (VALUES (10, 'external'), (11, 'native'), (12, 'external'), (13, 'conflict'), (14, 'gone'), (15, 'gone'),
			(17, 'native'), (18, 'native'), (20, 'native'), (21, 'gone'), (22, 'external')) AS v (id, status);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled, reference_1)
		SELECT id, ?0, server, server, 5, 'Small', 5, 0.006849, enabled, reference
		FROM (VALUES (100, 10, true, 'external_server_10'),
			(110, 11, true, NULL), (111, 11, true, 'external_server_11'),          -- SkyPANEL's and ours
			(120, 12, true, NULL), (121, 12, true, NULL),                          -- both ours, one by our record alone
			(130, 13, true, NULL), (131, 13, true, NULL),                          -- both SkyPANEL's
			(140, 14, true, 'external_server_14'), (150, 15, true, NULL), (151, 15, true, NULL), -- gone: ours, SkyPANEL's
			(160, 16, true, 'external_server_16'), (161, 19, true, NULL),          -- unknown: ours, SkyPANEL's
			(170, 17, true, NULL), (171, 17, false, 'external_server_17'),         -- ours was withdrawn
			(200, 20, true, NULL), (201, 20, false, 'external_server_20'),
			(210, 21, false, 'external_server_21'),
			(220, 22, true, 'external_server_22')) AS v (id, server, enabled, reference);
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, charge_id, closed_reason, created_at, updated_at)
		SELECT id, server, made_by, ?0, false, 5, 5, charge, closed, now(), now()
		FROM (VALUES (100, 10, 'serversync', 1000, NULL),
			(120, 12, 'serversync', NULL, NULL), (121, 12, 'serversync', NULL, NULL),
			(131, 13, 'skypanel', NULL, NULL),
			(171, 17, 'serversync', 1001, 'withdrawn'),
			(181, 18, 'serversync', 1002, 'withdrawn'),                            -- its row was deleted
			(201, 20, 'serversync', 1004, 'withdrawn'),
			(210, 21, 'serversync', 1006, 'destroyed'),
			(220, 22, 'serversync', 1009, 'withdrawn')                             -- and switched on again by somebody
			) AS v (id, server, made_by, charge, closed);
		INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id, transaction_id, amount_charged, status, reference_1)
		SELECT id, billing, ?0, 1, ledger, 0.0068, status, reference
		FROM (VALUES (1000, 100, NULL::int, 'pending', 'external_server_10'),      -- of a row that counts
			(1001, 171, NULL, 'pending', NULL),                                    -- by its id
			(1007, 171, NULL, 'pending', 'external_server_17'),                    -- by its reference
			(1002, NULL, NULL, 'pending', 'external_server_18'),                   -- its row was deleted
			(1003, 171, 7, 'pending', 'external_server_17'), (1008, 171, 8, 'completed', NULL),    -- SkyPANEL's own
			(1004, 201, 9, 'pending', 'external_server_20'),                       -- somebody collects it
			(1005, 171, NULL, 'failed', 'external_server_17'),                     -- void already
			(1006, 210, NULL, 'pending', 'external_server_21'),                    -- the server is gone; the hour was used
			(1009, 220, NULL, 'pending', 'external_server_22')
			) AS v (id, billing, ledger, status, reference)`, owner)
	return database
}

// spell writes findings as a test wants to read them.
func spell(findings []db.CleanupFinding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %d", f.Rule, f.ServerID)
		if f.Status != "" {
			fmt.Fprintf(&b, " %s", f.Status)
		}
		for _, r := range f.Rows {
			fmt.Fprintf(&b, " row %d", r.ID)
			if r.Ours {
				b.WriteString(" ours")
			}
		}
		for _, c := range f.Charges {
			fmt.Fprintf(&b, " charge %d %s", c.ID, c.Amount.Decimal)
		}
		if f.UserID == nil || *f.UserID != 1 {
			b.WriteString(" without its owner")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestFindCleanup(t *testing.T) {
	t.Parallel()
	database := untidy(t)
	before := books(t, database)
	findings, more, err := db.FindCleanup(t.Context(), database, 100)
	if err != nil || more {
		t.Fatalf("more %v, %v", more, err)
	}
	want := `duplicate_rows 11 native row 110 row 111 ours
duplicate_rows 12 external row 120 ours row 121 ours
duplicate_rows 13 conflict row 130 row 131
gone_server 14 gone row 140 ours
gone_server 15 gone row 150 row 151
unknown_server 16 row 160 ours
orphaned_charge 17 native row 171 ours charge 1001 0.0068 charge 1007 0.0068
orphaned_charge 18 native row 181 ours charge 1002 0.0068
`
	if got := spell(findings); got != want {
		t.Errorf("found:\n%s\nwant:\n%s", got, want)
	}
	if books(t, database) != before {
		t.Error("looking changed the books")
	}

	findings, more, err = db.FindCleanup(t.Context(), database, 1)
	if err != nil || !more {
		t.Errorf("at most one of each: more %v, %v", more, err)
	}
	want = `duplicate_rows 11 native row 110 row 111 ours
gone_server 14 gone row 140 ours
unknown_server 16 row 160 ours
orphaned_charge 17 native row 171 ours charge 1001 0.0068 charge 1007 0.0068
`
	if got := spell(findings); got != want {
		t.Errorf("at most one of each:\n%s\nwant:\n%s", got, want)
	}
}

func TestVoidOrphanedCharges(t *testing.T) {
	t.Parallel()
	database := untidy(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	void := func() int {
		t.Helper()
		tx := begin(t, database)
		lines, err := db.VoidOrphanedCharges(t.Context(), tx, at)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.InsertHistory(t.Context(), tx, lines); err != nil {
			t.Fatal(err)
		}
		commit(t, tx)
		return len(lines)
	}
	if n := void(); n != 3 {
		t.Errorf("%d were voided, want 3", n)
	}
	wantTable(t, database, `1000|pending
1001|failed
1002|failed
1003|pending
1004|pending
1005|failed
1006|pending
1007|failed
1008|completed
1009|pending`, `SELECT id, status FROM virtfusion_hourly_transactions ORDER BY id`)
	wantTable(t, database, `17|171|1|charge_voided|cleanup|pending|failed|1001
17|171|1|charge_voided|cleanup|pending|failed|1007
18|181|1|charge_voided|cleanup|pending|failed|1002`, `
		SELECT virtfusion_id, billing_id, user_id, kind, source, before ->> 'status' AS b, after ->> 'status' AS a, before ->> 'charge' AS c
		FROM serversync.history ORDER BY id`)
	if n := void(); n != 0 {
		t.Errorf("again: %d were voided", n)
	}
}

func TestVoidLeavesWhatIsBeingChanged(t *testing.T) {
	t.Parallel()
	database := untidy(t)
	other := begin(t, database)
	exec(t, other, `UPDATE virtfusion_hourly_transactions SET transaction_id = 9, status = 'completed' WHERE id = 1001`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	lines, err := db.VoidOrphanedCharges(ctx, database, clock())
	if err != nil || len(lines) != 2 {
		t.Errorf("%d were voided, want the 2 that nobody is changing: %v", len(lines), err)
	}
	commit(t, other)
	wantTable(t, database, `completed|9`, `SELECT status, transaction_id FROM virtfusion_hourly_transactions WHERE id = 1001`)
}
