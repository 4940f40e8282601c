package api

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/uptrace/bun"

	"serversync/db"
)

const (
	// auditCharges is how far back an audit looks at charges: a customer's
	// present month, and what was left of the one before.
	auditCharges = 35 * 24 * time.Hour
	// backBillHours is what SkyPANEL's job may charge at once before the watchdog
	// barks: a job that was off for a morning.
	backBillHours = 6
	// maxAudit bounds the findings of each rule in one answer.
	maxAudit = 1000

	auditPass = "audit"
	// auditEvery is how often the watchdog looks by itself, auditCheck how often
	// it is seen whether that is due.
	auditEvery = time.Hour
	auditCheck = time.Minute
	// auditKept bounds the findings of each rule that are remembered.
	auditKept = 10_000
	// auditLines bounds the log.
	auditLines = 20
	// auditOverlap is how long before the end of the last look the next one's
	// charges begin: what was under way then is seen, and what failed is seen
	// failing for a day.
	auditOverlap = 24 * time.Hour
)

// Audit is what the watchdog found.
type Audit struct {
	Findings []AuditFinding `json:"findings"`
	// Rules are all rules, those without a finding too.
	Rules []AuditRule `json:"rules"`
	// Failed are the rules by which it could not be looked; they have no findings.
	Failed []AuditFailure `json:"failed"`
	// Truncated: a rule has more findings than are listed.
	Truncated bool `json:"truncated"`
}

// AuditFailure is a rule by which it could not be looked, and why.
type AuditFailure struct {
	Rule  string `json:"rule"`
	Error string `json:"error"`
}

// AuditFinding is a case in which SkyPANEL's billing is wrong.
type AuditFinding struct {
	Rule       string  `json:"rule"`
	Severity   string  `json:"severity"`
	ServerID   *int64  `json:"serverId"` // null: it concerns no single server
	UserID     *int64  `json:"userId"`   // null: no single user
	BillingIDs []int64 `json:"billingIds"`
	Amount     *string `json:"amount"` // dollars at stake; null: nobody can say
	Evidence   string  `json:"evidence"`
	Remedy     string  `json:"remedy"`
}

// AuditRule is how many findings a rule has.
type AuditRule struct {
	Rule     string `json:"rule"`
	Severity string `json:"severity"`
	Findings int64  `json:"findings"`
}

// AuditNow audits SkyPANEL's billing as it is at a time. It changes nothing.
func AuditNow(ctx context.Context, database *bun.DB, now time.Time) (Audit, error) {
	report, err := db.Audit(ctx, database, auditQuery(now, maxAudit))
	if err != nil {
		return Audit{}, err
	}
	return toAudit(report), nil
}

// auditQuery is what an audit looks at.
func auditQuery(now time.Time, limit int) db.AuditQuery {
	return db.AuditQuery{Now: now, Since: now.Add(-auditCharges), BackBillHours: backBillHours, Limit: limit}
}

// toAudit puts an audit into the form that is answered.
func toAudit(report db.AuditReport) Audit {
	a := Audit{
		Findings: make([]AuditFinding, len(report.Findings)), Rules: make([]AuditRule, len(report.Counts)),
		Failed: make([]AuditFailure, len(report.Failed)),
	}
	for i := range report.Findings {
		f := &report.Findings[i]
		a.Findings[i] = AuditFinding{
			Rule: string(f.Rule), Severity: string(f.Severity), ServerID: f.ServerID, UserID: f.UserID,
			BillingIDs: f.Rows, Evidence: f.Evidence, Remedy: f.Remedy,
		}
		if f.Amount.Valid {
			a.Findings[i].Amount = new(dollars(f.Amount.Decimal))
		}
	}
	for i, f := range report.Failed {
		a.Failed[i] = AuditFailure{Rule: string(f.Rule), Error: f.Err.Error()}
	}
	for i, c := range report.Counts {
		a.Rules[i] = AuditRule{Rule: string(c.Rule), Severity: string(c.Severity), Findings: c.Findings}
		a.Truncated = a.Truncated || c.Findings > maxAudit
	}
	return a
}

// ruleFailed is logged of a rule by which it could not be looked.
const ruleFailed = "the watchdog could not look by a rule; what it found earlier is kept"

// audit answers GET /api/admin/audit.
func (a *API) audit(c echo.Context) error {
	if _, err := readParams(c, nil); err != nil {
		return err
	}
	audit, err := AuditNow(c.Request().Context(), a.db, a.now())
	if err != nil {
		return fault(err)
	}
	for _, f := range audit.Failed {
		a.log.Warn().Str("rule", f.Rule).Str("error", f.Error).Msg(ruleFailed)
	}
	return succeed(c, audit)
}

// RunWatchdog audits SkyPANEL's billing every hour, remembers what it found and
// since when, and logs what is new, until ctx ends. Of several processes one
// does it.
func (a *API) RunWatchdog(ctx context.Context) error {
	ticker := time.NewTicker(auditCheck)
	defer ticker.Stop()
	for {
		if err := a.auditDue(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn().Err(err).Dur("retry_in", auditCheck).Msg("the watchdog could not look at SkyPANEL's billing; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// auditDue audits if that was last begun an hour ago; an audit that fails is
// made again.
func (a *API) auditDue(ctx context.Context) error {
	now := a.now()
	last, err := db.PassFinished(ctx, a.db, auditPass)
	if err != nil {
		return err
	}
	claimed, err := db.ClaimPass(ctx, a.db, auditPass, now, now.Add(-auditEvery))
	if err != nil || !claimed {
		return err
	}
	err = a.auditAndKeep(ctx, now, last)
	if err != nil {
		if giveBack := db.UnclaimPass(context.WithoutCancel(ctx), a.db, auditPass, now); giveBack != nil && ctx.Err() == nil {
			a.log.Debug().Err(giveBack).Msg("the next audit is in an hour")
		}
	}
	return err
}

// auditAndKeep audits and writes down what was found. Charges are those since the
// last look, which ended at last; nil: there was none.
func (a *API) auditAndKeep(ctx context.Context, now time.Time, last *time.Time) error {
	q := auditQuery(now, auditKept)
	if q.SuspectsSince = q.Since; last != nil && last.Add(-auditOverlap).After(q.Since) {
		q.Since = last.Add(-auditOverlap)
	}
	report, err := db.Audit(ctx, a.db, q)
	if err != nil {
		return err
	}
	for _, f := range report.Failed {
		a.log.Warn().Err(f.Err).Str("rule", string(f.Rule)).Msg(ruleFailed)
	}
	news, err := db.KeepFindings(ctx, a.db, report, now)
	if err != nil {
		return err
	}
	a.logNews(news)
	return db.FinishPass(ctx, a.db, db.Pass{Name: auditPass, FinishedAt: new(a.now()), Servers: int64(len(report.Findings)), Changed: int64(len(news))})
}

// logNews tells of findings once, when they are new.
func (a *API) logNews(news []db.AuditFinding) {
	for i := range news {
		if i == auditLines {
			a.log.Warn().Int("more", len(news)-i).Msg("the watchdog has more new findings; serversync audit lists all")
			return
		}
		f := &news[i]
		line := a.log.Warn()
		switch {
		case f.Rule == db.AuditCoverageGap || f.Rule == db.AuditProofMismatch:
			line = a.log.Error()
		case f.Severity == db.AuditInfo:
			line = a.log.Info()
		}
		line = line.Str("rule", string(f.Rule)).Str("severity", string(f.Severity)).Ints64("billing_rows", f.Rows)
		if f.ServerID != nil {
			line = line.Int64("server", *f.ServerID)
		}
		if f.UserID != nil {
			line = line.Int64("user", *f.UserID)
		}
		line.Str("remedy", f.Remedy).Msg("SkyPANEL's billing: " + f.Evidence)
	}
}
