package reconciler

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
)

// report writes one readable line for each decision that changed something, and
// tells those who watch.
func (r *Reconciler) report(decisions []decided) {
	runs := make(map[string]struct{})
	for i := range decisions {
		d := &decisions[i]
		level, words := summary(&d.Decision)
		if r.live != nil {
			if d.RunID != "" {
				runs[d.RunID] = struct{}{}
			}
			if level >= zerolog.InfoLevel {
				r.live.Announce(announcement(d, words))
			}
		}
		line := r.log.WithLevel(level)
		if r.log.GetLevel() > level {
			continue
		}
		line = line.Int64("server", d.State.ID).Str("status", string(d.State.Status))
		if d.By != nil {
			line = line.Str("event", d.By.EventID).Str("source", string(d.By.Source))
		}
		if d.RunID != "" {
			line = line.Str("run", d.RunID)
		}
		if d.State.UserID != nil {
			line = line.Int64("user", *d.State.UserID)
		}
		if d.State.BillingID != nil {
			line = line.Int64("billing_row", *d.State.BillingID)
		}
		line.Msg(words)
	}
	for id := range runs { // after the servers: their outcomes are in its totals
		r.live.Announce(events.Announcement{Type: events.LiveRun, RunID: id})
	}
}

// announcement is a decision for those who watch.
func announcement(d *decided, words string) events.Announcement {
	s := &d.State
	change := &events.ServerChange{
		ID: s.ID, Name: s.Name, Status: string(s.Status), Billing: billingOff, Reason: string(s.Reason),
		Outcome: string(d.Outcome), What: words,
	}
	if s.BillingOn {
		change.Billing = billingOn
	}
	return events.Announcement{Type: events.LiveServer, RunID: d.RunID, UserID: s.UserID, Server: change}
}

// summary is a decision in one line, and how loud to say it.
func summary(d *Decision) (zerolog.Level, string) {
	level := zerolog.DebugLevel
	var parts []string
	for _, l := range d.Lines {
		switch l.Kind {
		case LineRefundDue:
			level = zerolog.WarnLevel
			parts = append(parts, l.Reason)
		case LineDecided:
			if d.State.Status == StatusConflict {
				level = zerolog.WarnLevel
			}
			level = max(level, zerolog.InfoLevel)
			if d.Create == nil && len(d.Changes)+len(d.Withdraw) == 0 { // else those lines say it better
				parts = append(parts, l.Reason)
			}
		case LineObserved:
			if len(d.Lines) == 1 {
				level = max(level, zerolog.InfoLevel)
				parts = append(parts, l.Reason)
			}
		case LineCreated, LineChanged, LineClosed, LineWithdrawn:
			level = max(level, zerolog.InfoLevel)
			parts = append(parts, l.Reason)
		}
	}
	if d.Ask != "" {
		level = max(level, zerolog.InfoLevel)
		parts = append(parts, "VirtFusion is to be asked: "+d.Ask)
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing to change")
	}
	return level, name(&d.State) + ": " + strings.Join(parts, "; ")
}

// name is how a server is called in a line for people.
func name(s *State) string {
	if s.Name == "" {
		return "server " + strconv.FormatInt(s.ID, 10)
	}
	return "server " + strconv.FormatInt(s.ID, 10) + " " + strconv.Quote(s.Name)
}

// metrics are the reconciler's counters; their names begin with serversync_.
type metrics struct {
	events   prometheus.Counter
	servers  *prometheus.CounterVec
	statuses *prometheus.CounterVec
	unusable prometheus.Counter
	retries  prometheus.Counter
	commit   prometheus.Histogram
	lag      *prometheus.GaugeVec // of one time series, from the first batch on
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "serversync_reconciled_events_total", Help: "Events that are in the books and acknowledged.",
		}),
		servers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_decisions_total", Help: "Decisions by what became of the billing row.",
		}, []string{"outcome"}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_decided_status_total", Help: "Decisions by the status that they led to.",
		}, []string{"status"}),
		unusable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "serversync_unusable_events_total", Help: "Deliveries of events that cannot be reconciled.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "serversync_reconcile_retries_total", Help: "Batches tried again after a passing fault.",
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "serversync_reconcile_batch_seconds", Help: "Time to decide and commit a batch.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serversync_reconcile_lag_seconds", Help: "Age of the oldest event of this process's last batch when it was committed; absent before the first.",
		}, nil),
	}
	reg.MustRegister(m.events, m.servers, m.statuses, m.unusable, m.retries, m.commit, m.lag)
	return m
}

func (m *metrics) committed(n int, decisions []decided, took, lag time.Duration) {
	m.events.Add(float64(n))
	m.commit.Observe(took.Seconds())
	m.lag.WithLabelValues().Set(lag.Seconds())
	m.decided(decisions)
}

func (m *metrics) decided(decisions []decided) {
	for i := range decisions {
		m.servers.WithLabelValues(string(decisions[i].Outcome)).Inc()
		m.statuses.WithLabelValues(string(decisions[i].State.Status)).Inc()
	}
}
