package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"serversync/db"
)

// examineDatabase looks at PostgreSQL, at what we may do there, and at what the
// books say of our work.
func (p *patient) examineDatabase(ctx context.Context) []finding {
	var serverVersion string
	before := time.Now()
	if err := p.db.NewRaw(`SHOW server_version`).Scan(ctx, &serverVersion); err != nil {
		return []finding{ill("database", err.Error(), db.Remedy(err))}
	}
	findings := []finding{fine("database", "PostgreSQL "+serverVersion+" answers")}
	state, err := db.ReadServerState(ctx, p.db)
	if err != nil {
		findings = append(findings, ill("database state", err.Error(), db.Remedy(err)))
	} else {
		findings = append(findings, examineServer(&state, before, time.Now())...)
	}
	if f := p.examineColumns(ctx); !f.OK {
		findings = append(findings, f)
	}
	privileges, granted := p.examinePrivileges(ctx)
	schema, whole := p.examineSchema(ctx)
	findings = append(findings, privileges, schema)
	if !granted || !whole {
		return findings // the rest could not be read
	}
	findings = append(findings, p.examineSweeps(ctx), p.examineBooksPass(ctx), p.examineApprovals(ctx), p.examineWebhooks(ctx), p.examineJob(ctx))
	return append(findings, p.examineCharges(ctx)...)
}

// Bounds of what PostgreSQL says of itself.
const (
	// skewAllowed is by how much a clock may be off: beyond, an order of
	// observations may come out wrong.
	skewAllowed = 5 * time.Second
	// poolSize is how many connections each of our processes may take.
	poolSize = 10
	// PostgreSQL freezes from 200 million transactions on, by default, and
	// refuses to write at 2,000 million.
	oldTransactions, ancientTransactions = 500_000_000, 1_500_000_000
)

// examineServer looks at what PostgreSQL says of itself, between two moments of
// ours.
func examineServer(s *db.ServerState, before, after time.Time) []finding {
	var findings []finding
	for _, setting := range []struct{ name, loss string }{
		{"fsync", "a power cut can destroy the whole database"},
		{"full_page_writes", "a power cut can leave pages half written"},
		{"synchronous_commit", "a power cut can take back what was committed, and its events are acknowledged"},
	} {
		if s.Settings[setting.name] == "off" {
			findings = append(findings, ill("database "+setting.name, "it is off: "+setting.loss,
				"as a superuser: ALTER SYSTEM SET "+setting.name+" = on; SELECT pg_reload_conf();"))
		}
	}
	if len(findings) == 0 {
		findings = append(findings, fine("database durability", "fsync, full_page_writes and synchronous_commit are on"))
	}
	switch {
	case s.Standby:
		findings = append(findings, ill("database writes", "it is a standby and takes no writes", "let DATABASE_URL name the primary (target_session_attrs=read-write)"))
	case s.ReadOnly:
		findings = append(findings, ill("database writes", "it is read-only for our role (default_transaction_read_only)",
			"find who set it, and why (a failover, a full disk): SELECT sourcefile, setting FROM pg_settings WHERE name = 'default_transaction_read_only'; then as a superuser: ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf();"))
	}
	most, _ := strconv.ParseInt(s.Settings["max_connections"], 10, 64)
	reserved, _ := strconv.ParseInt(s.Settings["superuser_reserved_connections"], 10, 64)
	detail := fmt.Sprintf("%d of %d connections are in use, each process of ours takes up to %d", s.Connections, most, poolSize)
	if most-reserved-s.Connections < poolSize {
		findings = append(findings, worth("database connections", detail, fmt.Sprintf("as a superuser: ALTER SYSTEM SET max_connections = %d; then restart PostgreSQL", 2*most)))
	} else {
		findings = append(findings, fine("database connections", detail))
	}
	detail = fmt.Sprintf("the oldest row was frozen %d million transactions ago", s.TransactionAge/1_000_000)
	const freeze = "find out what holds autovacuum up (SELECT pid, backend_xmin, state, query FROM pg_stat_activity WHERE backend_xmin IS NOT NULL ORDER BY age(backend_xmin) DESC; prepared transactions; replication slots), then VACUUM FREEZE"
	switch {
	case s.TransactionAge > ancientTransactions:
		findings = append(findings, ill("transaction ids", detail+": PostgreSQL will refuse to write before long", freeze))
	case s.TransactionAge > oldTransactions:
		findings = append(findings, worth("transaction ids", detail, freeze))
	default:
		findings = append(findings, fine("transaction ids", detail))
	}
	return append(findings, examineClock("clock of PostgreSQL", s.Now, before, after))
}

// examineClock compares a clock that was read between two moments of ours.
func examineClock(check string, read, before, after time.Time) finding {
	skew := time.Duration(0)
	switch {
	case read.Before(before):
		skew = read.Sub(before)
	case read.After(after):
		skew = read.Sub(after)
	}
	if skew.Abs() > skewAllowed {
		return ill(check, fmt.Sprintf("it is %s apart from ours", skew.Abs().Round(time.Second)), "set both machines' clocks by NTP: timedatectl set-ntp true")
	}
	return fine(check, "in step with ours")
}

// examinePrivileges looks for what our role may not do and has to.
func (p *patient) examinePrivileges(ctx context.Context) (f finding, granted bool) {
	lacks, err := db.MissingPrivileges(ctx, p.db)
	if err != nil {
		return ill("privileges", err.Error(), db.Remedy(err)), false
	}
	if len(lacks) == 0 {
		return fine("privileges", "all that are needed are granted"), true
	}
	var what, statements []string
	for _, l := range lacks {
		what, statements = append(what, l.What), append(statements, l.Statement)
	}
	return ill("privileges", "not granted: "+strings.Join(what, "; "), "as the tables' owner: "+strings.Join(statements, " ")+" -- deploy/grants.sql has all, with reasons"), false
}

// examineColumns looks whether SkyPANEL's tables are those that we know. It needs
// no privilege.
func (p *patient) examineColumns(ctx context.Context) finding {
	const check = "SkyPANEL's tables"
	strange, err := db.StrangeColumns(ctx, p.db)
	switch {
	case err != nil:
		return ill(check, err.Error(), db.Remedy(err))
	case len(strange) > 0:
		return ill(check, "not as serversync knows them, and nothing gets into the books: "+strings.Join(strange, ", "),
			"find out what changed them (SkyPANEL's schema tool, an upgrade of SkyPANEL, a hand), and change them back, or install the version of serversync for this SkyPANEL")
	}
	return fine(check, "as they are known")
}

// examineSchema looks what migrations there are to do.
func (p *patient) examineSchema(ctx context.Context) (f finding, whole bool) {
	report, err := db.Migrate(ctx, p.db, db.MigrateOptions{DryRun: true})
	pg, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case err != nil && refused && pg.Code == "42501":
		return ill("schema", "it cannot be looked at without the privileges that are missing: "+err.Error(), "grant the privileges above first"), false
	case errors.Is(err, db.ErrNotSkyPANEL):
		return ill("schema", err.Error(), "DATABASE_URL must be SkyPANEL's own database"), false
	case err != nil:
		return ill("schema", err.Error(), db.Remedy(err)), false
	case report.Empty():
		return fine("schema", "up to date"), true
	}
	return ill("schema", "missing: "+strings.Join(append(append(report.Migrations, report.Columns...), report.Indexes...), ", "),
		"run serversync migrate as a role that owns the schema serversync and may act as the owner of SkyPANEL's tables (deploy/grants.sql), or paste what serversync migrate --dry-run prints"), false
}

// examineSweeps says when all servers were last compared with VirtFusion, and
// whether that was whole.
func (p *patient) examineSweeps(ctx context.Context) finding {
	const check, look = "last sweep", "look at it with `serversync status`"
	last, err := db.LastSweep(ctx, p.db, time.Now())
	switch {
	case err != nil:
		return ill(check, err.Error(), look)
	case last == nil && p.config.sweepInterval == 0:
		return worth(check, "none yet, and SWEEP_INTERVAL is 0", "run `serversync sweep`, or set SWEEP_INTERVAL")
	case last == nil:
		return fine(check, "none yet: serve sweeps by itself")
	}
	detail := fmt.Sprintf("%s, begun at %s", last.State, last.StartedAt.UTC().Format(time.RFC3339))
	if last.Note != "" {
		detail += ": " + last.Note
	}
	switch last.State {
	case db.RunNeedsApproval:
		return ill(check, detail, look+", then `serversync sweep --approve "+last.ID+"`")
	case db.RunSucceeded, db.RunRunning:
	default:
		return ill(check, detail, look)
	}
	if late := 3 * p.config.sweepInterval; late > 0 && time.Since(last.StartedAt) > late+time.Hour {
		return ill(check, detail+"; it should be every "+p.config.sweepInterval.String(), "see that a process with the role sweep runs: serversync serve --roles=sweep")
	}
	return fine(check, detail)
}

// booksPassLate is when the look at young servers, which is made each minute, is
// late.
const booksPassLate = 10 * time.Minute

// examineBooksPass says when the books were last compared with SkyPANEL's side.
func (p *patient) examineBooksPass(ctx context.Context) finding {
	const check, remedy = "books pass", "see that a process with the role reconcile runs (serversync serve --roles=reconcile), and what its log says"
	passes, err := db.Passes(ctx, p.db)
	if err != nil {
		return ill(check, err.Error(), remedy)
	}
	for i := range passes {
		pass := &passes[i]
		if pass.Name != "young" {
			continue
		}
		detail := fmt.Sprintf("begun %s, %d servers decided again, %d changed", ago(pass.StartedAt, time.Now()), pass.Servers, pass.Changed)
		switch {
		case time.Since(pass.StartedAt) > booksPassLate:
			return ill(check, detail+"; it should be each minute", remedy)
		case pass.FinishedAt == nil:
			return fine(check, "begun "+ago(pass.StartedAt, time.Now())+", not finished yet")
		}
		return fine(check, detail)
	}
	return worth(check, "none yet", remedy)
}

// approvalLate is how long a run may wait for a person.
const approvalLate = 24 * time.Hour

// examineApprovals says what waits for a person.
func (p *patient) examineApprovals(ctx context.Context) finding {
	const check = "approvals"
	id, since, waiting, err := db.OldestApproval(ctx, p.db)
	if err != nil {
		return ill(check, err.Error(), db.Remedy(err))
	}
	if since == nil {
		return fine(check, "nothing waits for a person")
	}
	detail := fmt.Sprintf("%d runs wait, the oldest since %s: its servers' billing does not change meanwhile", waiting, ago(*since, time.Now()))
	remedy := "look at it in GET /admin, then `serversync sweep --approve " + id + "`"
	if time.Since(*since) > approvalLate {
		return ill(check, detail, remedy)
	}
	return worth(check, detail, remedy)
}

// webhooksLate is how long a fleet is unlikely to be silent.
const webhooksLate = 7 * 24 * time.Hour

// examineWebhooks says when VirtFusion was last heard.
func (p *patient) examineWebhooks(ctx context.Context) finding {
	const check = "webhooks"
	const remedy = "in VirtFusion, add a webhook for all server events to https://<this host>/webhooks/virtfusion with one of WEBHOOK_TOKENS, and look at serversync_webhook_deliveries_total for refusals"
	last, servers, err := db.LastWebhook(ctx, p.db)
	switch {
	case err != nil:
		return ill(check, err.Error(), db.Remedy(err))
	case last == nil && servers == 0:
		return fine(check, "none has told of a server yet")
	case last == nil:
		return worth(check, fmt.Sprintf("%d servers are known, and no webhook ever told of one: they were found by sweeps", servers), remedy)
	case time.Since(*last) > webhooksLate:
		return worth(check, "the last one came "+ago(*last, time.Now()), remedy)
	}
	return fine(check, "the last one came "+ago(*last, time.Now()))
}

// examineJob says whether SkyPANEL charges anybody.
func (p *patient) examineJob(ctx context.Context) finding {
	const check = "SkyPANEL's billing"
	const remedy = "switch the billing job on in SkyPANEL's settings; rows that were due meanwhile are charged for the whole gap at once, so look at `serversync explain` of some servers first"
	enabled, hourly, known, err := db.ReadJobSwitch(ctx, p.db)
	switch {
	case err != nil:
		return ill(check, err.Error(), db.Remedy(err))
	case !known:
		return worth(check, "its job has no settings (virtfusion_cron_settings is empty): nobody is charged", remedy)
	case !enabled:
		return ill(check, "its job is switched off (virtfusion_cron_settings.enabled): nobody is charged", remedy)
	case !hourly:
		return ill(check, "its hourly part is switched off (virtfusion_cron_settings.hourly_billing_enabled): no server is charged by the hour", remedy)
	}
	return fine(check, "its job is switched on")
}

// examineCharges says which first charges wait for a person, and whether any
// could be entered in SkyPANEL's ledger, where there are some. Without any there
// is nothing to say.
func (p *patient) examineCharges(ctx context.Context) []finding {
	const check = "first charges"
	open, err := db.CountOpenCharges(ctx, p.db)
	if err != nil {
		return []finding{ill(check, err.Error(), "run serversync migrate: the outbox of first charges cannot be read")}
	}
	obstacles, err := db.LedgerObstacles(ctx, p.db)
	switch {
	case err != nil:
		return []finding{ill(check, err.Error(), "run serversync migrate: the outbox of first charges cannot be read")}
	case open[db.ChargeUnclear] > 0:
		return []finding{ill(check, fmt.Sprintf("of %d nobody knows whether their credit was taken", open[db.ChargeUnclear]),
			"GET /api/admin/charges?state=unclear lists them, each with what to look for in VirtFusion; then POST /api/admin/charges/{id}/resolve")}
	case open[db.ChargeDue] > 0 && len(obstacles) > 0:
		return []finding{ill(check, fmt.Sprintf("%d wait, and could not be entered in SkyPANEL's ledger", open[db.ChargeDue]), db.LedgerRemedy(obstacles))}
	case open[db.ChargeDue]+open[db.ChargeTaking] > 0:
		return []finding{fine(check, fmt.Sprintf("%d wait to be taken, %d are being taken", open[db.ChargeDue], open[db.ChargeTaking]))}
	default:
		return nil
	}
}
