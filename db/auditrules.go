package db

import (
	"fmt"
)

// The rules, in the order in which they are reported: what makes all others
// doubtful first, then customers who pay too much.
const (
	AuditCoverageGap   AuditRule = "coverage_gap"         // VirtFusion counts other servers than are known
	AuditProofMismatch AuditRule = "proof_mismatch"       // a full proof found what stays different
	AuditTwoRows       AuditRule = "two_rows_enabled"     // several rows that are on bill one server
	AuditChargedTwice  AuditRule = "period_charged_twice" // a time was charged more than once
	AuditGone          AuditRule = "gone_server_billed"   // a row is on for a server that is gone
	AuditWrongOwner    AuditRule = "wrong_owner_billed"   // a row bills somebody else than the server's owner
	AuditBackBill      AuditRule = "back_bill_ahead"      // the next job charges many hours at once
	AuditProofOverdue  AuditRule = "proof_overdue"        // no full proof was complete for long
	AuditDisputed      AuditRule = "owner_disputed"       // a row bills somebody else than VirtFusion's owner, and evidence disagrees
	AuditUnknown       AuditRule = "unknown_server"       // a row is on for a server that VirtFusion does not list
	AuditSwitchedOff   AuditRule = "switched_off"         // SkyPANEL switched a row off whose server lives on
	AuditSoldWithout   AuditRule = "sold_without_row"     // SkyPANEL sold a server and has no row for it
	AuditNoStart       AuditRule = "no_start"             // a row is on that says neither when it was billed nor when it began
	AuditNoPrice       AuditRule = "no_price"             // a row is on whose package SkyPANEL's job does not know
	AuditNoPayer       AuditRule = "inactive_owner"       // a row is on whose customer is switched off, or missing
	AuditChargesFail   AuditRule = "charges_failing"      // charges of a row fail again and again
	AuditJobOff        AuditRule = "billing_job_off"      // SkyPANEL's billing job is switched off
	AuditOdd           AuditRule = "odd_values"           // a row or a charge whose values cannot be right
	AuditCostsNothing  AuditRule = "rounds_to_nothing"    // a row's price is less than half a token an hour
	AuditPriceDrifted  AuditRule = "price_drift"          // a row's price is not its package's of today
	AuditHoursDrifted  AuditRule = "hours_drift"          // a row's hours in a month are not SkyPANEL's of today
)

const (
	// failuresInARow is from how many failed charges on it is no accident.
	failuresInARow = 3
	// overlapForgiven of two periods: clocks differ, and a job takes its time.
	overlapForgiven = "1 minute"

	// chargedLate: a charge that is made so long after its time began may be for
	// a time whose other charge is older than what is looked at.
	chargedLate = "12 hours"
	// chargeThatCosts: numbers of PostgreSQL's are below its NaN.
	chargeThatCosts = `status = 'completed' AND amount_charged > 0 AND amount_charged < 'NaN'`

	// proofOverdue is how long ago the last complete proof may be: they come once a
	// week, and are tried again for two days.
	proofOverdue = "9 days"

	// How evidence is written.
	dollarsInWords = `'FM9999999990.00'`
	momentInWords  = `'YYYY-MM-DD HH24:MI "UTC"'`

	inventoryOfTheRow = `JOIN serversync.servers s ON s.virtfusion_id = b.virtfusion_server_id`
	// Of a billing row: no date, or no number. Each of them makes reckoning fail.
	oddRow = `b.monthly_price = 'NaN' OR NOT coalesce(isfinite(b.last_billed_at), true) OR NOT coalesce(isfinite(b.server_created_at), true)`

	showAndCleanUp = "look at it with `serversync explain %[1]d`; `serversync cleanup --dry-run` says which row has to go, `serversync cleanup` ends it. Refund what was charged"
)

// auditRules are all rules. Whoever adds one adds it to docs/watchdog.md and to
// the alert rules; a test compares them.
var auditRules = []auditRule{
	{
		AuditCoverageGap, AuditCritical, `
		-- As it was written down after the last complete sweep, see CountAtLastSweep.
		SELECT NULL::int, NULL::int, '{}'::int[], NULL::numeric,
			format('VirtFusion counted %s servers in the sweep that ended on %s, and %s are known to have been there: %s', virtfusion_total,
				to_char(sweep_at AT TIME ZONE 'UTC', ` + momentInWords + `),
				CASE known_least WHEN known_most THEN known_most::text ELSE known_least || ' to ' || known_most END,
				CASE WHEN virtfusion_total > known_most THEN virtfusion_total - known_most || ' are missing here' ELSE known_least - virtfusion_total || ' are too many here' END)
		FROM (SELECT * FROM serversync.coverage_days WHERE sweep_run IS NOT NULL ORDER BY day DESC LIMIT 1) d
		WHERE ` + mismatched,
		"start a sweep with `serversync sweep`; if it stays so, compare VirtFusion's list with GET /api/admin/servers.csv and ask for what differs: POST /api/admin/servers/bulk with the action resync",
	},
	{
		AuditProofMismatch, AuditCritical, `
		-- Of the newest proof that was complete, and of newer ones that were not. The
		-- server of a total is 0. Of more mismatches than a proof keeps the others are none.
		SELECT nullif(server, 0), min(customer), '{}'::int[], NULL::numeric,
			format('the full proof of %s found: %s', to_char(max(ended_at) AT TIME ZONE 'UTC', ` + momentInWords + `), string_agg(DISTINCT what, '; '))
		FROM (
			SELECT p.ended_at, (d->>'serverId')::bigint AS server, (d->>'userId')::bigint AS customer,
				format('%s is %s here and %s %s', d->>'field', d->>'ours', d->>'theirs', CASE WHEN d->>'field' IN ('billing', 'billed_user') THEN 'in SkyPANEL' ELSE 'in VirtFusion' END) AS what
			FROM serversync.proofs p CROSS JOIN jsonb_array_elements(p.details) d
			WHERE p.mismatches > 0 AND p.state <> 'running'
				AND NOT EXISTS (SELECT FROM serversync.proofs n WHERE n.state = 'complete' AND n.started_at > p.started_at)) AS found
		GROUP BY server`,
		"look at the proof in the control room or at GET /api/admin/proofs, and at the server with `serversync explain`; mend the cause, then prove again with POST /api/admin/proofs: a complete proof that finds nothing ends this",
	},
	{
		AuditTwoRows, AuditCritical, `
		-- By VirtFusion's id, or, where rows disagree about that, by UUID. What the
		-- cheaper ones cost a month is too much.
		SELECT min(virtfusion_server_id), min(user_id), array_agg(id ORDER BY id), (sum(tokens * hours) - max(tokens * hours)) / 100,
			format('%s billing rows are on for one server: %s. Together they cost $%s a month, one alone $%s', count(*),
				string_agg(format('%s (user %s, since %s)', id, user_id, to_char(created_at, ` + momentInWords + `)), ', ' ORDER BY id),
				to_char(sum(tokens * hours) / 100, ` + dollarsInWords + `), to_char(max(tokens * hours) / 100, ` + dollarsInWords + `))
		FROM (
			SELECT unnest(array_agg(id)) AS id, virtfusion_server_id::text AS same
			FROM priced WHERE billing_enabled AND virtfusion_server_id > 0 GROUP BY virtfusion_server_id HAVING count(*) > 1
			UNION ALL
			SELECT unnest(array_agg(id)), lower(server_uuid) COLLATE "C"
			FROM priced WHERE billing_enabled AND server_uuid NOT IN ('', '` + DeletedServerUUID + `')
			GROUP BY 2 HAVING min(virtfusion_server_id) <> max(virtfusion_server_id)) AS several
		JOIN priced USING (id) GROUP BY same`,
		showAndCleanUp,
	},
	{
		AuditChargedTwice, AuditCritical, `
		-- A charge that begins before the end of one that began earlier, whichever row
		-- it belongs to: by VirtFusion's id, and, where rows disagree about that, by
		-- UUID. Voided charges cost nothing, nor do our pending ones, nor those of $0.
		-- A charge is compared to those that were made since the same time; where an
		-- older one may be concerned (suspects), to those since suspects_since.
		-- Arrays, where a join would do, keep the planner from expecting billions.
		WITH shared AS MATERIALIZED ( -- rows of one UUID and several ids
			SELECT id, lower(server_uuid) COLLATE "C" AS uuid FROM public.virtfusion_hourly_billing
			WHERE server_uuid NOT IN ('', '` + DeletedServerUUID + `') AND lower(server_uuid) COLLATE "C" = ANY (ARRAY(
				SELECT lower(server_uuid) COLLATE "C" FROM public.virtfusion_hourly_billing
				WHERE server_uuid NOT IN ('', '` + DeletedServerUUID + `') GROUP BY 1 HAVING min(virtfusion_server_id) <> max(virtfusion_server_id)))),
		marked AS MATERIALIZED (
			SELECT id, virtfusion_server_id AS server FROM public.virtfusion_hourly_billing
			WHERE virtfusion_server_id IN (SELECT server_id FROM serversync.findings WHERE rule = 'period_charged_twice' AND cleared_at IS NULL)
				OR id IN (
					SELECT billing_id FROM public.virtfusion_hourly_transactions
					WHERE created_at >= (SELECT since FROM given) AND billing_period_start < created_at - interval '` + chargedLate + `' AND ` + chargeThatCosts + `)),
		charges AS MATERIALIZED (
			SELECT id, billing_id, user_id, amount_charged, billing_period_start, billing_period_end
			FROM public.virtfusion_hourly_transactions
			WHERE created_at >= (SELECT since FROM given) AND ` + chargeThatCosts + `
			UNION ALL
			SELECT id, billing_id, user_id, amount_charged, billing_period_start, billing_period_end
			FROM public.virtfusion_hourly_transactions
			WHERE billing_id = ANY (ARRAY( -- suspects
					SELECT id FROM marked UNION
					SELECT id FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id > 0 AND virtfusion_server_id IN (SELECT server FROM marked) UNION
					SELECT id FROM shared WHERE uuid IN (SELECT uuid FROM shared JOIN marked USING (id))))
				AND created_at < (SELECT since FROM given) AND billing_period_end >= (SELECT suspects_since FROM given) AND ` + chargeThatCosts + `),
		paid AS (
			SELECT t.*, max(t.billing_period_end) OVER (
				PARTITION BY CASE WHEN b.virtfusion_server_id > 0 THEN b.virtfusion_server_id ELSE -b.id END
				ORDER BY t.billing_period_start, t.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS paid_until
			FROM charges t JOIN public.virtfusion_hourly_billing b ON b.id = t.billing_id
			UNION ALL
			SELECT t.*, max(t.billing_period_end) OVER (
				PARTITION BY s.uuid ORDER BY t.billing_period_start, t.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
			FROM charges t JOIN shared s ON s.id = t.billing_id)
		SELECT server, user_id, array_agg(DISTINCT billing_id), sum(amount_charged),
			format('%s charges, $%s in all, are for times that were charged already: %s', count(*), to_char(sum(amount_charged), ` + dollarsInWords + `),
				string_agg(format('%s from %s', id, to_char(billing_period_start, ` + momentInWords + `)), ', ' ORDER BY id) FILTER (WHERE n <= 10))
		FROM (
			SELECT t.*, b.virtfusion_server_id AS server, row_number() OVER (PARTITION BY b.virtfusion_server_id ORDER BY t.id) AS n
			FROM (
				SELECT DISTINCT id, billing_id, user_id, amount_charged, billing_period_start FROM paid
				WHERE billing_period_start < paid_until - interval '` + overlapForgiven + `') AS t
			JOIN public.virtfusion_hourly_billing b ON b.id = t.billing_id) AS t
		GROUP BY server, user_id`,
		"refund the charges named; then see whether SkyPANEL's billing job runs more than once, and look at the server with `serversync explain %[1]d`",
	},
	{
		AuditGone, AuditCritical, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('row %s is on at $%s a month, and the server is gone since %s', b.id, to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `),
				to_char(coalesce(s.gone_at, s.observed_at) AT TIME ZONE 'UTC', ` + momentInWords + `))
		FROM priced b ` + inventoryOfTheRow + `
		WHERE b.billing_enabled AND s.status = 'gone'`,
		showAndCleanUp,
	},
	{
		AuditWrongOwner, AuditCritical, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('row %s charges user %s $%s a month for a server that belongs to user %s', b.id, b.user_id,
				to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `), s.user_id)
		FROM priced b ` + inventoryOfTheRow + `
		WHERE b.billing_enabled AND s.status IN ('external', 'native', 'settling') AND s.user_id <> b.user_id`,
		showAndCleanUp,
	},
	{
		AuditBackBill, AuditCritical, `
		-- What the job reckons: it charges in advance, from last_billed_at, or from
		-- an hour after the creation, which was paid with the order.
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * owed / 100,
			format('SkyPANEL''s next job charges row %s %s hours at once, $%s: it is billed until %s', b.id, owed,
				to_char(b.tokens * owed / 100, ` + dollarsInWords + `), to_char(due, ` + momentInWords + `))
		FROM given, priced b
		JOIN public.users u ON u.id = b.user_id AND u.is_active
		CROSS JOIN LATERAL (SELECT coalesce(b.last_billed_at, b.server_created_at + interval '1 hour') AS due) d
		CROSS JOIN LATERAL (SELECT floor(extract(epoch FROM given.now - due) / 3600) + 1 AS owed) o
		WHERE given.job_hourly AND NOT given.job_off AND b.billing_enabled AND owed > given.back_bill_hours
			AND EXISTS (SELECT FROM public.package_pricing p WHERE p.virtfusion_package_id = b.package_id)`,
		"if the customer did not have the server all that time, set the row's last_billed_at to now before SkyPANEL's job runs; `serversync explain %[1]d` shows since when the server is known",
	},
	{
		AuditProofOverdue, AuditWarning, `
		SELECT NULL::int, NULL::int, '{}'::int[], NULL::numeric,
			format('no full proof has been complete since %s: %s', to_char(s.since AT TIME ZONE 'UTC', ` + momentInWords + `),
				coalesce((SELECT 'the last one is ' || p.state || ', ' || p.note FROM serversync.proofs p ORDER BY p.started_at DESC LIMIT 1), 'there was none'))
		FROM given, (
			SELECT coalesce(
				(SELECT max(ended_at) FROM serversync.proofs WHERE state = 'complete'),
				(SELECT min(started_at) FROM serversync.runs WHERE kind = 'sweep' AND NOT dry_run)) AS since) s
		WHERE s.since < given.now AT TIME ZONE 'UTC' - interval '` + proofOverdue + `'`,
		"start one with POST /api/admin/proofs, or in the control room, and see what its problems say; proofs come once a week by themselves where SWEEP_INTERVAL is not 0 and a process has the role sweep",
	},
	{
		AuditDisputed, AuditWarning, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('row %s charges user %s $%s a month; by VirtFusion the server belongs to user %s, and evidence disagrees. %s', b.id, b.user_id,
				to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `), s.user_id, s.note)
		FROM priced b ` + inventoryOfTheRow + `
		WHERE b.billing_enabled AND s.status = 'conflict' AND s.user_id <> b.user_id`,
		"find out whose server it is: `serversync explain %[1]d` shows what disagrees. When VirtFusion and SkyPANEL agree, the conflict ends by itself; refund who was charged wrongly",
	},
	{
		AuditUnknown, AuditWarning, `
		-- Only a scan that saw everything, begun after the row was made, is a proof.
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('row %s is on at $%s a month, and VirtFusion did not list its server on %s', b.id, to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `),
				to_char(r.started_at AT TIME ZONE 'UTC', ` + momentInWords + `))
		FROM priced b
		JOIN (SELECT max(started_at) AS started_at FROM serversync.runs WHERE kind = 'sweep' AND state = 'succeeded' AND NOT dry_run) r
			ON r.started_at AT TIME ZONE 'UTC' > b.created_at
		WHERE b.billing_enabled AND NOT EXISTS (SELECT FROM serversync.servers s WHERE s.virtfusion_id = b.virtfusion_server_id)`,
		"see in VirtFusion whether server %[1]d exists; if not, switch the row's billing off in SkyPANEL and refund what was charged for nothing",
	},
	{
		AuditSwitchedOff, AuditWarning, `
		-- SkyPANEL's job reads every failure of VirtFusion's API as "not the owner". A
		-- row of a server that is billed by what we know was switched off just now.
		WITH blind AS MATERIALIZED ( -- sweeps that could not see everything
			SELECT started_at AT TIME ZONE 'UTC' AS began, coalesce(ended_at, beat_at) AT TIME ZONE 'UTC' AS ended
			FROM serversync.runs WHERE kind = 'sweep' AND state IN ('failed', 'incomplete') AND NOT dry_run)
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('SkyPANEL switched row %s off%s; the server runs on and still belongs to user %s. $%s a month are not billed%s', b.id,
				coalesce(' on ' || to_char(b.updated_at, ` + momentInWords + `), ''), b.user_id, to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `),
				CASE WHEN r.began IS NOT NULL THEN '. VirtFusion was out of reach at that time: a sweep begun on '
					|| to_char(r.began, ` + momentInWords + `) || ' could not see everything' ELSE '' END)
		FROM priced b ` + inventoryOfTheRow + `
		CROSS JOIN LATERAL (
			SELECT min(began) AS began FROM blind
			WHERE began < b.updated_at + interval '15 minutes' AND ended > b.updated_at - interval '15 minutes') r
		WHERE b.billing_enabled IS NOT TRUE AND s.billing_id = b.id AND s.user_id = b.user_id
			AND s.status IN ('external', 'native') AND (s.billing = 'on' OR s.billing_reason = 'disabled_by_skypanel')`,
		"have it billed again from now on: in the control room, or with the bulk action billing-on for server %[1]d. Do not switch the row on by hand: SkyPANEL would charge the whole gap",
	},
	{
		AuditSoldWithout, AuditWarning, `
		SELECT s.virtfusion_id, s.user_id, '{}'::int[], round(p.price::numeric / $4::int) * $4::int / 100,
			format('SkyPANEL''s traces say that it sold the server, and it has no billing row for it. %s', s.note)
		FROM serversync.servers s
		LEFT JOIN public.package_pricing p ON p.virtfusion_package_id = s.package_id
		WHERE s.status = 'native' AND s.billing = 'off' AND s.billing_reason = 'disabled_by_skypanel' AND s.billing_id IS NULL`,
		"find the order in SkyPANEL and add the row there, or have it billed from now on with the bulk action billing-on for server %[1]d",
	},
	{
		AuditNoStart, AuditWarning, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('row %s is on, and neither last_billed_at nor server_created_at is set: SkyPANEL''s job never bills it. $%s a month', b.id,
				to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `))
		FROM priced b
		WHERE b.billing_enabled AND b.last_billed_at IS NULL AND b.server_created_at IS NULL`,
		"set the row's last_billed_at to now, and SkyPANEL bills it from then on; `serversync explain %[1]d` shows since when the server is known",
	},
	{
		AuditNoPrice, AuditWarning, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], NULL::numeric,
			format('row %s is on, and package_pricing has no VirtFusion package %s: SkyPANEL''s job passes it over', b.id, b.package_id)
		FROM priced b
		WHERE b.billing_enabled AND NOT EXISTS (SELECT FROM public.package_pricing p WHERE p.virtfusion_package_id = b.package_id)`,
		"give the package a price in SkyPANEL. Mind the gap: the job then charges all hours since last_billed_at; set that to now first. `serversync explain %[1]d` shows the server",
	},
	{
		AuditNoPayer, AuditWarning, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format(CASE WHEN u.id IS NULL THEN 'row %s is on for user %s, whom SkyPANEL does not have: nobody is billed $%s a month'
				ELSE 'row %s is on, and user %s is not active: nobody is billed $%s a month, and all hours since then are charged at once when the user becomes active' END,
				b.id, b.user_id, to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `))
		FROM priced b LEFT JOIN public.users u ON u.id = b.user_id
		WHERE b.billing_enabled AND u.is_active IS NOT TRUE`,
		"if the server is not to run without being paid, stop it in VirtFusion; before the user is made active again, set the row's last_billed_at to now. `serversync explain %[1]d` shows the server",
	},
	{
		AuditChargesFail, AuditWarning, fmt.Sprintf(`
		-- Failures since the last charge that was paid; a pending charge of ours that
		-- was voided is none.
		WITH failed AS MATERIALIZED (
			SELECT id, billing_id, amount_charged, created_at FROM public.virtfusion_hourly_transactions t
			WHERE status = 'failed' AND created_at >= (SELECT since FROM given) AND amount_charged IS DISTINCT FROM 'NaN'
				AND NOT EXISTS (SELECT FROM serversync.billing_rows r WHERE r.billing_id = t.billing_id AND r.charge_id = t.id)),
		paid AS MATERIALIZED (
			SELECT billing_id, max(created_at) AS at FROM public.virtfusion_hourly_transactions
			WHERE status = 'completed' AND created_at >= (SELECT since FROM given) AND billing_id IN (SELECT billing_id FROM failed)
			GROUP BY 1)
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], sum(t.amount_charged),
			format('%%s charges of row %%s failed since %%s, $%%s in all', count(*), b.id, to_char(min(t.created_at), `+momentInWords+`),
				to_char(sum(t.amount_charged), `+dollarsInWords+`))
		FROM priced b
		JOIN failed t ON t.billing_id = b.id
		LEFT JOIN paid ON paid.billing_id = b.id
		WHERE paid.at IS NULL OR t.created_at >= paid.at
		GROUP BY b.id, b.virtfusion_server_id, b.user_id HAVING count(*) >= %d`, failuresInARow),
		"see whether the customer has credit in VirtFusion and whether SkyPANEL's token may take it; `serversync doctor` checks the API, `serversync explain %[1]d` shows the server",
	},
	{
		AuditJobOff, AuditWarning, `
		SELECT NULL::int, NULL::int, '{}'::int[], sum(b.tokens * b.hours) / 100,
			format('SkyPANEL''s billing job is switched off (virtfusion_cron_settings, row %s): %s rows are not billed, $%s a month, and when it is switched on again, it charges the whole gap at once',
				c.id, count(b.id), to_char(sum(b.tokens * b.hours) / 100, ` + dollarsInWords + `))
		FROM given
		JOIN (SELECT id FROM public.virtfusion_cron_settings ORDER BY id DESC LIMIT 1) c ON given.job_hourly AND given.job_off
		JOIN priced b ON b.billing_enabled
		GROUP BY c.id`,
		"switch it on in SkyPANEL; before that decide who is to pay for the gap: rows whose last_billed_at is set to now are billed from now on",
	},
	{
		AuditOdd, AuditWarning, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], NULL::numeric,
			format('row %s cannot be reckoned with: monthly_price %s, last_billed_at %s, server_created_at %s. No other rule looks at it', b.id, b.monthly_price,
				coalesce(b.last_billed_at::text, 'null'), coalesce(b.server_created_at::text, 'null'))
		FROM public.virtfusion_hourly_billing b WHERE ` + oddRow + `
		UNION ALL
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], NULL::numeric,
			format('%s charges of row %s cannot be reckoned with: their amount is no number. The first is %s', count(*), b.id, min(t.id))
		FROM public.virtfusion_hourly_transactions t JOIN public.virtfusion_hourly_billing b ON b.id = t.billing_id
		WHERE t.amount_charged = 'NaN' AND t.created_at >= (SELECT since FROM given) GROUP BY b.id, b.virtfusion_server_id, b.user_id
		UNION ALL
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], NULL::numeric,
			format('row %s is on at %s a month, which is less than nothing', b.id, b.monthly_price)
		FROM priced b WHERE b.billing_enabled AND b.monthly_price < 0
		UNION ALL
		-- No hour is charged so long before it begins: a first hour, or one that another owner has paid, ends within two.
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100,
			format('row %s is on and paid until %s: SkyPANEL''s job charges nothing of $%s a month before', b.id, to_char(due, ` + momentInWords + `),
				to_char(b.tokens * b.hours / 100, ` + dollarsInWords + `))
		FROM given, priced b CROSS JOIN LATERAL (SELECT coalesce(b.last_billed_at, b.server_created_at + interval '1 hour') AS due) d
		WHERE b.billing_enabled AND b.tokens > 0 AND due > given.now + given.back_bill_hours * interval '1 hour'`,
		"put the right value into SkyPANEL's table; `serversync explain %[1]d` shows what is known of the server. Where last_billed_at is unknown, now bills it from then on",
	},
	{
		AuditCostsNothing, AuditInfo, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.monthly_price,
			format('row %s says $%s a month; by %s hours that is less than half a token each, and SkyPANEL charges nothing', b.id,
				to_char(b.monthly_price, ` + dollarsInWords + `), b.hours)
		FROM priced b
		WHERE b.billing_enabled AND b.tokens = 0 AND b.monthly_price > 0`,
		"raise the package's price, or give the server away knowingly; `serversync explain %[1]d` shows it",
	},
	{
		AuditPriceDrifted, AuditInfo, `
		-- Rows of ours follow by themselves within a minute.
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], p.price / 100.0 - b.monthly_price,
			format('row %s bills $%s a month, its package %s costs $%s today', b.id, to_char(b.monthly_price, ` + dollarsInWords + `), p.name,
				to_char(p.price / 100.0, ` + dollarsInWords + `))
		FROM priced b JOIN public.package_pricing p ON p.virtfusion_package_id = b.package_id
		WHERE b.billing_enabled AND p.price / 100.0 <> b.monthly_price
			AND NOT EXISTS (SELECT FROM serversync.billing_rows r WHERE r.billing_id = b.id AND r.made_by = 'serversync')`,
		"if the customer is to pay the new price, change the row's monthly_price in SkyPANEL; serversync leaves rows alone that SkyPANEL made. `serversync explain %[1]d` shows the server",
	},
	{
		AuditHoursDrifted, AuditInfo, `
		SELECT b.virtfusion_server_id, b.user_id, ARRAY[b.id], b.tokens * b.hours / 100 - round(b.monthly_price * 100 / $4::int) * $4::int / 100,
			format('row %s divides its price by %s hours a month, SkyPANEL''s settings say %s', b.id, b.hours, $4::int)
		FROM priced b
		WHERE b.billing_enabled AND b.hours <> $4::int
			AND NOT EXISTS (SELECT FROM serversync.billing_rows r WHERE r.billing_id = b.id AND r.made_by = 'serversync')`,
		"change the row's hours_in_month in SkyPANEL if it is to be billed like the others; `serversync explain %[1]d` shows the server",
	},
}

// AuditRules returns the names of all rules, with their severities.
func AuditRules() []AuditCount {
	all := make([]AuditCount, len(auditRules))
	for i := range auditRules {
		all[i] = AuditCount{Rule: auditRules[i].name, Severity: auditRules[i].severity}
	}
	return all
}
