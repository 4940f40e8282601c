package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"serversync/db"
)

// runMetrics are counters of runs; their names begin with serversync_.
type runMetrics struct {
	runs     *prometheus.CounterVec
	complete *prometheus.GaugeVec
	took     *prometheus.HistogramVec
	found    prometheus.Counter
}

func newRunMetrics(reg prometheus.Registerer) *runMetrics {
	m := &runMetrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_runs_total", Help: "Runs by kind and by how they ended, or that they were put to a person.",
		}, []string{"kind", "state"}),
		complete: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serversync_run_last_success_timestamp_seconds", Help: "When a run of this kind last saw and did everything.",
		}, []string{"kind"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "serversync_run_seconds", Help: "How long runs took.", Buckets: prometheus.ExponentialBuckets(0.1, 3, 10),
		}, []string{"kind"}),
		found: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "serversync_drift_total", Help: "Servers that sweeps found to differ from what we knew.",
		}),
	}
	reg.MustRegister(m.runs, m.complete, m.took, m.found)
	// A counter that appears with its first failure hides that failure from rate().
	for _, kind := range []string{db.RunSweep, db.RunSync, db.RunReplay, db.RunBulk} {
		for _, state := range []string{db.RunSucceeded, db.RunIncomplete, db.RunFailed, db.RunNeedsApproval} {
			m.runs.WithLabelValues(kind, state)
		}
	}
	return m
}

// ended counts a run that has ended, or waits for approval.
func (m *runMetrics) ended(r *db.Run, now time.Time) {
	if r.DryRun {
		return
	}
	m.runs.WithLabelValues(r.Kind, r.State).Inc()
	if r.State == db.RunNeedsApproval {
		return // the rest is known when it has ended
	}
	m.found.Add(float64(r.Progress.Drift))
	m.took.WithLabelValues(r.Kind).Observe(now.Sub(r.StartedAt).Seconds())
	if r.State == db.RunSucceeded {
		m.complete.WithLabelValues(r.Kind).Set(float64(now.Unix()))
	}
}
