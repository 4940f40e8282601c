package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// ErrStale means that rows changed between being read and being written. Roll back, read
// again and decide again.
var ErrStale = errors.New("rows changed since they were read")

// column collects one field of many rows: a parameter for unnest.
func column[T, V any](rows []T, get func(*T) V) []V {
	values := make([]V, len(rows))
	for i := range rows {
		values[i] = get(&rows[i])
	}
	return values
}

// nullIfEmpty is NULL for the empty string.
func nullIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// timestamp is a time as SkyPANEL's columns keep it: UTC, no zone,
// microseconds.
func timestamp(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	utc := t.UTC().Truncate(time.Microsecond)
	return &utc
}

// serverLocks is the upper half of the advisory lock keys of servers, so that
// they collide with nobody else's.
const serverLocks = 0x5653 << 48

// LockServers takes a lock per server, held until the transaction ends. The
// ids must be sorted: taken in one order, locks cannot deadlock. Advisory
// locks rather than row locks, because a new server has no row yet.
func LockServers(ctx context.Context, tx bun.Tx, sortedIDs []int64) error {
	keys := make([]int64, len(sortedIDs))
	for i, id := range sortedIDs {
		keys[i] = serverLocks | id&(1<<48-1)
	}
	if _, err := nativeOf(tx).ExecContext(ctx, `SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k`, keys); err != nil {
		return fmt.Errorf("lock %d servers: %w", len(keys), err)
	}
	return nil
}

// ServersByID reads the inventory rows of the given VirtFusion ids, in no
// particular order; an unknown id has none.
func ServersByID(ctx context.Context, idb bun.IDB, ids []int64) ([]Server, error) {
	servers, err := queryAll(ctx, idb, scanServer, `
		SELECT `+serverColumns+`
		FROM unnest($1::bigint[]) AS k (id)
		JOIN serversync.servers s ON s.virtfusion_id = k.id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read %d servers of the inventory: %w", len(ids), err)
	}
	return servers, nil
}

// ClaimDue takes the locks of up to limit settling servers whose time has come
// and returns their ids, sorted. Several processes may claim at once: it never
// waits for a lock, and each gets servers that nobody else is deciding.
func ClaimDue(ctx context.Context, tx bun.Tx, now time.Time, limit int) ([]int64, error) {
	ids, err := queryAll(ctx, tx, scanID, `
		WITH due AS MATERIALIZED (
			SELECT virtfusion_id FROM serversync.servers
			WHERE status = 'settling' AND settle_until <= $1
				AND confirmed AND owner_id <> 0 AND ask = '' -- else only news of it can go on
				AND awaiting_run = ''                        -- else a person has to approve first
			ORDER BY settle_until
			LIMIT $2),
		claimed AS MATERIALIZED (
			SELECT virtfusion_id FROM due
			WHERE pg_try_advisory_xact_lock($3::bigint | (virtfusion_id & ((1::bigint << 48) - 1))))
		SELECT virtfusion_id FROM claimed ORDER BY virtfusion_id`, now, limit, int64(serverLocks))
	if err != nil {
		return nil, fmt.Errorf("claim settled servers: %w", err)
	}
	return ids, nil
}

func scanID(rows *sql.Rows) (int64, error) {
	var id int64
	err := rows.Scan(&id)
	return id, err
}

const serverColumns = `s.virtfusion_id, s.uuid, s.owner_id, s.owner_ext_relation_id, s.user_id,
	s.name, s.hostname, s.state, s.commission_status, s.suspended, s.protected, s.build_failed, s.self_service,
	s.package_id, s.memory_mb, s.storage_gb, s.traffic_gb, s.cpu_cores, array_to_string(s.ip_addresses, ' '),
	s.hypervisor_id, s.hypervisor_name, s.hypervisor_group_id, s.created_at, s.updated_at, s.built_at,
	s.status, s.billing, coalesce(s.billing_reason, ''), s.billing_id, s.note, s.ask, s.confirmed, s.settle_until, s.gone_at,
	s.observed_at, s.observed_source, s.observed_event_id, s.first_seen_at, s.last_seen_at, s.pulled_at, s.awaiting_run, coalesce(s.run_id, '')`

func scanServer(rows *sql.Rows) (Server, error) {
	return scanServerAnd(rows)
}

// scanServerAnd reads the columns of serverColumns and, after them, others.
func scanServerAnd(rows *sql.Rows, others ...any) (Server, error) {
	var s Server
	var addresses string
	err := rows.Scan(append([]any{
		&s.VirtfusionID, &s.UUID, &s.OwnerID, &s.OwnerExtRelationID, &s.UserID,
		&s.Name, &s.Hostname, &s.State, &s.CommissionStatus, &s.Suspended, &s.Protected, &s.BuildFailed, &s.SelfService,
		&s.PackageID, &s.MemoryMB, &s.StorageGB, &s.TrafficGB, &s.CPUCores, &addresses,
		&s.HypervisorID, &s.HypervisorName, &s.HypervisorGroupID, &s.CreatedAt, &s.UpdatedAt, &s.BuiltAt,
		&s.Status, &s.Billing, &s.BillingReason, &s.BillingID, &s.Note, &s.Ask, &s.Confirmed, &s.SettleUntil, &s.GoneAt,
		&s.ObservedAt, &s.ObservedSource, &s.ObservedEventID, &s.FirstSeenAt, &s.LastSeenAt, &s.PulledAt, &s.AwaitingRun, &s.RunID,
	}, others...)...)
	s.IPAddresses = strings.Fields(addresses)
	return s, err
}

// KeepAwaiting leaves awaiting_run as it stands, when it is a [Server]'s
// AwaitingRun to be written: a newer run may have taken the older one's place
// meanwhile.
const KeepAwaiting = "="

// UpsertServers writes inventory rows whole, one statement for all.
func UpsertServers(ctx context.Context, idb bun.IDB, servers []Server) error {
	if len(servers) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.servers (
			virtfusion_id, uuid, owner_id, owner_ext_relation_id, user_id,
			name, hostname, state, commission_status, suspended, protected, build_failed, self_service,
			package_id, memory_mb, storage_gb, traffic_gb, cpu_cores, ip_addresses,
			hypervisor_id, hypervisor_name, hypervisor_group_id, created_at, updated_at, built_at,
			status, billing, billing_reason, billing_id, note, confirmed, settle_until, gone_at,
			observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at, ask, pulled_at, awaiting_run, run_id)
		SELECT
			virtfusion_id, uuid, owner_id, owner_ext_relation_id, user_id,
			name, hostname, state, commission_status, suspended, protected, build_failed, self_service,
			package_id, memory_mb, storage_gb, traffic_gb, cpu_cores, string_to_array(ip_addresses, ' '),
			hypervisor_id, hypervisor_name, hypervisor_group_id, created_at, updated_at, built_at,
			status, billing, billing_reason, billing_id, note, confirmed, settle_until, gone_at,
			observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at, ask, pulled_at, awaiting_run, run_id
		FROM unnest(
			$1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::int[],
			$6::text[], $7::text[], $8::text[], $9::bigint[], $10::bool[], $11::bool[], $12::bool[], $13::bigint[],
			$14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::text[],
			$20::bigint[], $21::text[], $22::bigint[], $23::timestamptz[], $24::timestamptz[], $25::timestamptz[],
			$26::text[], $27::text[], $28::text[], $29::int[], $30::text[], $31::bool[], $32::timestamptz[], $33::timestamptz[],
			$34::timestamptz[], $35::text[], $36::text[], $37::timestamptz[], $38::timestamptz[], $39::text[], $40::timestamptz[],
			$41::text[], $42::text[]
		) AS v (
			virtfusion_id, uuid, owner_id, owner_ext_relation_id, user_id,
			name, hostname, state, commission_status, suspended, protected, build_failed, self_service,
			package_id, memory_mb, storage_gb, traffic_gb, cpu_cores, ip_addresses,
			hypervisor_id, hypervisor_name, hypervisor_group_id, created_at, updated_at, built_at,
			status, billing, billing_reason, billing_id, note, confirmed, settle_until, gone_at,
			observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at, ask, pulled_at, awaiting_run, run_id)
		ON CONFLICT (virtfusion_id) DO UPDATE SET
			uuid = excluded.uuid, owner_id = excluded.owner_id,
			owner_ext_relation_id = excluded.owner_ext_relation_id, user_id = excluded.user_id,
			name = excluded.name, hostname = excluded.hostname, state = excluded.state,
			commission_status = excluded.commission_status, suspended = excluded.suspended,
			protected = excluded.protected, build_failed = excluded.build_failed,
			self_service = excluded.self_service, package_id = excluded.package_id,
			memory_mb = excluded.memory_mb, storage_gb = excluded.storage_gb,
			traffic_gb = excluded.traffic_gb, cpu_cores = excluded.cpu_cores,
			ip_addresses = excluded.ip_addresses, hypervisor_id = excluded.hypervisor_id,
			hypervisor_name = excluded.hypervisor_name, hypervisor_group_id = excluded.hypervisor_group_id,
			created_at = excluded.created_at, updated_at = excluded.updated_at, built_at = excluded.built_at,
			status = excluded.status, billing = excluded.billing, billing_reason = excluded.billing_reason,
			billing_id = excluded.billing_id, note = excluded.note, ask = excluded.ask, confirmed = excluded.confirmed,
			settle_until = excluded.settle_until, gone_at = excluded.gone_at,
			observed_at = excluded.observed_at, observed_source = excluded.observed_source,
			observed_event_id = excluded.observed_event_id,
			last_seen_at = greatest(servers.last_seen_at, excluded.last_seen_at), -- a sweep marks it beside us
			pulled_at = excluded.pulled_at, run_id = excluded.run_id,
			awaiting_run = CASE excluded.awaiting_run WHEN '=' THEN servers.awaiting_run ELSE excluded.awaiting_run END`,
		column(servers, func(s *Server) int64 { return s.VirtfusionID }),
		column(servers, func(s *Server) string { return s.UUID }),
		column(servers, func(s *Server) int64 { return s.OwnerID }),
		column(servers, func(s *Server) *int64 { return s.OwnerExtRelationID }),
		column(servers, func(s *Server) *int64 { return s.UserID }),
		column(servers, func(s *Server) string { return s.Name }),
		column(servers, func(s *Server) string { return s.Hostname }),
		column(servers, func(s *Server) string { return s.State }),
		column(servers, func(s *Server) *int64 { return s.CommissionStatus }),
		column(servers, func(s *Server) bool { return s.Suspended }),
		column(servers, func(s *Server) bool { return s.Protected }),
		column(servers, func(s *Server) bool { return s.BuildFailed }),
		column(servers, func(s *Server) int64 { return s.SelfService }),
		column(servers, func(s *Server) *int64 { return s.PackageID }),
		column(servers, func(s *Server) *int64 { return s.MemoryMB }),
		column(servers, func(s *Server) *int64 { return s.StorageGB }),
		column(servers, func(s *Server) *int64 { return s.TrafficGB }),
		column(servers, func(s *Server) *int64 { return s.CPUCores }),
		column(servers, func(s *Server) string { return strings.Join(s.IPAddresses, " ") }),
		column(servers, func(s *Server) *int64 { return s.HypervisorID }),
		column(servers, func(s *Server) string { return s.HypervisorName }),
		column(servers, func(s *Server) *int64 { return s.HypervisorGroupID }),
		column(servers, func(s *Server) *time.Time { return s.CreatedAt }),
		column(servers, func(s *Server) *time.Time { return s.UpdatedAt }),
		column(servers, func(s *Server) *time.Time { return s.BuiltAt }),
		column(servers, func(s *Server) string { return s.Status }),
		column(servers, func(s *Server) string { return s.Billing }),
		column(servers, func(s *Server) *string { return nullIfEmpty(s.BillingReason) }),
		column(servers, func(s *Server) *int64 { return s.BillingID }),
		column(servers, func(s *Server) string { return s.Note }),
		column(servers, func(s *Server) bool { return s.Confirmed }),
		column(servers, func(s *Server) *time.Time { return s.SettleUntil }),
		column(servers, func(s *Server) *time.Time { return s.GoneAt }),
		column(servers, func(s *Server) time.Time { return s.ObservedAt }),
		column(servers, func(s *Server) string { return s.ObservedSource }),
		column(servers, func(s *Server) string { return s.ObservedEventID }),
		column(servers, func(s *Server) time.Time { return s.FirstSeenAt }),
		column(servers, func(s *Server) time.Time { return s.LastSeenAt }),
		column(servers, func(s *Server) string { return s.Ask }),
		column(servers, func(s *Server) *time.Time { return s.PulledAt }),
		column(servers, func(s *Server) string { return s.AwaitingRun }),
		column(servers, func(s *Server) *string { return nullIfEmpty(s.RunID) }))
	if err != nil {
		return fmt.Errorf("write %d servers to the inventory: %w", len(servers), err)
	}
	return nil
}

// TouchServers moves only the last observation of servers whose content is as
// it was: the cheap case of a fleet in step.
func TouchServers(ctx context.Context, idb bun.IDB, servers []Server) error {
	if len(servers) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.servers s
		SET observed_at = v.observed_at, observed_source = v.observed_source,
			observed_event_id = v.observed_event_id, last_seen_at = greatest(s.last_seen_at, v.last_seen_at), pulled_at = v.pulled_at
		FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
			AS v (virtfusion_id, observed_at, observed_source, observed_event_id, last_seen_at, pulled_at)
		WHERE s.virtfusion_id = v.virtfusion_id`,
		column(servers, func(s *Server) int64 { return s.VirtfusionID }),
		column(servers, func(s *Server) time.Time { return s.ObservedAt }),
		column(servers, func(s *Server) string { return s.ObservedSource }),
		column(servers, func(s *Server) string { return s.ObservedEventID }),
		column(servers, func(s *Server) time.Time { return s.LastSeenAt }),
		column(servers, func(s *Server) *time.Time { return s.PulledAt }))
	if err != nil {
		return fmt.Errorf("touch %d servers of the inventory: %w", len(servers), err)
	}
	return nil
}

// InsertHistory appends lines, one statement for all.
func InsertHistory(ctx context.Context, idb bun.IDB, lines []History) error {
	if len(lines) == 0 {
		return nil
	}
	_, err := nativeOf(idb).ExecContext(ctx, `
		INSERT INTO serversync.history (at, virtfusion_id, user_id, billing_id, kind, reason, before, after, source, event_id, run_id)
		SELECT v.at, v.virtfusion_id, v.user_id, v.billing_id, v.kind, v.reason, v.before::jsonb, v.after::jsonb, v.source, v.event_id, v.run_id
		FROM unnest($1::timestamptz[], $2::bigint[], $3::int[], $4::int[], $5::text[], $6::text[],
				$7::text[], $8::text[], $9::text[], $10::text[], $11::text[]) WITH ORDINALITY
			AS v (at, virtfusion_id, user_id, billing_id, kind, reason, before, after, source, event_id, run_id, ord)
		ORDER BY v.ord`,
		column(lines, func(h *History) time.Time { return h.At }),
		column(lines, func(h *History) int64 { return h.VirtfusionID }),
		column(lines, func(h *History) *int64 { return h.UserID }),
		column(lines, func(h *History) *int64 { return h.BillingID }),
		column(lines, func(h *History) string { return h.Kind }),
		column(lines, func(h *History) string { return h.Reason }),
		column(lines, func(h *History) *string { return nullIfEmpty(string(h.Before)) }),
		column(lines, func(h *History) *string { return nullIfEmpty(string(h.After)) }),
		column(lines, func(h *History) string { return h.Source }),
		column(lines, func(h *History) string { return h.EventID }),
		column(lines, func(h *History) *string { return nullIfEmpty(h.RunID) }))
	if err != nil {
		return fmt.Errorf("write %d history lines: %w", len(lines), err)
	}
	return nil
}
