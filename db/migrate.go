package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
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
	// Newer names migrations that were applied and that this program does not
	// have: a newer version brought the schema further. As versions only add,
	// an older one works with it.
	Newer []string

	// SchemaSQL and GuestSQL are the statements that do it, in their order, each
	// with its semicolon: for the owner of the schema serversync, then for the
	// owner of SkyPANEL's tables. What is only looked up is not among them.
	SchemaSQL, GuestSQL []string
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

	if o.CreateSkyPANEL {
		report.GuestSQL = append(report.GuestSQL, skypanelSchema)
	}
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
	known, err := migrateSchema(ctx, database, conn, o.DryRun, &report)
	if err != nil {
		return report, err
	}
	if err := ensureColumns(ctx, conn, o.DryRun, known, &report); err != nil {
		return report, err
	}
	return report, ensureIndexes(ctx, conn, o.DryRun, o.CreateSkyPANEL, &report)
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

const (
	migrationsTable = "serversync.migrations"
	// locksTable is of bun's own lock, which is unused: we hold an advisory one.
	locksTable = "serversync.migration_locks"
)

// migrationLock is a row of locksTable, as bun has it.
type migrationLock struct {
	ID        int64  `bun:",pk,autoincrement"`
	TableName string `bun:",unique"`
}

// migrateSchema applies the migrations that are still missing, each in a
// transaction of its own; known: some were applied before, so that we may remember
// rows.
func migrateSchema(ctx context.Context, database *bun.DB, conn bun.Conn, dryRun bool, report *MigrateReport) (known bool, err error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return false, fmt.Errorf("open the embedded migrations: %w", err)
	}
	migrations := migrate.NewMigrations()
	if err := migrations.Discover(files); err != nil {
		return false, fmt.Errorf("read the embedded migrations: %w", err)
	}
	exists, err := ensureSchema(ctx, database, conn, dryRun, report)
	if err != nil {
		return false, err
	}
	migrator := migrate.NewMigrator(database, migrations,
		migrate.WithTableName(migrationsTable), migrate.WithLocksTableName(locksTable), migrate.WithMarkAppliedOnSuccess(true))
	var applied migrate.MigrationSlice
	if exists || !dryRun {
		if applied, err = migrator.AppliedMigrations(ctx); err != nil {
			return false, fmt.Errorf("read the applied migrations: %w", err)
		}
	}
	missing := compare(migrations.Sorted(), applied, report)
	if err := tellMigrations(files, missing, applied.LastGroupID()+1, report); err != nil {
		return false, err
	}
	if dryRun {
		report.Migrations = names(missing)
		return len(applied) > 0, nil
	}
	group, err := migrator.Migrate(ctx)
	if err != nil {
		return false, fmt.Errorf("migrate the schema serversync: %w", err)
	}
	report.Migrations = names(group.Migrations)
	return len(applied) > 0, nil
}

// ensureSchema makes the schema and the table of its migrations; exists: that
// was there.
func ensureSchema(ctx context.Context, database *bun.DB, conn bun.Conn, dryRun bool, report *MigrateReport) (exists bool, err error) {
	// Looked up first: CREATE SCHEMA IF NOT EXISTS asks for the privilege even
	// where the schema is there already.
	var schema bool
	if err := conn.NewRaw(`SELECT to_regnamespace('serversync') IS NOT NULL, to_regclass(?) IS NOT NULL`, migrationsTable).Scan(ctx, &schema, &exists); err != nil {
		return false, fmt.Errorf("look for the schema serversync: %w", err)
	}
	if exists {
		return true, nil
	}
	if !schema {
		const statement = `CREATE SCHEMA serversync`
		report.SchemaSQL = append(report.SchemaSQL, statement+";")
		if !dryRun {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return false, fmt.Errorf("create the schema serversync (as the database's owner, run: CREATE SCHEMA serversync AUTHORIZATION <our role>): %w", err)
			}
		}
	}
	for _, table := range []*bun.CreateTableQuery{
		database.NewCreateTable().Model((*migrate.Migration)(nil)).ModelTableExpr(migrationsTable).IfNotExists(),
		database.NewCreateTable().Model((*migrationLock)(nil)).ModelTableExpr(locksTable).IfNotExists(),
	} {
		report.SchemaSQL = append(report.SchemaSQL, table.String()+";")
		if dryRun {
			continue
		}
		if _, err := table.Exec(ctx); err != nil {
			return false, fmt.Errorf("create the migrations table: %w", err)
		}
	}
	return false, nil
}

// compare returns which of our migrations were not applied, and notes those that
// were and are not ours.
func compare(ours, applied migrate.MigrationSlice, report *MigrateReport) (missing migrate.MigrationSlice) {
	known := make(map[string]bool, len(ours))
	for i := range ours {
		known[ours[i].Name] = true
		if !slices.ContainsFunc(applied, func(m migrate.Migration) bool { return m.Name == ours[i].Name }) {
			missing = append(missing, ours[i])
		}
	}
	for i := range applied {
		if !known[applied[i].Name] {
			report.Newer = append(report.Newer, applied[i].Name)
		}
	}
	slices.Sort(report.Newer)
	return missing
}

// tellMigrations adds the statements of migrations, as bun runs them: each file
// in one transaction, then its line in the table of migrations.
func tellMigrations(files fs.FS, missing migrate.MigrationSlice, group int64, report *MigrateReport) error {
	for i := range missing {
		content, err := fs.ReadFile(files, missing[i].String()+".tx.up.sql")
		if err != nil {
			return fmt.Errorf("read a migration: %w", err)
		}
		report.SchemaSQL = append(report.SchemaSQL, "BEGIN;")
		for part := range strings.SplitSeq(string(content), "--bun:split\n") {
			if part = strings.TrimSpace(part); part != "" {
				report.SchemaSQL = append(report.SchemaSQL, strings.TrimSuffix(part, ";")+";")
			}
		}
		report.SchemaSQL = append(report.SchemaSQL, "COMMIT;",
			fmt.Sprintf("INSERT INTO %s (name, group_id) VALUES ('%s', %d);", migrationsTable, missing[i].Name, group))
	}
	return nil
}

func names(migrations migrate.MigrationSlice) []string {
	var all []string
	for i := range migrations {
		all = append(all, migrations[i].String())
	}
	return all
}
