// Package httpserver is the HTTP plumbing that ingest and api share: the
// server with its limits, the request's id and the client's address, the one
// shape of an error, the log line of a request, and the routes every process
// has whatever its roles: health, readiness, metrics and the documents that
// describe the interface.
//
// It knows nothing of servers or billing and imports nothing of ours: what it
// serves and whom it asks about readiness is passed in.
package httpserver

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
)

// Limits of every connection. A client that needs more time than this to send
// a request of at most a megabyte is no client of ours.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	// writeTimeout runs from the end of the request's header; it leaves room
	// for a user's sync, which may wait 25 s for its answer.
	writeTimeout   = 60 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10

	defaultDrainTimeout = 8 * time.Second
	defaultProbeTimeout = 2 * time.Second
)

// Config is what a [Server] is made of.
type Config struct {
	// Addr to listen on, as for [net.Listen] with "tcp"; port 0 picks a free
	// one, see [Server.Addr].
	Addr string
	// TrustedProxies are the peers whose X-Forwarded-For counts. Empty: nobody's.
	TrustedProxies []netip.Prefix

	// Roles that this process runs.
	Roles []string
	// KnownRoles are all roles there are; /readyz refuses to be asked for any
	// other. Empty: the same as Roles.
	KnownRoles []string
	// Checks of what this process depends on, shown by /readyz.
	Checks []Check
	// ProbeTimeout bounds each check. Default: 2 s.
	ProbeTimeout time.Duration

	// Registry is served at /metrics, and takes this package's own metrics.
	// Nil: an empty one is made.
	Registry *prometheus.Registry
	// OpenAPI is served at /openapi.yaml. Empty: no such route.
	OpenAPI []byte
	// Schemas holds the *.json files served at /schemas/, in its root. They
	// are read once. Nil: no such route.
	Schemas fs.FS

	// MaxConnections is how many connections are open at once. Fewer, where the
	// process may not open as many files. Default: 2048.
	MaxConnections int
	// Grace is how long a connection may take before it can be dropped for
	// another one, when there are as many as may be. Default: 500 ms.
	Grace time.Duration

	// Tracer records a span for each request; nil: none are recorded.
	Tracer trace.Tracer

	// Log receives one line per request.
	Log zerolog.Logger
	// DrainTimeout is how long requests in hand may still take once the
	// server is told to stop. Default: 8 s.
	DrainTimeout time.Duration
}

// Server is an HTTP server with the routes that every process has. Register
// further ones on [Server.Echo] before [Server.Run].
type Server struct {
	cfg     Config
	echo    *echo.Echo
	log     zerolog.Logger
	metrics *metrics
	probes  []*probe
	// refusals of strangers, by address.
	refusals *Attempts

	ready chan struct{}
	addr  net.Addr // written before ready is closed
}

// New sets up a server without listening yet. It fails when a schema cannot be
// read, when two checks share a name, or when the registry refuses its metrics.
func New(cfg Config) (*Server, error) {
	if cfg.DrainTimeout <= 0 {
		cfg.DrainTimeout = defaultDrainTimeout
	}
	if cfg.ProbeTimeout <= 0 {
		cfg.ProbeTimeout = defaultProbeTimeout
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = defaultMaxConnections
	}
	cfg.MaxConnections = affordable(cfg.MaxConnections, OpenFiles())
	if cfg.Grace <= 0 {
		cfg.Grace = defaultGrace
	}
	if len(cfg.KnownRoles) == 0 {
		cfg.KnownRoles = cfg.Roles
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	s := &Server{cfg: cfg, log: cfg.Log, ready: make(chan struct{}), refusals: newAttempts(refusalsPerSecond, refusalBurst)}

	var err error
	if s.metrics, err = newMetrics(cfg.Registry); err != nil {
		return nil, err
	}
	if s.probes, err = newProbes(cfg.Checks, cfg.ProbeTimeout, cfg.Log); err != nil {
		return nil, err
	}

	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = clientAddrExtractor(cfg.TrustedProxies)
	e.HTTPErrorHandler = s.answerError
	e.Pre(middleware.RemoveTrailingSlashWithConfig(middleware.TrailingSlashConfig{Skipper: wantsPage})) // a slash too many in VirtFusion's webhook must not lose its events
	e.Use(s.requestID)
	if cfg.Tracer != nil {
		e.Use(s.trace)
	}
	e.Use(s.observe, recoverPanics)
	s.echo = e
	if err := s.registerRoutes(); err != nil {
		return nil, err
	}
	return s, nil
}

// Echo returns the router, to register routes on before [Server.Run].
func (s *Server) Echo() *echo.Echo { return s.echo }

// Handler returns what [Server.Run] serves, for tests without its limits.
func (s *Server) Handler() http.Handler { return headAsGet(s.echo) }

// Ready is closed once the server listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr returns the address it listens on, with the real port; nil before
// [Server.Ready] is closed.
func (s *Server) Addr() net.Addr {
	select {
	case <-s.ready:
		return s.addr
	default:
		return nil
	}
}

// Run listens and serves until ctx ends, then stops accepting and lets the
// requests in hand finish within the drain timeout. Their contexts do not end
// with ctx, only with that timeout; what is still unfinished then, a client that
// never sends the rest of its request for one, is cut off. It returns nil after
// such a stop, an error when it cannot listen or when serving fails. A server
// runs once.
func (s *Server) Run(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %q (set LISTEN_ADDR to an address of this machine and a free port, or stop what listens there): %w", s.cfg.Addr, err)
	}
	return s.Serve(ctx, ln)
}

// Serve is [Server.Run] with a listener of the caller's, which it closes.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	limited := limitConnections(ln, s.cfg.MaxConnections, s.cfg.Grace, s.cfg.TrustedProxies, s.metrics.dropped.Inc)
	s.metrics.open.Store(limited)
	srv := &http.Server{
		Handler:           s.Handler(),
		ConnContext:       withConnection,
		ConnState:         limited.state,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          log.New(connLog{s.log}, "", 0),
	}
	s.addr = ln.Addr()
	close(s.ready)

	served := make(chan error, 1)
	go func() { served <- srv.Serve(limited) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", s.addr, err)
	case <-ctx.Done():
	}

	drain, cancel := context.WithTimeout(requests, s.cfg.DrainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		cut()
		s.log.Warn().Err(err).Dur("waited", s.cfg.DrainTimeout).Msg("requests that did not finish in time were cut off")
		if err := srv.Close(); err != nil {
			s.log.Debug().Err(err).Msg("closing HTTP connections")
		}
	}
	return nil
}

// otherFiles is how many files a process has open besides its connections, at
// most: the embedded stores', and those of connections to others.
const otherFiles = 256

// affordable is how many connections may be open where so many files may (0:
// nobody knows).
func affordable(connections int, files uint64) int {
	if files == 0 || files >= uint64(connections)+otherFiles { //nolint:gosec // G115: above 0
		return connections
	}
	return max(int(files)-otherFiles, int(files)/2) //nolint:gosec // G115: below connections+otherFiles
}

// connLog takes what net/http has to say about single connections (a header
// that is none, an aborted handshake): worth a look, never an alarm.
type connLog struct{ log zerolog.Logger }

func (l connLog) Write(p []byte) (int, error) {
	l.log.Debug().Str("detail", bounded(string(p), 500)).Msg("HTTP connection")
	return len(p), nil
}

// headKey marks the context of a request that came as HEAD.
type headKey struct{}

// wantsPage reports that somebody opens an address in a browser, where a slash
// more makes other addresses of those that the page names.
func wantsPage(c echo.Context) bool {
	return c.Request().Method == http.MethodGet && strings.Contains(c.Request().Header.Get(echo.HeaderAccept), "text/html")
}

// AskedByHead reports whether a request that its handler sees as GET came as
// HEAD: what may happen once only, must not happen for it.
func AskedByHead(r *http.Request) bool { return r.Context().Value(headKey{}) != nil }

// headAsGet answers HEAD wherever GET is answered: net/http drops the body.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.WithContext(context.WithValue(r.Context(), headKey{}, true))
			r.Method = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}
