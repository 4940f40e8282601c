package virtfusion

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/rs/zerolog"
)

// Client calls one VirtFusion's Global API. It is safe for concurrent use; all
// calls share its budget, in which those marked by [InBackground] let the
// others go first.
//
// Every call takes a context and may fail with an [*Error]. When the context
// ends, the error wraps the context's instead. Reads are repeated after 429,
// 5xx and network errors; calls that move credit never are.
type Client struct {
	base       string
	authorize  string
	redact     *strings.Replacer
	http       *http.Client
	budget     *Budget
	timeout    time.Duration
	maxRetries uint64
	maxWait    time.Duration
	userAgent  string
	clock      func() time.Time
	backOff    func() backoff.BackOff
	timer      func() backoff.Timer
	log        zerolog.Logger
	metrics    *Metrics
}

// New checks the configuration and returns a client; it makes no request. The
// error names what to set.
func New(config Config) (*Client, error) {
	base, err := parseBaseURL(config.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("virtfusion: %w", err)
	}
	if err := checkToken(config.Token); err != nil {
		return nil, fmt.Errorf("virtfusion: %w", err)
	}
	transport, err := config.transport()
	if err != nil {
		return nil, fmt.Errorf("virtfusion: %w", err)
	}
	c := &Client{
		base:      base,
		authorize: "Bearer " + config.Token,
		redact: strings.NewReplacer(
			config.Token, "[token]",
			base64.StdEncoding.EncodeToString([]byte(config.Token)), "[token]",
		),
		http: &http.Client{
			Transport: transport,
			// A redirect means a wrong address, and following one could carry
			// the token to another host or to plain HTTP.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		budget:    config.Budget,
		timeout:   cmp.Or(config.Timeout, DefaultTimeout),
		maxWait:   cmp.Or(config.MaxWait, DefaultMaxWait),
		userAgent: cmp.Or(config.UserAgent, DefaultUserAgent),
		clock:     config.Clock,
		backOff:   config.BackOff,
		timer:     config.Timer,
		log:       zerolog.Nop(),
		metrics:   config.Metrics,
	}
	if retries := cmp.Or(config.MaxRetries, DefaultMaxRetries); retries > 0 {
		c.maxRetries = uint64(retries)
	}
	if c.budget == nil {
		c.budget = NewBudget(DefaultRequestsPerSecond)
	}
	if err := c.budget.check(); err != nil {
		return nil, fmt.Errorf("virtfusion: %w", err)
	}
	if c.clock == nil {
		c.clock = time.Now
	}
	if c.backOff == nil {
		c.backOff = defaultBackOff
	}
	if c.timer == nil {
		c.timer = func() backoff.Timer { return nil } // backoff then uses the system's
	}
	if config.Logger != nil {
		c.log = config.Logger.With().Str("component", "virtfusion").Logger()
	}
	return c, nil
}
