package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/pgserver"
)

const (
	// emptyTemplate is PostgreSQL's own pristine template.
	emptyTemplate = "template0"
	// migratedTemplate has the tables of a migrated database.
	migratedTemplate = "template_migrated"
)

// shared is the one server of a test binary.
var shared environment

// environment is a server and what is made in it once.
type environment struct {
	startOnce sync.Once
	server    *pgserver.Server
	admin     *sql.DB // connected to no database that a test uses
	startErr  error

	templateOnce sync.Once
	templateErr  error

	databases atomic.Int64 // how many were named
}

// start returns the server, started by the first call.
func (e *environment) start() (*pgserver.Server, error) {
	e.startOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setUpLimit)
		defer cancel()
		e.server, e.startErr = pgserver.Start(ctx, pgserver.Config{
			Durability: pgserver.Fast,
			Settings: map[string]string{
				"max_connections": strconv.Itoa(max(60, 20+2*maxConns*runtime.GOMAXPROCS(0))),
			},
		})
		if e.startErr != nil {
			return
		}
		e.admin, e.startErr = sql.Open("pgx", e.server.DSN("postgres"))
		if e.startErr == nil {
			e.admin.SetMaxOpenConns(4)
		}
	})
	return e.server, e.startErr
}

// stop ends the server. No test may run any more.
func (e *environment) stop(ctx context.Context) error {
	if e.server == nil {
		return nil
	}
	return errors.Join(e.admin.Close(), e.server.Stop(ctx))
}

// migrateTemplate makes the template on the first call. It ends up closed to
// connections: a database that somebody is connected to cannot be copied.
func (e *environment) migrateTemplate() error {
	e.templateOnce.Do(func() { e.templateErr = e.makeTemplate() })
	return e.templateErr
}

func (e *environment) makeTemplate() error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpLimit)
	defer cancel()
	if err := e.copyDatabase(migratedTemplate, emptyTemplate); err != nil {
		return err
	}
	database, err := db.Open(e.server.DSN(migratedTemplate))
	if err != nil {
		return err
	}
	_, err = db.Migrate(ctx, database, db.MigrateOptions{CreateSkyPANEL: true})
	if err == nil {
		err = grant(ctx, database)
	}
	if err := errors.Join(err, database.Close()); err != nil {
		return err
	}
	return e.exec(ctx, "ALTER DATABASE "+quote(migratedTemplate)+" ALLOW_CONNECTIONS false")
}

// grant makes the service's roles, and lets them do what they may.
func grant(ctx context.Context, database *bun.DB) error {
	statements, err := Grants()
	if err != nil {
		return err
	}
	if _, err := database.ExecContext(ctx, statements); err != nil {
		return fmt.Errorf("run deploy/grants.sql: %w", err)
	}
	return nil
}

// Grants is deploy/grants.sql of this module, in which the test runs.
func Grants() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find deploy/grants.sql: the working directory is in no Go module")
		}
		dir = filepath.Dir(dir)
	}
	statements, err := os.ReadFile(filepath.Join(dir, "deploy", "grants.sql")) //nolint:gosec // G304: the module's own file
	if err != nil {
		return "", fmt.Errorf("read the grants: %w", err)
	}
	return string(statements), nil
}

// copyDatabase makes a database. Copying files is faster than writing the copy
// to the log, which is what PostgreSQL does by default, when nothing is
// flushed.
func (e *environment) copyDatabase(name, template string) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementLimit)
	defer cancel()
	return e.exec(ctx, "CREATE DATABASE "+quote(name)+" TEMPLATE "+quote(template)+" STRATEGY FILE_COPY")
}

// dropDatabase removes a database and cuts off whoever is connected to it.
func (e *environment) dropDatabase(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementLimit)
	defer cancel()
	return e.exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)")
}

func (e *environment) exec(ctx context.Context, statement string) error {
	if _, err := e.admin.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// newName returns a name that no other database has; it begins with the test's,
// so that a person who looks at the server finds their way.
func (e *environment) newName(test string) string {
	const longest = 63 // bytes in a PostgreSQL name
	suffix := "_" + strconv.FormatInt(e.databases.Add(1), 10)
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		default:
			return '_'
		}
	}, strings.ToLower(test))
	return name[:min(len(name), longest-len(suffix))] + suffix
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
