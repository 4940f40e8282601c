package reconciler

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
)

const (
	// pruneStep is how many rows a statement deletes at most, prunePause the time
	// between two: ten thousand rows a minute, beside everything else.
	pruneStep  = 1000
	prunePause = 5 * time.Second
	// pruneRest is how long nothing is looked at when all that is old is gone.
	pruneRest = 6 * time.Hour
)

// RetentionConfig says what is kept for how long.
type RetentionConfig struct {
	DB *bun.DB
	// HistoryMaxAge is for history lines, RunMaxAge for runs with their servers
	// and for records of faults. 0: they are kept for ever.
	HistoryMaxAge, RunMaxAge time.Duration
	// Ticks lets one step be done each; nil: one every five seconds.
	Ticks <-chan time.Time
	// Room returns an error while nothing may be written; nil: always something may.
	Room    func() error
	Now     func() time.Time
	Log     zerolog.Logger
	Metrics prometheus.Registerer
}

// Retention deletes what is old and needed by nothing, a little at a time. Of
// several processes one does it at a time.
type Retention struct {
	RetentionConfig

	tables []prunedTable
	at     int // the table that is pruned
	next   db.Pruning
	rest   time.Time // nothing is done before
	total  *prometheus.CounterVec
	sum    int64 // deleted since the last rest
}

// prunedTable is one of the tables, in the order in which they are pruned.
type prunedTable struct {
	name   string
	maxAge time.Duration
	prune  func(ctx context.Context, database *bun.DB, p *db.Pruning) error
}

// NewRetention returns a retention; [Retention.Run] makes it work.
func NewRetention(c RetentionConfig) *Retention {
	r := &Retention{
		RetentionConfig: c,
		tables: []prunedTable{
			{"history", c.HistoryMaxAge, db.PruneHistory},
			{"run_items", c.RunMaxAge, db.PruneRunItems},
			{"runs", c.RunMaxAge, db.PruneRuns},
			{"faults", c.RunMaxAge, db.PruneFaults},
		},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serversync_pruned_rows_total", Help: "Rows deleted because they were old, by table.",
		}, []string{"table"}),
	}
	for _, t := range r.tables {
		r.total.WithLabelValues(t.name)
	}
	if c.Metrics != nil {
		c.Metrics.MustRegister(r.total)
	}
	return r
}

// Run does a step at each tick until ctx ends. What fails is tried again.
func (r *Retention) Run(ctx context.Context) error {
	ticks := r.Ticks
	if ticks == nil {
		ticker := time.NewTicker(prunePause)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Msg("what is old could not be deleted; trying again")
		}
	}
}

// step prunes a part of one table.
func (r *Retention) step(ctx context.Context) error {
	now := r.Now()
	if now.Before(r.rest) {
		return nil
	}
	if r.Room != nil && r.Room() != nil {
		return nil //nolint:nilerr // a disk that is full is told of elsewhere
	}
	for r.at < len(r.tables) && r.tables[r.at].maxAge == 0 {
		r.at++
	}
	if r.at == len(r.tables) {
		if r.sum > 0 {
			r.Log.Info().Int64("rows", r.sum).Msg("what was old was deleted")
		}
		r.at, r.sum, r.rest = 0, 0, now.Add(pruneRest)
		return nil
	}
	table := r.tables[r.at]
	p := db.Pruning{After: r.next.After, Before: now.Add(-table.maxAge), Limit: pruneStep}
	if err := table.prune(ctx, r.DB, &p); err != nil {
		return fmt.Errorf("delete what is older than %s: %w", table.maxAge, err)
	}
	if p.Busy {
		return nil
	}
	r.total.WithLabelValues(table.name).Add(float64(p.Deleted))
	r.sum += p.Deleted
	r.next = p
	if p.Done {
		r.at, r.next = r.at+1, db.Pruning{}
	}
	return nil
}
