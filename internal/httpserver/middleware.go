package httpserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/rs/zerolog"
)

const (
	maxRequestIDLen = 64
	maxLoggedText   = 300 // bytes of a path or of an error in a log line
	maxLoggedStack  = 8 << 10

	ownLogKey = "httpserver.ownLog"
)

// RequestID returns the id of this request, as X-Request-ID shows it.
func RequestID(c echo.Context) string {
	return c.Response().Header().Get(echo.HeaderXRequestID)
}

// OwnLog says that the handler writes the request's log line itself, so that
// the server writes none (unless it fails with a 500 or panics).
func OwnLog(c echo.Context) { c.Set(ownLogKey, true) }

// requestID keeps a proxy's X-Request-ID when it is short and harmless in a
// log, and makes one otherwise.
func (s *Server) requestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if !saneRequestID(id) {
			id = rand.Text()
		}
		header := c.Response().Header()
		header.Set(echo.HeaderXRequestID, id)
		header.Set(echo.HeaderXContentTypeOptions, "nosniff")
		return next(c)
	}
}

func saneRequestID(id string) bool {
	if id == "" || len(id) > maxRequestIDLen {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case strings.ContainsRune("-_.", r):
		default:
			return false
		}
	}
	return true
}

// observe answers errors, counts the request and writes its one log line.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		err := next(c)
		if err != nil {
			err = s.refused(c, err)
			c.Error(err)
		}
		took := time.Since(start)
		s.metrics.observe(c, took)
		if c.Get(ownLogKey) != nil && c.Response().Status != http.StatusInternalServerError {
			return nil
		}
		s.logRequest(c, err, took)
		return nil
	}
}

func (s *Server) logRequest(c echo.Context, err error, took time.Duration) {
	r, res := c.Request(), c.Response()
	line := s.log.WithLevel(requestLevel(c))
	if !line.Enabled() {
		return
	}
	line.Str("requestId", RequestID(c)).
		Str("method", bounded(r.Method, 20)).
		Str("path", bounded(r.URL.Path, maxLoggedText)). // never the query: it may hold a token
		Int("status", res.Status).
		Int64("bytes", res.Size).
		Dur("durationMs", took).
		Str("client", c.RealIP())
	if id := TraceID(c); id != "" {
		line.Str("traceId", id)
	}
	if err != nil {
		line.Str("error", bounded(redact(err.Error()), maxLoggedText))
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		line.Str("stack", bounded(string(p.stack), maxLoggedStack))
	}
	line.Msg("HTTP request")
}

// requestLevel keeps the log readable: probes and scrapers come every few
// seconds, and strangers try paths that we do not have by the thousand.
func requestLevel(c echo.Context) zerolog.Level {
	switch status := c.Response().Status; {
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return zerolog.DebugLevel
	case c.Path() == pathHealth, c.Path() == pathReady, c.Path() == pathMetrics:
		return zerolog.DebugLevel
	case status >= http.StatusInternalServerError:
		return zerolog.ErrorLevel
	default:
		return zerolog.InfoLevel
	}
}

// panicError is a handler's panic, on its way to a 500 and the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares the panic value itself
				panic(v)
			}
			err = &panicError{value: v, stack: debug.Stack()}
		}()
		return next(c)
	}
}

// bounded cuts s to at most n bytes.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
