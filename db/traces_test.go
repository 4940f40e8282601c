package db_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

func traces(t *testing.T, idb bun.IDB, ids ...int64) map[int64]db.NativeTrace {
	t.Helper()
	found, err := db.NativeTraces(t.Context(), idb, ids)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestNativeTraces(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	seven, eight := customer(t, database, "seven"), customer(t, database, "eight")
	exec(t, database, `INSERT INTO transactions (user_id, amount, type, description, status) VALUES
		(?0, -1, 'debit', 'Server #1 - Small', 'completed'), (?0, -1, 'debit', 'Server #1 - again', 'completed'),
		(?1, -1, 'debit', 'Server #2 - Small', 'completed'), (?0, -1, 'debit', 'Server #2 - Small', 'completed'),
		(?0, -1, 'debit', 'VirtFusion Server 3 - Hourly Billing (1 hour)', 'completed'),
		(?0, -1, 'debit', 'Refund of Server #3 - Small', 'completed'),
		(?0, -1, 'debit', 'Server #3: Small', 'completed'), (?0, -1, 'debit', 'Server #33 - Small', 'completed'), (?0, -1, 'debit', 'Server #03 - Small', 'completed'),
		(?0, -1, 'debit', 'Server #99999999999999999999 - Small', 'completed'), (?0, -1, 'debit', E'Ledger\nServer #3 - Small', 'completed'),
		(?0, -1, 'debit', 'Server #4 - ours', 'completed'), (?0, -1, 'debit', 'Server #5 - switched off', 'completed')`, seven, eight)
	exec(t, database, `INSERT INTO server_uptime_logs (server_id, user_id) VALUES (6, ?0), (6, ?0), (4, ?0), (1, ?1)`, seven, eight)
	exec(t, database, `INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, created_at, updated_at)
		VALUES (1, 4, 'serversync', 7, true, 3, 1, now(), now()), (2, 5, 'skypanel', 7, false, 3, 1, now(), now())`)

	const ledger, uptime = "its ledger has a line of it", "its uptime is logged there"
	want := map[int64]db.NativeTrace{
		1: {Words: ledger, UserIDs: []int64{seven, eight}},
		2: {Words: ledger, UserIDs: []int64{seven, eight}},
		5: {Words: ledger, UserIDs: []int64{seven}},
		6: {Words: uptime, UserIDs: []int64{seven}},
	}
	if got := traces(t, database, 1, 2, 3, 4, 5, 6, 7, 1<<40); !reflect.DeepEqual(got, want) {
		t.Errorf("traces %v, want %v", got, want)
	}
	if got := traces(t, database, 2); len(got) != 1 {
		t.Errorf("asked for one, got %v", got)
	}
	if got := traces(t, database); got == nil || len(got) != 0 {
		t.Errorf("asked for none, got %v", got)
	}

	// Other installs: a log that does not say whose, and tables that are missing.
	exec(t, database, `ALTER TABLE server_uptime_logs DROP COLUMN user_id`)
	if got := traces(t, database, 1, 6); got[6].Words != uptime || got[6].UserIDs != nil || got[1].Words != ledger || got[1].UserIDs != nil {
		t.Errorf("without a user in the log: %v", got)
	}
	exec(t, database, `DROP TABLE server_uptime_logs`)
	if got := traces(t, database, 1, 6); len(got) != 1 || len(got[1].UserIDs) != 1 {
		t.Errorf("without the log: %v", got)
	}
	exec(t, database, `DROP TABLE transactions`)
	if got := traces(t, database, 1, 6); len(got) != 0 {
		t.Errorf("without both: %v", got)
	}
}

// TestNativeTracesOfALargeLedger: a batch's question costs a look into an
// index for each server, also with a plan made while the ledger was empty.
func TestNativeTracesOfALargeLedger(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `CREATE INDEX IF NOT EXISTS serversync_transactions_server ON transactions ((substring(description FROM '^Server #([0-9]{1,18}) - ')))`)
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	const size, batch = 20_000, 500
	var ids []int64
	for i := range int64(batch) {
		ids = append(ids, 1+2*i*size/batch)
	}
	for range 10 { // often enough for a generic plan
		if n := len(traces(t, conn, ids...)); n != 0 {
			t.Fatalf("%d traces in an empty ledger", n)
		}
	}
	user := customer(t, database, "u")
	exec(t, database, fmt.Sprintf(`INSERT INTO transactions (user_id, amount, type, description, status)
		SELECT ?, -1, 'debit', CASE WHEN i %% 2 = 0 THEN 'Server #' || i || ' - Small' ELSE 'VirtFusion Server ' || i || ' - Hourly Billing (1 hour)' END, 'completed'
		FROM generate_series(1, %d) AS i`, size), user)
	exec(t, database, `ANALYZE`)
	ids = ids[:0]
	for i := range int64(batch) {
		ids = append(ids, 2*(1+i))
	}
	whole, index := scans(t, conn, "public.transactions")
	started := time.Now()
	if n := len(traces(t, conn, ids...)); n != batch {
		t.Errorf("%d traces, want %d", n, batch)
	}
	t.Logf("%d servers against %d lines: %s", batch, size, time.Since(started).Round(time.Millisecond))
	wholeAfter, indexAfter := scans(t, conn, "public.transactions")
	if wholeAfter != whole || indexAfter == index {
		t.Errorf("the ledger was read whole %d times, through an index %d times", wholeAfter-whole, indexAfter-index)
	}
}
