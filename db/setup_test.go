package db_test

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// patience bounds what a test waits for; nothing takes nearly as long.
const patience = time.Minute

// querier is a database, a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// table returns a query's rows, one a line, with their values as JSON would
// show them, separated by bars.
func table(t *testing.T, q querier, query string, args ...any) string {
	t.Helper()
	rows, err := q.QueryContext(t.Context(), `
		SELECT coalesce(string_agg(line, E'\n' ORDER BY n), '') FROM (
			SELECT n, string_agg(coalesce(c.value, 'null'), '|' ORDER BY c.position) AS line
			FROM (SELECT row_number() OVER () AS n, to_json(r) AS r FROM (`+query+`) AS r) AS r,
				json_each_text(r.r) WITH ORDINALITY AS c (name, value, position)
			GROUP BY n) AS lines`, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var all string
	for rows.Next() {
		if err := rows.Scan(&all); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

// wantTable compares what table returns.
func wantTable(t *testing.T, q querier, want, query string, args ...any) {
	t.Helper()
	if got := table(t, q, query, args...); got != want {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", query, got, want)
	}
}

func exec(t *testing.T, q querier, statement string, args ...any) {
	t.Helper()
	if _, err := q.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// load runs files of testdata.
func load(t *testing.T, q querier, files ...string) {
	t.Helper()
	for _, file := range files {
		statements, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, q, string(statements))
	}
}

// dsn is the connection string of a database, for a user of its own unless the
// name is empty.
func dsn(t *testing.T, database *bun.DB, user string) string {
	t.Helper()
	raw := dbtest.Server(t).DSN(table(t, database, `SELECT current_database()`))
	if user == "" {
		return raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

// open connects once more.
func open(t *testing.T, dsn string) *bun.DB {
	t.Helper()
	database, err := db.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() }) // the database itself is dropped next
	return database
}

// role makes a role, which ends after the databases that t makes later.
func role(t *testing.T, name string) {
	t.Helper()
	admin := open(t, dbtest.Server(t).DSN("postgres"))
	exec(t, admin, `CREATE ROLE `+name+` LOGIN`)
	t.Cleanup(func() {
		//nolint:usetesting // t's own context has ended by now
		if _, err := admin.ExecContext(context.Background(), `DROP ROLE `+name); err != nil {
			t.Error(err)
		}
	})
}

// begin opens a transaction that is rolled back in the end.
func begin(t *testing.T, database *bun.DB) bun.Tx {
	t.Helper()
	tx, err := database.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() }) // most have ended
	return tx
}

func commit(t *testing.T, tx bun.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// awaitBlocked returns once some connection to the database waits for a lock.
func awaitBlocked(t *testing.T, database *bun.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for blocked := 0; blocked == 0; {
		err := database.NewRaw(`
			SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(ctx, &blocked)
		if err != nil {
			t.Fatalf("wait until somebody waits for a lock: %v", err)
		}
	}
}

// clock is a time with microseconds, in a zone that is not UTC.
func clock() time.Time {
	return time.Date(2026, 3, 1, 1, 30, 15, 123456000, time.FixedZone("east", 3*3600))
}

func dec(s string) decimal.Decimal { return decimal.RequireFromString(s) }

// customer adds a user and returns its id.
func customer(t *testing.T, database *bun.DB, name string) int64 {
	t.Helper()
	var id int64
	err := database.NewRaw(`
		INSERT INTO users (email, username, password, full_name) VALUES (?0 || '@company.test', ?0, '!', ?0)
		RETURNING id`, name).Scan(t.Context(), &id)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
