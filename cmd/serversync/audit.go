package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/urfave/cli/v3"

	"serversync/api"
	"serversync/db"
)

func auditCommand() *cli.Command {
	all := pick(settings(), "LISTEN_ADDR", "DATA_DIR", "ADMIN_TOKEN", "DATABASE_URL")
	return &cli.Command{
		Name:  "audit",
		Usage: "hold SkyPANEL's billing against the watchdog's rules",
		Description: "Reads SkyPANEL's billing tables and says what is wrong with them: servers that two rows bill, times that were\n" +
			"charged twice, rows of servers that are gone, rows that would be charged for a long time at once, and more\n" +
			"(docs/watchdog.md has the rules). It changes nothing. Looks into an external database itself (DATABASE_URL);\n" +
			"for an embedded one it asks the running service.\n" +
			"Exit codes: 0 nothing is wrong, 1 something is, or by a rule it could not be looked, 2 wrong usage.",
		Flags: adminFlags(all,
			&cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("AUDIT_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			audit, err := readAudit(ctx, cmd, all)
			if err != nil {
				return err
			}
			if cmd.Bool("json") {
				err = printJSON(cmd.Root().Writer, audit)
			} else {
				err = tellAudit(audit).print(cmd.Root().Writer)
			}
			if err != nil {
				return err
			}
			return auditVerdict(audit)
		},
	}
}

// readAudit audits an external database, or has the service audit its own.
func readAudit(ctx context.Context, cmd *cli.Command, all []setting) (*api.Audit, error) {
	c, err := readConfig(cmd, all)
	if err != nil {
		return nil, err
	}
	var audit api.Audit
	if c.databaseURL == "" {
		client, err := newAdminClient(cmd, all)
		if err != nil {
			return nil, err
		}
		err = client.call(ctx, http.MethodGet, "/api/admin/audit", nil, &audit)
		return &audit, err
	}
	database, err := db.Open(c.databaseURL)
	if err != nil {
		return nil, &usageError{fmt.Errorf("DATABASE_URL: %w", err)}
	}
	defer func() { _ = database.Close() }() // nothing was written
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	audit, err = api.AuditNow(ctx, database, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w; serversync doctor says what is wrong with the database, serversync migrate brings its schema up to date", err)
	}
	return &audit, nil
}

// auditVerdict is nil when nothing is wrong, and by all rules it could be looked.
func auditVerdict(audit *api.Audit) error {
	switch found, failed := findingsOf(audit), len(audit.Failed); {
	case failed > 0:
		return fmt.Errorf("%d findings, and by %d rules it could not be looked; serversync doctor says what is wrong with the database", found, failed)
	case found > 0:
		return fmt.Errorf("%d findings: each says what to do", found)
	}
	return nil
}

func findingsOf(audit *api.Audit) (all int64) {
	for _, r := range audit.Rules {
		all += r.Findings
	}
	return all
}

// tellAudit writes what was found in plain words, rule by rule.
func tellAudit(audit *api.Audit) *page {
	var p page
	rule := ""
	for i := range audit.Findings {
		f := &audit.Findings[i]
		if f.Rule != rule {
			if rule != "" {
				p.blank()
			}
			rule = f.Rule
			p.linef("%s (%s)", f.Rule, f.Severity)
		}
		about := ""
		if f.ServerID != nil {
			about = fmt.Sprintf("server %d: ", *f.ServerID)
		}
		p.linef("  %s%s", about, f.Evidence)
		p.linef("  → %s", f.Remedy)
	}
	if len(audit.Findings) == 0 && len(audit.Failed) == 0 {
		p.linef("Nothing is wrong with SkyPANEL's billing, by %d rules.", len(audit.Rules))
	}
	if len(audit.Failed) > 0 {
		if rule != "" {
			p.blank()
		}
		p.linef("By these rules it could not be looked:")
		for _, f := range audit.Failed {
			p.linef("  %s: %s", f.Rule, f.Error)
		}
	}
	if audit.Truncated {
		p.blank()
		p.linef("Not all findings are listed. In all:")
		for _, r := range audit.Rules {
			if r.Findings > 0 {
				p.linef("  %-22s %d", r.Rule, r.Findings)
			}
		}
	}
	return &p
}
