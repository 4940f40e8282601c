package db_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

// TestClassify provokes the errors in a real server, through the functions that
// meet them where there is one.
func TestClassify(t *testing.T) {
	t.Parallel()
	role(t, "classify_guest")
	// The server's last words arrive, or the connection is found closed.
	const whichever = "whichever"
	for name, tc := range map[string]struct {
		provoke func(attempt) error
		code    string // SQLSTATE; empty: not from the server; or whichever
		want    db.Fault
	}{
		"duplicate": {func(a attempt) error {
			customer(a.T, a.database, "anna")
			_, err := a.database.ExecContext(a.Context(), `INSERT INTO users (email, username, password, full_name) VALUES ('anna@company.test', 'x', '', '')`)
			return err
		}, "23505", db.FaultOfData},
		"no such owner": {func(a attempt) error {
			_, err := db.InsertBilling(a.Context(), a.database, []db.NewBilling{newBilling(1, 99)})
			return err
		}, "23503", db.FaultOfData},
		"value outside of a set": {func(a attempt) error {
			s := bare(1)
			s.Status = "lost"
			return db.UpsertServers(a.Context(), a.database, []db.Server{s})
		}, "23514", db.FaultOfData},
		"number too large": {func(a attempt) error {
			row := newBilling(1, customer(a.T, a.database, "anna"))
			row.MonthlyPrice = dec("1e9")
			_, err := db.InsertBilling(a.Context(), a.database, []db.NewBilling{row})
			return err
		}, "22003", db.FaultOfData},
		"id too large to send": {func(a attempt) error {
			_, err := db.BillingByServer(a.Context(), a.database, []int64{1 << 40}, nil)
			return err
		}, "", db.FaultOfData},
		"byte of nothing": {func(a attempt) error {
			s := bare(1)
			s.Name = "a\x00b"
			return db.UpsertServers(a.Context(), a.database, []db.Server{s})
		}, "22021", db.FaultOfData},
		"text that is not UTF-8": {func(a attempt) error {
			s := bare(1)
			s.Name = "\xff"
			return db.UpsertServers(a.Context(), a.database, []db.Server{s})
		}, "22021", db.FaultOfData},
		"history that is not JSON": {func(a attempt) error {
			return db.InsertHistory(a.Context(), a.database, []db.History{{At: clock(), Kind: "created", Before: []byte("{")}})
		}, "22P02", db.FaultOfData},
		"history with a byte of nothing": {func(a attempt) error {
			return db.InsertHistory(a.Context(), a.database, []db.History{{At: clock(), Kind: "created", After: []byte(`{"a": "\u0000"}`)}})
		}, "22P05", db.FaultOfData},
		"text too long for an index": {func(a attempt) error {
			random := rand.New(rand.NewPCG(1, 2)) // what cannot be compressed
			text := make([]rune, 3000)
			for i := range text {
				text[i] = 0x4e00 + random.Int32N(20000)
			}
			s := bare(1)
			s.UUID = string(text)
			return db.UpsertServers(a.Context(), a.database, []db.Server{s})
		}, "54000", db.FaultOfData},
		"one server twice in a statement": {func(a attempt) error {
			return db.UpsertServers(a.Context(), a.database, []db.Server{bare(1), bare(1)})
		}, "21000", db.FaultOfData},
		"rows changed meanwhile": {func(a attempt) error {
			return db.ChangeBilling(a.Context(), a.database, []db.BillingChange{{Was: db.HourlyBilling{ID: 9}, Now: clock()}})
		}, "", db.FaultPassing},

		"column dropped": {func(a attempt) error {
			exec(a.T, a.database, `ALTER TABLE virtfusion_hourly_billing DROP COLUMN reference_1`)
			_, err := db.BillingByServer(a.Context(), a.database, []int64{1}, nil)
			return err
		}, "42703", db.FaultOfSetup},
		"table dropped": {func(a attempt) error {
			exec(a.T, a.database, `DROP TABLE package_pricing`)
			_, err := db.ReadPrices(a.Context(), a.database)
			return err
		}, "42P01", db.FaultOfSetup},
		"schema missing": {func(a attempt) error {
			exec(a.T, a.database, `DROP SCHEMA serversync CASCADE`)
			return db.UpsertServers(a.Context(), a.database, []db.Server{bare(1)})
		}, "42P01", db.FaultOfSetup},
		"privilege missing": {func(a attempt) error {
			_, err := db.UsersByLink(a.Context(), open(a.T, dsn(a.T, a.database, "classify_guest")), []int64{1}, nil)
			return err
		}, "42501", db.FaultOfSetup},
		"role unknown": {func(a attempt) error {
			_, err := db.ReadPolicy(a.Context(), open(a.T, dsn(a.T, a.database, "nobody_here")))
			return err
		}, "28000", db.FaultOfSetup},
		"database unknown": {func(a attempt) error {
			_, err := db.ReadPolicy(a.Context(), open(a.T, dbtest.Server(a.T).DSN("no_such_database")))
			return err
		}, "3D000", db.FaultOfSetup},

		"no room for a connection": {func(a attempt) error {
			exec(a.T, a.database, fmt.Sprintf(`ALTER DATABASE %q CONNECTION LIMIT 0`, table(a.T, a.database, `SELECT current_database()`)))
			_, err := db.ReadPolicy(a.Context(), open(a.T, dsn(a.T, a.database, "classify_guest")))
			return err
		}, "53300", db.FaultPassing},
		"server that does not answer": {func(a attempt) error {
			_, err := db.ReadPolicy(a.Context(), open(a.T, "host=127.0.0.1 port=1 user=nobody dbname=none sslmode=disable"))
			return err
		}, "", db.FaultPassing},
		"server that is not there": {func(a attempt) error {
			_, err := db.ReadPolicy(a.Context(), open(a.T, "host="+a.TempDir()+" user=nobody dbname=none"))
			return err
		}, "", db.FaultPassing},
		"standby": {func(a attempt) error {
			tx := begin(a.T, a.database)
			exec(a.T, tx, `SET TRANSACTION READ ONLY`)
			return db.UpsertServers(a.Context(), tx, []db.Server{bare(1)})
		}, "25006", db.FaultPassing},
		"deadlock":            {deadlock, "40P01", db.FaultPassing},
		"overtaken":           {overtaken, "40001", db.FaultPassing},
		"statement timed out": {statementTimeout, "57014", db.FaultPassing},
		"lock timed out": {func(a attempt) error {
			holder, tx := begin(a.T, a.database), begin(a.T, a.database)
			exec(a.T, holder, `LOCK TABLE serversync.servers`)
			exec(a.T, tx, `SET LOCAL lock_timeout = '10ms'`)
			return db.UpsertServers(a.Context(), tx, []db.Server{bare(1)})
		}, "55P03", db.FaultPassing},
		"connection cut off": {func(a attempt) error {
			tx := begin(a.T, a.database)
			terminate(a.T, a.database, tx)
			_, err := db.ReadPolicy(a.Context(), tx)
			return err
		}, whichever, db.FaultPassing},
		"connection cut off, noticed late": {func(a attempt) error {
			tx := begin(a.T, a.database)
			terminate(a.T, a.database, tx)
			_, err := db.ReadPolicy(a.Context(), tx)
			_, again := db.ReadPrices(a.Context(), tx)
			if err == nil || again == nil {
				return nil
			}
			return again
		}, "", db.FaultPassing},
		"connection cut off before the commit": {func(a attempt) error {
			tx := begin(a.T, a.database)
			exec(a.T, tx, `INSERT INTO settings (key, value) VALUES ('a', 'b')`)
			terminate(a.T, a.database, tx)
			return tx.Commit()
		}, whichever, db.FaultPassing},
		"transaction ended": {func(a attempt) error {
			tx := begin(a.T, a.database)
			commit(a.T, tx)
			return db.LockServers(a.Context(), tx, []int64{1})
		}, "", db.FaultPassing},
		"context cancelled before": {func(a attempt) error {
			ctx, cancel := context.WithCancel(a.Context())
			cancel()
			_, err := db.ReadPolicy(ctx, a.database)
			return err
		}, "", db.FaultPassing},
		"context timed out": {func(a attempt) error {
			holder, tx := begin(a.T, a.database), begin(a.T, a.database)
			exec(a.T, holder, `LOCK TABLE serversync.servers`)
			ctx, cancel := context.WithTimeout(a.Context(), 1)
			defer cancel()
			return db.UpsertServers(ctx, tx, []db.Server{bare(1)})
		}, "", db.FaultPassing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.provoke(attempt{t, dbtest.New(t)})
			if err == nil {
				t.Fatal("no error")
			}
			var code string
			if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
				code = pg.Code
			}
			if code != tc.code && tc.code != whichever {
				t.Errorf("%v: SQLSTATE %q, want %q", err, code, tc.code)
			}
			if got := db.Classify(err); got != tc.want {
				t.Errorf("%v: fault %d, want %d", err, got, tc.want)
			}
			if got := db.Classify(fmt.Errorf("apply a batch: %w", err)); got != tc.want {
				t.Errorf("%v, wrapped: fault %d, want %d", err, got, tc.want)
			}
		})
	}
}

func TestClassifyWhatIsNotOfTheDatabase(t *testing.T) {
	t.Parallel()
	if got := db.Classify(errors.New("an event that nobody can read")); got != db.FaultOfData {
		t.Errorf("fault %d, want one of the data", got)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	database := dbtest.New(t)
	_, deleted := db.InsertBilling(t.Context(), database, []db.NewBilling{newBilling(1, 99)})
	changed := db.ChangeBilling(t.Context(), database, []db.BillingChange{{Was: db.HourlyBilling{ID: 9}, Now: clock()}})
	wrong := db.InsertHistory(t.Context(), database, []db.History{{At: clock(), Before: []byte("{")}})
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"user deleted": {deleted, true}, "row changed": {changed, true}, "wrapped": {fmt.Errorf("apply: %w", deleted), true},
		"value refused": {wrong, false}, "something else": {context.Canceled, false}, "nothing": {nil, false},
	} {
		if got := db.Stale(tc.err); got != tc.want {
			t.Errorf("%s: %v: stale %t, want %t", name, tc.err, got, tc.want)
		}
	}
}

// attempt is a test with a database to provoke errors in.
type attempt struct {
	*testing.T
	database *bun.DB
}

// terminate cuts off a transaction's connection, as a restart would.
func terminate(t *testing.T, database *bun.DB, tx bun.Tx) {
	t.Helper()
	pid := table(t, tx, `SELECT pg_backend_pid()`)
	wantTable(t, database, "true", `SELECT pg_terminate_backend(`+pid+`, 60000)`)
}

// deadlock lets two transactions wait for each other and returns the error of
// the one that PostgreSQL ends.
func deadlock(a attempt) error {
	t, database := a.T, a.database
	t.Helper()
	first, second := begin(t, database), begin(t, database)
	for tx, id := range map[bun.Tx]int64{first: 1, second: 2} {
		if err := db.LockServers(t.Context(), tx, []int64{id}); err != nil {
			t.Fatal(err)
		}
	}
	other := make(chan error)
	go func() {
		err := db.LockServers(t.Context(), first, []int64{2})
		other <- errors.Join(err, first.Rollback())
	}()
	awaitBlocked(t, database)
	err := db.LockServers(t.Context(), second, []int64{1})
	err = errors.Join(err, second.Rollback())
	return errors.Join(err, <-other)
}

// overtaken changes a row that another transaction has changed since.
func overtaken(a attempt) error {
	t, database := a.T, a.database
	t.Helper()
	put(t, database, bare(1))
	tx := begin(t, database)
	exec(t, tx, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`)
	wantServers(t, tx, bare(1))
	put(t, database, bare(1))
	return db.UpsertServers(t.Context(), tx, []db.Server{bare(1)})
}

func statementTimeout(a attempt) error {
	t, database := a.T, a.database
	t.Helper()
	holder, tx := begin(t, database), begin(t, database)
	exec(t, holder, `LOCK TABLE serversync.servers`)
	exec(t, tx, `SET LOCAL statement_timeout = '10ms'`)
	return db.UpsertServers(t.Context(), tx, []db.Server{bare(1)})
}
