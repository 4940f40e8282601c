package db

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/uptrace/bun"
)

// guestColumns are the columns that the sync design adds to SkyPANEL's
// tables. SkyPANEL's schema tool does not know them and may drop them: they
// are added again at the next start, and nothing that we cannot do without
// lives in them alone (serversync.billing_rows remembers which rows are ours).
var guestColumns = []struct{ table, column, definition string }{
	{"virtfusion_hourly_billing", "reference_1", "text"},
	{"virtfusion_hourly_transactions", "server_uuid", "text"},
	{"virtfusion_hourly_transactions", "transaction_type", "text"},
	{"virtfusion_hourly_transactions", "reference_1", "text"},
	{"virtfusion_hourly_transactions", "reference_2", "text"},
}

// guestIndexes let a batch find billing rows, charges and users by key. The
// released schema has none of them. Their names say whose they are.
var guestIndexes = []struct{ name, definition string }{
	{"serversync_billing_virtfusion_server_id", "public.virtfusion_hourly_billing (virtfusion_server_id)"},
	{"serversync_billing_server_uuid", "public.virtfusion_hourly_billing (server_uuid)"},
	{"serversync_transactions_billing_id", "public.virtfusion_hourly_transactions (billing_id)"},
	{"serversync_users_virtfusion_id", "public.users (virtfusion_id)"},
}

// ensureColumns adds what is missing. It looks first, since ALTER TABLE takes
// an exclusive lock even when it has nothing to do, and waits for that lock
// only briefly: a long-running query of SkyPANEL's must not make every later
// one queue behind us.
func ensureColumns(ctx context.Context, conn bun.Conn, dryRun bool) ([]string, error) {
	var added []string
	for _, c := range guestColumns {
		var exists bool
		err := conn.NewRaw(`SELECT EXISTS (
				SELECT FROM information_schema.columns
				WHERE table_schema = 'public' AND table_name = ? AND column_name = ?)`,
			c.table, c.column).Scan(ctx, &exists)
		if err != nil {
			return added, fmt.Errorf("look for the column %s.%s: %w", c.table, c.column, err)
		}
		if exists {
			continue
		}
		added = append(added, c.table+"."+c.column)
		if dryRun {
			continue
		}
		add := func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '5s'`); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `ALTER TABLE ?.? ADD COLUMN IF NOT EXISTS ? ?`,
				bun.Ident("public"), bun.Ident(c.table), bun.Ident(c.column), bun.Safe(c.definition))
			return err
		}
		if err := conn.RunInTx(ctx, nil, add); err != nil {
			return added, fmt.Errorf("add a column (as the table's owner, run: ALTER TABLE public.%s ADD COLUMN IF NOT EXISTS %s %s): %w",
				c.table, c.column, c.definition, err)
		}
	}
	return added, nil
}

// ensureIndexes builds missing indexes without locking SkyPANEL out. A build
// that was interrupted leaves an invalid index behind, which is dropped and
// built again.
func ensureIndexes(ctx context.Context, conn bun.Conn, dryRun bool) ([]string, error) {
	var added []string
	for _, ix := range guestIndexes {
		var state string
		err := conn.NewRaw(`SELECT coalesce(
				(SELECT CASE WHEN i.indisvalid THEN 'valid' ELSE 'invalid' END
				 FROM pg_index i WHERE i.indexrelid = to_regclass(?)), 'missing')`,
			"public."+ix.name).Scan(ctx, &state)
		if err != nil {
			return added, fmt.Errorf("look for the index %s: %w", ix.name, err)
		}
		if state == "valid" {
			continue
		}
		added = append(added, ix.name)
		if dryRun {
			continue
		}
		if state == "invalid" {
			if _, err := conn.ExecContext(ctx, `DROP INDEX CONCURRENTLY IF EXISTS public.?`, bun.Ident(ix.name)); err != nil {
				return added, fmt.Errorf("drop the unfinished index %s: %w", ix.name, err)
			}
		}
		if _, err := conn.ExecContext(ctx, `CREATE INDEX CONCURRENTLY IF NOT EXISTS ? ON ?`,
			bun.Ident(ix.name), bun.Safe(ix.definition)); err != nil {
			return added, fmt.Errorf("build an index (as the table's owner, run: CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON %s): %w",
				ix.name, ix.definition, err)
		}
	}
	return added, nil
}

// MissingPrivileges names what the current role has to be allowed on
// SkyPANEL's tables and is not, as "INSERT on virtfusion_hourly_billing".
func MissingPrivileges(ctx context.Context, idb bun.IDB) ([]string, error) {
	missing, err := queryAll(ctx, idb, func(rows *sql.Rows) (string, error) {
		var s string
		err := rows.Scan(&s)
		return s, err
	}, `
		SELECT p.privilege || ' on ' || p.name
		FROM (VALUES
			('users', 'SELECT'), ('package_pricing', 'SELECT'), ('virtfusion_cron_settings', 'SELECT'), ('settings', 'SELECT'),
			('virtfusion_hourly_billing', 'SELECT'), ('virtfusion_hourly_billing', 'INSERT'),
			('virtfusion_hourly_billing', 'UPDATE'), ('virtfusion_hourly_billing', 'DELETE'),
			('virtfusion_hourly_transactions', 'SELECT'), ('virtfusion_hourly_transactions', 'INSERT'),
			('virtfusion_hourly_transactions', 'UPDATE'), ('virtfusion_hourly_transactions', 'DELETE'))
			AS p (name, privilege)
		WHERE NOT has_table_privilege('public.' || p.name, p.privilege)`)
	if err != nil {
		return nil, fmt.Errorf("read our privileges: %w", err)
	}
	return missing, nil
}
