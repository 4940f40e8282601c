package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/uptrace/bun"
	"github.com/urfave/cli/v3"

	"serversync/api"
	"serversync/db"
)

func doctorCommand() *cli.Command {
	all := settings()
	return &cli.Command{
		Name:        "doctor",
		Usage:       "check configuration, reachability, durability and privileges",
		Description: "Looks at external stores itself; for embedded ones it asks the running service. It changes nothing.",
		Flags: append(flags(all),
			&cli.StringFlag{Name: "user", Usage: "only this user: SkyPANEL's users.id. The link to VirtFusion, VirtFusion's answers, and the matching rows", Sources: cli.EnvVars("DOCTOR_USER")},
			&cli.StringFlag{Name: "url", Usage: "the running service (default: from LISTEN_ADDR)", Sources: cli.EnvVars("SERVERSYNC_URL")},
			&cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("DOCTOR_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := readConfig(cmd, all)
			if err != nil {
				return err
			}
			url := cmp.Or(cmd.String("url"), urlOf(c.listenAddr))
			if user := cmd.String("user"); user != "" {
				ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
				defer cancel()
				id, err := userID(user)
				if err != nil {
					return err
				}
				return printFindings(cmd.Root().Writer, examineOneUser(ctx, &c, url, id), cmd.Bool("json"))
			}
			return printFindings(cmd.Root().Writer, examine(ctx, &c, url), cmd.Bool("json"))
		},
	}
}

// finding is one check of doctor.
type finding = api.Finding

// fine is a check that found nothing wrong.
func fine(check, detail string) finding { return finding{Check: check, OK: true, Detail: detail} }

// worth is a check that found something that somebody should look at.
func worth(check, detail, remedy string) finding {
	return finding{Check: check, OK: true, Severity: api.SeverityWarning, Detail: detail, Remedy: remedy}
}

// ill is a check that found a fault.
func ill(check, detail, remedy string) finding {
	return finding{Check: check, Severity: api.SeverityError, Detail: detail, Remedy: remedy}
}

// patient is what is examined: by the running service itself, or by a command
// that has connected to its external stores.
type patient struct {
	config *config
	db     *bun.DB             // nil: not to be looked at
	nats   *nats.Conn          // nil: not to be looked at
	js     jetstream.JetStream // with nats
	// stores are the running service's own; nil: examined from outside.
	stores *stores
}

// urlOf is where a service that listens on addr answers on this machine.
func urlOf(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// examineTimeout bounds the look at one thing: one that does not answer takes no
// time from the others, which would seem to be away too.
const examineTimeout = 10 * time.Second

// examine makes every check that the configuration calls for.
func examine(ctx context.Context, c *config, url string) []finding {
	findings := []finding{fine("configuration", "every setting is understood")}
	if c.databaseURL != "" { // else the service knows its own, which may be others
		findings = append(findings, examineTokens(c))
	}
	if c.databaseURL == "" || c.natsURL == "" {
		findings = append(findings, examineService(ctx, url)...)
	}
	if c.natsURL != "" {
		broker, closeBroker, reached := dialBroker(ctx, c)
		defer closeBroker()
		findings = append(findings, reached...)
		if broker != nil {
			looking, cancel := context.WithTimeout(ctx, examineTimeout)
			findings = append(findings, broker.examineBroker(looking)...)
			cancel()
		}
	}
	if c.databaseURL == "" {
		// Only the service can look into its embedded database.
		return append(findings, askDoctor(ctx, c, url, nil)...)
	}
	database, err := db.Open(c.databaseURL)
	if err != nil {
		return append(findings, ill("database", err.Error(), "correct DATABASE_URL"))
	}
	defer func() { _ = database.Close() }()
	p := &patient{config: c, db: database}
	return append(findings, p.examineBooks(ctx)...)
}

// examineBooks looks at the database, and at what its settings lead to. What
// cannot be known without it is not called a fault of its own.
func (p *patient) examineBooks(ctx context.Context) []finding {
	looking, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	findings := p.examineDatabase(looking)
	if first := findings[0]; !first.OK {
		return findings
	}
	findings = append(findings, examineNotifications(looking, p.config, p.db)...)
	calling, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return append(findings, examineVirtFusion(calling, p.config, p.db)...)
}

// examineOneUser makes the checks for one user, or has the service make them.
func examineOneUser(ctx context.Context, c *config, url string, userID int64) []finding {
	if c.databaseURL == "" {
		return askDoctor(ctx, c, url, neturl.Values{"user": {strconv.FormatInt(userID, 10)}})
	}
	database, err := db.Open(c.databaseURL)
	if err != nil {
		return []finding{ill("database", err.Error(), "correct DATABASE_URL")}
	}
	defer func() { _ = database.Close() }()
	return examineUser(ctx, c, database, userID)
}

// examine is what a running service says of itself.
func (s *service) examine(ctx context.Context) []finding {
	p := &patient{config: s.config, db: s.stores.db, nats: s.stores.nats, js: s.js, stores: &s.stores}
	looking, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	findings := append([]finding{examineTokens(s.config)}, p.examineBroker(looking)...)
	findings = append(findings, p.examineDisks()...)
	return append(findings, p.examineBooks(ctx)...)
}

// askDoctor has the running service examine its own stores.
func askDoctor(ctx context.Context, c *config, base string, query neturl.Values) []finding {
	client := &adminClient{base: base, token: c.adminToken, http: &http.Client{Timeout: answerTimeout}}
	if client.token == "" {
		client.token, client.tokenErr = readAdminToken(c.dataDir)
	}
	var answer api.Doctor
	if err := client.call(ctx, http.MethodGet, "/api/admin/doctor", query, &answer); err != nil {
		return []finding{ill("service: doctor", err.Error(), "start the service, and set ADMIN_TOKEN to its token, or DATA_DIR to where it keeps one")}
	}
	for i := range answer.Checks {
		answer.Checks[i].Check = "service: " + answer.Checks[i].Check
	}
	return answer.Checks
}

func examineTokens(c *config) finding {
	const check, remedy = "webhook token", "set WEBHOOK_TOKENS, and the same token in VirtFusion's webhook"
	switch {
	case len(c.webhookTokens) > 0:
		return fine(check, countedVerb(int64(len(c.webhookTokens)), "token", "is accepted", "are accepted"))
	case c.webhookAllowUnauthenticated:
		return ill(check, "anybody who reaches the endpoint can write to the books", remedy)
	default:
		return ill(check, "every webhook is refused", remedy)
	}
}

// examineService asks the running service about what is embedded in it.
func examineService(ctx context.Context, url string) []finding {
	const check, remedy = "service", "start it with serversync serve, or set SERVERSYNC_URL to where it runs"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return []finding{ill(check, err.Error(), remedy)}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return []finding{ill(check, "no service answers at "+url, remedy)}
	}
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Data map[string]struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&body); err != nil {
		return []finding{ill(check, "what answers at "+url+" is not serversync", remedy)}
	}
	findings := []finding{fine(check, "it answers at "+url)}
	for name, d := range body.Data {
		if d.OK {
			findings = append(findings, fine("service: "+name, "usable"))
		} else {
			findings = append(findings, ill("service: "+name, d.Error, "see the service's log"))
		}
	}
	return findings
}

// printFindings prints every check, and fails when one did. Warnings are shown
// and are no failure.
func printFindings(out io.Writer, findings []finding, asJSON bool) error {
	var failed int
	for i := range findings {
		findings[i].Grade()
		if !findings[i].OK {
			failed++
		}
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(map[string]any{"ok": failed == 0, "checks": findings}); err != nil {
			return fmt.Errorf("print the checks: %w", err)
		}
	} else {
		marks := map[string]string{api.SeverityOK: "ok  ", api.SeverityWarning: "WARN", api.SeverityError: "FAIL"}
		for _, f := range findings {
			printf(out, "%s  %-27s %s\n", cmp.Or(marks[f.Severity], "FAIL"), f.Check, f.Detail)
			if f.Remedy != "" {
				printf(out, "      %-27s → %s\n", "", f.Remedy)
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed: each says above what to do", failed, len(findings))
	}
	return nil
}

// ago says how long ago something was, roughly.
func ago(at, now time.Time) string {
	if d := now.Sub(at); d >= time.Minute {
		return d.Round(time.Minute).String() + " ago"
	}
	return "a moment ago"
}
