package db_test

import (
	"fmt"
	"testing"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// scans counts how often a table was read whole, and how often through an
// index. Sessions report what they did when told to.
func scans(t *testing.T, conn bun.Conn, name string) (whole, index int) {
	t.Helper()
	exec(t, conn, `SELECT pg_stat_force_next_flush()`)
	err := conn.NewRaw(`
		SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relid = to_regclass(?)`, name).Scan(t.Context(), &whole, &index)
	if err != nil {
		t.Fatal(err)
	}
	return whole, index
}

// TestMatchUsesTheIndexes runs a full batch's lookups in a grown database, on a
// connection that knew it empty: a plan made then must not be used now.
func TestMatchUsesTheIndexes(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	const size, batch = 50_000, 500

	var ids, users []int64
	var uuids []string
	var charges []*int64
	for i := range int64(batch) {
		id := 1 + i*size/batch
		ids, users = append(ids, id), append(users, id)
		uuids = append(uuids, fmt.Sprintf("uuid-%d", size-id))
		charges = append(charges, nil)
	}
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	lookups := []struct {
		table string
		found int
		look  func() (int, error)
	}{
		{"public.virtfusion_hourly_billing", 2 * batch, func() (int, error) {
			matches, err := db.BillingByServer(t.Context(), conn, ids, uuids)
			return len(matches), err
		}},
		{"public.virtfusion_hourly_transactions", batch, func() (int, error) {
			charged, err := db.ChargedBeside(t.Context(), conn, ids, charges)
			return len(charged), err
		}},
		{"public.users", batch, func() (int, error) {
			users, err := db.UsersByLink(t.Context(), conn, users, nil)
			return len(users), err
		}},
		{"serversync.servers", batch, func() (int, error) {
			servers, err := db.ServersByID(t.Context(), conn, ids)
			return len(servers), err
		}},
	}
	for range 10 { // often enough for a generic plan
		for _, l := range lookups {
			if found, err := l.look(); err != nil || found != 0 {
				t.Fatalf("%s, empty: %d found, %v", l.table, found, err)
			}
		}
	}

	exec(t, database, `
		INSERT INTO users (id, email, username, password, full_name, virtfusion_id)
		SELECT i, i || '@company.test', i, '!', 'Customer', i FROM generate_series(1, ?0) AS i;
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate)
		SELECT i, i, i, i, 'uuid-' || i, 5, 'Small', 5, 0.006849 FROM generate_series(1, ?0) AS i;
		INSERT INTO virtfusion_hourly_transactions (billing_id, user_id, server_id, status)
		SELECT i, i, i, 'completed' FROM generate_series(1, ?0) AS i;
		INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, 'external', now(), '', '', now(), now() FROM generate_series(1, ?0) AS i`, size)
	exec(t, database, `ANALYZE`)

	for _, l := range lookups {
		wholeBefore, indexBefore := scans(t, conn, l.table)
		found, err := l.look()
		if err != nil {
			t.Fatal(err)
		}
		if found != l.found {
			t.Errorf("%s: %d found, want %d", l.table, found, l.found)
		}
		whole, index := scans(t, conn, l.table)
		if whole != wholeBefore {
			t.Errorf("%s was read whole", l.table)
		}
		if index == indexBefore {
			t.Errorf("%s was not read through an index", l.table)
		}
	}
}
