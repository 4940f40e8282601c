package httpserver

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// TraceID is the id of the trace that a request is recorded in; empty: it is in
// none.
func TraceID(c echo.Context) string {
	if span := trace.SpanContextFromContext(c.Request().Context()); span.IsValid() {
		return span.TraceID().String()
	}
	return ""
}

// trace records a span for each request but those of probes and scrapers, and
// for no WebSocket, which lasts for hours. A trusted proxy's traceparent is gone
// on with. Everybody else's is only linked to: whoever reaches us could make us
// record, or give our spans a place in a trace of theirs.
func (s *Server) trace(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if path := c.Path(); path == "" || path == pathHealth || path == pathReady || path == pathMetrics || r.Header.Get(echo.HeaderUpgrade) != "" {
			return next(c)
		}
		ctx, options := s.parent(r)
		options = append(options, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("http.request.method", r.Method),
			attribute.String("http.route", c.Path()),
			attribute.String("serversync.request_id", RequestID(c))))
		ctx, span := s.cfg.Tracer.Start(ctx, r.Method+" "+c.Path(), options...)
		defer span.End()
		c.SetRequest(r.WithContext(ctx))
		err := next(c)
		status := c.Response().Status
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		return err
	}
}

// parent is where a request's span belongs.
func (s *Server) parent(r *http.Request) (context.Context, []trace.SpanStartOption) {
	ctx := r.Context()
	if r.Header.Get("traceparent") == "" {
		return ctx, nil
	}
	named := propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	peer, ok := parseHop(r.RemoteAddr)
	if ok && slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(peer) }) {
		return named, nil
	}
	return ctx, []trace.SpanStartOption{trace.WithLinks(trace.LinkFromContext(named))}
}
