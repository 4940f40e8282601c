package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Lack is what our role may not do and has to.
type Lack struct {
	What string // "SELECT, UPDATE on public.api_keys"
	// Statement is what the owner has to say to grant it.
	Statement string
}

// MissingPrivileges names what the current role has to be allowed and is not.
// It needs no privilege itself. Tables that are missing are not named: that they
// are is another fault.
func MissingPrivileges(ctx context.Context, idb bun.IDB) ([]Lack, error) {
	lacks, err := queryAll(ctx, idb, func(rows *sql.Rows) (l Lack, err error) {
		err = rows.Scan(&l.What, &l.Statement)
		return l, err
	}, `
		WITH needed (name, privilege, columns) AS (VALUES -- as deploy/grants.sql; columns: of tables that have secrets
			('users', 'SELECT', ARRAY['id', 'virtfusion_id', 'email', 'username', 'full_name', 'role', 'is_active']),
			('package_pricing', 'SELECT', NULL), ('virtfusion_cron_settings', 'SELECT', NULL), ('settings', 'SELECT', ARRAY['key', 'value']),
			('api_keys', 'SELECT', ARRAY['id', 'user_id', 'key', 'scopes', 'expires_at', 'is_active', 'last_used']), ('api_keys', 'UPDATE', ARRAY['last_used']),
			('session', 'SELECT', ARRAY['sid', 'sess', 'expire']), ('server_uptime_logs', 'SELECT', NULL), ('transactions', 'SELECT', NULL),
			('virtfusion_hourly_billing', 'SELECT', NULL), ('virtfusion_hourly_billing', 'INSERT', NULL), ('virtfusion_hourly_billing', 'UPDATE', NULL), ('virtfusion_hourly_billing', 'DELETE', NULL),
			('virtfusion_hourly_transactions', 'SELECT', NULL), ('virtfusion_hourly_transactions', 'INSERT', NULL), ('virtfusion_hourly_transactions', 'UPDATE', NULL), ('virtfusion_hourly_transactions', 'DELETE', NULL)),
		tables AS (SELECT c.oid, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v')),
		ours AS (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'serversync')
		SELECT 'USAGE on the schema public', format('GRANT USAGE ON SCHEMA public TO %I;', current_user)
			FROM pg_namespace n WHERE n.nspname = 'public' AND NOT has_schema_privilege(n.oid, 'USAGE')
		UNION ALL
		SELECT string_agg(l.privilege, ', ') || ' on public.' || l.name, format('GRANT %s ON public.%I TO %I;', string_agg(l.privilege, ', '), l.name, current_user)
			FROM (
				SELECT n.privilege, t.name FROM needed n JOIN tables t USING (name) WHERE n.columns IS NULL AND NOT has_table_privilege(t.oid, n.privilege)
				UNION ALL
				SELECT n.privilege || format(' (%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY array_position(n.columns, a.attname::text))), t.name
				FROM needed n JOIN tables t USING (name) JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = ANY (n.columns) AND NOT a.attisdropped
				WHERE NOT CASE WHEN n.columns IS NOT NULL THEN has_column_privilege(t.oid, a.attnum, n.privilege) END GROUP BY n.privilege, t.name) AS l (privilege, name)
			GROUP BY l.name
		UNION ALL
		SELECT 'USAGE on the sequence public.' || s.relname, format('GRANT USAGE ON SEQUENCE public.%I TO %I;', s.relname, current_user)
			FROM tables t JOIN pg_depend d ON d.refobjid = t.oid AND d.deptype IN ('a', 'i') JOIN pg_class s ON s.oid = d.objid
			WHERE t.name IN ('virtfusion_hourly_billing', 'virtfusion_hourly_transactions') AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END
		UNION ALL
		SELECT 'CREATE on the database, to make the schema serversync', format('CREATE SCHEMA serversync AUTHORIZATION %I;', current_user)
			WHERE NOT EXISTS (SELECT FROM ours) AND NOT has_database_privilege(current_database(), 'CREATE')
		UNION ALL
		SELECT 'USAGE on the schema serversync', format('GRANT USAGE ON SCHEMA serversync TO %I;', current_user)
			FROM ours WHERE NOT has_schema_privilege(oid, 'USAGE')
		UNION ALL
		SELECT 'SELECT, INSERT, UPDATE, DELETE on all tables of serversync', format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA serversync TO %I;', current_user)
			WHERE EXISTS (SELECT FROM ours JOIN pg_class c ON c.relnamespace = ours.oid AND c.relkind IN ('r', 'p')
				WHERE NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')))`)
	if err != nil {
		return nil, fmt.Errorf("read our privileges: %w", err)
	}
	return lacks, nil
}

// StrangeColumns names columns of SkyPANEL's that our statements use and that are
// missing, or of another kind of type than in the released schema: numbers (N),
// text (S; an enumeration, E, will do), truth values (B), times (D).
func StrangeColumns(ctx context.Context, idb bun.IDB) ([]string, error) {
	strange, err := queryAll(ctx, idb, func(rows *sql.Rows) (what string, err error) {
		err = rows.Scan(&what)
		return what, err
	}, `
		WITH needed (name, kind, columns) AS (VALUES
			('users', 'N', ARRAY['id', 'virtfusion_id']), ('users', 'S', ARRAY['email', 'role']), ('users', 'B', ARRAY['is_active']),
			('package_pricing', 'N', ARRAY['virtfusion_package_id', 'price']), ('package_pricing', 'B', ARRAY['enabled']),
			('settings', 'S', ARRAY['key', 'value']), ('virtfusion_cron_settings', 'B', ARRAY['enabled', 'hourly_billing_enabled']),
			('virtfusion_hourly_billing', 'N', ARRAY['id', 'user_id', 'server_id', 'virtfusion_server_id', 'package_id', 'monthly_price', 'hourly_rate', 'hours_in_month']),
			('virtfusion_hourly_billing', 'S', ARRAY['server_uuid']), ('virtfusion_hourly_billing', 'B', ARRAY['billing_enabled']),
			('virtfusion_hourly_billing', 'D', ARRAY['last_billed_at', 'server_created_at', 'created_at']),
			('virtfusion_hourly_transactions', 'N', ARRAY['id', 'billing_id', 'user_id', 'server_id', 'amount_charged']),
			('virtfusion_hourly_transactions', 'S', ARRAY['status']), ('virtfusion_hourly_transactions', 'D', ARRAY['created_at'])),
		wanted AS (SELECT n.name, n.kind, c.name AS col, to_regclass('public.' || n.name) AS oid FROM needed n CROSS JOIN unnest(n.columns) AS c (name))
		SELECT format('%s.%s is missing', w.name, w.col) FROM wanted w
			WHERE w.oid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = w.oid AND a.attname = w.col AND NOT a.attisdropped)
		UNION ALL
		SELECT format('%s.%s is %s', w.name, w.col, format_type(a.atttypid, a.atttypmod)) FROM wanted w
			JOIN pg_attribute a ON a.attrelid = w.oid AND a.attname = w.col AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
			WHERE t.typcategory::text <> w.kind AND NOT (w.kind = 'S' AND t.typcategory = 'E')
		ORDER BY 1`)
	return strange, wrap(err, "look at SkyPANEL's columns")
}

// ServerState is what PostgreSQL says of itself.
type ServerState struct {
	// Settings by name: fsync, full_page_writes, synchronous_commit,
	// max_connections, superuser_reserved_connections, autovacuum_freeze_max_age.
	Settings map[string]string
	Now      time.Time // its clock
	// Connections that are open, of everybody.
	Connections int64
	// TransactionAge is how many transactions ago the oldest row was last frozen:
	// at two thousand millions PostgreSQL refuses to write.
	TransactionAge int64
	// Standby: it follows another one, and takes no writes. ReadOnly: for whatever
	// reason it takes none of ours.
	Standby, ReadOnly bool
}

// ReadServerState asks PostgreSQL about itself.
func ReadServerState(ctx context.Context, idb bun.IDB) (ServerState, error) {
	s := ServerState{Settings: make(map[string]string)}
	type setting struct{ name, value string }
	settings, err := queryAll(ctx, idb, func(rows *sql.Rows) (one setting, err error) {
		err = rows.Scan(&one.name, &one.value)
		return one, err
	}, `SELECT name, setting FROM pg_settings WHERE name = ANY($1::text[])`, []string{
		"fsync", "full_page_writes", "synchronous_commit", "max_connections", "superuser_reserved_connections", "autovacuum_freeze_max_age",
	})
	if err != nil {
		return s, fmt.Errorf("read PostgreSQL's settings: %w", err)
	}
	for _, one := range settings {
		s.Settings[one.name] = one.value
	}
	err = idb.NewRaw(`
		SELECT clock_timestamp(), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
			(SELECT max(age(datfrozenxid)) FROM pg_database), pg_is_in_recovery(),
			current_setting('transaction_read_only')::bool`).Scan(ctx, &s.Now, &s.Connections, &s.TransactionAge, &s.Standby, &s.ReadOnly)
	return s, wrap(err, "ask PostgreSQL about itself")
}

// recentLines is how many history lines are looked at for the last webhook.
const recentLines = 10_000

// LastWebhook is when VirtFusion last sent something that reached the books, on
// its clock; nil: nothing that is still to be seen. Servers is how many the
// inventory has.
func LastWebhook(ctx context.Context, idb bun.IDB) (at *time.Time, servers int64, err error) {
	err = idb.NewRaw(`
		SELECT greatest(max(observed_at) FILTER (WHERE observed_source = 'webhook'),
			(SELECT max(h.at) FROM (SELECT at, source FROM serversync.history ORDER BY id DESC LIMIT ?) h WHERE h.source = 'webhook')), count(*)
		FROM serversync.servers`, recentLines).Scan(ctx, &at, &servers)
	return at, servers, wrap(err, "look for the last webhook")
}

// OldestApproval is the run that waits longest for a person, and how many wait;
// nil: none.
func OldestApproval(ctx context.Context, idb bun.IDB) (id string, since *time.Time, waiting int64, err error) {
	err = idb.NewRaw(`
		SELECT coalesce((array_agg(id ORDER BY beat_at))[1], ''), min(beat_at), count(*) FROM serversync.runs WHERE state = 'needs_approval'`).Scan(ctx, &id, &since, &waiting)
	return id, since, waiting, wrap(err, "look for runs that wait")
}

// ReadJobSwitch says whether SkyPANEL's billing job is switched on: as a whole,
// and its hourly part. Known is false where nobody has saved its settings yet.
func ReadJobSwitch(ctx context.Context, idb bun.IDB) (enabled, hourly, known bool, err error) {
	err = idb.NewRaw(`
		SELECT coalesce(enabled, false), coalesce(hourly_billing_enabled, true) FROM public.virtfusion_cron_settings ORDER BY id DESC LIMIT 1`).Scan(ctx, &enabled, &hourly)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, false, nil
	}
	return enabled, hourly, true, wrap(err, "read the settings of SkyPANEL's billing job")
}
