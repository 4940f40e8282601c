package reconciler

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"serversync/events"
)

// mostLinks is how many events' traces a batch's span names.
const mostLinks = 128

// batchSpan is a batch's span, and the spans of its sampled events. Nil: nothing
// is recorded.
type batchSpan struct {
	batch  trace.Span
	events []trace.Span
}

// trace begins the span of a batch, which links to the traces of its events,
// and in each of those traces a span that links back: whoever follows one event
// finds the commit in its own trace, and what else was committed with it. A
// batch without a sampled event has none.
func (r *Reconciler) trace(ctx context.Context, deliveries []delivery) *batchSpan {
	if r.tracer == nil {
		return nil
	}
	var links []trace.Link
	var traced []int
	for i := range deliveries {
		span := events.TraceOf(ctx, deliveries[i].message.Headers())
		if !span.IsSampled() {
			continue
		}
		if len(links) < mostLinks {
			links = append(links, trace.Link{SpanContext: span})
		}
		traced = append(traced, i)
	}
	if len(traced) == 0 {
		return nil
	}
	at := trace.WithTimestamp(r.now())
	_, batch := r.tracer.Start(ctx, "reconcile batch", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), at, trace.WithLinks(links...),
		trace.WithAttributes(
			attribute.String("messaging.system", "nats"),
			attribute.String("messaging.destination.name", events.StreamName),
			attribute.Int("messaging.batch.message_count", len(deliveries)),
			attribute.Int("serversync.traced_events", len(traced))))
	s := &batchSpan{batch: batch}
	back := trace.WithLinks(trace.Link{SpanContext: batch.SpanContext()})
	for _, i := range traced {
		d := &deliveries[i]
		parent := trace.ContextWithRemoteSpanContext(ctx, events.TraceOf(ctx, d.message.Headers()))
		_, span := r.tracer.Start(parent, "reconcile", trace.WithSpanKind(trace.SpanKindConsumer), at, back,
			trace.WithAttributes(
				attribute.String("messaging.system", "nats"),
				attribute.String("messaging.message.id", d.id),
				attribute.Int64("serversync.server", d.event.Server.ID),
				attribute.Int("messaging.batch.message_count", len(deliveries))))
		s.events = append(s.events, span)
	}
	return s
}

// end ends the spans: the batch is committed, or err says what stopped it.
func (s *batchSpan) end(now time.Time, err error) {
	if s == nil {
		return
	}
	for _, span := range append(s.events, s.batch) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		} else {
			span.AddEvent("committed", trace.WithTimestamp(now))
		}
		span.End(trace.WithTimestamp(now))
	}
}
