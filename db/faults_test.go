package db_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestCountFaults(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	first, second := clock().UTC(), clock().UTC().Add(time.Minute)
	count := func(reason string, at time.Time, ids ...string) []string {
		t.Helper()
		records, err := db.CountFaults(t.Context(), database, ids, reason, at)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, r := range records {
			lines = append(lines, fmt.Sprintf("%s %d %q %t %t", r.EventID, r.Attempts, r.Reason, r.FirstAt.Equal(first), r.LastAt.Equal(at)))
		}
		slices.Sort(lines)
		return lines
	}
	if got, want := count("why", first, "a", "b"), []string{`a 1 "why" true true`, `b 1 "why" true true`}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Whatever an error quotes.
	if got, want := count("nul \x00, no UTF-8 \xff", second, "a"), []string{`a 2 "nul ` + "\uFFFD, no UTF-8 \uFFFD" + `" true true`}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := db.ForgetFaults(t.Context(), database, []string{"a", "unknown"}); err != nil {
		t.Fatal(err)
	}
	if err := db.ForgetFaults(t.Context(), database, nil); err != nil {
		t.Fatal(err)
	}
	wantTable(t, database, "b|1", `SELECT event_id, attempts FROM serversync.faults`)
}

func TestPostponeSettling(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	due, later := clock().UTC(), clock().UTC().Add(time.Hour)
	settling, other, native := bare(1), bare(2), bare(3)
	for _, s := range []*db.Server{&settling, &other, &native} {
		s.Status, s.SettleUntil = "settling", &due
	}
	native.Status = "native"
	put(t, database, settling, other, native)
	for _, id := range []int64{1, 3, 4} {
		if err := db.PostponeSettling(t.Context(), database, id, later); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.PostponeSettling(t.Context(), database, 1, due); err != nil { // never forward again
		t.Fatal(err)
	}
	moved := fmt.Sprintf(`SELECT string_agg(virtfusion_id::text, ',') FROM serversync.servers WHERE settle_until = '%s'`, later.Format(time.RFC3339Nano))
	wantTable(t, database, "1", moved)
}

func TestAddMissingColumns(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	exec(t, database, `ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
	_, err := db.BillingByServer(t.Context(), database, []int64{1}, nil)
	if !db.ColumnMissing(fmt.Errorf("read: %w", err)) {
		t.Errorf("%v is not seen as a missing column", err)
	}
	// Several notice at once, and one adds.
	var mu sync.Mutex
	var all []string
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			added, err := db.AddMissingColumns(t.Context(), database)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, added...)
		})
	}
	wg.Wait()
	if want := []string{"virtfusion_hourly_billing.reference_1"}; !slices.Equal(all, want) {
		t.Errorf("added %v, want %v", all, want)
	}
	if _, err := db.BillingByServer(t.Context(), database, []int64{1}, nil); err != nil {
		t.Error(err)
	}
	wantTable(t, database, "0", `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}

func TestRemedy(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"42703": "as the owner of the tables, run `serversync migrate`: it adds what is missing",
		"42P01": "as the owner of the tables, run `serversync migrate`: it adds what is missing",
		"3F000": "as the owner of the tables, run `serversync migrate`: it adds what is missing",
		"42501": "grant our role what it lacks: `serversync doctor` lists it",
		"28P01": "check the user and the password of DATABASE_URL, and pg_hba.conf",
		"3D000": "check the database name of DATABASE_URL",
		"42601": "run `serversync doctor`; if it finds nothing, report this line",
		"":      "run `serversync doctor`; if it finds nothing, report this line",
	} {
		if got := db.Remedy(fmt.Errorf("apply: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
	}
	if got := db.Remedy(errors.New("x")); got != "run `serversync doctor`: it says what is missing" {
		t.Errorf("of no error of PostgreSQL: %q", got)
	}
}
