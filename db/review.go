package db

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/uptrace/bun"
)

// reviewStride is how many servers of the inventory one statement looks at.
const reviewStride = 100_000

// ServersToReview returns servers above after, in order, whose billing may not
// be what it would be if they were decided again, and up to where it has looked;
// last is 0 at the end. It joins what decisions rest on and leaves out the
// servers for which nothing can have changed:
//
//   - billed by one row alone, which is switched on and names the server's id,
//     UUID and user;
//   - whose owner is that user by users.virtfusion_id, alone, and VirtFusion's
//     extRelationId does not say otherwise;
//   - about which nobody has a question or a wish;
//   - and whose row is SkyPANEL's own; or is ours, as we left it, has the price
//     of today, and its user is active and pays by the hour.
//
// Servers that are gone are reviewed while a row bills them, or when one came
// later than the row that counts: SkyPANEL's own may come after the end, and has
// doubled ours even where it is off by now. Whoever waits for approval is left
// alone.
func ServersToReview(ctx context.Context, idb bun.IDB, after int64) (ids []int64, last int64, err error) {
	policy, err := ReadPolicy(ctx, idb)
	if err != nil {
		return nil, 0, err
	}
	type row struct {
		id     int64
		review bool
	}
	rows, err := queryAll(ctx, idb, func(rows *sql.Rows) (row, error) {
		var r row
		err := rows.Scan(&r.id, &r.review)
		return r, err
	}, `
		WITH stride AS MATERIALIZED (
			SELECT virtfusion_id, uuid, owner_id, owner_ext_relation_id, user_id, package_id, self_service,
				status, billing, billing_id, ask, awaiting_run
			FROM serversync.servers WHERE virtfusion_id > $1 ORDER BY virtfusion_id LIMIT $2),
		looked AS (
			SELECT s.virtfusion_id, CASE
				WHEN s.awaiting_run <> '' THEN false
				WHEN s.status = 'gone' THEN EXISTS (
					SELECT FROM public.virtfusion_hourly_billing g
					WHERE g.virtfusion_server_id = s.virtfusion_id AND (g.billing_enabled OR g.id > coalesce(s.billing_id, 0)))
				ELSE NOT coalesce(
					s.billing = 'on' AND s.ask = '' AND s.uuid NOT IN ('', 'DELETED_SERVER')
					AND b.virtfusion_server_id = s.virtfusion_id AND b.server_uuid = s.uuid AND b.user_id = s.user_id AND b.billing_enabled
					AND u.virtfusion_id = s.owner_id AND coalesce(s.owner_ext_relation_id, u.id) = u.id
					AND (s.status = 'native' AND r.billing_id IS NULL
						OR s.status = 'external' AND s.self_service = 0 AND $3 AND u.is_active
							AND r.made_by = 'serversync' AND r.enabled AND r.closed_reason IS NULL
							AND b.package_id = s.package_id AND b.package_name = p.name AND b.hours_in_month = $4
							AND b.monthly_price = p.price / 100.0 AND b.hourly_rate = round(p.price / 100.0 / $4::numeric, 6))
					AND NOT EXISTS (SELECT FROM public.virtfusion_hourly_billing o
						WHERE o.virtfusion_server_id = s.virtfusion_id AND o.id <> b.id)
					AND NOT EXISTS (SELECT FROM public.virtfusion_hourly_billing o WHERE o.server_uuid = s.uuid AND o.id <> b.id)
					AND NOT EXISTS (SELECT FROM public.users o WHERE o.virtfusion_id = s.owner_id AND o.id <> u.id)
					AND NOT EXISTS (SELECT FROM serversync.overrides o WHERE o.virtfusion_id = s.virtfusion_id), false)
				END AS review
			FROM stride s
			LEFT JOIN public.virtfusion_hourly_billing b ON b.id = s.billing_id
			LEFT JOIN serversync.billing_rows r ON r.billing_id = s.billing_id
			LEFT JOIN public.users u ON u.id = s.user_id
			LEFT JOIN public.package_pricing p ON p.virtfusion_package_id = s.package_id)
		SELECT virtfusion_id, bool_or(review) FROM looked
		WHERE review OR virtfusion_id = (SELECT max(virtfusion_id) FROM stride)
		GROUP BY virtfusion_id ORDER BY virtfusion_id`, after, reviewStride, policy.HourlyMode, policy.HoursPerMonth)
	if err != nil {
		return nil, 0, fmt.Errorf("look for servers to review: %w", err)
	}
	for _, r := range rows {
		last = r.id
		if r.review {
			ids = append(ids, r.id)
		}
	}
	return ids, last, nil
}
