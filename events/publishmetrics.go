package events

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// PublisherMetrics counts what a [Publisher] does; names begin with
// serversync_publish_. Nil counts nothing.
type PublisherMetrics struct {
	stored, duplicate, failed prometheus.Counter // events whose fate is known

	seconds prometheus.Histogram
	sync    prometheus.Histogram
	group   prometheus.Histogram
}

// What became of an event that was to be published.
const (
	publishStored    = "stored"
	publishDuplicate = "duplicate" // the broker had it already, and not from a try that it left unanswered
	publishFailed    = "failed"    // it may be on the stream or not; nobody was told that it is
)

// NewPublisherMetrics makes the metrics and registers them.
func NewPublisherMetrics(reg prometheus.Registerer) *PublisherMetrics {
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "serversync_publish_events_total", Help: "Events given to the broker, by what became of them.",
	}, []string{"result"})
	m := &PublisherMetrics{
		// A counter that appears with its first failure hides that failure from rate().
		stored:    results.WithLabelValues(publishStored),
		duplicate: results.WithLabelValues(publishDuplicate),
		failed:    results.WithLabelValues(publishFailed),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "serversync_publish_duration_seconds", Help: "Time from taking an event until it was durable, or was given up.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "serversync_publish_sync_duration_seconds", Help: "Time of one sync of the embedded store to its disk.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "serversync_publish_group_size", Help: "Events that were sent to the broker together.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
	}
	reg.MustRegister(results, m.seconds, m.sync, m.group)
	return m
}

// synced takes the time of one sync.
func (m *PublisherMetrics) synced(took time.Duration) {
	if m != nil {
		m.sync.Observe(took.Seconds())
	}
}

// sent takes the size of a group.
func (m *PublisherMetrics) sent(g *sentGroup) {
	if m != nil {
		m.group.Observe(float64(len(g.requests)))
	}
}

// settled counts an event whose fate is known, once, however often it was tried.
// Of one whose publisher ended, or whose caller left, nobody knows it.
func (m *PublisherMetrics) settled(r *request, res result) {
	if m == nil || errors.Is(res.err, errShuttingDown) || errors.Is(res.err, context.Canceled) {
		return
	}
	m.seconds.Observe(time.Since(r.at).Seconds())
	switch {
	case res.err != nil:
		m.failed.Inc()
	case res.ack.Duplicate:
		m.duplicate.Inc()
	default:
		m.stored.Inc()
	}
}
