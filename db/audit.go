package db

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// AuditRule names something that is wrong with SkyPANEL's billing.
type AuditRule string

// AuditSeverity says how soon somebody should look.
type AuditSeverity string

// The severities: a customer pays what he should not, or servers are not accounted for; the company earns less
// than it should, or soon will; good to know.
const (
	AuditCritical AuditSeverity = "critical"
	AuditWarning  AuditSeverity = "warning"
	AuditInfo     AuditSeverity = "info"
)

// AuditFinding is one case in which a rule is broken.
type AuditFinding struct {
	Rule     AuditRule
	Severity AuditSeverity
	ServerID *int64 // VirtFusion's id; nil: it concerns no single server
	UserID   *int64 // SkyPANEL's users.id; nil: no single user
	// Rows are the billing rows concerned, by their ids.
	Rows []int64
	// Amount is what is at stake, in dollars; what it means is in Evidence.
	// Invalid: nobody can say.
	Amount   decimal.NullDecimal
	Evidence string // what was seen, in words
	Remedy   string // what to do
}

// AuditCount is how many findings a rule has in all.
type AuditCount struct {
	Rule     AuditRule
	Severity AuditSeverity
	Findings int64
}

// AuditFailure is a rule by which it could not be looked, and why.
type AuditFailure struct {
	Rule AuditRule
	Err  error
}

// AuditQuery says what an audit looks at.
type AuditQuery struct {
	Now time.Time
	// Charges made since then are looked at; older ones are not.
	Since time.Time
	// SuspectsSince is how far back charges are looked at of servers that
	// serversync.findings says were charged twice, or that were charged since
	// Since for a time long past. So what was found by an earlier, longer look
	// stays found while it is so. Zero: Since.
	SuspectsSince time.Time
	// BackBillHours is the most hours that SkyPANEL's next job may charge a row
	// at once, and for which a row may be paid ahead. A job that runs each minute
	// charges one.
	BackBillHours int64
	Limit         int // findings of each rule that are read; the counts are of all
	// RuleTimeout is how long a rule may take, in whole milliseconds; one that
	// takes longer fails. 0: half a minute.
	RuleTimeout time.Duration
}

// AuditReport is what an audit found.
type AuditReport struct {
	Findings []AuditFinding // in the order of the rules, of servers and of users
	// Counts are of all rules. One that failed has 0 findings.
	Counts []AuditCount
	Failed []AuditFailure
}

// ruleTimeout is the default of AuditQuery.RuleTimeout. A look that takes longer
// keeps SkyPANEL's database from its work.
const ruleTimeout = 30 * time.Second

// Audit holds SkyPANEL's billing tables against the watchdog's rules, in one
// read-only snapshot. A rule that fails does not keep the others from being
// looked at; an error means that none could be. It changes nothing.
func Audit(ctx context.Context, database *bun.DB, q AuditQuery) (AuditReport, error) {
	var report AuditReport
	snapshot := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	err := database.RunInTx(ctx, snapshot, func(ctx context.Context, tx bun.Tx) error {
		timeout := cmp.Or(q.RuleTimeout, ruleTimeout)
		if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = `+strconv.FormatInt(timeout.Milliseconds(), 10)); err != nil {
			return err
		}
		settings, err := readAuditSettings(ctx, tx)
		if err != nil {
			return err
		}
		for i := range auditRules {
			if err := report.look(ctx, tx, &auditRules[i], &q, settings); err != nil {
				return err
			}
		}
		if len(report.Failed) == len(auditRules) {
			return report.Failed[0].Err
		}
		return nil
	})
	return report, wrap(err, "audit the billing tables")
}

// look adds what a rule finds, or why it finds nothing. An error ends the audit.
func (a *AuditReport) look(ctx context.Context, tx bun.Tx, r *auditRule, q *AuditQuery, s auditSettings) error {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT rule`); err != nil {
		return err
	}
	some, all, err := r.find(ctx, tx, q, s)
	undo := `RELEASE SAVEPOINT rule`
	if err != nil {
		err = fmt.Errorf("look by the rule %s: %w", r.name, err)
		undo, some, all = `ROLLBACK TO SAVEPOINT rule`, nil, 0
		a.Failed = append(a.Failed, AuditFailure{Rule: r.name, Err: err})
	}
	if _, lost := tx.ExecContext(ctx, undo); lost != nil {
		return cmp.Or(err, lost) // the database is away, or the time is up
	}
	a.Findings = append(a.Findings, some...)
	a.Counts = append(a.Counts, AuditCount{Rule: r.name, Severity: r.severity, Findings: all})
	return nil
}

// auditSettings are those of SkyPANEL's that rules depend on.
type auditSettings struct {
	hours  int64 // in a month
	hourly bool  // the hourly job bills: in monthly mode it bills nothing
	off    bool  // the job is switched off; no settings: it is not
}

func readAuditSettings(ctx context.Context, tx bun.Tx) (auditSettings, error) {
	policy, err := ReadPolicy(ctx, tx)
	if err != nil {
		return auditSettings{}, err
	}
	s := auditSettings{hours: policy.HoursPerMonth, hourly: policy.HourlyMode}
	err = tx.NewRaw(`SELECT coalesce((
			SELECT enabled IS FALSE OR hourly_billing_enabled IS FALSE FROM public.virtfusion_cron_settings ORDER BY id DESC LIMIT 1), false)`).Scan(ctx, &s.off)
	return s, wrap(err, "read whether SkyPANEL's billing job is on")
}

// auditRule is a query that returns a row for each case: server, customer, billing
// rows, amount, evidence. It may use given (now, since, suspects_since,
// back_bill_hours, job_hourly, job_off) and priced: SkyPANEL's billing rows with the hours that they
// are divided by and the tokens (cents) that an hour costs, but for those with which
// nothing can be reckoned (AuditOdd tells of them).
type auditRule struct {
	name     AuditRule
	severity AuditSeverity
	query    string
	// remedy says what to do; %[1]d is the server.
	remedy string
}

// auditFrame stands around each rule's query. SkyPANEL's job divides the row's own
// price by its own hours and rounds to whole tokens; its timestamps are UTC without
// a zone.
const auditFrame = `
	WITH given AS (
		SELECT $1::timestamp AS now, $2::timestamp AS since, $6::timestamp AS suspects_since, $3::bigint AS back_bill_hours, $7::bool AS job_hourly, $8::bool AS job_off),
	priced AS NOT MATERIALIZED (
		SELECT b.*, h.hours, round(b.monthly_price * 100 / h.hours) AS tokens
		FROM public.virtfusion_hourly_billing b
		CROSS JOIN LATERAL (SELECT CASE WHEN b.hours_in_month > 0 THEN b.hours_in_month ELSE $4::int END AS hours) h
		WHERE NOT (` + oddRow + `))
	SELECT f.server::bigint, f.customer::bigint, to_json(f.billing), f.amount, f.evidence, count(*) OVER ()
	FROM (%s) AS f (server, customer, billing, amount, evidence)
	ORDER BY f.server, f.customer, f.billing LIMIT $5`

func (r *auditRule) find(ctx context.Context, tx bun.Tx, q *AuditQuery, s auditSettings) (found []AuditFinding, all int64, err error) {
	suspects := q.SuspectsSince
	if suspects.IsZero() {
		suspects = q.Since
	}
	found, err = queryAll(ctx, tx, func(rows *sql.Rows) (AuditFinding, error) {
		f := AuditFinding{Rule: r.name, Severity: r.severity}
		var billing []byte
		if err := rows.Scan(&f.ServerID, &f.UserID, &billing, &f.Amount, &f.Evidence, &all); err != nil {
			return f, err
		}
		f.Remedy = r.remedy
		if f.ServerID != nil && strings.Contains(r.remedy, "%") {
			f.Remedy = fmt.Sprintf(r.remedy, *f.ServerID)
		}
		return f, json.Unmarshal(billing, &f.Rows)
	}, fmt.Sprintf(auditFrame, r.query), q.Now.UTC(), q.Since.UTC(), q.BackBillHours, s.hours, q.Limit, suspects.UTC(), s.hourly, s.off)
	return found, all, err
}

// KeepFindings writes down what an audit has found, whole: what was there before
// and is not among them is cleared, but for findings of the rules that failed. It
// returns those that are new, or back. More than one process at a time waits for
// the other.
func KeepFindings(ctx context.Context, database *bun.DB, report AuditReport, at time.Time) (news []AuditFinding, err error) {
	findings := report.Findings
	failed := make([]string, len(report.Failed))
	for i, f := range report.Failed {
		failed[i] = string(f.Rule)
	}
	type key struct {
		rule         AuditRule
		server, user int64
	}
	keyOf := func(f *AuditFinding) key { return key{f.Rule, orZero(f.ServerID), orZero(f.UserID)} }
	byKey := make(map[key]*AuditFinding, len(findings))
	var rules, severities, evidence []string
	var servers, users []int64
	var amounts []*string
	for i := range findings {
		f := &findings[i]
		k := keyOf(f)
		if byKey[k] != nil {
			continue // several rows of one server and customer break the rule alike
		}
		byKey[k] = f
		rules, severities, evidence = append(rules, string(f.Rule)), append(severities, string(f.Severity)), append(evidence, f.Evidence)
		servers, users = append(servers, k.server), append(users, k.user)
		var amount *string
		if f.Amount.Valid {
			amount = new(f.Amount.Decimal.String())
		}
		amounts = append(amounts, amount)
	}
	err = database.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.ExecContext(ctx, `LOCK TABLE serversync.findings IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		fresh, err := queryAll(ctx, tx, func(rows *sql.Rows) (key, error) {
			var k key
			err := rows.Scan(&k.rule, &k.server, &k.user)
			return k, err
		}, `
			WITH seen AS (
				SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::numeric[])
					AS v (rule, server_id, user_id, severity, evidence, amount)),
			fresh AS ( -- before anything is written
				SELECT v.rule, v.server_id, v.user_id FROM seen v
				WHERE NOT EXISTS (SELECT FROM serversync.findings f WHERE (f.rule, f.server_id, f.user_id) = (v.rule, v.server_id, v.user_id) AND f.cleared_at IS NULL)),
			kept AS (
				INSERT INTO serversync.findings AS f (rule, server_id, user_id, severity, evidence, amount, first_seen_at, last_seen_at)
				SELECT rule, server_id, user_id, severity, evidence, amount, $7, $7 FROM seen
				ON CONFLICT (rule, server_id, user_id) DO UPDATE SET severity = excluded.severity, evidence = excluded.evidence, amount = excluded.amount,
					first_seen_at = CASE WHEN f.cleared_at IS NULL THEN f.first_seen_at ELSE excluded.first_seen_at END,
					last_seen_at = excluded.last_seen_at, cleared_at = NULL)
			SELECT rule, server_id, user_id FROM fresh`, rules, servers, users, severities, evidence, amounts, at)
		if err != nil {
			return err
		}
		news = make([]AuditFinding, 0, len(fresh))
		for _, k := range fresh {
			news = append(news, *byKey[k])
		}
		_, err = nativeOf(tx).ExecContext(ctx, `
			UPDATE serversync.findings SET cleared_at = $1 WHERE cleared_at IS NULL AND last_seen_at < $1 AND rule <> ALL ($2::text[])`, at, failed)
		return err
	})
	return news, wrap(err, "write down what the audit found")
}

// OpenFindings counts the findings of each rule as they were last written down, of
// all rules.
func OpenFindings(ctx context.Context, idb bun.IDB) ([]AuditCount, error) {
	found, err := queryAll(ctx, idb, func(rows *sql.Rows) (AuditCount, error) {
		var c AuditCount
		err := rows.Scan(&c.Rule, &c.Findings)
		return c, err
	}, `SELECT rule, count(*) FROM serversync.findings WHERE cleared_at IS NULL GROUP BY 1`)
	if err != nil {
		return nil, fmt.Errorf("count what the audit found: %w", err)
	}
	counts := AuditRules()
	for i := range counts {
		for _, c := range found {
			if c.Rule == counts[i].Rule {
				counts[i].Findings = c.Findings
			}
		}
	}
	return counts, nil
}

func orZero(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
