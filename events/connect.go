package events

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
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
	// refusedAgain is how often it is said that a server does not let us in.
	refusedAgain = 30 * time.Second
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

// Once makes [Dial] fail when no server lets us in now: for commands that look.
func Once() DialOption {
	return func(opts *[]nats.Option) { *opts = append(*opts, nats.RetryOnFailedConnect(false)) }
}

// Dial connects to an external broker, a server or a cluster (urls separated by
// commas), and goes on trying when it is away, now or later: an error means that
// the configuration is wrong. Credentials is the path of a NATS credentials file,
// or empty.
func Dial(url, credentials string, log zerolog.Logger, more ...DialOption) (*nats.Conn, error) {
	said := rate.Sometimes{First: 1, Interval: refusedAgain}
	opts := []nats.Option{
		nats.Name("serversync"),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(redialEvery),
		nats.ReconnectJitter(redialJitter, redialJitter),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
		// Else two refusals in a row would end the connection for ever, and a
		// password that is mended on the server's side would help nobody.
		nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err == nil {
				return // we closed it
			}
			log.Warn().Err(err).Msg("lost the broker; reconnecting. Until it is back webhooks are answered 503, and VirtFusion does not repeat them: sweep afterwards")
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !refused(err) {
				log.Error().Err(err).Msg("the broker reports an error")
				return
			}
			said.Do(func() {
				log.Error().Err(err).Str("do", "check the user and password of NATS_URL, or NATS_CREDS, and the server's own users").
					Msg("the broker does not let us in; trying again")
			})
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

// refused reports that a server does not take us for somebody it knows.
func refused(err error) bool {
	for _, no := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
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
