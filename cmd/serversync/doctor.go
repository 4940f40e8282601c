package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"github.com/urfave/cli/v3"

	"serversync/api"
	"serversync/db"
	"serversync/events"
	"serversync/virtfusion"
)

func doctorCommand() *cli.Command {
	all := settings()
	return &cli.Command{
		Name:        "doctor",
		Usage:       "check configuration, reachability, durability and privileges",
		Description: "Looks at external stores itself; for embedded ones it asks the running service. It changes nothing.",
		Flags: append(flags(all),
			&cli.StringFlag{Name: "url", Usage: "the running service (default: from LISTEN_ADDR)", Sources: cli.EnvVars("SERVERSYNC_URL")},
			&cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("DOCTOR_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := readConfig(cmd, all)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
			defer cancel()
			url := cmp.Or(cmd.String("url"), urlOf(c.listenAddr))
			return printFindings(cmd.Root().Writer, examine(ctx, &c, url), cmd.Bool("json"))
		},
	}
}

// finding is one check of doctor.
type finding = api.Finding

// urlOf is where a service that listens on addr answers on this machine.
func urlOf(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// examine makes every check that the configuration calls for.
func examine(ctx context.Context, c *config, url string) []finding {
	findings := []finding{{Check: "configuration", OK: true, Detail: "every setting is understood"}, examineTokens(c)}
	if c.databaseURL == "" || c.natsURL == "" {
		findings = append(findings, examineService(ctx, url)...)
	}
	if c.databaseURL == "" {
		// Only the service can look into its embedded database.
		return append(findings, askDoctor(ctx, c, url)...)
	}
	if c.natsURL != "" {
		findings = append(findings, examineBroker(ctx, c)...)
	}
	database, err := db.Open(c.databaseURL)
	if err != nil {
		return append(findings, finding{Check: "database", Detail: err.Error(), Remedy: "correct DATABASE_URL"})
	}
	defer func() { _ = database.Close() }()
	findings = append(findings, examineDatabase(ctx, database)...)
	findings = append(findings, examineNotifications(ctx, c, database)...)
	return append(findings, examineVirtFusion(ctx, c, database))
}

// examine is what a running service says of itself.
func (s *service) examine(ctx context.Context) []finding {
	findings := append([]finding{examineTokens(s.config)}, examineDatabase(ctx, s.stores.db)...)
	findings = append(findings, examineNotifications(ctx, s.config, s.stores.db)...)
	return append(findings, examineVirtFusion(ctx, s.config, s.stores.db))
}

// askDoctor has the running service examine its own stores.
func askDoctor(ctx context.Context, c *config, base string) []finding {
	client := &adminClient{base: base, token: c.adminToken, http: &http.Client{Timeout: answerTimeout}}
	if client.token == "" {
		client.token, client.tokenErr = readAdminToken(c.dataDir)
	}
	var answer api.Doctor
	if err := client.call(ctx, http.MethodGet, "/api/admin/doctor", nil, &answer); err != nil {
		return []finding{{
			Check: "service: doctor", Detail: err.Error(),
			Remedy: "start the service, and set ADMIN_TOKEN to its token, or DATA_DIR to where it keeps one",
		}}
	}
	for i := range answer.Checks {
		answer.Checks[i].Check = "service: " + answer.Checks[i].Check
	}
	return answer.Checks
}

func examineTokens(c *config) finding {
	f := finding{Check: "webhook token", OK: true, Detail: fmt.Sprintf("%d tokens are accepted", len(c.webhookTokens))}
	switch {
	case len(c.webhookTokens) > 0:
	case c.webhookAllowUnauthenticated:
		f.OK, f.Detail, f.Remedy = false, "anybody who reaches the endpoint can write to the books", "set WEBHOOK_TOKENS, and the same token in VirtFusion's webhook"
	default:
		f.OK, f.Detail, f.Remedy = false, "every webhook is refused", "set WEBHOOK_TOKENS, and the same token in VirtFusion's webhook"
	}
	return f
}

// examineService asks the running service about what is embedded in it.
func examineService(ctx context.Context, url string) []finding {
	f := finding{Check: "service", Remedy: "start it with serversync serve, or set SERVERSYNC_URL to where it runs"}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		f.Detail = err.Error()
		return []finding{f}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		f.Detail = "no service answers at " + url
		return []finding{f}
	}
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Data map[string]struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&body); err != nil {
		f.Detail = "what answers at " + url + " is not serversync"
		return []finding{f}
	}
	findings := []finding{{Check: "service", OK: true, Detail: "it answers at " + url}}
	for name, d := range body.Data {
		f := finding{Check: "service: " + name, OK: d.OK, Detail: "usable"}
		if !d.OK {
			f.Detail, f.Remedy = d.Error, "see the service's log"
		}
		findings = append(findings, f)
	}
	return findings
}

func examineBroker(ctx context.Context, c *config) []finding {
	f := finding{Check: "broker", Remedy: "check NATS_URL and NATS_CREDS, that the server runs, and that JetStream is on for the account"}
	nc, err := events.Dial(c.natsURL, c.natsCreds, zerolog.Nop())
	if err != nil {
		f.Detail = err.Error()
		return []finding{f}
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.AccountInfo(ctx)
	}
	if err != nil {
		f.Detail = err.Error()
		return []finding{f}
	}
	findings := []finding{
		{Check: "broker", OK: true, Detail: "JetStream answers at " + nc.ConnectedServerName()},
		{Check: "broker durability", OK: true, Detail: "an external broker's sync policy cannot be seen from outside; for 202 to mean on disk, its servers need jetstream { sync_interval: always } or three replicas in separate places"},
	}
	stream, err := js.Stream(ctx, events.StreamName)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		findings = append(findings, finding{Check: "stream", OK: true, Detail: "not there yet: serve makes it at its start"})
	case err != nil:
		findings = append(findings, finding{Check: "stream", Detail: err.Error(), Remedy: "let the account of NATS_CREDS use $JS.API.>"})
	default:
		info := stream.CachedInfo()
		findings = append(findings, finding{Check: "stream", OK: true, Detail: fmt.Sprintf("%d events, %d of at most %d MB, %d replicas, kept for %s",
			info.State.Msgs, info.State.Bytes>>20, info.Config.MaxBytes>>20, info.Config.Replicas, info.Config.MaxAge)})
	}
	return findings
}

func examineDatabase(ctx context.Context, database *bun.DB) []finding {
	f := finding{Check: "database", Remedy: "check DATABASE_URL, that PostgreSQL runs, and that it accepts our role"}
	var serverVersion string
	if err := database.NewRaw(`SHOW server_version`).Scan(ctx, &serverVersion); err != nil {
		f.Detail = err.Error()
		return []finding{f}
	}
	findings := []finding{{Check: "database", OK: true, Detail: "PostgreSQL " + serverVersion + " answers"}}

	report, err := db.Migrate(ctx, database, db.MigrateOptions{DryRun: true})
	switch {
	case err != nil:
		findings = append(findings, finding{Check: "schema", Detail: err.Error(), Remedy: "DATABASE_URL must be SkyPANEL's own database"})
		return findings
	case report.Empty():
		findings = append(findings, finding{Check: "schema", OK: true, Detail: "up to date"})
	default:
		findings = append(findings, finding{
			Check:  "schema",
			Detail: "missing: " + strings.Join(append(append(report.Migrations, report.Columns...), report.Indexes...), ", "),
			Remedy: "run serversync migrate, or start serve, as a role that owns SkyPANEL's tables",
		})
	}
	findings = append(findings, examinePrivileges(ctx, database))
	findings = append(findings, examineSweeps(ctx, database)...)
	return findings
}

// examinePrivileges looks for what our role may not do and has to.
func examinePrivileges(ctx context.Context, database *bun.DB) finding {
	missing, err := db.MissingPrivileges(ctx, database)
	switch {
	case err != nil:
		return finding{Check: "privileges", Detail: err.Error(), Remedy: "check the role of DATABASE_URL"}
	case len(missing) > 0:
		return finding{Check: "privileges", Detail: "not granted: " + strings.Join(missing, ", "), Remedy: "as the tables' owner: GRANT <privilege> ON public.<table> TO <our role>"}
	default:
		return finding{Check: "privileges", OK: true, Detail: "all that are needed are granted"}
	}
}

// examineSweeps says when all servers were last compared with VirtFusion, and
// what waits for a person.
func examineSweeps(ctx context.Context, database *bun.DB) []finding {
	last, err := db.LastSweep(ctx, database)
	if err != nil || last == nil {
		return []finding{{Check: "last sweep", OK: true, Detail: "none yet: serve sweeps by itself, unless SWEEP_INTERVAL is 0"}}
	}
	f := finding{
		Check: "last sweep", OK: last.State == db.RunSucceeded || last.State == db.RunRunning,
		Detail: fmt.Sprintf("%s, begun at %s", last.State, last.StartedAt.UTC().Format(time.RFC3339)),
		Remedy: "look at it with `serversync status`",
	}
	if last.Note != "" {
		f.Detail += ": " + last.Note
	}
	if last.State == db.RunNeedsApproval {
		f.Remedy = "look at it with `serversync status`, then `serversync sweep --approve " + last.ID + "`"
	}
	return []finding{f}
}

// examineVirtFusion tries the API with what the environment or SkyPANEL's
// settings say.
func examineVirtFusion(ctx context.Context, c *config, database bun.IDB) finding {
	f := finding{Check: "VirtFusion", Remedy: "check VIRTFUSION_API_URL and VIRTFUSION_API_TOKEN, or SkyPANEL's settings virtfusion_api_url and virtfusion_api_token"}
	settings, err := readVirtFusionSettings(ctx, c, database)
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	client, err := virtfusion.New(virtfusion.Config{
		BaseURL: settings.url, Token: settings.token, SkipTLSVerify: !settings.verify, Budget: virtfusion.NewBudget(c.virtfusionRPS),
		MaxRetries: -1, Timeout: connectTimeout,
	})
	if err == nil {
		err = client.Connect(ctx)
	}
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	return finding{Check: "VirtFusion", OK: true, Detail: "its API accepts the token"}
}

// printFindings prints every check, and fails when one did.
func printFindings(out io.Writer, findings []finding, asJSON bool) error {
	var failed int
	for _, f := range findings {
		if !f.OK {
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
		for _, f := range findings {
			mark := "ok  "
			if !f.OK {
				mark = "FAIL"
			}
			printf(out, "%s  %-20s %s\n", mark, f.Check, f.Detail)
			if f.Remedy != "" && !f.OK {
				printf(out, "      %-20s → %s\n", "", f.Remedy)
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed: each says above what to do", failed, len(findings))
	}
	return nil
}
