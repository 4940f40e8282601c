package virtfusion

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// Budget bounds the requests a second to one panel, for everything that calls
// it. A call that somebody waits for goes ahead of those of a sweep, which
// [InBackground] marks: a background call takes its turn only while no other
// call waits, and one at a time, so that at most one of them is ever ahead of
// an urgent one. While urgent calls use the whole budget, a sweep stands still.
//
// It is safe for concurrent use.
type Budget struct {
	limiter  *rate.Limiter
	requests atomic.Int64
	// lane holds the one background call that may take a turn.
	lane chan struct{}

	mu     sync.Mutex
	urgent int // calls that wait
	// quiet is made when the first urgent call begins to wait, and closed when
	// the last one has stopped.
	quiet chan struct{}
}

// BudgetStats counts what a [Budget] has granted.
type BudgetStats struct {
	// Requests is how many it has granted, in either class.
	Requests int64
	// PerSecond is how many it grants a second; 0: without a limit.
	PerSecond float64
}

// NewBudget returns a budget of so many requests a second, of which a second's
// worth, at least one, may be made at once. [math.Inf](1) is no limit. One that
// lets nothing through (0, a negative number, not a number) is refused by
// [New].
func NewBudget(requestsPerSecond float64) *Budget {
	const most = 1 << 20 // beyond this a burst is no limit worth the name
	limit, burst := rate.Limit(requestsPerSecond), 1
	switch {
	case requestsPerSecond >= float64(rate.Inf):
		limit = rate.Inf
	case requestsPerSecond > 1:
		burst = int(min(requestsPerSecond, most))
	}
	return &Budget{limiter: rate.NewLimiter(limit, burst), lane: make(chan struct{}, 1)}
}

// backgroundKey marks a context whose calls can wait.
type backgroundKey struct{}

// InBackground marks the calls made with the returned context as ones that
// nobody waits for: in a [Budget] they let all others go first.
func InBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

// The classes of calls, as a metric's label says them.
const (
	classUrgent     = "urgent"
	classBackground = "background"
)

// classOf says whether somebody waits for a call.
func classOf(ctx context.Context) string {
	if background, _ := ctx.Value(backgroundKey{}).(bool); background {
		return classBackground
	}
	return classUrgent
}

// Wait returns when it is the call's turn. When ctx ends before, it returns
// ctx's error; when the turn would come only after ctx's deadline, it returns
// [context.DeadlineExceeded], and does so at once where that can be told.
func (b *Budget) Wait(ctx context.Context) error {
	wait := b.waitUrgently
	if classOf(ctx) == classBackground {
		wait = b.waitInBackground
	}
	if err := wait(ctx); err != nil {
		return err
	}
	b.requests.Add(1)
	return nil
}

// Stats returns what the budget has granted so far.
func (b *Budget) Stats() BudgetStats {
	stats := BudgetStats{Requests: b.requests.Load()}
	if limit := b.limiter.Limit(); limit != rate.Inf {
		stats.PerSecond = float64(limit)
	}
	return stats
}

// check refuses a budget that lets nothing through.
func (b *Budget) check() error {
	if limit := float64(b.limiter.Limit()); math.IsNaN(limit) || limit <= 0 {
		return fmt.Errorf("the request budget of %g a second lets nothing through: set VIRTFUSION_RPS to more than 0", limit)
	}
	return nil
}

func (b *Budget) waitUrgently(ctx context.Context) error {
	b.begin()
	defer b.end()
	return b.turn(ctx)
}

func (b *Budget) waitInBackground(ctx context.Context) error {
	select {
	case b.lane <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.lane }()
	for {
		quiet := b.whenQuiet()
		if quiet == nil {
			return b.turn(ctx)
		}
		select {
		case <-quiet: // unless another urgent call has come since
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// turn takes the limiter's next free slot and waits for it.
func (b *Budget) turn(ctx context.Context) error {
	err := b.limiter.Wait(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default: // the slot would come after the deadline
		return context.DeadlineExceeded
	}
}

// begin notes that an urgent call waits.
func (b *Budget) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.urgent++; b.urgent == 1 {
		b.quiet = make(chan struct{})
	}
}

// end notes that an urgent call no longer waits.
func (b *Budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.urgent--; b.urgent == 0 {
		close(b.quiet)
	}
}

// whenQuiet returns nil when no urgent call waits, or else a channel that is
// closed when none does.
func (b *Budget) whenQuiet() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.urgent == 0 {
		return nil
	}
	return b.quiet
}
