package main

import (
	"context"
	"fmt"
)

// fill puts servers into the books as if they had been there for long: the
// inventory, what is searched in it, billing rows, first charges, our records,
// and a line of history each; they are those of [server], by number from 0.
//
// A million rows through all triggers and indexes would take minutes: the
// triggers are off meanwhile (session_replication_role), the indexes are made
// again afterwards, the log may grow meanwhile, and the statistics are brought
// up to date.
func (k *books) fill(ctx context.Context, servers int) error {
	indexes, err := k.indexes(ctx)
	if err != nil {
		return err
	}
	statements := []string{`ALTER SYSTEM SET max_wal_size = '8GB'`, `SELECT pg_reload_conf()`, `SET session_replication_role = replica`, `SET synchronous_commit = off`, `SET maintenance_work_mem = '1GB'`, `SET max_parallel_maintenance_workers = 2`}
	for _, x := range indexes {
		statements = append(statements, `DROP INDEX `+x.name)
	}
	statements = append(statements,
		fmt.Sprintf(`CREATE TEMP TABLE filler AS
			SELECT n, %d + n AS id, %d + n %% %d AS account, %d + n %% %d AS user_id, p.virtfusion_package_id AS package_id, p.name AS package, p.price,
				'1b0e9a3c-6a0e-4c0b-9d4f-' || lpad(to_hex(n), 12, '0') AS uuid, 'srv-' || n AS name,
				ARRAY['10.' || (n >> 16 & 255) || '.' || (n >> 8 & 255) || '.' || (n & 255), '2001:db8:' || to_hex(n >> 16) || ':' || to_hex(n & 65535) || '::1'] AS addresses,
				date_trunc('second', now()) - interval '2 days' - n * interval '7 seconds' AS born
			FROM generate_series(0, %d) AS n
			JOIN package_pricing p ON p.virtfusion_package_id = 2 + n %% 4`,
			firstServer, firstAccount, customers, firstUser, customers, servers-1),
		`INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, owner_ext_relation_id, user_id, name, hostname, state, commission_status,
			package_id, memory_mb, storage_gb, traffic_gb, cpu_cores, ip_addresses, hypervisor_id, hypervisor_name, hypervisor_group_id,
			created_at, updated_at, built_at, status, billing, billing_id, note, settle_until, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, uuid, account, user_id, user_id, name, name || '.customer.example', 'running', 3,
			package_id, 1024, 25, 1000, 1, addresses, n % 20 + 1, 'host' || (n % 20 + 1), 1,
			born, born, born, 'external', 'on', n + 1, 'made outside SkyPANEL, billed ' || round(price / 100.0, 2) || ' a month' ||
			CASE WHEN round(price / 730.0) * 730 <> price THEN ', ' || round(round(price / 730.0) * 7.3, 2) || ' as charged' ELSE '' END, born, born, 'webhook', md5(n::text), born, born
		FROM filler`,
		`INSERT INTO serversync.server_words (virtfusion_id, words)
		SELECT virtfusion_id, serversync.words_of(virtfusion_id, name, hostname, uuid, ip_addresses) FROM serversync.servers`,
		`INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name,
			monthly_price, hourly_rate, hours_in_month, billing_enabled, server_created_at, last_billed_at, reference_1)
		SELECT n + 1, user_id, id, id, uuid, package_id, package, price / 100.0, round(price / 73000.0, 6), 730, true, born, born + interval '1 hour', 'external_server_' || id
		FROM filler`,
		`INSERT INTO virtfusion_hourly_transactions (id, billing_id, user_id, server_id, server_uuid, transaction_type, hours_billed, amount_charged,
			billing_period_start, billing_period_end, status, created_at, reference_1, reference_2)
		SELECT n + 1, n + 1, user_id, id, uuid, 'hourly_billing', 1, round(price / 73000.0, 4), born, born + interval '1 hour', 'completed', born, 'external_server_' || id, uuid
		FROM filler`,
		`INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, last_billed_at, charge_id, created_at, updated_at)
		SELECT n + 1, id, 'serversync', user_id, true, package_id, price / 100.0, born + interval '1 hour', n + 1, born, born FROM filler`,
		`INSERT INTO serversync.history (at, virtfusion_id, user_id, billing_id, kind, reason, source, event_id)
		SELECT born, id, user_id, n + 1, 'observed', 'first seen in VirtFusion, by webhook', 'webhook', md5(n::text) FROM filler`,
		`SELECT setval('virtfusion_hourly_billing_id_seq', (SELECT max(id) FROM virtfusion_hourly_billing)),
			setval('virtfusion_hourly_transactions_id_seq', (SELECT max(id) FROM virtfusion_hourly_transactions))`,
		`DROP TABLE filler`)
	for _, x := range indexes {
		statements = append(statements, x.definition)
	}
	return k.exec(ctx, append(statements, `RESET ALL`, `VACUUM ANALYZE`, `ALTER SYSTEM RESET max_wal_size`, `SELECT pg_reload_conf()`)...)
}

// index is one that no constraint needs.
type index struct{ name, definition string }

func (k *books) indexes(ctx context.Context) ([]index, error) {
	rows, err := k.DB.DB.QueryContext(ctx, `
		SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
		FROM pg_index i
		JOIN pg_class t ON t.oid = i.indrelid
		JOIN pg_namespace n ON n.oid = t.relnamespace
		WHERE n.nspname IN ('public', 'serversync') AND NOT i.indisunique AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)`)
	if err != nil {
		return nil, fmt.Errorf("look for indexes: %w", err)
	}
	defer rows.Close()
	var all []index
	for rows.Next() {
		var x index
		if err := rows.Scan(&x.name, &x.definition); err != nil {
			return nil, fmt.Errorf("look for indexes: %w", err)
		}
		all = append(all, x)
	}
	return all, rows.Err()
}
