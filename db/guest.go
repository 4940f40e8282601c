package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

// guestIndexes let a batch find billing rows, charges, users and traces of
// orders by key. The released schema has none of them. Their names say whose
// they are. A table that is not there needs no index.
var guestIndexes = []struct{ name, table, key string }{
	{"serversync_billing_virtfusion_server_id", "virtfusion_hourly_billing", "virtfusion_server_id"},
	{"serversync_billing_server_uuid", "virtfusion_hourly_billing", "server_uuid"},
	{"serversync_transactions_billing_id", "virtfusion_hourly_transactions", "billing_id"},
	{"serversync_transactions_created_at", "virtfusion_hourly_transactions", "created_at"}, // the watchdog's hourly look
	{"serversync_users_virtfusion_id", "users", "virtfusion_id"},
	{"serversync_transactions_server", "transactions", "(" + ledgerServer + ")"},
	{"serversync_uptime_server_id", "server_uptime_logs", "server_id"},
}

// ledgerServer finds the server that a line of SkyPANEL's money ledger is
// about. NativeTraces looks it up by the same expression.
const ledgerServer = `substring(description FROM '^Server #([0-9]{1,18}) - ')`

// ensureColumns adds what is missing. It looks first, since ALTER TABLE takes
// an exclusive lock even when it has nothing to do, and waits for that lock
// only briefly: a long-running query of SkyPANEL's must not make every later
// one queue behind us. Known: there may be rows of ours to fill in.
func ensureColumns(ctx context.Context, conn bun.Conn, dryRun, known bool, report *MigrateReport) error {
	for _, c := range guestColumns {
		var exists bool
		err := conn.NewRaw(`SELECT EXISTS (
				SELECT FROM information_schema.columns
				WHERE table_schema = 'public' AND table_name = ? AND column_name = ?)`,
			c.table, c.column).Scan(ctx, &exists)
		if err != nil {
			return fmt.Errorf("look for the column %s.%s: %w", c.table, c.column, err)
		}
		if exists {
			continue
		}
		const patience = "SET LOCAL lock_timeout = '5s'"
		statement := fmt.Sprintf("ALTER TABLE public.%s ADD COLUMN IF NOT EXISTS %s %s", c.table, c.column, c.definition)
		report.Columns = append(report.Columns, c.table+"."+c.column)
		report.GuestSQL = append(report.GuestSQL, "BEGIN;", patience+";", statement+";", "COMMIT;")
		if dryRun {
			continue
		}
		add := func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.ExecContext(ctx, patience); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, statement)
			return err
		}
		if err := conn.RunInTx(ctx, nil, add); err != nil {
			return fmt.Errorf("add a column (as the table's owner, run: %s): %w", statement, err)
		}
	}
	if len(report.Columns) == 0 || !known {
		return nil
	}
	for _, statement := range refills {
		report.GuestSQL = append(report.GuestSQL, strings.TrimSpace(statement)+";")
	}
	if dryRun {
		return nil
	}
	return refill(ctx, conn)
}

// refills write again what stood in a column of ours that was dropped, from our
// own memory of the rows that we made.
var refills = []string{
	`
		UPDATE public.virtfusion_hourly_billing b SET reference_1 = 'external_server_' || r.virtfusion_id
		FROM serversync.billing_rows r
		WHERE r.billing_id = b.id AND r.made_by = 'serversync' AND b.reference_1 IS NULL`, `
		UPDATE public.virtfusion_hourly_transactions t SET reference_1 = 'external_server_' || r.virtfusion_id,
			reference_2 = b.server_uuid, server_uuid = b.server_uuid, transaction_type = 'hourly_billing'
		FROM serversync.billing_rows r JOIN public.virtfusion_hourly_billing b ON b.id = r.billing_id
		WHERE t.id = r.charge_id AND (t.reference_1 IS NULL OR t.reference_2 IS NULL OR t.server_uuid IS NULL OR t.transaction_type IS NULL)`,
}

func refill(ctx context.Context, conn bun.Conn) error {
	for _, statement := range refills {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("fill in a column that was dropped: %w", err)
		}
	}
	return nil
}

// addTimeout bounds [AddMissingColumns], the wait for another process that is
// migrating included.
const addTimeout = 30 * time.Second

// AddMissingColumns adds those of our columns to SkyPANEL's tables that are
// missing, as "table.column", and returns which. It runs under the migrations'
// lock, so that several processes may notice at once: the first one adds, the
// others find nothing to do. It takes one connection of the pool, which the
// caller's transaction must not hold up.
func AddMissingColumns(ctx context.Context, database *bun.DB) (added []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	conn, err := database.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to add columns: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := takeMigrateLock(ctx, conn); err != nil {
		return nil, err
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(?)`, migrateLock)
		err = errors.Join(err, unlockErr)
	}()
	var report MigrateReport
	err = ensureColumns(ctx, conn, false, true, &report)
	return report.Columns, err
}

// ensureIndexes builds missing indexes without locking SkyPANEL out. A build
// that was interrupted leaves an invalid index behind, which is dropped and
// built again. creating: tables that are missing are still to be made.
func ensureIndexes(ctx context.Context, conn bun.Conn, dryRun, creating bool, report *MigrateReport) error {
	for _, ix := range guestIndexes {
		var state string
		err := conn.NewRaw(`SELECT CASE
				WHEN to_regclass(?) IS NULL THEN 'no table'
				ELSE coalesce((SELECT CASE WHEN i.indisvalid THEN 'valid' ELSE 'invalid' END
					FROM pg_index i WHERE i.indexrelid = to_regclass(?)), 'missing') END`,
			"public."+ix.table, "public."+ix.name).Scan(ctx, &state)
		if err != nil {
			return fmt.Errorf("look for the index %s: %w", ix.name, err)
		}
		if state == "valid" || state == "no table" && !creating {
			continue
		}
		definition := fmt.Sprintf("CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON public.%s (%s)", ix.name, ix.table, ix.key)
		drop := fmt.Sprintf("DROP INDEX CONCURRENTLY IF EXISTS public.%s", ix.name)
		report.Indexes = append(report.Indexes, ix.name)
		if state == "invalid" {
			report.GuestSQL = append(report.GuestSQL, drop+";")
		}
		report.GuestSQL = append(report.GuestSQL, definition+";")
		if dryRun {
			continue
		}
		if state == "invalid" {
			if _, err := conn.ExecContext(ctx, drop); err != nil {
				return fmt.Errorf("drop the unfinished index %s: %w", ix.name, err)
			}
		}
		if _, err := conn.ExecContext(ctx, definition); err != nil {
			return fmt.Errorf("build an index (as the table's owner, run: %s): %w", definition, err)
		}
	}
	return nil
}
