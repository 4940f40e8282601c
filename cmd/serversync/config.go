package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"serversync/api"
	"serversync/ingest"
	"serversync/notify"
	"serversync/reconciler"
)

// The roles of a process.
const (
	roleIngest    = "ingest"
	roleAPI       = "api"
	roleReconcile = "reconcile"
	roleSweep     = "sweep"
)

var allRoles = []string{roleIngest, roleAPI, roleReconcile, roleSweep}

// config is the configuration of the service, checked.
type config struct {
	// demo: the world is a simulation. SkyPANEL's own tables are made where
	// they are missing, and the log is for looking at.
	demo bool

	roles      []string
	listenAddr string
	dataDir    string

	databaseURL string // empty: embedded

	natsURL      string // empty: embedded
	natsCreds    string
	natsCA       string // PEM file; empty: the system's authorities
	natsCert     string // PEM file; empty: none is shown
	natsKey      string // PEM file, natsCert's
	natsReplicas int
	streamMaxAge time.Duration
	// streamMaxBytes is 0 for 8 GiB; embedded: at most three quarters of the disk's room.
	streamMaxBytes int64

	virtfusionURL       string // empty: from SkyPANEL's settings
	virtfusionToken     string
	virtfusionTLSVerify *bool
	virtfusionRPS       float64

	webhookTokens               []string
	webhookAllowUnauthenticated bool
	webhookAllowCIDRs           []netip.Prefix
	trustedProxies              []netip.Prefix
	maxConnections              int

	sessionSecret string // SkyPANEL's; empty: cookies are not accepted
	publicOrigins []api.Origin

	frameAncestors []string // origins whose pages may frame the customer's

	adminToken string // empty: one is kept in adminTokenDir
	// adminTokenDir is where; empty: dataDir. The demo empties that at each
	// start, and keeps the token in the directory above.
	adminTokenDir string

	policy reconciler.Policy // without what SkyPANEL's settings say

	notifyUsers bool // owners are told of new external servers in SkyPANEL
	// notifyAdmins: administrators are told in SkyPANEL; by webhook and e-mail where
	// these are not nil.
	notifyAdmins                   bool
	notifyWebhookURL               string
	notifyWebhook                  *notify.Webhook
	notifyEmailTo, notifyEmailFrom string
	notifyEmail                    *notify.Email

	sweepInterval time.Duration // 0: never
	maxChanges    ingest.MaxChanges

	pprofAddr                string        // of Go's profiles; empty: none
	tracesURL                string        // of a collector; empty: no traces
	historyMaxAge, runMaxAge time.Duration // 0: for ever

	logLevel  zerolog.Level
	logFormat string // "json", "console", or empty: console on a terminal
}

// has reports whether this process runs a role.
func (c *config) has(role string) bool { return slices.Contains(c.roles, role) }

// needsDatabase reports whether a role of this process uses PostgreSQL. The
// ingest role does not: it starts and serves without.
func (c *config) needsDatabase() bool {
	return c.has(roleReconcile) || c.has(roleAPI) || c.has(roleSweep)
}

// setting is one variable of the environment, and the flag of the same name.
type setting struct {
	env      string
	fallback string
	usage    string
	boolean  bool
	// secret values are not repeated in messages.
	secret bool
	apply  func(c *config, value string) error
}

func (s *setting) flag() string { return strings.ReplaceAll(strings.ToLower(s.env), "_", "-") }

// settings are the variables of serve, as the README lists them.
func settings() []setting {
	return []setting{
		{env: "ROLES", fallback: strings.Join(allRoles, ","), usage: "comma-separated roles of this process", apply: applyRoles},
		{env: "LISTEN_ADDR", fallback: ":8080", usage: "HTTP address", apply: func(c *config, v string) error {
			c.listenAddr = v
			return checkAddr(v)
		}},
		{env: "DATA_DIR", fallback: "./data", usage: "directory of the embedded PostgreSQL and NATS", apply: text(func(c *config) *string { return &c.dataDir })},
		{env: "DATABASE_URL", usage: "PostgreSQL: SkyPANEL's own database (empty: embedded)", secret: true, apply: applyDatabaseURL},
		{env: "NATS_URL", usage: "external JetStream, a server or several of a cluster, separated by commas (empty: embedded)", secret: true, apply: applyNATSURL},
		{env: "NATS_CREDS", usage: "file of NATS credentials", apply: applyNATSCreds},
		{env: "NATS_CA", usage: "PEM file of the authorities that NATS's certificates come from (empty: the system's)", apply: applyNATSCA},
		{env: "NATS_CERT", usage: "PEM file of our certificate, for servers that ask for one", apply: applyFile(func(c *config) *string { return &c.natsCert })},
		{env: "NATS_KEY", usage: "PEM file of its key", apply: applyNATSKey},
		{env: "NATS_REPLICAS", usage: "copies of the stream (default: 3 in a cluster, else 1)", apply: applyReplicas},
		{env: "STREAM_MAX_AGE", fallback: "720h", usage: "how far back a replay can go", apply: duration(func(c *config) *time.Duration { return &c.streamMaxAge }, time.Minute)},
		{env: "STREAM_MAX_BYTES", fallback: "8GiB", usage: "how large the stream may become (embedded: at most three quarters of what its disk has left); then webhooks are refused", apply: applyStreamBytes},
		{env: "VIRTFUSION_API_URL", usage: "VirtFusion's API, with or without /api/v1 (empty: from SkyPANEL's settings)", secret: true, apply: applyVirtFusionURL},
		{env: "VIRTFUSION_API_TOKEN", usage: "VirtFusion's API token (empty: from SkyPANEL's settings)", secret: true, apply: applyVirtFusionToken},
		{env: "VIRTFUSION_TLS_VERIFY", usage: "check VirtFusion's certificate (empty: from SkyPANEL's settings)", boolean: true, apply: applyTLSVerify},
		{env: "VIRTFUSION_RPS", fallback: "10", usage: "API requests a second", apply: applyRPS},
		{env: "WEBHOOK_TOKENS", usage: "comma-separated tokens of webhooks; several at once for rotation", secret: true, apply: applyWebhookTokens},
		{env: "WEBHOOK_ALLOW_UNAUTHENTICATED", fallback: "false", usage: "accept webhooks without a token when none is set", boolean: true, apply: boolean(func(c *config) *bool { return &c.webhookAllowUnauthenticated })},
		{env: "WEBHOOK_ALLOW_CIDRS", usage: "comma-separated networks that may deliver webhooks (empty: any)", apply: prefixes(func(c *config) *[]netip.Prefix { return &c.webhookAllowCIDRs })},
		{env: "TRUSTED_PROXIES", usage: "comma-separated networks whose X-Forwarded-For counts", apply: prefixes(func(c *config) *[]netip.Prefix { return &c.trustedProxies })},
		{env: "MAX_CONNECTIONS", fallback: "2048", usage: "how many HTTP connections are open at once; beyond, strangers and idle ones go first", apply: applyMaxConnections},
		{env: "ADMIN_TOKEN", usage: "bearer token with the admin role (empty: serve keeps one in DATA_DIR/admin.token)", secret: true, apply: applyAdminToken},
		{env: "SESSION_SECRET", usage: "SkyPANEL's own, for its session cookie (empty: cookies are not accepted)", secret: true, apply: applySessionSecret},
		{env: "PUBLIC_ORIGINS", usage: "comma-separated origins besides our own whose pages may call the API with a cookie", apply: origins(func(c *config, o api.Origin) { c.publicOrigins = append(c.publicOrigins, o) })},
		{env: "FRAME_ANCESTORS", usage: "comma-separated origins whose pages may show the customer's page in a frame", apply: origins(func(c *config, o api.Origin) { c.frameAncestors = append(c.frameAncestors, string(o)) })},
		{env: "SETTLE_DELAY", fallback: "2m", usage: "how long a new server may wait for SkyPANEL's own row", apply: duration(func(c *config) *time.Duration { return &c.policy.SettleDelay }, 0)},
		{env: "OBSERVE_ONLY", fallback: "false", usage: "inventory only, no billing row is touched", boolean: true, apply: boolean(func(c *config) *bool { return &c.policy.ObserveOnly })},
		{env: "SWEEP_INTERVAL", fallback: "15m", usage: "how often all servers are compared with VirtFusion and SkyPANEL (0: never)", apply: duration(func(c *config) *time.Duration { return &c.sweepInterval }, 0)},
		{env: "SWEEP_MAX_CHANGES", fallback: "20%", usage: "how many servers' billing a run may change unasked: a number, or a share of all", apply: applyMaxChanges},
		{env: "HISTORY_MAX_AGE", fallback: "35040h", usage: "how long history is kept that explains nothing of today (0: for ever)", apply: kept(func(c *config) *time.Duration { return &c.historyMaxAge }, leastHistory)},
		{env: "RUN_MAX_AGE", fallback: "2160h", usage: "how long runs are kept that no billing row names (0: for ever)", apply: kept(func(c *config) *time.Duration { return &c.runMaxAge }, leastRuns)},
		{env: "BILLING_START", fallback: "discovery", usage: "discovery, or creation: bill the time before the discovery too", apply: applyBillingStart},
		{env: "BILLING_SELF_SERVICE", fallback: "false", usage: "bill servers that VirtFusion bills itself", boolean: true, apply: boolean(func(c *config) *bool { return &c.policy.BillSelfService })},
		{env: "BILLING_INITIAL_CHARGE", fallback: "record", usage: "record: the first hour is a pending transaction; deduct: its credit is taken through VirtFusion's API; none: no transaction", apply: applyInitialCharge},
		{env: "PPROF_ADDR", usage: "loopback or private address at which Go's profiles are served (empty: none)", apply: applyPprofAddr},
		{env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", usage: "URL to which traces are sent as OTLP over HTTP", secret: true, apply: applyOTLPTracesEndpoint},
		{env: "OTEL_EXPORTER_OTLP_ENDPOINT", usage: "the same for a collector of all signals, without /v1/traces (empty: no traces)", secret: true, apply: applyOTLPEndpoint},
		{env: "NOTIFY_USERS", fallback: "false", usage: "tell owners of new external servers in SkyPANEL's notifications", boolean: true, apply: boolean(func(c *config) *bool { return &c.notifyUsers })},
		{env: "NOTIFY_ADMINS", fallback: "false", usage: "tell administrators what they should look at in SkyPANEL's notifications", boolean: true, apply: boolean(func(c *config) *bool { return &c.notifyAdmins })},
		{env: "NOTIFY_WEBHOOK_URL", usage: "tell them by HTTP too (empty: no)", secret: true, apply: text(func(c *config) *string { return &c.notifyWebhookURL })},
		{env: "NOTIFY_WEBHOOK_SECRET", usage: "what signs that, as Standard Webhooks describes: whsec_ and base64", secret: true, apply: applyNotifyWebhook},
		{env: "NOTIFY_EMAIL_TO", usage: "comma-separated addresses: tell them by e-mail too (empty: no)", apply: text(func(c *config) *string { return &c.notifyEmailTo })},
		{env: "NOTIFY_EMAIL_FROM", usage: "the sender (empty: the first of NOTIFY_EMAIL_TO)", apply: text(func(c *config) *string { return &c.notifyEmailFrom })},
		{env: "SMTP_URL", usage: "the mail server: smtp://host:587 or smtps://host:465, with name and password before the host", secret: true, apply: applySMTPURL},
		{env: "LOG_LEVEL", fallback: "info", usage: "trace, debug, info, warn or error", apply: applyLogLevel},
		{env: "LOG_FORMAT", usage: "json or console (default: console on a terminal, else json)", apply: oneOf(func(c *config) *string { return &c.logFormat }, "json", "console", "")},
	}
}

// flags are the settings as flags, each with its environment variable.
func flags(all []setting) []cli.Flag {
	list := make([]cli.Flag, 0, len(all))
	for _, s := range all {
		if s.boolean {
			list = append(list, &cli.GenericFlag{
				Name: s.flag(), Usage: s.usage, Value: &rawBool{}, Sources: cli.EnvVars(s.env), DefaultText: s.fallback,
			})
			continue
		}
		list = append(list, &cli.StringFlag{
			Name: s.flag(), Usage: s.usage, Sources: cli.EnvVars(s.env), DefaultText: s.fallback,
		})
	}
	return list
}

// rawBool is a switch whose value is checked with all others, so that every
// fault can be named at once.
type rawBool struct{ value string }

func (b *rawBool) Set(v string) error { b.value = v; return nil }

func (b *rawBool) Get() any { return b }

func (b *rawBool) String() string { return b.value }

func (b *rawBool) IsBoolFlag() bool { return true }

// readConfig checks every setting and names every fault, with its remedy, at
// once. Nothing has been opened yet.
func readConfig(cmd *cli.Command, all []setting) (config, error) {
	var c config
	var faults []string
	for _, s := range all {
		value := cmd.String(s.flag())
		if s.boolean {
			value = cmd.Generic(s.flag()).String()
		}
		value = strings.TrimSpace(value)
		shown := value
		if value == "" {
			value = s.fallback
		}
		if s.secret && shown != "" {
			shown = "(hidden)"
		}
		if err := s.apply(&c, value); err != nil {
			faults = append(faults, fmt.Sprintf("  %s=%s: %v", s.env, shown, err))
		}
	}
	if len(faults) > 0 {
		return c, &usageError{fmt.Errorf("%d wrong settings; correct them in the environment, in .env or by flags:\n%s",
			len(faults), strings.Join(faults, "\n"))}
	}
	return c, nil
}

// A customer's month and the one before are always explained by the history, and
// the last weeks' runs by themselves.
const (
	leastHistory = 62 * 24 * time.Hour
	leastRuns    = 7 * 24 * time.Hour
)
