package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v3"

	"serversync/api"
	"serversync/reconciler"
)

// read runs a command that only reads its configuration.
func read(t *testing.T, all []setting, args ...string) (config, error) {
	t.Helper()
	var c config
	cmd := &cli.Command{
		Name: "x", Flags: flags(all), Writer: &bytes.Buffer{}, ErrWriter: &bytes.Buffer{},
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		Action: func(_ context.Context, cmd *cli.Command) error {
			var err error
			c, err = readConfig(cmd, all)
			return err
		},
	}
	err := cmd.Run(t.Context(), append([]string{"x"}, args...))
	return c, err
}

func TestDefaultsAreTheInterfaces(t *testing.T) {
	t.Parallel()
	c, err := read(t, settings())
	if err != nil {
		t.Fatal(err)
	}
	if c.listenAddr != ":8080" || c.dataDir != "./data" || c.databaseURL != "" || c.natsURL != "" ||
		c.streamMaxAge != 720*time.Hour || c.virtfusionRPS != 10 || len(c.webhookTokens) != 0 || c.webhookAllowUnauthenticated {
		t.Errorf("defaults: %+v", c)
	}
	want := reconciler.Policy{SettleDelay: 2 * time.Minute, InitialCharge: reconciler.ChargeRecord}
	if c.policy != want {
		t.Errorf("policy %+v, want %+v", c.policy, want)
	}
	for _, role := range allRoles {
		if !c.has(role) {
			t.Errorf("role %s is not on by default", role)
		}
	}
	d, err := read(t, demoSettings())
	if err != nil || d.listenAddr != "127.0.0.1:8080" || d.policy.SettleDelay != time.Second {
		t.Errorf("demo: %+v, %v", d, err)
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	args := []string{
		"--roles=ingest,cook", "--listen-addr=8080", "--database-url=postgres://u:hunter2@h:port/x",
		"--nats-url=http://u:hunter2@x", "--nats-ca=/no/such", "--nats-cert=/no/such", "--nats-key=/no/such", "--nats-replicas=0", "--stream-max-age=forever", "--virtfusion-api-url=cp.example.com",
		"--virtfusion-tls-verify=perhaps", "--virtfusion-rps=0", "--webhook-allow-unauthenticated=perhaps", "--webhook-allow-cidrs=10.0.0.0/99",
		"--trusted-proxies=me", "--settle-delay=-1s", "--observe-only=perhaps", "--sweep-interval=often", "--billing-start=never", "--billing-self-service=2",
		"--billing-initial-charge=all", "--admin-token=two words", "--session-secret=hunter2", "--public-origins=https://panel.example.com/sync", "--frame-ancestors='self'", "--log-level=loud", "--log-format=xml",
	}
	_, err := read(t, settings(), args...)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, arg := range args {
		env := strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(arg[:strings.Index(arg, "=")], "--"), "-", "_"))
		if !strings.Contains(err.Error(), "  "+env+"=") {
			t.Errorf("%s is not named in:\n%v", env, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the message repeats a password:\n%v", err)
	}
}

func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"postgres://u:p@h/x", "postgresql://u@h:5433/x?sslmode=require", "host=/run/pg dbname=x user=u",
		"postgres://u@/x?host=%2Ftmp%2Fsocket",
	} {
		if _, err := read(t, settings(), "--database-url="+good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"mysql://u:hunter2@127.0.0.1/x?charset=utf8", "http://h/x", "nonsense", "host=h"} {
		if _, err := read(t, settings(), "--database-url="+bad); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestValuesAreRead(t *testing.T) {
	t.Parallel()
	c, err := read(t, settings(), "--roles= ingest , reconcile,ingest", "--webhook-tokens=a, b,,", "--webhook-allow-cidrs=203.0.113.7, 2001:db8::/32",
		"--billing-self-service", "--virtfusion-tls-verify=false", "--billing-start=creation", "--billing-initial-charge=none", "--settle-delay=0s")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.roles, " ") != "ingest reconcile" || strings.Join(c.webhookTokens, " ") != "a b" {
		t.Errorf("roles %v, tokens %v", c.roles, c.webhookTokens)
	}
	if len(c.webhookAllowCIDRs) != 2 || c.webhookAllowCIDRs[0].String() != "203.0.113.7/32" {
		t.Errorf("networks %v", c.webhookAllowCIDRs)
	}
	if !c.policy.BillSelfService || !c.policy.StartAtCreation || c.policy.InitialCharge != reconciler.ChargeNone || c.policy.SettleDelay != 0 {
		t.Errorf("policy %+v", c.policy)
	}
	if c.virtfusionTLSVerify == nil || *c.virtfusionTLSVerify {
		t.Error("VIRTFUSION_TLS_VERIFY=false was not read")
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	c, err := read(t, settings(), "--session-secret=sixteen letters.", "--public-origins= https://Panel.example.com:443, http://10.0.0.5:3000,,https://panel.example.com")
	if err != nil || c.sessionSecret != "sixteen letters." || !slices.Equal(c.publicOrigins, []api.Origin{"https://panel.example.com", "http://10.0.0.5:3000"}) {
		t.Errorf("%q, %q, %v", c.sessionSecret, c.publicOrigins, err)
	}
	c, err = read(t, settings(), "--frame-ancestors= https://Panel.example.com:443, http://10.0.0.5:3000,,https://panel.example.com")
	if err != nil || c.publicOrigins != nil || !slices.Equal(c.frameAncestors, []string{"https://panel.example.com", "http://10.0.0.5:3000"}) {
		t.Errorf("who may frame: %q, %q, %v", c.frameAncestors, c.publicOrigins, err)
	}
	c, err = read(t, settings())
	if err != nil || c.sessionSecret != "" || c.publicOrigins != nil || c.frameAncestors != nil {
		t.Errorf("by default: %q, %q, %q, %v", c.sessionSecret, c.publicOrigins, c.frameAncestors, err)
	}
	for arg, says := range map[string]string{
		"--session-secret=fifteen.letters":            "at least 16 characters",
		"--public-origins=https://panel.example.com/": "no path", "--public-origins=*": "a scheme and a host",
		"--public-origins=https://a.example.com,https://*.example.com": "wildcards",
		"--frame-ancestors=*": "a scheme and a host", "--frame-ancestors=https://a.example.com; script-src *": "an origin",
		"--frame-ancestors=https://a.example.com https://b.example.com": "an origin", "--frame-ancestors=https://a.example.com;": "an origin",
	} {
		if _, err := read(t, settings(), arg); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "fifteen.letters") {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func TestTheEnvironmentIsRead(t *testing.T) {
	t.Setenv("SETTLE_DELAY", "7s")
	t.Setenv("BILLING_SELF_SERVICE", "true")
	t.Setenv("DATA_DIR", "") // empty: the default
	c, err := read(t, settings())
	if err != nil || c.policy.SettleDelay != 7*time.Second || !c.policy.BillSelfService || c.dataDir != "./data" {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = read(t, settings(), "--settle-delay=8s")
	if err != nil || c.policy.SettleDelay != 8*time.Second {
		t.Errorf("a flag must win over the environment: %v, %v", c.policy.SettleDelay, err)
	}
}

func TestReadmeListsEverySetting(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings() {
		if !bytes.Contains(readme, []byte("`"+s.env+"`")) {
			t.Errorf("README does not list %s", s.env)
		}
		if s.fallback != "" && !bytes.Contains(readme, []byte("`"+s.fallback+"`")) {
			t.Errorf("README does not tell %s's default %q", s.env, s.fallback)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"version", exitDone, thisBuild().String()},
		{"version --json", exitDone, `"goVersion":"go`},
		{"--help", exitDone, "serve"},
		{"serve --help", exitDone, "WEBHOOK_TOKENS"},
		{"serve --settle-delay=soon --log-level=loud", exitUsage, "LOG_LEVEL"},
		{"serve --no-such-flag", exitUsage, "--help"},
		{"serve extra", exitUsage, "extra"},
		{"cook", exitUsage, "cook"},
		{"migrate", exitUsage, "DATABASE_URL"},
		{"migrate --database-url=postgres://127.0.0.1:1/x", exitFailed, "DATABASE_URL"},
		{"doctor --url=http://127.0.0.1:1", exitFailed, "serversync serve"},
		{"demo --rate=0", exitUsage, "--rate"},
		{"demo --hour=2h", exitUsage, "--hour"},
		{"demo --hour=5ms", exitUsage, "--hour"},
		{"explain", exitUsage, "SERVER"},
		{"explain 14 15", exitUsage, "SERVER"},
		{"explain web-1", exitUsage, "UUID"},
		{"explain 14 --url=ftp://x", exitUsage, "SERVERSYNC_URL"},
		{"explain 14 --url=http://127.0.0.1:1", exitFailed, "serversync serve"},
		{"explain 14 --listen-addr=127.0.0.1:1", exitFailed, "no service answers at http://127.0.0.1:1 "},
		{"cleanup --url=http://127.0.0.1:1", exitFailed, "SERVERSYNC_URL"},
		{"cleanup now", exitUsage, "now"},
		{"sweep --user=", exitUsage, "--user"}, // a script whose variable is empty means no sweep of all
		{"sweep --approve=", exitUsage, "--approve"},
		{"sweep --watch=", exitUsage, "--watch"},
		{"sweep --approve=r --preview=", exitUsage, "--preview"},
		{"undo r --server=", exitUsage, "--server"},
		{"replay --user=", exitUsage, "--user"},
		{"cleanup --dry-run=perhaps", exitUsage, "--help"},
		{"simulate --listen-addr=x", exitUsage, "--listen-addr"},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			code := run(t.Context(), append([]string{"serversync"}, strings.Fields(test.args)...), &out, &out)
			if code != test.code || !strings.Contains(out.String(), test.says) {
				t.Errorf("exit %d, want %d; it must say %q:\n%s", code, test.code, test.says, out.String())
			}
		})
	}
}

// TestAFlagsVariableThatCannotBeRead is not parallel: it sets the environment.
func TestAFlagsVariableThatCannotBeRead(t *testing.T) {
	for _, test := range []struct{ variable, args string }{{"SWEEP_DRY_RUN", "sweep --url=http://127.0.0.1:1"}, {"UNDO_DRY_RUN", "undo r --url=http://127.0.0.1:1"}, {"SIMULATE_RATE", "simulate"}} {
		t.Run(test.variable, func(t *testing.T) {
			t.Setenv(test.variable, "perhaps")
			var out bytes.Buffer
			code := run(t.Context(), append([]string{"serversync"}, strings.Fields(test.args)...), &out, &out)
			if code != exitUsage || !strings.Contains(out.String(), test.variable) {
				t.Errorf("exit %d, want %d: %s", code, exitUsage, out.String())
			}
		})
	}
}

func TestACertificateNeedsItsKey(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "some.pem")
	if err := os.WriteFile(file, []byte("nothing of the kind"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--nats-cert=" + file:                          "NATS_KEY=: a certificate and its key belong together",
		"--nats-key=" + file:                           "a certificate and its key belong together",
		"--nats-cert=" + file + " --nats-key=" + file:  "not the key of NATS_CERT",
		"--nats-ca=" + file:                            "no certificate in it",
		"--nats-url=nats://one:4222,http://other:4222": "not a NATS URL",
	} {
		if _, err := read(t, settings(), strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if c, err := read(t, settings(), "--nats-url=tls://one:4222, tls://other:4222"); err != nil || c.natsURL != "tls://one:4222, tls://other:4222" {
		t.Errorf("two servers: %q, %v", c.natsURL, err)
	}
}

// What would only show at the first use, or never, is refused at the start; nothing
// of it is repeated where it may be a secret.
func TestValuesThatCouldNotWork(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{
		"--nats-url=,", "--nats-url= , ", "--stream-max-bytes=8388608TiB", "--stream-max-bytes=2147483647TiB", "--virtfusion-rps=1e-300", "--virtfusion-rps=NaN",
		"--virtfusion-api-url=https://us:hunter2@cp.example.com", "--virtfusion-api-url=https://cp.example.com/api/v1?token=hunter2",
		"--virtfusion-api-token=hunter2\nhunter3", "--virtfusion-api-token=Bearer hunter2", "--webhook-tokens=good,hunter2\nhunter3",
		"--admin-token=hunter2\nhunter3", "--database-url=postgres://us:hunter2#x@db.example.com/skypanel",
	} {
		_, err := read(t, settings(), arg)
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v; want a fault that repeats no secret", arg, err)
		}
	}
	c, err := read(t, settings(), "--nats-url=nats://a, nats://b,", "--stream-max-bytes=1048575TiB", "--virtfusion-rps=0.01", "--virtfusion-api-url=https://cp.example.com/panel/api/v1")
	if err != nil || c.streamMaxBytes != 1048575<<40 {
		t.Errorf("%v, %d bytes", err, c.streamMaxBytes)
	}
}
