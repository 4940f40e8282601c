package db

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/uptrace/bun"
)

// Policy is what SkyPANEL's settings say about billing. It is read afresh with
// every batch.
type Policy struct {
	// HourlyMode: SkyPANEL bills its own servers by the hour
	// (virtfusion_self_service_hourly_credit is 'true' or missing). In monthly
	// mode it makes no billing rows for them, so a missing row proves nothing.
	HourlyMode bool
	// HoursPerMonth divides a monthly price; SkyPANEL's default is 730.
	HoursPerMonth int64
}

// defaultHoursPerMonth is SkyPANEL's default.
const defaultHoursPerMonth = 730

// ReadPolicy reads SkyPANEL's billing settings.
func ReadPolicy(ctx context.Context, idb bun.IDB) (Policy, error) {
	p := Policy{HourlyMode: true, HoursPerMonth: defaultHoursPerMonth}
	var mode sql.NullString
	var hours sql.NullInt64
	err := idb.NewRaw(`
		SELECT (SELECT value FROM public.settings WHERE key = 'virtfusion_self_service_hourly_credit'),
			(SELECT hours_per_month FROM public.virtfusion_cron_settings ORDER BY id DESC LIMIT 1)`).
		Scan(ctx, &mode, &hours)
	if err != nil {
		return p, fmt.Errorf("read SkyPANEL's billing settings: %w", err)
	}
	if mode.Valid {
		p.HourlyMode = mode.String == "true"
	}
	if hours.Valid && hours.Int64 > 0 {
		p.HoursPerMonth = hours.Int64
	}
	return p, nil
}

// ReadPrices reads package_pricing whole: it has one row per package that the
// company sells, some dozens. SkyPANEL's billing job ignores "enabled", and so
// do we.
func ReadPrices(ctx context.Context, idb bun.IDB) ([]PackagePricing, error) {
	var prices []PackagePricing
	err := idb.NewSelect().Model(&prices).
		Column("id", "virtfusion_package_id", "name", "price", "enabled").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read SkyPANEL's prices: %w", err)
	}
	return prices, nil
}

// UsersByLink reads the users who are linked to one of the VirtFusion user
// ids, and those who have one of the SkyPANEL user ids: the two ways in which
// a server's owner is resolved.
func UsersByLink(ctx context.Context, idb bun.IDB, virtfusionIDs, userIDs []int64) ([]User, error) {
	scan := func(rows *sql.Rows) (User, error) {
		var u User
		err := rows.Scan(&u.ID, &u.VirtfusionID, &u.IsActive)
		return u, err
	}
	users, err := queryAll(ctx, idb, scan, `
		SELECT u.id, u.virtfusion_id, u.is_active FROM unnest($1::int[]) AS k (id)
		JOIN public.users u ON u.virtfusion_id = k.id
		UNION
		SELECT u.id, u.virtfusion_id, u.is_active FROM unnest($2::int[]) AS k (id)
		JOIN public.users u ON u.id = k.id`, virtfusionIDs, userIDs)
	if err != nil {
		return nil, fmt.Errorf("find the owners of servers: %w", err)
	}
	return users, nil
}

// ReadSettings reads rows of SkyPANEL's settings; a missing one is absent.
func ReadSettings(ctx context.Context, idb bun.IDB, keys ...string) (map[string]string, error) {
	type pair struct{ key, value string }
	scan := func(rows *sql.Rows) (pair, error) {
		var p pair
		err := rows.Scan(&p.key, &p.value)
		return p, err
	}
	pairs, err := queryAll(ctx, idb, scan, `SELECT key, value FROM public.settings WHERE key = ANY ($1::text[])`, keys)
	if err != nil {
		return nil, fmt.Errorf("read SkyPANEL's settings: %w", err)
	}
	values := make(map[string]string, len(pairs))
	for _, p := range pairs {
		values[p.key] = p.value
	}
	return values, nil
}
