package events

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// An event carries the trace that it was published in as the W3C headers
// traceparent and tracestate of its message. They are no part of the event: its
// id is the same with them, without, or with others.

// carrier is a message's headers, as the propagator writes and reads them.
type carrier nats.Header

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(key string) string { return nats.Header(c).Get(key) }

// Set implements [propagation.TextMapCarrier].
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }

// Keys implements [propagation.TextMapCarrier].
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// TraceOf is the span in which a message was published; an invalid one when its
// headers name none that can be read.
func TraceOf(ctx context.Context, h nats.Header) trace.SpanContext {
	if len(h) == 0 || h.Get("traceparent") == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, carrier(h)))
}

// WithTracing has the publisher record spans of the groups in which traced events
// are published. Nil, or no such option: it records none.
func WithTracing(t trace.Tracer) Option { return func(d *durability) { d.tracer = t } }

// WithMetrics has the publisher count what it does; nil: it does not.
func WithMetrics(m *PublisherMetrics) Option { return func(d *durability) { d.metrics = m } }

// traced notes the span in which a request is made, if it is recorded.
func (r *request) traced(ctx context.Context) {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return
	}
	propagation.TraceContext{}.Inject(ctx, carrier(r.msg.Header))
	if span.IsSampled() {
		r.span = span
	}
}

// recordSpans records a span for a group that has its answers, in the trace of
// each of its sampled events: a trace shows by itself how long its event waited
// for the disk, and with how many others. The group's own times are said in all.
func (p *Publisher) recordSpans(g *sentGroup, now time.Time) {
	tracer := p.durable.tracer
	if tracer == nil {
		return
	}
	for _, r := range g.requests {
		if !r.span.IsValid() {
			continue
		}
		_, span := tracer.Start(trace.ContextWithSpanContext(context.Background(), r.span), "publish",
			trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(r.at),
			trace.WithAttributes(
				attribute.String("messaging.system", "nats"),
				attribute.String("messaging.destination.name", StreamName),
				attribute.String("messaging.message.id", r.msg.Header.Get(nats.MsgIdHdr)),
				attribute.Int("messaging.batch.message_count", len(g.requests)),
				attribute.Int64("serversync.stream.sequence", int64(r.state.ack.Sequence)), //nolint:gosec // G115: a stream holds less than 2^63 messages
				attribute.Bool("serversync.duplicate", r.state.ack.Duplicate)))
		if r.state.err != nil {
			span.SetStatus(codes.Error, r.state.err.Error())
		}
		span.End(trace.WithTimestamp(now))
	}
}
