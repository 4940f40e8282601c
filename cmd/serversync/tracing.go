package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// flushTimeout bounds how long a shutdown waits for the last spans.
	flushTimeout = 2 * time.Second
	// exportTimeout bounds one attempt to send spans, where
	// OTEL_EXPORTER_OTLP_TIMEOUT says nothing.
	exportTimeout = 5 * time.Second
	// complainEvery is how often it is said that spans cannot be sent.
	complainEvery = time.Minute
)

// tracing sends spans to a collector. Nil records and sends none.
type tracing struct{ provider *sdktrace.TracerProvider }

// startTracing starts sending spans to the endpoint of the configuration; nil
// where none is set. Sampler, service name, headers, limits and timeouts are
// those of OpenTelemetry's own variables, OTEL_…. Nothing waits for the
// collector: what does not fit into the queue is dropped.
func startTracing(ctx context.Context, c *config, log zerolog.Logger) (*tracing, error) {
	if c.tracesURL == "" || os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil //nolint:nilnil // no tracing is an answer
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(c.tracesURL)}
	if os.Getenv("OTEL_EXPORTER_OTLP_TIMEOUT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") == "" {
		options = append(options, otlptracehttp.WithTimeout(exportTimeout))
	}
	exporter, err := otlptrace.New(ctx, otlptracehttp.NewClient(options...))
	if err != nil {
		return nil, fmt.Errorf("set up tracing: %w", err)
	}
	// The later ones win: what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say stands.
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "serversync"), attribute.String("service.version", thisBuild().Version),
			attribute.StringSlice("serversync.roles", c.roles)),
		resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("set up tracing (see OTEL_RESOURCE_ATTRIBUTES): %w", err)
	}
	where, _ := url.Parse(c.tracesURL) // it was checked with the configuration
	log.Info().Str("collector", where.Host).Msg("traces are sent")
	return &tracing{provider: sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&quietExporter{SpanExporter: exporter, log: log}),
		sdktrace.WithResource(about))}, nil
}

// tracer is nil when nothing is recorded.
func (t *tracing) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("serversync", trace.WithInstrumentationVersion(thisBuild().Version))
}

// close sends what is left, for as long as flushTimeout allows.
func (t *tracing) close(ctx context.Context, log zerolog.Logger) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		log.Warn().Err(err).Msg("the last spans were not sent; nothing else is lost")
	}
}

// quietExporter says at most once a minute that spans cannot be sent, and how
// many were not since it last said so.
type quietExporter struct {
	sdktrace.SpanExporter
	log zerolog.Logger

	mu     sync.Mutex
	said   time.Time
	unsent int
}

// ExportSpans implements [sdktrace.SpanExporter]. It never fails: the spans are
// gone, and it has been said.
func (q *quietExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := q.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unsent += len(spans)
	if now := time.Now(); now.Sub(q.said) >= complainEvery {
		q.log.Warn().Err(err).Int("spans", q.unsent).
			Msg("spans could not be sent and are dropped; nothing else is affected: see that the collector of OTEL_EXPORTER_OTLP_ENDPOINT is up and takes OTLP over HTTP")
		q.said, q.unsent = now, 0
	}
	return nil
}

// tracesPath is where a collector takes spans.
const tracesPath = "/v1/traces"

// applyOTLPEndpoint takes a collector's address for all signals, which the
// address for traces alone precedes.
func applyOTLPEndpoint(c *config, v string) error {
	if v == "" || c.tracesURL != "" {
		return checkOTLPURL(v)
	}
	c.tracesURL = strings.TrimRight(v, "/") + tracesPath
	return checkOTLPURL(v)
}

// applyOTLPTracesEndpoint takes the address for traces, as it stands.
func applyOTLPTracesEndpoint(c *config, v string) error {
	c.tracesURL = v
	return checkOTLPURL(v)
}

func checkOTLPURL(v string) error {
	if v == "" {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("not the URL of a collector: say one such as http://127.0.0.1:4318")
	}
	return nil
}
