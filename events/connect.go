package events

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

const (
	// pingEvery is how often a silent server is asked whether it is there; twice
	// without an answer it is taken for gone. A machine that vanished closes no
	// connection.
	pingEvery = 3 * time.Second
	// redialEvery is the time between two rounds through the servers, redialJitter
	// what is added at random, lest all processes come at once.
	redialEvery  = 250 * time.Millisecond
	redialJitter = 500 * time.Millisecond
)

// DialOption adds to how [Dial] connects.
type DialOption func(*[]nats.Option)

// WithTLS checks the servers' certificates against the authorities of a PEM file
// (empty: the system's), and shows the certificate of a PEM file, with its key
// (empty: none).
func WithTLS(ca, cert, key string) DialOption {
	return func(opts *[]nats.Option) {
		if ca != "" {
			*opts = append(*opts, nats.RootCAs(ca))
		}
		if cert != "" {
			*opts = append(*opts, nats.ClientCert(cert, key))
		}
	}
}

// Dial connects to an external broker, a server or a cluster (urls separated by
// commas), and goes on trying when it is away, now or later: an error means that
// the configuration is wrong. Credentials is the path of a NATS credentials file,
// or empty.
func Dial(url, credentials string, log zerolog.Logger, more ...DialOption) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("serversync"),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(redialEvery),
		nats.ReconnectJitter(redialJitter, redialJitter),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			log.Warn().Err(err).Msg("lost the broker; reconnecting. Until it is back webhooks are answered 503, and VirtFusion does not repeat them: sweep afterwards")
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Error().Err(err).Msg("the broker reports an error")
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info().Str("server", nc.ConnectedServerName()).Msg("reconnected to the broker")
		}),
	}
	if credentials != "" {
		opts = append(opts, nats.UserCredentials(credentials))
	}
	for _, add := range more {
		add(&opts)
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s (check NATS_URL, NATS_CREDS, NATS_CA, NATS_CERT and NATS_KEY): %w", withoutSecrets(url), err)
	}
	return nc, nil
}

// withoutSecrets drops user information from a list of NATS URLs.
func withoutSecrets(urls string) string {
	parts := strings.Split(urls, ",")
	for i, u := range parts {
		if at := strings.LastIndex(u, "@"); at >= 0 {
			scheme := strings.Index(u, "://")
			if scheme < 0 || scheme > at {
				parts[i] = "***" + u[at:]
				continue
			}
			parts[i] = u[:scheme+3] + "***" + u[at:]
		}
	}
	return strings.Join(parts, ",")
}
