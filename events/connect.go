package events

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// Dial connects to an external broker and goes on trying when it is away, now
// or later: an error means that the configuration is wrong. Credentials is the
// path of a NATS credentials file, or empty.
func Dial(url, credentials string, log zerolog.Logger) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("serversync"),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
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
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s (check NATS_URL and NATS_CREDS): %w", withoutSecrets(url), err)
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
