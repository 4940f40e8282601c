package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"serversync/api"
	"serversync/events"
	"serversync/ingest"
	"serversync/reconciler"
)

func text(field func(*config) *string) func(*config, string) error {
	return func(c *config, v string) error {
		*field(c) = v
		return nil
	}
}

func boolean(field func(*config) *bool) func(*config, string) error {
	return func(c *config, v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("say true or false")
		}
		*field(c) = b
		return nil
	}
}

func duration(field func(*config) *time.Duration, least time.Duration) func(*config, string) error {
	return func(c *config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil {
			return errors.New("say a duration such as 90s, 2m or 720h")
		}
		if d < least {
			return fmt.Errorf("say at least %s", least)
		}
		*field(c) = d
		return nil
	}
}

// kept reads how long something is kept: 0 is for ever.
func kept(field func(*config) *time.Duration, least time.Duration) func(*config, string) error {
	return func(c *config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil {
			return errors.New("say a duration such as 8760h, or 0 to keep them for ever")
		}
		if d != 0 && d < least {
			return fmt.Errorf("say at least %s, or 0 to keep them for ever", least)
		}
		*field(c) = d
		return nil
	}
}

func oneOf(field func(*config) *string, values ...string) func(*config, string) error {
	return func(c *config, v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("say one of %s", strings.Join(slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" }), ", "))
		}
		*field(c) = v
		return nil
	}
}

// prefixes reads networks; a bare address is a network of one.
func prefixes(field func(*config) *[]netip.Prefix) func(*config, string) error {
	return func(c *config, v string) error {
		for part := range strings.SplitSeq(v, ",") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			prefix, err := netip.ParsePrefix(part)
			if err != nil {
				addr, addrErr := netip.ParseAddr(part)
				if addrErr != nil {
					return fmt.Errorf("%q is no network: say one such as 203.0.113.0/24 or 2001:db8::/32", part)
				}
				prefix = netip.PrefixFrom(addr, addr.BitLen())
			}
			*field(c) = append(*field(c), prefix.Masked())
		}
		return nil
	}
}

func applyRoles(c *config, v string) error {
	for role := range strings.SplitSeq(v, ",") {
		role = strings.TrimSpace(role)
		if !slices.Contains(allRoles, role) {
			return fmt.Errorf("%q is no role: say some of %s", role, strings.Join(allRoles, ", "))
		}
		if !c.has(role) {
			c.roles = append(c.roles, role)
		}
	}
	return nil
}

func checkAddr(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("say an address and a port, such as :8080 or 127.0.0.1:8080")
	}
	return nil
}

func applyDatabaseURL(c *config, v string) error {
	if v == "" {
		return nil
	}
	c.databaseURL = v
	// pgx would take any other scheme for a list of keywords, and go to the
	// default server. Its own errors are not shown: they repeat passwords.
	cfg, err := pgx.ParseConfig(v)
	scheme, _, isURL := strings.Cut(v, "://")
	if err != nil || isURL && strings.Contains(v, "#") || // which cuts off what follows: half of a password
		isURL && scheme != "postgres" && scheme != "postgresql" || cfg.Database == "" || !isURL && !strings.Contains(v, "dbname") {
		return errors.New("not a PostgreSQL URL with a database, or one of its ?settings is wrong: say one such as postgres://user:password@host:5432/skypanel, special characters of the password as %40")
	}
	return nil
}

func applyNATSURL(c *config, v string) error {
	if v == "" {
		return nil
	}
	c.natsURL = v
	if strings.Trim(v, ", ") == "" {
		return fmt.Errorf("not a NATS URL: say one such as %s, or nothing for the embedded broker", nats.DefaultURL)
	}
	for one := range strings.SplitSeq(v, ",") {
		if strings.TrimSpace(one) == "" {
			continue
		}
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Errorf("not a NATS URL: say one such as %s, several separated by commas", nats.DefaultURL)
		}
	}
	return nil
}

func applyNATSCreds(c *config, v string) error {
	c.natsCreds = v
	if !readable(v) {
		return errors.New("no readable file: say the path of a NATS credentials file")
	}
	return nil
}

// applyFile takes the path of a PEM file, or nothing.
func applyFile(field func(*config) *string) func(*config, string) error {
	return func(c *config, v string) error {
		*field(c) = v
		if !readable(v) {
			return errors.New("no readable file: say the path of a PEM file")
		}
		return nil
	}
}

// readable reports that a path is empty, or a file's that we may read.
func readable(path string) bool {
	if path == "" {
		return true
	}
	_, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	return err == nil
}

func applyNATSCA(c *config, v string) error {
	if err := applyFile(func(c *config) *string { return &c.natsCA })(c, v); err != nil || v == "" {
		return err
	}
	pem, err := os.ReadFile(v) //nolint:gosec // G304: the operator names the file
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("no certificate in it: say a PEM file that has one or more")
	}
	return nil
}

// applyNATSKey comes after the certificate.
func applyNATSKey(c *config, v string) error {
	if err := applyFile(func(c *config) *string { return &c.natsKey })(c, v); err != nil {
		return err
	}
	switch {
	case v == "" && c.natsCert == "":
		return nil
	case v == "" || c.natsCert == "":
		return errors.New("a certificate and its key belong together: set both NATS_CERT and NATS_KEY, or neither")
	}
	if _, err := tls.LoadX509KeyPair(c.natsCert, v); err != nil && readable(c.natsCert) {
		return errors.New("not the key of NATS_CERT: say PEM files that belong together")
	}
	return nil
}

// natsTLS is how the broker's servers are checked, and told who we are.
func (c *config) natsTLS() events.DialOption { return events.WithTLS(c.natsCA, c.natsCert, c.natsKey) }

func applyReplicas(c *config, v string) error {
	if v == "" {
		return nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 5 {
		return errors.New("say a number from 1 to 5, at most the number of servers in the cluster")
	}
	c.natsReplicas = n
	return nil
}

func applyMaxChanges(c *config, v string) (err error) {
	c.maxChanges, err = ingest.ParseMaxChanges(v)
	return err
}

func applyVirtFusionURL(c *config, v string) error {
	c.virtfusionURL = v
	if v == "" {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("say a URL such as https://cp.example.com")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		c.virtfusionURL = ""
		return errors.New("say the address alone, such as https://cp.example.com, without a user, ? or #: the token goes into VIRTFUSION_API_TOKEN")
	}
	return nil
}

// headerText fails on what no HTTP header can carry, or would be cut off at.
func headerText(v string) error {
	if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("say letters, digits and signs of ASCII, without spaces or line breaks: it travels in an HTTP header")
	}
	return nil
}

func applyVirtFusionToken(c *config, v string) error {
	c.virtfusionToken = v
	if strings.HasPrefix(v, "Bearer ") {
		return errors.New("say the token alone, without the word Bearer")
	}
	return headerText(v)
}

func applyTLSVerify(c *config, v string) error {
	if v == "" {
		return nil
	}
	c.virtfusionTLSVerify = new(bool)
	return boolean(func(c *config) *bool { return c.virtfusionTLSVerify })(c, v)
}

func applyRPS(c *config, v string) error {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || !(n >= 0.01) || n > 10_000 {
		return errors.New("say requests a second, from 0.01 to 10000, such as 10")
	}
	c.virtfusionRPS = n
	return nil
}

func applyWebhookTokens(c *config, v string) error {
	for token := range strings.SplitSeq(v, ",") {
		if token = strings.TrimSpace(token); token == "" {
			continue
		}
		if strings.ContainsFunc(token, unicode.IsControl) {
			return errors.New("a token has a line break or another control character within: say tokens separated by commas, in one line")
		}
		c.webhookTokens = append(c.webhookTokens, token)
	}
	return nil
}

// mostStreamBytes is more than any disk has, and less than what overflows.
const mostStreamBytes = 1 << 60

func applyStreamBytes(c *config, v string) error {
	number, unit := strings.TrimRight(v, "KMGTiB"), int64(1)
	switch v[len(number):] {
	case "MiB", "M", "MB":
		unit = 1 << 20
	case "GiB", "G", "GB":
		unit = 1 << 30
	case "TiB", "T", "TB":
		unit = 1 << 40
	default:
		number = "" // nobody wants so many bytes
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 1 || n > mostStreamBytes/unit {
		return errors.New("say a size such as 512MiB or 8GiB")
	}
	c.streamMaxBytes = n * unit
	return nil
}

func applyMaxConnections(c *config, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 16 || n > 1_000_000 {
		return errors.New("say a number of connections from 16 to 1000000")
	}
	c.maxConnections = n
	return nil
}

func applyAdminToken(c *config, v string) error {
	c.adminToken = v
	return headerText(v)
}

// leastSecret is how short a session secret may be: whoever guesses it can
// sign in as anybody.
const leastSecret = 16

func applySessionSecret(c *config, v string) error {
	if v != "" && len(v) < leastSecret {
		return fmt.Errorf("say SkyPANEL's own SESSION_SECRET, of at least %d characters; one that is shorter can be guessed: change it in SkyPANEL first", leastSecret)
	}
	c.sessionSecret = v
	return nil
}

// origins reads origins, and adds each once.
func origins(add func(*config, api.Origin)) func(*config, string) error {
	return func(c *config, v string) error {
		var known []api.Origin
		for part := range strings.SplitSeq(v, ",") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			origin, err := api.ParseOrigin(part)
			if err != nil {
				return fmt.Errorf("%q: %w", part, err)
			}
			if !slices.Contains(known, origin) {
				known = append(known, origin)
				add(c, origin)
			}
		}
		return nil
	}
}

func applyBillingStart(c *config, v string) error {
	switch v {
	case "discovery":
	case "creation":
		c.policy.StartAtCreation = true
	default:
		return errors.New("say discovery or creation")
	}
	return nil
}

func applyInitialCharge(c *config, v string) error {
	switch charge := reconciler.InitialCharge(v); charge {
	case reconciler.ChargeRecord, reconciler.ChargeDeduct, reconciler.ChargeNone:
		c.policy.InitialCharge = charge
	default:
		return errors.New("say record, deduct or none")
	}
	return nil
}

func applyLogLevel(c *config, v string) error {
	level, err := zerolog.ParseLevel(v)
	if err != nil || !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, v) {
		return errors.New("say trace, debug, info, warn or error")
	}
	c.logLevel = level
	return nil
}
