package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
)

// scraped is what a source exports: the value, and whether it could be observed.
func scraped(t *testing.T, s *source[float64]) (value, seen float64, shown bool) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(&observed{}, s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "serversync_observed" {
			seen = f.GetMetric()[0].GetGauge().GetValue()
			continue
		}
		value, shown = f.GetMetric()[0].GetGauge().GetValue(), true
	}
	return value, seen, shown
}

func testSource(log *logBuffer, read func(context.Context) (float64, error)) *source[float64] {
	d := desc("test", "For this test.")
	return &source[float64]{
		name: "test", every: time.Hour, read: read, descs: []*prometheus.Desc{d}, log: zerolog.New(log),
		show: func(ch chan<- prometheus.Metric, v float64, _ time.Time) { gauges(ch).set(d, v) },
	}
}

func TestASourceIsAskedOnceForManyScrapes(t *testing.T) {
	t.Parallel()
	asked := 0.0
	s := testSource(&logBuffer{}, func(context.Context) (float64, error) { asked++; return asked, nil })
	for range 3 {
		if value, observed, _ := scraped(t, s); value != 1 || observed != 1 {
			t.Errorf("scraped %v, observed %v; want the first answer", value, observed)
		}
	}
}

func TestWhatASourceCannotSayIsLeftOut(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	failing := errors.New("away")
	s := testSource(log, func(context.Context) (float64, error) { return 7, failing })
	for range 3 {
		if value, observed, shown := scraped(t, s); shown || observed != 0 {
			t.Errorf("of a source that fails it exports %v, observed %v", value, observed)
		}
	}
	if n := strings.Count(log.String(), "away"); n != 1 {
		t.Errorf("it was said %d times, want once", n)
	}
	failing = nil
	if value, observed, _ := scraped(t, s); value != 7 || observed != 1 {
		t.Errorf("of a source that is back it exports %v, observed %v", value, observed)
	}
}

func TestASourceThatHangsHoldsUpNoScrape(t *testing.T) {
	t.Parallel()
	answer, ended := make(chan struct{}), make(chan struct{})
	s := testSource(&logBuffer{}, func(context.Context) (float64, error) { <-answer; return 7, nil })
	go func() {
		defer close(ended)
		if _, observed, shown := scraped(t, s); shown || observed != 0 {
			t.Error("something is exported of a source that says nothing")
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the scrape waits for the source")
	}
	close(answer) // the next scrape has it
	eventually(t, "the answer is there", func() bool { value, _, _ := scraped(t, s); return value == 7 })
}

// How far the books are behind is known while no reconciler runs.
func TestTheLagIsTrueWithoutAReconciler(t *testing.T) {
	t.Parallel()
	r := start(t, config{roles: []string{roleIngest}})
	r.ready(t)
	r.deliver(t, "1", nil)
	r.deliver(t, "2", nil)
	state, err := events.Inspect(t.Context(), r.js)
	if err != nil || state.Waiting != 2 || state.InHand != 0 || state.OldestAt.IsZero() || state.Messages != 2 || state.MaxBytes <= 0 || !state.OldestAt.Before(state.LastAt) {
		t.Errorf("the stream says %+v (error %v), want two events that wait since the first", state, err)
	}
	body := r.metrics(t)
	for _, line := range []string{
		"\nserversync_queue_events{state=\"waiting\"} 2\n", "\nserversync_stream_messages 2\n", "\nserversync_observed{source=\"broker\"} 1\n",
		"\nserversync_publish_events_total{result=\"stored\"} 2\n", "\nserversync_webhook_refusals_total{reason=\"unauthorized\"} 0\n",
	} {
		if !strings.Contains(body, line) {
			t.Errorf("/metrics lacks %s", strings.TrimSpace(line))
		}
	}
	if strings.Contains(body, "\nserversync_queue_oldest_age_seconds 0\n") || !strings.Contains(body, "\nserversync_queue_oldest_age_seconds ") {
		t.Error("/metrics does not say how long the oldest event has waited")
	}
	if strings.Contains(body, "serversync_reconcile") || strings.Contains(body, "serversync_database") {
		t.Error("a process without a reconciler and a database has numbers of them")
	}
}
