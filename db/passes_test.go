package db_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// known adds servers to the inventory.
func known(t *testing.T, database *bun.DB, edit func(*db.Server), ids ...int64) {
	t.Helper()
	servers := make([]db.Server, len(ids))
	for i, id := range ids {
		servers[i] = db.Server{
			VirtfusionID: id, OwnerID: 70, Status: "external", Billing: "off", Confirmed: true,
			ObservedAt: clock(), ObservedSource: "sweep", ObservedEventID: "e", FirstSeenAt: clock(), LastSeenAt: clock(),
		}
		if edit != nil {
			edit(&servers[i])
		}
	}
	if err := db.UpsertServers(t.Context(), database, servers); err != nil {
		t.Fatal(err)
	}
}

func wantIDs(t *testing.T, got []int64, err error, want ...int64) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
}

func TestClaimPass(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	now := clock()
	claim := func(name string, now time.Time) bool {
		t.Helper()
		claimed, err := db.ClaimPass(t.Context(), database, name, now, now.Add(-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		return claimed
	}
	for _, step := range []struct {
		name string
		at   time.Duration
		want bool
	}{
		{"all", 0, true},
		{"all", 0, false},
		{"young", 0, true}, // each kind for itself
		{"all", time.Minute - time.Microsecond, false},
		{"all", time.Minute, true},
		{"all", 90 * time.Second, false}, // from the last start, not the first
		{"all", 2 * time.Minute, true},
		{"ahead", 24 * time.Hour, true},
		{"ahead", 24*time.Hour - 4*time.Minute, false}, // clocks may be so far apart
		{"ahead", 0, true},                             // a clock was wrong
		{"ahead", 30 * time.Second, false},
	} {
		if got := claim(step.name, now.Add(step.at)); got != step.want {
			t.Errorf("%s after %s: claimed %v, want %v", step.name, step.at, got, step.want)
		}
	}
	finished := now.Add(3 * time.Minute)
	if err := db.FinishPass(t.Context(), database, db.Pass{Name: "all", FinishedAt: &finished, Servers: 7, Changed: 2}); err != nil {
		t.Fatal(err)
	}
	passes, err := db.Passes(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	if len(passes) != 3 || passes[0].Name != "ahead" || passes[1].Name != "all" || passes[1].Servers != 7 || passes[1].Changed != 2 || !passes[1].FinishedAt.Equal(finished) ||
		!passes[1].StartedAt.Equal(now.Add(2*time.Minute)) || passes[2].Name != "young" || passes[2].FinishedAt != nil {
		t.Errorf("passes %+v", passes)
	}
	// The next start begins afresh.
	if !claim("all", now.Add(4*time.Minute)) {
		t.Error("a finished pass is never due again")
	}
	wantTable(t, database, "all|0|0|null", `SELECT name, servers, changed, finished_at FROM serversync.passes WHERE name = 'all'`)
}

func TestClaimPassByOneOfMany(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	for round := range 20 {
		now := clock().Add(time.Duration(round) * time.Minute)
		var claims atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				claimed, err := db.ClaimPass(t.Context(), database, "all", now, now.Add(-time.Minute))
				if err != nil {
					t.Error(err)
				}
				if claimed {
					claims.Add(1)
				}
			})
		}
		wg.Wait()
		if n := claims.Load(); n != 1 {
			t.Fatalf("round %d: claimed %d times", round, n)
		}
	}
}

func TestServersToReview(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	user := customer(t, database, "u")
	for i, status := range []string{"settling", "external", "native", "unlinked", "conflict"} {
		known(t, database, func(s *db.Server) { s.Status = status }, int64(i)+1)
	}
	known(t, database, func(s *db.Server) { s.Status = "gone" }, 6, 7, 8, 9)
	known(t, database, nil, 1<<40)
	exec(t, database, `INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		VALUES (?0, 7, 7, 3, '', 1, 1, false), (?0, 8, 8, 3, '', 1, 1, false), (?0, 8, 8, 3, '', 1, 1, true), (?0, 8, 8, 3, '', 1, 1, true), (?0, 9, 9, 3, '', 1, 1, NULL)`, user)
	exec(t, database, `UPDATE serversync.servers s SET billing_id = (SELECT max(id) FROM virtfusion_hourly_billing b WHERE b.virtfusion_server_id = s.virtfusion_id)`)
	exec(t, database, `UPDATE serversync.servers SET awaiting_run = 'run' WHERE virtfusion_id = 3`)
	list := func(after, wantLast int64, want ...int64) {
		t.Helper()
		got, last, err := db.ServersToReview(t.Context(), database, after)
		wantIDs(t, got, err, want...)
		if last != wantLast {
			t.Errorf("it looked up to %d, want %d", last, wantLast)
		}
	}
	list(0, 1<<40, 1, 2, 4, 5, 8, 1<<40) // of those that are gone, only what is billed
	list(5, 1<<40, 8, 1<<40)
	list(1<<40, 0)
	exec(t, database, `DELETE FROM serversync.servers WHERE virtfusion_id > 7`)
	list(5, 7) // none, and yet it goes on
}

func TestYoungExternals(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	now := clock()
	known(t, database, nil, 1, 2, 3, 4, 5, 6)
	record := func(billingID, server int64, made string, age time.Duration, closed *string) {
		t.Helper()
		exec(t, database, `INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, closed_reason, created_at, updated_at)
			VALUES (?, ?, ?, 7, true, 3, 1, ?, ?, now())`, billingID, server, made, closed, now.Add(-age))
	}
	day := 24 * time.Hour
	record(1, 1, "serversync", 0, nil)
	record(2, 2, "serversync", day, nil)
	record(3, 3, "serversync", day+time.Microsecond, nil) // too old
	record(4, 4, "skypanel", 0, nil)                      // not ours
	record(5, 5, "serversync", 0, new("withdrawn"))       // closed
	record(6, 6, "serversync", 0, nil)
	record(7, 6, "serversync", 0, nil)  // twice
	record(8, 99, "serversync", 0, nil) // of a server nobody knows
	list := func(after int64, limit int, want ...int64) {
		t.Helper()
		got, err := db.YoungExternals(t.Context(), database, now.Add(-day), after, limit)
		wantIDs(t, got, err, want...)
	}
	list(0, 10, 1, 2, 6)
	list(0, 2, 1, 2)
	list(2, 10, 6)
	list(6, 10)
}

func TestClaimAsks(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	known(t, database, func(s *db.Server) { s.Ask = "why" }, 1, 2, 3)
	known(t, database, nil, 4)
	now := clock()
	claim := func(at time.Duration, limit int) []int64 {
		t.Helper()
		ids, err := db.ClaimAsks(t.Context(), database, now.Add(at), now.Add(at-time.Minute), limit)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(ids)
		return ids
	}
	wantIDs(t, claim(0, 10), nil, 1, 2, 3)
	wantIDs(t, claim(time.Minute-time.Microsecond, 10), nil)
	known(t, database, func(s *db.Server) { s.Ask = "why" }, 5) // the others are not due before it, and it is first
	wantIDs(t, claim(time.Minute, 1), nil, 5)
	known(t, database, nil, 2) // answered; writing a server leaves when it was asked
	wantIDs(t, claim(time.Minute, 10), nil, 1, 3)
	wantIDs(t, claim(2*time.Minute, 10), nil, 1, 3, 5)
	// One that is being written now does not hold up the others.
	tx := begin(t, database)
	exec(t, tx, `UPDATE serversync.servers SET name = 'x' WHERE virtfusion_id = 3`)
	wantIDs(t, claim(3*time.Minute, 10), nil, 1, 5)
	commit(t, tx)
	wantIDs(t, claim(3*time.Minute, 10), nil, 3)
}

func TestClaimAsksOnce(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	var ids []int64
	for id := int64(1); id <= 200; id++ {
		ids = append(ids, id)
	}
	known(t, database, func(s *db.Server) { s.Ask = "why" }, ids...)
	var mu sync.Mutex
	var claimed []int64
	for range 20 { // what another holds is skipped, and taken later
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				got, err := db.ClaimAsks(t.Context(), database, clock(), clock().Add(-time.Minute), 20)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				claimed = append(claimed, got...)
			})
		}
		wg.Wait()
	}
	slices.Sort(claimed)
	wantIDs(t, claimed, nil, ids...)
}

// TestClaimDueLeavesWhatOnlyNewsCanSettle: the settler looks only at what it
// can go on with.
func TestClaimDueLeavesWhatOnlyNewsCanSettle(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	now := clock()
	settling := func(edit func(*db.Server)) func(*db.Server) {
		return func(s *db.Server) {
			s.Status, s.SettleUntil = "settling", new(now)
			edit(s)
		}
	}
	known(t, database, settling(func(*db.Server) {}), 1)
	known(t, database, settling(func(s *db.Server) { s.Confirmed = false }), 2)
	known(t, database, settling(func(s *db.Server) { s.OwnerID = 0 }), 3)
	known(t, database, settling(func(s *db.Server) { s.Ask = "why" }), 4)
	known(t, database, settling(func(s *db.Server) { s.SettleUntil = new(now.Add(time.Microsecond)) }), 5)
	known(t, database, settling(func(s *db.Server) { s.SettleUntil = nil }), 6)
	known(t, database, settling(func(s *db.Server) { s.Status = "external" }), 7)
	got, err := db.ClaimDue(t.Context(), begin(t, database), now, 10)
	wantIDs(t, got, err, 1)
}

// TestAskAndPulledAtAreKept through both ways of writing a server.
func TestAskAndPulledAtAreKept(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	read := func() db.Server {
		t.Helper()
		servers, err := db.ServersByID(t.Context(), database, []int64{1})
		if err != nil || len(servers) != 1 {
			t.Fatal(servers, err)
		}
		return servers[0]
	}
	known(t, database, nil, 1)
	if s := read(); s.Ask != "" || s.PulledAt != nil {
		t.Errorf("ask %q, pulled %v, want none", s.Ask, s.PulledAt)
	}
	pulled := clock().Add(time.Hour)
	known(t, database, func(s *db.Server) { s.Ask, s.PulledAt = "why", &pulled }, 1)
	if s := read(); s.Ask != "why" || !s.PulledAt.Equal(pulled) {
		t.Errorf("ask %q, pulled %v", s.Ask, s.PulledAt)
	}
	touched := read()
	touched.PulledAt, touched.Ask = new(pulled.Add(time.Hour)), "not touched"
	if err := db.TouchServers(t.Context(), database, []db.Server{touched}); err != nil {
		t.Fatal(err)
	}
	if s := read(); s.Ask != "why" || !s.PulledAt.Equal(pulled.Add(time.Hour)) {
		t.Errorf("touched: ask %q, pulled %v", s.Ask, s.PulledAt)
	}
	known(t, database, nil, 1)
	if s := read(); s.Ask != "" || s.PulledAt != nil {
		t.Errorf("ask %q, pulled %v, want none again", s.Ask, s.PulledAt)
	}
}

// TestPassesFail: errors say what was being done.
func TestPassesFail(t *testing.T) {
	t.Parallel()
	database := dbtest.NewEmpty(t)
	for what, do := range map[string]func(context.Context) error{
		"claim": func(ctx context.Context) error {
			_, err := db.ClaimPass(ctx, database, "all", clock(), clock())
			return err
		},
		"finish": func(ctx context.Context) error { return db.FinishPass(ctx, database, db.Pass{Name: "all"}) },
		"read":   func(ctx context.Context) error { _, err := db.Passes(ctx, database); return err },
		"review": func(ctx context.Context) error { _, _, err := db.ServersToReview(ctx, database, 0); return err },
		"young":  func(ctx context.Context) error { _, err := db.YoungExternals(ctx, database, clock(), 0, 1); return err },
		"asks": func(ctx context.Context) error {
			_, err := db.ClaimAsks(ctx, database, clock(), clock(), 1)
			return err
		},
		"wishes": func(ctx context.Context) error { _, err := db.OverridesByServer(ctx, database, []int64{1}); return err },
	} {
		if err := do(t.Context()); err == nil || db.Classify(err) != db.FaultOfSetup {
			t.Errorf("%s without our tables: %v", what, err)
		}
	}
}

// TestPassesUseTheIndexes: they find their servers by key, however many there are.
func TestPassesUseTheIndexes(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	const size = 20_000
	exec(t, database, fmt.Sprintf(`
		INSERT INTO users (id, email, username, password, full_name) VALUES (7, '', '', '', '');
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		SELECT i, 7, i, i, 5, 'Small', 5, 0.006849, true FROM generate_series(1, %d) AS i;
		INSERT INTO serversync.servers (virtfusion_id, status, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT i, CASE WHEN i %% 3 = 0 THEN 'gone' ELSE 'external' END, now(), '', '', now(), now() FROM generate_series(1, %[1]d) AS i;
		INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, created_at, updated_at)
		SELECT i, i, 'serversync', 7, true, 5, 5, '2026-01-01', now() FROM generate_series(1, %[1]d) AS i`, size))
	exec(t, database, `ANALYZE`)
	conn, err := database.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	for range 7 {                       // often enough for a generic plan
		if ids, err := db.YoungExternals(t.Context(), conn, clock(), 0, 500); err != nil || len(ids) != 0 {
			t.Fatal(len(ids), err)
		}
		if ids, err := db.ClaimAsks(t.Context(), conn, clock(), clock(), 20); err != nil || len(ids) != 0 {
			t.Fatal(len(ids), err)
		}
	}
	for _, name := range []string{"serversync.servers", "serversync.billing_rows", "public.virtfusion_hourly_billing"} {
		if whole, _ := scans(t, conn, name); whole > 2 { // the inserts' own
			t.Errorf("%s was read whole %d times", name, whole)
		}
	}
}
