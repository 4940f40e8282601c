package db

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/uptrace/bun"
)

// NativeTrace says that SkyPANEL itself sold a server.
type NativeTrace struct {
	// Words say where the trace is.
	Words string
	// UserIDs are the users.id to whom it was sold, in order; empty: the trace
	// does not say.
	UserIDs []int64
}

// NativeTraces looks for signs that SkyPANEL itself sold a server: a row in
// server_uptime_logs, or a line of the money ledger beginning "Server #<id> - ".
// It returns what was found, by VirtFusion id. A server that we ever billed is
// left out: SkyPANEL's job writes such lines for our rows too. Either table may
// be missing, and the log's user.
func NativeTraces(ctx context.Context, idb bun.IDB, serverIDs []int64) (map[int64]NativeTrace, error) {
	traces := make(map[int64]NativeTrace)
	if len(serverIDs) == 0 {
		return traces, nil
	}
	var uptime, user, ledger bool
	if err := idb.NewRaw(`
		SELECT to_regclass('public.server_uptime_logs') IS NOT NULL,
			EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('public.server_uptime_logs') AND attname = 'user_id' AND NOT attisdropped),
			to_regclass('public.transactions') IS NOT NULL`).
		Scan(ctx, &uptime, &user, &ledger); err != nil {
		return nil, fmt.Errorf("look for SkyPANEL's tables: %w", err)
	}
	type hit struct{ server, user int64 }
	scan := func(rows *sql.Rows) (hit, error) {
		var h hit
		err := rows.Scan(&h.server, &h.user)
		return h, err
	}
	anonymous := make(map[int64]bool)
	find := func(words, statement string) error {
		hits, err := queryAll(ctx, idb, scan, statement+`
			AND NOT EXISTS (SELECT FROM serversync.billing_rows r WHERE r.virtfusion_id = k.id AND r.made_by = 'serversync')
			ORDER BY 1, 2`, serverIDs)
		if err != nil {
			return fmt.Errorf("look for traces of orders in SkyPANEL: %w", err)
		}
		for _, h := range hits {
			t := traces[h.server]
			t.Words = words
			anonymous[h.server] = anonymous[h.server] || h.user == 0
			if !slices.Contains(t.UserIDs, h.user) {
				t.UserIDs = append(t.UserIDs, h.user)
			}
			traces[h.server] = t
		}
		return nil
	}
	if uptime {
		column := "0"
		if user {
			column = "coalesce(u.user_id, 0)"
		}
		if err := find("its uptime is logged there", `SELECT DISTINCT k.id, `+column+`
			FROM unnest($1::bigint[]) AS k (id) JOIN public.server_uptime_logs u ON u.server_id = k.id WHERE true`); err != nil {
			return nil, err
		}
	}
	if ledger {
		// The expression is that of the index serversync_transactions_server.
		if err := find("its ledger has a line of it", `SELECT DISTINCT k.id, coalesce(t.user_id, 0)
			FROM unnest($1::bigint[]) AS k (id)
			JOIN public.transactions t ON substring(t.description FROM '^Server #([0-9]{1,18}) - ') = k.id::text WHERE true`); err != nil {
			return nil, err
		}
	}
	for id, t := range traces {
		slices.Sort(t.UserIDs)
		if anonymous[id] {
			t.UserIDs = nil
		}
		traces[id] = t
	}
	return traces, nil
}
