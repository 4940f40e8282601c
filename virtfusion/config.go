package virtfusion

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/rs/zerolog"
)

// Defaults of [Config].
const (
	DefaultTimeout           = 30 * time.Second
	DefaultRequestsPerSecond = 10
	DefaultMaxRetries        = 4
	DefaultMaxWait           = time.Minute
	DefaultUserAgent         = "serversync"
)

const apiPath = "/api/v1"

// Config says how to reach VirtFusion's API. BaseURL and Token are required;
// the zero value of everything else is a good choice.
type Config struct {
	// BaseURL is the panel's address, with or without /api/v1 and slashes:
	// https://cp.example.com.
	BaseURL string
	// Token is the API token, as VirtFusion shows it (not base64).
	Token string
	// SkipTLSVerify accepts any certificate. Whoever sits in between then
	// reads the token.
	SkipTLSVerify bool
	// Timeout bounds each attempt, its body included; 0: DefaultTimeout.
	Timeout time.Duration
	// Budget is the requests a second, shared by everything that calls this
	// panel; each attempt takes one. Nil: DefaultRequestsPerSecond, for this
	// client alone.
	Budget *Budget
	// MaxRetries is how often a call is repeated after 429, 5xx or a network
	// error; 0: DefaultMaxRetries, negative: never.
	MaxRetries int
	// MaxWait is the longest pause before a retry. When VirtFusion asks for
	// more (Retry-After), the call fails at once; 0: DefaultMaxWait.
	MaxWait time.Duration
	// UserAgent; empty: DefaultUserAgent.
	UserAgent string
	// Transport makes the requests; nil: one of our own, which heeds
	// SkipTLSVerify and the proxy variables of the environment.
	Transport http.RoundTripper
	// Clock tells the time; nil: the system's.
	Clock func() time.Time
	// BackOff makes the pauses between one call's attempts; nil: exponential
	// from 500 ms, doubling, with jitter.
	BackOff func() backoff.BackOff
	// Timer waits out the pauses; nil: the system's. For tests.
	Timer func() backoff.Timer
	// Logger gets a debug line for each attempt; the zero value writes none.
	Logger *zerolog.Logger
	// Metrics counts the requests; clients may share it. Nil: nobody counts.
	Metrics *Metrics
}

// parseBaseURL returns the address that paths such as /servers are appended to.
func parseBaseURL(base string) (string, error) {
	if strings.TrimSpace(base) == "" {
		return "", errors.New("no address: set VIRTFUSION_API_URL, such as https://cp.example.com")
	}
	parsed, err := url.Parse(strings.TrimSpace(base))
	if err != nil {
		// The address may hold a password, so it is not repeated.
		return "", errors.New("the address cannot be read: set VIRTFUSION_API_URL to something like https://cp.example.com")
	}
	switch {
	case parsed.Scheme != "https" && parsed.Scheme != "http", parsed.Host == "":
		return "", errors.New("the address must begin with https:// and a host: set VIRTFUSION_API_URL to something like https://cp.example.com")
	case parsed.User != nil:
		return "", errors.New("the address holds a user name or password: remove it from VIRTFUSION_API_URL; the token goes into VIRTFUSION_API_TOKEN")
	case parsed.RawQuery != "" || parsed.Fragment != "":
		return "", errors.New("the address has a query or fragment: remove it from VIRTFUSION_API_URL")
	}
	path := strings.TrimSuffix(strings.TrimRight(parsed.Path, "/"), apiPath)
	return parsed.Scheme + "://" + parsed.Host + strings.TrimRight(path, "/") + apiPath, nil
}

// checkToken refuses what cannot stand in a header, without repeating it.
func checkToken(token string) error {
	if token == "" {
		return errors.New("no API token: create one in VirtFusion under System → API and set VIRTFUSION_API_TOKEN")
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("the API token holds a space, a line break or another character that no token has: copy it again into VIRTFUSION_API_TOKEN")
		}
	}
	return nil
}

// transport returns the configured transport, or one of our own.
func (c *Config) transport() (http.RoundTripper, error) {
	if c.Transport != nil {
		return c.Transport, nil
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("http.DefaultTransport is a %T: set Config.Transport", http.DefaultTransport)
	}
	own := base.Clone()
	own.MaxIdleConnsPerHost = 16
	own.TLSClientConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: c.SkipTLSVerify, //nolint:gosec // G402: VIRTFUSION_TLS_VERIFY=false is the operator's own choice
	}
	return own, nil
}

// defaultBackOff pauses 0.5, 1, 2, 4, … seconds, each give or take half.
func defaultBackOff() backoff.BackOff {
	return backoff.NewExponentialBackOff(backoff.WithMaxElapsedTime(0))
}
