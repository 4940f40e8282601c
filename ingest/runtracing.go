package ingest

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// span begins a span about a run, which ends with [endSpan]: the run's work in
// one process, a phase of it, a page of VirtFusion's list. What is published
// within it is part of its trace.
func (j *job) span(ctx context.Context, name string, more ...attribute.KeyValue) (context.Context, trace.Span) {
	if j.Tracer == nil {
		return ctx, noop.Span{}
	}
	return j.Tracer.Start(ctx, name, trace.WithAttributes(more...), trace.WithAttributes(
		attribute.String("serversync.run", j.run.ID), attribute.String("serversync.run.kind", j.run.Kind)))
}

// endSpan ends a span; err says what stopped its work, nil: nothing.
func endSpan(span trace.Span, err error) {
	if err != nil && !errors.Is(err, errWaits) {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
