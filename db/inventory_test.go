package db_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// ignoreModel leaves out what bun puts into models.
func ignoreModel() gocmp.Option { return cmpopts.IgnoreTypes(bun.BaseModel{}) }

// filled sets every field of a row to something else than its zero value,
// different for each seed, so that a forgotten field shows.
func filled[T any](t *testing.T, seed int) T {
	t.Helper()
	var row T
	v := reflect.ValueOf(&row).Elem()
	for i := range v.NumField() {
		field := v.Field(i)
		if field.Type() == reflect.TypeFor[bun.BaseModel]() {
			continue
		}
		n := 100*seed + i + 1
		target := field
		if field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
			target = field.Elem()
		}
		name := v.Type().Field(i).Name
		switch target.Interface().(type) {
		case int64:
			target.SetInt(int64(n))
		case string:
			target.SetString(fmt.Sprintf("%s of %d, ä\n|\"'\\{}", name, seed))
		case bool:
			target.SetBool(true)
		case decimal.Decimal:
			target.Set(reflect.ValueOf(decimal.New(int64(n), -4)))
		case time.Time:
			target.Set(reflect.ValueOf(clock().Add(time.Duration(n) * time.Hour)))
		case []string:
			target.Set(reflect.ValueOf([]string{fmt.Sprintf("192.0.2.%d", seed), "2001:db8::/64"}))
		case []byte:
			target.Set(reflect.ValueOf(fmt.Appendf(nil, `{"n": %d}`, n)))
		default:
			t.Fatalf("field %s: teach this test to fill a %s", name, target.Type())
		}
	}
	return row
}

// server is a server with every field set.
func server(t *testing.T, seed int) db.Server {
	t.Helper()
	s := filled[db.Server](t, seed)
	s.Status, s.Billing, s.BillingReason = "settling", "on", "unpriced"
	return s
}

// bare is a server of which nothing is known.
func bare(id int64) db.Server {
	return db.Server{
		VirtfusionID: id, Status: "settling", Billing: "off", Confirmed: true, OwnerID: 7,
		ObservedAt: clock(), FirstSeenAt: clock(), LastSeenAt: clock(),
	}
}

func put(t *testing.T, idb bun.IDB, servers ...db.Server) {
	t.Helper()
	if err := db.UpsertServers(t.Context(), idb, servers); err != nil {
		t.Fatal(err)
	}
}

// wantServers compares the inventory with what it should be.
func wantServers(t *testing.T, idb bun.IDB, want ...db.Server) {
	t.Helper()
	ids := make([]int64, len(want))
	for i, s := range want {
		ids[i] = s.VirtfusionID
	}
	got, err := db.ServersByID(t.Context(), idb, ids)
	if err != nil {
		t.Fatal(err)
	}
	byID := func(a, b db.Server) int { return cmp.Compare(a.VirtfusionID, b.VirtfusionID) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if diff := gocmp.Diff(want, got, ignoreModel(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}

func TestServersLoseNoField(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	first := server(t, 1)
	put(t, database, first, bare(2))
	wantServers(t, database, first, bare(2))

	// Every field changes, but the time at which it was first seen; when it was
	// last seen only goes forward: a sweep marks it beside the reconciler.
	second, third := server(t, 3), server(t, 4)
	second.VirtfusionID, third.VirtfusionID = first.VirtfusionID, 2
	second.Status, second.Billing, second.BillingReason = "gone", "off", "destroyed"
	put(t, database, second, third)
	second.FirstSeenAt, third.FirstSeenAt = first.FirstSeenAt, bare(2).FirstSeenAt
	second.LastSeenAt, third.LastSeenAt = latest(first.LastSeenAt, second.LastSeenAt), latest(bare(2).LastSeenAt, third.LastSeenAt)
	wantServers(t, database, second, third)

	// And goes back to nothing.
	empty := bare(first.VirtfusionID)
	empty.Confirmed, empty.OwnerID = false, 0
	put(t, database, empty)
	empty.FirstSeenAt, empty.LastSeenAt = first.FirstSeenAt, latest(second.LastSeenAt, empty.LastSeenAt)
	wantServers(t, database, empty, third)
	wantTable(t, database, "null|0|false", `
		SELECT billing_reason, cardinality(ip_addresses), confirmed FROM serversync.servers WHERE virtfusion_id = ?`, first.VirtfusionID)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func TestServersInBulk(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	if err := db.UpsertServers(t.Context(), database, nil); err != nil {
		t.Errorf("none: %v", err)
	}
	if err := db.TouchServers(t.Context(), database, nil); err != nil {
		t.Errorf("none: %v", err)
	}
	var all []db.Server
	for i := range 1200 {
		s := server(t, i)
		s.VirtfusionID = int64(i + 1)
		all = append(all, s)
	}
	put(t, database, all...)
	wantServers(t, database, all...)

	// Unknown ids have no row; one asked for twice is as good as once or twice.
	got, err := db.ServersByID(t.Context(), database, []int64{7, 5000, -1, 0, 1<<63 - 1})
	if err != nil || len(got) != 1 || got[0].VirtfusionID != 7 {
		t.Errorf("%d servers, %v; want number 7 alone", len(got), err)
	}
	for _, ids := range [][]int64{nil, {}} {
		if got, err := db.ServersByID(t.Context(), database, ids); err != nil || len(got) != 0 {
			t.Errorf("no ids: %d servers, %v", len(got), err)
		}
	}
}

func TestTouchServersMovesOnlyTheObservation(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	first, other := server(t, 1), server(t, 2)
	put(t, database, first, other)

	touched := server(t, 3)
	touched.VirtfusionID = first.VirtfusionID
	if err := db.TouchServers(t.Context(), database, []db.Server{touched, server(t, 9)}); err != nil {
		t.Fatal(err)
	}
	first.ObservedAt, first.ObservedSource, first.ObservedEventID = touched.ObservedAt, touched.ObservedSource, touched.ObservedEventID
	first.LastSeenAt, first.PulledAt = touched.LastSeenAt, touched.PulledAt
	wantServers(t, database, first, other)
	wantTable(t, database, "2", `SELECT count(*) FROM serversync.servers`)
}

func TestInsertHistoryKeepsOrderAndEveryField(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	if err := db.InsertHistory(t.Context(), database, nil); err != nil {
		t.Errorf("none: %v", err)
	}
	var lines []db.History
	for i := range 500 {
		line := filled[db.History](t, 500-i)
		if i%2 == 1 {
			line = db.History{At: clock(), VirtfusionID: 3, Kind: "created", Reason: fmt.Sprint("line ", i)}
		}
		line.ID = int64(i + 1)
		lines = append(lines, line)
	}
	for half := range slices.Chunk(lines, 250) {
		if err := db.InsertHistory(t.Context(), database, half); err != nil {
			t.Fatal(err)
		}
	}
	var got []db.History
	if err := database.NewSelect().Model(&got).Order("id").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(lines, got, ignoreModel(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	wantTable(t, database, "null|null|null|null|null", `SELECT user_id, billing_id, before, after, run_id FROM serversync.history WHERE id = 2`)
}

func TestLockServersExcludesOthers(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	first, second := begin(t, database), begin(t, database)
	if err := db.LockServers(t.Context(), first, []int64{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if err := db.LockServers(t.Context(), first, []int64{2, 3}); err != nil {
		t.Errorf("again, in the same transaction: %v", err)
	}
	if err := db.LockServers(t.Context(), second, []int64{4, 1 << 47}); err != nil {
		t.Errorf("other servers: %v", err)
	}
	if err := db.LockServers(t.Context(), second, nil); err != nil {
		t.Errorf("none: %v", err)
	}
	locked := make(chan error)
	go func() { locked <- db.LockServers(t.Context(), second, []int64{3, 5}) }()
	awaitBlocked(t, database)
	commit(t, first)
	if err := <-locked; err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func TestLockServersEndsWithItsContext(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	first, second := begin(t, database), begin(t, database)
	if err := db.LockServers(t.Context(), first, []int64{1}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	locked := make(chan error)
	go func() { locked <- db.LockServers(ctx, second, []int64{1}) }()
	awaitBlocked(t, database)
	cancel()
	if err := <-locked; !errors.Is(err, context.Canceled) || db.Classify(err) != db.FaultPassing {
		t.Errorf("error %v, want the context's, which passes", err)
	}
}

func TestLockServersInOneOrderNeverDeadlocks(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	const workers, rounds = 4, 25
	done := make(chan error)
	for w := range workers {
		go func() {
			var failed error
			for round := range rounds {
				ids := []int64{int64(round % 3), 7, 10 + int64((w+round)%5), 20}
				failed = cmp.Or(failed, database.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
					return db.LockServers(ctx, tx, ids)
				}))
			}
			done <- failed
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestClaimDue(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	now := clock()
	var all []db.Server
	add := func(id int64, status string, settleUntil *time.Time) {
		s := bare(id)
		s.Status, s.SettleUntil = status, settleUntil
		all = append(all, s)
	}
	for id := int64(20); id > 10; id-- { // the longer it waits, the higher its id
		add(id, "settling", new(now.Add(-time.Duration(id)*time.Minute)))
	}
	add(1, "settling", &now) // due this moment
	add(2, "settling", new(now.Add(time.Microsecond)))
	add(3, "settling", nil)
	add(4, "external", new(now.Add(-time.Hour)))
	for id := int64(5); id <= 7; id++ { // only news of them can go on
		add(id, "settling", new(now.Add(-time.Hour)))
	}
	all[len(all)-3].Confirmed, all[len(all)-2].OwnerID, all[len(all)-1].Ask = false, 0, "where is it?"
	put(t, database, all...)

	claim := func(tx bun.Tx, limit int) []int64 {
		t.Helper()
		ids, err := db.ClaimDue(t.Context(), tx, now, limit)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSorted(ids) {
			t.Errorf("%v are not sorted", ids)
		}
		return ids
	}
	want := func(what string, got []int64, want ...int64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	alone := begin(t, database)
	want("those that are due", claim(alone, 100), 1, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
	if err := alone.Rollback(); err != nil {
		t.Fatal(err)
	}

	first, second, batch := begin(t, database), begin(t, database), begin(t, database)
	if err := db.LockServers(t.Context(), batch, []int64{13, 19}); err != nil {
		t.Fatal(err)
	}
	want("those that have waited longest, but for one in hand", claim(first, 4), 17, 18, 20)
	want("what nobody else has, without waiting", claim(second, 100), 1, 11, 12, 14, 15, 16)
	want("nothing is left", claim(begin(t, database), 100))
	want("none at all", claim(begin(t, database), 0))

	// A claim is the lock of a batch.
	locked := make(chan error)
	go func() { locked <- db.LockServers(t.Context(), batch, []int64{20}) }()
	awaitBlocked(t, database)
	commit(t, first)
	if err := <-locked; err != nil {
		t.Error(err)
	}
}

func TestClaimDueAtOnce(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	now := clock()
	var all []db.Server
	for id := range int64(300) {
		s := bare(id + 1)
		s.SettleUntil = &now
		all = append(all, s)
	}
	put(t, database, all...)

	const claimers = 6
	claimed := make(chan []int64)
	release := make(chan struct{})
	done := make(chan error)
	for range claimers {
		go func() {
			done <- database.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
				ids, err := db.ClaimDue(ctx, tx, now, 300)
				claimed <- ids
				<-release // nobody lets go before everybody has claimed
				return err
			})
		}()
	}
	var got []int64
	for range claimers {
		got = append(got, <-claimed...)
	}
	close(release)
	for range claimers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	slices.Sort(got)
	if len(got) != 300 || len(slices.Compact(got)) != 300 {
		t.Errorf("%d claims, want each of the 300 servers once", len(got))
	}
}
