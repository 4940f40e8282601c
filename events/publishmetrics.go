package events

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// PublisherMetrics counts what a [Publisher] does; names begin with
// serversync_publish_. Nil counts nothing.
type PublisherMetrics struct {
	results *prometheus.CounterVec
	seconds prometheus.Histogram
	sync    prometheus.Histogram
	group   prometheus.Histogram
}

// What became of an event that was to be published.
const (
	publishStored    = "stored"
	publishDuplicate = "duplicate" // the broker had it already
	publishFailed    = "failed"    // it may be on the stream or not; nobody was told that it is
)

// NewPublisherMetrics makes the metrics and registers them.
func NewPublisherMetrics(reg prometheus.Registerer) *PublisherMetrics {
	m := &PublisherMetrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_publish_events_total", Help: "Events given to the broker, by what became of them.",
		}, []string{"result"}),
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
	reg.MustRegister(m.results, m.seconds, m.sync, m.group)
	// A counter that appears with its first failure hides that failure from rate().
	for _, result := range []string{publishStored, publishDuplicate, publishFailed} {
		m.results.WithLabelValues(result)
	}
	return m
}

// synced takes the time of one sync.
func (m *PublisherMetrics) synced(took time.Duration) {
	if m != nil {
		m.sync.Observe(took.Seconds())
	}
}

// answered counts a group whose requests know what became of them.
func (m *PublisherMetrics) answered(g *sentGroup, now time.Time) {
	if m == nil {
		return
	}
	m.group.Observe(float64(len(g.requests)))
	for _, r := range g.requests {
		m.seconds.Observe(now.Sub(r.at).Seconds())
		switch {
		case r.state.err != nil:
			m.results.WithLabelValues(publishFailed).Inc()
		case r.state.ack.Duplicate:
			m.results.WithLabelValues(publishDuplicate).Inc()
		default:
			m.results.WithLabelValues(publishStored).Inc()
		}
	}
}
