package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"serversync/db"
	"serversync/events"
	"serversync/internal/diskspace"
)

// How long what a source said is good for further scrapes.
const (
	brokerEvery   = 5 * time.Second
	databaseEvery = 30 * time.Second // it counts the inventory
	diskEvery     = 10 * time.Second
)

// registerMetrics registers what this process can know, beside what its parts
// count themselves. docs/metrics.md lists them all.
func (s *service) registerMetrics() {
	s.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(), rolesInfo(s.config.roles), &observed{}, s.brokerMetrics())
	if s.stores.db != nil {
		s.registry.MustRegister(s.poolMetrics(), s.budgetMetrics())
	}
	if s.config.has(roleAPI) || s.config.has(roleSweep) {
		s.registry.MustRegister(s.booksMetrics())
	}
	if s.stores.broker != nil || s.stores.postgres != nil {
		s.registry.MustRegister(s.diskMetrics())
	}
}

// observed describes the metric that all sources share.
type observed struct{}

// Describe implements [prometheus.Collector].
func (*observed) Describe(ch chan<- *prometheus.Desc) { ch <- observedDesc }

// Collect implements [prometheus.Collector]: the sources do it.
func (*observed) Collect(chan<- prometheus.Metric) {}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("serversync_"+name, help, labels, nil)
}

// gauges sends values of one moment.
type gauges chan<- prometheus.Metric

func (g gauges) set(d *prometheus.Desc, value float64, labels ...string) {
	g <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (g gauges) count(d *prometheus.Desc, value float64) {
	g <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value)
}

func buildInfo() prometheus.Collector {
	b := thisBuild()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "serversync_build_info", Help: "1, with what this process was built from and with.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "date": b.Date, "goversion": b.Go},
	}, func() float64 { return 1 })
}

func rolesInfo(roles []string) prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "serversync_role_info", Help: "1 for each role that this process runs.",
	}, []string{"role"})
	for _, role := range roles {
		info.WithLabelValues(role).Set(1)
	}
	return info
}

// brokerMetrics is what the broker knows, whether or not a reconciler runs.
func (s *service) brokerMetrics() prometheus.Collector {
	waiting := desc("queue_events", "Events on the stream that are not in the books yet: waiting for a reconciler, or in the hands of one.", "state")
	age := desc("queue_oldest_age_seconds", "How long the oldest of them has been on the stream; 0: there is none.")
	last := desc("stream_last_event_timestamp_seconds", "When the newest event was stored, in Unix time; absent while there is none.")
	bytes := desc("stream_bytes", "Size of the stream.")
	limit := desc("stream_max_bytes", "Size at which the stream refuses events, and webhooks are answered 503.")
	messages := desc("stream_messages", "Messages on the stream. It has no limit to their number.")
	dead := desc("dead_letters", "Dead letters that wait for a person.")
	return &source[events.StreamState]{
		name: "broker", every: brokerEvery, log: s.log,
		read: func(ctx context.Context) (events.StreamState, error) {
			if !s.stores.nats.IsConnected() {
				return events.StreamState{}, errors.New("the broker is not connected")
			}
			return events.Inspect(ctx, s.js)
		},
		descs: []*prometheus.Desc{waiting, age, last, bytes, limit, messages, dead},
		show: func(ch chan<- prometheus.Metric, v events.StreamState, now time.Time) {
			g := gauges(ch)
			g.set(waiting, float64(v.Waiting), "waiting")
			g.set(waiting, float64(v.InHand), "in_hand")
			g.set(age, since(v.OldestAt, now))
			if !v.LastAt.IsZero() {
				g.set(last, float64(v.LastAt.UnixMilli())/1000)
			}
			g.set(bytes, float64(v.Bytes))
			if v.MaxBytes > 0 {
				g.set(limit, float64(v.MaxBytes))
			}
			g.set(messages, float64(v.Messages))
			g.set(dead, float64(v.DeadLetters))
		},
	}
}

// booksMetrics is what the inventory says: the same in every process that
// exports it, so take the maximum, not the sum.
func (s *service) booksMetrics() prometheus.Collector {
	servers := desc("servers", "Servers in the books that are not gone, by status, by whether they are billed, and by the reason where they are not.",
		"status", "billing", "billing_reason")
	held := desc("servers_awaiting_approval", "Servers whose changes wait for a person's approval of a run.")
	runs := desc("runs_needing_approval", "Runs that wait for a person's approval.")
	missing := desc("coverage_gap_servers", "Servers that the last complete sweep listed and the books did not have by its end.")
	listed := desc("sweep_listed_servers", "Servers that VirtFusion had at the last complete sweep.")
	complete := desc("sweep_last_complete_age_seconds", "How long ago a sweep last saw and did everything.")
	ended := desc("sweep_last_age_seconds", "How long ago the last sweep ended, however it did, or was put to a person.")
	state := desc("sweep_last_state", "1 for the state of the last sweep that is not at work: succeeded, incomplete, failed, needs_approval or superseded; 0 for the others.", "state")
	pass := desc("books_pass_age_seconds", "How long ago the pass over young billing rows last finished; it is due each minute.")
	findings := desc("audit_findings", "What the watchdog last found wrong with SkyPANEL's billing, by rule; 0 for rules without a finding.", "rule", "severity")
	audited := desc("audit_age_seconds", "How long ago the watchdog last looked; it does every hour.")
	var lastPass, lastAudit *time.Time
	return &source[db.BooksState]{
		name: "database", every: databaseEvery, log: s.log,
		read: func(ctx context.Context) (db.BooksState, error) {
			select {
			case <-s.migrated:
			default:
				return db.BooksState{}, errors.New("the database is not ready yet")
			}
			books, err := db.ReadBooksState(ctx, s.stores.db)
			if err != nil {
				return books, err
			}
			if books.BooksPassAt == nil { // one is at work, or broke off
				books.BooksPassAt = lastPass
			}
			if books.AuditAt == nil {
				books.AuditAt = lastAudit
			}
			lastPass, lastAudit = books.BooksPassAt, books.AuditAt
			return books, nil
		},
		descs: []*prometheus.Desc{servers, held, runs, missing, listed, complete, ended, state, pass, findings, audited},
		show: func(ch chan<- prometheus.Metric, v db.BooksState, now time.Time) {
			g := gauges(ch)
			for _, c := range v.Servers {
				g.set(servers, float64(c.Servers), c.Status, c.Billing, c.Reason)
			}
			g.set(held, float64(v.Held))
			g.set(runs, float64(v.Runs))
			if v.LastComplete != nil {
				g.set(missing, float64(v.Missing))
				g.set(listed, float64(v.LastComplete.Servers))
				g.set(complete, since(v.LastComplete.At, now))
			}
			if v.LastSweep != nil {
				g.set(ended, since(v.LastSweep.At, now))
				for _, name := range []string{db.RunSucceeded, db.RunIncomplete, db.RunFailed, db.RunNeedsApproval, db.RunSuperseded} {
					is := 0.0
					if v.LastSweep.State == name {
						is = 1
					}
					g.set(state, is, name)
				}
			}
			if v.BooksPassAt != nil {
				g.set(pass, since(*v.BooksPassAt, now))
			}
			if v.AuditAt != nil {
				g.set(audited, since(*v.AuditAt, now))
				for _, c := range v.Findings {
					g.set(findings, float64(c.Findings), string(c.Rule), string(c.Severity))
				}
			}
		},
	}
}

// budgetMetrics is what VirtFusion's API may be asked.
func (s *service) budgetMetrics() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "serversync_virtfusion_budget_per_second", Help: "Requests a second that this process may make (VIRTFUSION_RPS).",
	}, func() float64 { return s.panel.budget.Stats().PerSecond })
}

// pool exports the state of the connections to the database.
type pool struct {
	s                                               *service
	limit, connections, waits, waitSeconds, reached *prometheus.Desc
}

func (s *service) poolMetrics() prometheus.Collector {
	return &pool{
		s:           s,
		limit:       desc("database_pool_max_connections", "Connections to the database that this process may open."),
		connections: desc("database_pool_connections", "Connections to the database that are open, in use or idle.", "state"),
		waits:       desc("database_pool_waits_total", "How often somebody had to wait for a connection."),
		waitSeconds: desc("database_pool_wait_seconds_total", "How long they waited, all together."),
		reached:     desc("database_up", "Whether the database answered within half a second at this scrape."),
	}
}

// Describe implements [prometheus.Collector].
func (p *pool) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.limit, p.connections, p.waits, p.waitSeconds, p.reached} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (p *pool) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWait)
	defer cancel()
	up := 1.0
	if p.s.stores.db.PingContext(ctx) != nil {
		up = 0
	}
	stats := p.s.stores.db.Stats()
	g := gauges(ch)
	g.set(p.reached, up)
	g.set(p.limit, float64(stats.MaxOpenConnections))
	g.set(p.connections, float64(stats.InUse), "in_use")
	g.set(p.connections, float64(stats.Idle), "idle")
	g.count(p.waits, float64(stats.WaitCount))
	g.count(p.waitSeconds, stats.WaitDuration.Seconds())
}

func (s *service) diskMetrics() prometheus.Collector {
	free := desc("data_disk_free_bytes", "Bytes that this process may still write to the file system of DATA_DIR.")
	total := desc("data_disk_total_bytes", "Size of the file system of DATA_DIR, which has the embedded stores.")
	return &source[diskspace.Room]{
		name: "disk", every: diskEvery, log: s.log,
		read: func(context.Context) (diskspace.Room, error) {
			r, err := diskspace.Of(s.config.dataDir)
			if err != nil {
				return r, fmt.Errorf("look at the disk of %s (DATA_DIR): %w", s.config.dataDir, err)
			}
			return r, nil
		},
		descs: []*prometheus.Desc{free, total},
		show: func(ch chan<- prometheus.Metric, v diskspace.Room, _ time.Time) {
			g := gauges(ch)
			g.set(free, float64(v.Free))
			g.set(total, float64(v.Total))
		},
	}
}

// since is how long ago something was, in seconds; 0 for a time in the future,
// and for none.
func since(at, now time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return max(0, now.Sub(at).Seconds())
}
