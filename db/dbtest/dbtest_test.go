package dbtest_test

import (
	"fmt"
	"testing"

	"serversync/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestNewGivesEachTestItsOwnDatabase(t *testing.T) {
	t.Parallel()
	for i := range 12 {
		t.Run(fmt.Sprintf("database %d", i), func(t *testing.T) {
			t.Parallel()
			database := dbtest.New(t)
			if _, err := database.ExecContext(t.Context(), "INSERT INTO users (email, username, password, full_name) VALUES ('a@example.com', 'a', '', 'A')"); err != nil {
				t.Fatal(err)
			}
			var users int
			if err := database.QueryRowContext(t.Context(), "SELECT count(*) FROM users").Scan(&users); err != nil {
				t.Fatal(err)
			}
			if users != 1 {
				t.Errorf("%d users, want the one of this test", users)
			}
		})
	}
}

func TestNewEmptyHasNoTables(t *testing.T) {
	t.Parallel()
	database := dbtest.NewEmpty(t)
	var tables int
	err := database.QueryRowContext(t.Context(),
		"SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')").Scan(&tables)
	if err != nil {
		t.Fatal(err)
	}
	if tables != 0 {
		t.Errorf("%d tables, want none", tables)
	}
}

func TestDatabaseIsDroppedAtTheEnd(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("one that is left connected", func(t *testing.T) { // not parallel: it has to end first
		conn, err := dbtest.New(t).Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	var left int
	err := dbtest.NewEmpty(t).QueryRowContext(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = ?", name).Scan(&left)
	if err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Errorf("database %s is still there", name)
	}
}
