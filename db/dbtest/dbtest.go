// Package dbtest gives each test a PostgreSQL database of its own.
//
// A test binary has one private server, started by the first test that asks
// and shared by all; a database is a copy of a template that was migrated once,
// which takes some hundredths of a second. So tests may run in parallel, and
// need no care for each other:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
//	func TestBilling(t *testing.T) {
//		t.Parallel()
//		database := dbtest.New(t)
//		…
//	}
//
// Without [Main] all works as well, only the server's files, some tens of
// megabytes, stay until the next test binary removes them: the server itself
// never outlives the binary, however that ends.
//
// Package db's own tests have to be in package db_test to use this one.
package dbtest

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/pgserver"
)

const (
	// setUpLimit bounds starting the server and making the template, each.
	setUpLimit = 2 * time.Minute
	// statementLimit bounds making or dropping one database.
	statementLimit = time.Minute
	// maxConns bounds each database's pool; the server has room for as many
	// parallel tests as there are processors, with that many each.
	maxConns = 8
)

// Main runs a package's tests and then stops the server, if one was started. It
// is all that TestMain has to do; the exit code is the tests'.
func Main(m *testing.M) {
	m.Run()
	if err := shared.stop(context.Background()); err != nil {
		fmt.Println("dbtest:", err)
	}
}

// New returns a migrated database for t alone: SkyPANEL's tables and the schema
// serversync, no rows. It is closed and dropped when t and its subtests
// have ended. Any fault ends t.
func New(t testing.TB) *bun.DB {
	t.Helper()
	return open(t, NewDSN(t))
}

// NewDSN is New for those who open the database themselves: it returns a
// connection string. What is still connected when t ends is cut off.
func NewDSN(t testing.TB) string {
	t.Helper()
	server := Server(t)
	if err := shared.migrateTemplate(); err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	return server.DSN(createDatabase(t, migratedTemplate))
}

// The roles of deploy/grants.sql, which every migrated database knows.
const (
	ServiceRole = "serversync"         // serves
	MigrateRole = "serversync_migrate" // owns the schema serversync
)

// As is a connection string as another role.
func As(t testing.TB, dsn, role string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("read the connection string of a test database: %v", err)
	}
	u.User = url.User(role)
	return u.String()
}

// NewForService is New, opened twice: for the hands of the test, which may do
// everything, and as the role that the service has in SkyPANEL's database. What
// is under test gets the second one, so that it cannot come to need more than
// deploy/grants.sql says.
func NewForService(t testing.TB) (all, service *bun.DB) {
	t.Helper()
	dsn := NewDSN(t)
	return open(t, dsn), open(t, As(t, dsn, ServiceRole))
}

// NewEmpty returns a database without any tables for t alone, to try
// migrations on. Else it is as New.
func NewEmpty(t testing.TB) *bun.DB {
	t.Helper()
	server := Server(t)
	return open(t, server.DSN(createDatabase(t, emptyTemplate)))
}

// Server returns the test binary's server, for tests that look at it as a
// whole. Nobody but Main may stop it. Any fault ends t.
func Server(t testing.TB) *pgserver.Server {
	t.Helper()
	server, err := shared.start()
	if err != nil {
		t.Fatalf("start the test server: %v", err)
	}
	return server
}

func open(t testing.TB, dsn string) *bun.DB {
	t.Helper()
	database, err := db.Open(dsn, db.WithMaxConns(maxConns))
	if err != nil {
		t.Fatalf("open the test database: %v", err)
	}
	t.Cleanup(func() {
		if err := database.Close(); err != nil {
			t.Errorf("close the test database: %v", err)
		}
	})
	return database
}

// createDatabase makes a database from the template and returns its name.
func createDatabase(t testing.TB, template string) string {
	t.Helper()
	name := shared.newName(t.Name())
	if err := shared.copyDatabase(name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.dropDatabase(name); err != nil {
			t.Error(err)
		}
	})
	return name
}
