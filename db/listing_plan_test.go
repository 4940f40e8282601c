package db_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// fleet is as many servers as the largest fleet that we are made for has.
const fleet = 100_000

// grow makes that fleet, as autovacuum leaves it behind.
func grow(t *testing.T, database *bun.DB) {
	t.Helper()
	exec(t, database, `
		INSERT INTO users (id, email, username, password, full_name, virtfusion_id)
		SELECT i, i || '@company.test', i, '!', 'Customer', i FROM generate_series(1, 5000) AS i;
		INSERT INTO package_pricing (virtfusion_package_id, name, price) SELECT i, 'P' || i, 500 + i FROM generate_series(1, 20) AS i;
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		SELECT i, i % 5000 + 1, i, i, md5(i::text)::uuid::text, i % 20 + 1, 'P', 5 + i % 20, 0.01, i % 10 <> 3 FROM generate_series(1, ?0) AS i WHERE i % 100 > 4;
		INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, user_id, name, hostname, state, package_id, ip_addresses, hypervisor_id, hypervisor_name,
			created_at, updated_at, status, billing, billing_reason, billing_id, awaiting_run, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, md5(i::text)::uuid, i % 5000 + 1, i % 5000 + 1, 'server-' || i, 'host' || i || '.customer' || i % 5000 || '.example.test', 'running', i % 20 + 1,
			ARRAY[host('10.0.0.0'::inet + i), host('2001:db8::'::inet + i::bigint * 65536)], i % 50, 'hv-' || i % 50,
			'2026-01-01T00:00Z'::timestamptz + i * '20 s'::interval, CASE WHEN i % 7 > 0 THEN '2026-02-01T00:00Z'::timestamptz + (i * 7919 % 100000) * '10 s'::interval END,
			CASE WHEN i % 100 = 0 THEN 'unlinked' WHEN i % 100 = 1 THEN 'gone' WHEN i % 1000 = 2 THEN 'conflict' WHEN i % 100 < 5 THEN 'settling' WHEN i % 10 < 6 THEN 'external' ELSE 'native' END,
			CASE WHEN i % 100 > 4 AND i % 10 <> 3 THEN 'on' ELSE 'off' END, CASE WHEN i % 100 > 4 AND i % 10 = 3 THEN CASE WHEN i % 20 = 3 THEN 'disabled_by_skypanel' ELSE 'unpriced' END END,
			CASE WHEN i % 100 > 4 THEN i END, CASE WHEN i % 500 = 9 THEN 'run' ELSE '' END,
			now(), 'sweep', '', '2026-01-01T00:00Z'::timestamptz + i * '20 s'::interval, '2026-03-01T00:00Z'::timestamptz - (CASE WHEN i % 20000 = 7 THEN '2 d' ELSE '0 d' END)::interval
		FROM generate_series(1, ?0) AS i`, fleet)
	for n := 1; n > 0; {
		var err error
		if n, err = db.KeepWords(t.Context(), database, 10_000); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, database, `VACUUM ANALYZE`)
}

// node is a part of a plan, as EXPLAIN tells it.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Plans    []node
}

// reads are the ways in which a plan reads tables.
func (n *node) reads() (all []string) {
	if n.Relation != "" || n.Index != "" {
		all = append(all, strings.Join(strings.Fields(n.Type+" "+n.Relation+" "+n.Index), " "))
	}
	for i := range n.Plans {
		all = append(all, n.Plans[i].reads()...)
	}
	return all
}

// explain runs a statement and returns how it read its tables.
func explain(t *testing.T, conn bun.Conn, statement string, args ...any) []string {
	t.Helper()
	var plan string
	if err := conn.Conn.QueryRowContext(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+statement, args...).Scan(&plan); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	if os.Getenv("SHOW_PLANS") != "" {
		t.Log(plan)
	}
	var plans []struct {
		Plan node
		Time float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal([]byte(plan), &plans); err != nil {
		t.Fatal(err)
	}
	reads := plans[0].Plan.reads()
	t.Logf("%.2f ms: %s", plans[0].Time, strings.Join(reads, ", "))
	return reads
}

// In a fleet of 100,000, with the planner free to choose, no list and no overview
// reads the inventory whole.
func TestTheInventoryIsReadFromIndexes(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	start := time.Now()
	grow(t, database)
	t.Logf("a fleet of %d in %v", fleet, time.Since(start))
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	listsAreReadFromIndexes(t, conn)
	overviewsAreReadFromIndexes(t, conn)
}

// listsAreReadFromIndexes explains every order and every filter.
func listsAreReadFromIndexes(t *testing.T, conn bun.Conn) {
	t.Helper()
	queries := map[string]db.ServersQuery{
		"as asked for without anything": {},
		"one id":                        {IDs: []int64{4711}},
		"ids":                           {IDs: []int64{4711, 50_000, 99_999, 7}},
		"ids of a user":                 {IDs: []int64{4711, 50_000, 99_999, 7}, UserID: new(int64(4712))},
		"no such ids":                   {IDs: []int64{fleet + 1, 1 << 62}, AnyStatus: true},
		"user":                          {UserID: new(int64(77))},
		"owner":                         {OwnerID: new(int64(77))},
		"all":                           {AnyStatus: true},
		"gone":                          {Statuses: []string{"gone"}},
		"conflict":                      {Statuses: []string{"conflict"}},
		"external":                      {Statuses: []string{"external", "settling"}},
		"on":                            {Billing: "on"},
		"off":                           {Billing: "off"},
		"unpriced":                      {Reasons: []string{"unpriced"}},
		"a reason that nobody has":      {Reasons: []string{"self_service"}},
		"hypervisor by id":              {Hypervisor: db.HypervisorRef{ID: new(int64(7))}},
		"hypervisor by name":            {Hypervisor: db.HypervisorRef{Name: "HV-7"}},
		"no such hypervisor":            {Hypervisor: db.HypervisorRef{Name: "none"}},
		"package":                       {PackageID: new(int64(7))},
		"no such package":               {PackageID: new(int64(700))},
		"awaiting":                      {Awaiting: new(true)},
		"not awaiting":                  {Awaiting: new(false)},
		"created after":                 {CreatedAfter: time.Date(2026, 1, 24, 3, 0, 0, 0, time.UTC)},
		"created before":                {CreatedBefore: time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)},
		"created between":               {CreatedAfter: time.Date(2026, 1, 4, 0, 0, 0, 0, time.UTC), CreatedBefore: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)},
		"seen before":                   {SeenBefore: time.Date(2026, 2, 28, 3, 0, 0, 0, time.UTC)},
		"never so long ago":             {SeenBefore: time.Date(2020, 2, 28, 3, 0, 0, 0, time.UTC)},
		"two letters that all have":     {Search: "er"},
		"a name":                        {Search: "Server-4711"},
		"part of a UUID":                {Search: "a2b1-4"},
		"pairs that all have":           {Search: "ererer"},
		"a text that nobody has":        {Search: "nowhere"},
		"an address":                    {Network: netip.MustParsePrefix("10.0.7.7/32")},
		"an address of version 6":       {Network: netip.MustParsePrefix("2001:db8::47:0/128")},
		"a network":                     {Network: netip.MustParsePrefix("10.0.7.0/24")},
		"a large network":               {Network: netip.MustParsePrefix("10.1.0.0/16")},
	}
	for _, sort := range []string{db.SortID, db.SortName, db.SortCreated, db.SortUpdated, db.SortFirstSeen, db.SortStatus, db.SortUser} {
		queries["by "+sort] = db.ServersQuery{Sort: sort, AnyStatus: sort == db.SortStatus}
		middle, err := db.ListServers(t.Context(), conn, db.ServersQuery{Sort: sort, Search: "server-50000"})
		if err != nil || len(middle) != 1 {
			t.Fatalf("%d in the middle, %v", len(middle), err)
		}
		queries["by "+sort+", further on"] = db.ServersQuery{Sort: sort, After: new(middle[0].Key(sort))}
	}
	for name, q := range queries {
		for _, q.Descending = range []bool{true, false} {
			q.Limit = 51
			start := time.Now()
			found, err := db.ListServers(t.Context(), conn, q)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			t.Logf("%s, descending %v: %d in %v", name, q.Descending, len(found), time.Since(start))
			statement, args := db.ExplainListing(&q)
			if reads := explain(t, conn, statement, args...); slices.ContainsFunc(reads, isWhole) {
				t.Errorf("%s, descending %v, reads a table whole: %s", name, q.Descending, reads)
			}
		}
	}
}

// overviewsAreReadFromIndexes looks at the counts and sums of the overview, and at
// what reports and histories read.
func overviewsAreReadFromIndexes(t *testing.T, conn bun.Conn) {
	t.Helper()
	for name, read := range map[string]func() error{
		"coverage": func() error { _, err := db.Coverage(t.Context(), conn); return err },
		"awaiting": func() error { _, err := db.AwaitingApproval(t.Context(), conn); return err },
		"prices":   func() error { _, err := db.RecordedPrices(t.Context(), conn); return err },
		"leaks":    func() error { _, err := db.Leaks(t.Context(), conn); return err },
		"report":   func() error { _, err := db.ExternalServers(t.Context(), conn, fleet/2, 1000); return err },
		"history":  func() error { _, err := db.UserHistory(t.Context(), conn, 77, nil, 51); return err },
		"books":    func() error { _, err := db.ReadUserBooks(t.Context(), conn, 77); return err },
	} {
		whole, index := scans(t, conn, "serversync.servers")
		start := time.Now()
		if err := read(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		took := time.Since(start)
		wholeAfter, indexAfter := scans(t, conn, "serversync.servers")
		t.Logf("%s: %v, %d index scans", name, took, indexAfter-index)
		if wholeAfter != whole {
			t.Errorf("%s reads the inventory whole", name)
		}
	}
}

func isWhole(read string) bool {
	return strings.HasPrefix(read, "Seq Scan") && read != "Seq Scan words_due" // that has next to nothing
}
