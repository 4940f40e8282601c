package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/migrate"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

//go:embed skypanel.sql
var skypanelSchema string

// ErrNotSkyPANEL means that the database has not the tables that SkyPANEL makes.
var ErrNotSkyPANEL = errors.New("not a SkyPANEL database")

// MigrateOptions says how far [Migrate] may go.
type MigrateOptions struct {
	// CreateSkyPANEL makes SkyPANEL's own tables where they are missing. Only
	// for the embedded database: in a real one they are SkyPANEL's.
	CreateSkyPANEL bool
	// DryRun reports what would be done and does nothing.
	DryRun bool
}

// MigrateReport names what [Migrate] did, or would do.
type MigrateReport struct {
	Migrations []string // names of migrations of the schema serversync
	Columns    []string // columns added to SkyPANEL's tables, as table.column
	Indexes    []string // indexes added to SkyPANEL's tables
}

// Empty reports that nothing was, or would be, done.
func (r MigrateReport) Empty() bool {
	return len(r.Migrations)+len(r.Columns)+len(r.Indexes) == 0
}

// migrateLock is the advisory lock under which one process migrates while the
// others wait: "srvsync" in ASCII.
const migrateLock = 0x73727673796e63

// Migrate brings a database up to date: the schema serversync by versioned
// migrations, SkyPANEL's tables by adding the columns and indexes that they
// lack. It is idempotent, additive, and runs under an advisory lock, so that
// several processes may start at once. It takes two connections of the pool. It
// returns [ErrNotSkyPANEL] for a database without SkyPANEL's tables.
func Migrate(ctx context.Context, database *bun.DB, o MigrateOptions) (report MigrateReport, err error) {
	conn, err := database.Conn(ctx)
	if err != nil {
		return report, fmt.Errorf("connect to migrate: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	if err := takeMigrateLock(ctx, conn); err != nil {
		return report, err
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(?)`, migrateLock)
		err = errors.Join(err, unlockErr)
	}()

	if o.CreateSkyPANEL && !o.DryRun {
		if _, err := conn.ExecContext(ctx, skypanelSchema); err != nil {
			return report, fmt.Errorf("create SkyPANEL's tables: %w", err)
		}
	}
	if !o.CreateSkyPANEL || !o.DryRun { // else they are yet to be made
		if err := requireSkyPANEL(ctx, conn); err != nil {
			return report, err
		}
	}
	if report.Migrations, err = migrateSchema(ctx, database, conn, o.DryRun); err != nil {
		return report, err
	}
	if report.Columns, err = ensureColumns(ctx, conn, o.DryRun); err != nil {
		return report, err
	}
	if report.Indexes, err = ensureIndexes(ctx, conn, o.DryRun, o.CreateSkyPANEL); err != nil {
		return report, err
	}
	return report, nil
}

// takeMigrateLock waits for its turn by asking again and again. A statement
// that waited inside PostgreSQL would hold a snapshot meanwhile, and CREATE
// INDEX CONCURRENTLY, in the process whose turn it is, waits for every snapshot
// to end: a deadlock.
func takeMigrateLock(ctx context.Context, conn bun.Conn) error {
	const interval = 50 * time.Millisecond
	for {
		var taken bool
		if err := conn.NewRaw(`SELECT pg_try_advisory_lock(?)`, migrateLock).Scan(ctx, &taken); err != nil {
			return fmt.Errorf("take the migration lock: %w", err)
		}
		if taken {
			return nil
		}
		again := time.NewTimer(interval)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("wait while another process migrates the database: %w", ctx.Err())
		}
	}
}

// requireSkyPANEL fails unless every table that we read or write exists.
func requireSkyPANEL(ctx context.Context, idb bun.IDB) error {
	var missing []string
	err := idb.NewRaw(`
		SELECT t.name FROM unnest(ARRAY['users', 'package_pricing', 'virtfusion_cron_settings',
			'settings', 'virtfusion_hourly_billing', 'virtfusion_hourly_transactions']) AS t (name)
		WHERE to_regclass('public.' || t.name) IS NULL`).Scan(ctx, &missing)
	if err != nil {
		return fmt.Errorf("look for SkyPANEL's tables: %w", err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: it has no table %s; point DATABASE_URL at the database that SkyPANEL itself uses",
			ErrNotSkyPANEL, strings.Join(missing, ", "))
	}
	return nil
}

// migrateSchema applies the migrations that are still missing, each in a
// transaction of its own.
func migrateSchema(ctx context.Context, database *bun.DB, conn bun.Conn, dryRun bool) ([]string, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("open the embedded migrations: %w", err)
	}
	migrations := migrate.NewMigrations()
	if err := migrations.Discover(files); err != nil {
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}

	var exists bool
	if err := conn.NewRaw(`SELECT to_regclass('serversync.migrations') IS NOT NULL`).Scan(ctx, &exists); err != nil {
		return nil, fmt.Errorf("look for the schema serversync: %w", err)
	}
	if !exists && dryRun {
		return names(migrations.Sorted()), nil
	}
	migrator := migrate.NewMigrator(database, migrations,
		migrate.WithTableName("serversync.migrations"),
		migrate.WithLocksTableName("serversync.migration_locks"), // bun's own lock, unused: we hold an advisory one
		migrate.WithMarkAppliedOnSuccess(true))
	if !exists {
		// Looked up first: CREATE SCHEMA IF NOT EXISTS asks for the privilege
		// even where the schema is there already.
		var schema bool
		if err := conn.NewRaw(`SELECT to_regnamespace('serversync') IS NOT NULL`).Scan(ctx, &schema); err != nil {
			return nil, fmt.Errorf("look for the schema serversync: %w", err)
		}
		if !schema {
			if _, err := conn.ExecContext(ctx, `CREATE SCHEMA serversync`); err != nil {
				return nil, fmt.Errorf("create the schema serversync (as the database's owner, run: CREATE SCHEMA serversync AUTHORIZATION <our role>): %w", err)
			}
		}
		if err := migrator.Init(ctx); err != nil {
			return nil, fmt.Errorf("create the migrations table: %w", err)
		}
	}
	if dryRun {
		all, err := migrator.MigrationsWithStatus(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the applied migrations: %w", err)
		}
		return names(all.Unapplied()), nil
	}
	group, err := migrator.Migrate(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate the schema serversync: %w", err)
	}
	return names(group.Migrations), nil
}

func names(migrations migrate.MigrationSlice) []string {
	var all []string
	for i := range migrations {
		all = append(all, migrations[i].String())
	}
	return all
}
