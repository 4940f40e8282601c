package virtfusion_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"serversync/virtfusion"
)

func unlimited() *virtfusion.Budget { return virtfusion.NewBudget(math.Inf(1)) }

// queue is calls that wait for a budget, in a synctest bubble.
type queue struct {
	t      *testing.T
	budget *virtfusion.Budget
	start  time.Time
	calls  errgroup.Group
	turns  []turn
	turned chan turn
}

// turn is a call whose turn came, so long after the start.
type turn struct {
	name string
	at   time.Duration
}

// newQueue returns a queue for a budget whose burst has been used up.
func newQueue(t *testing.T, perSecond float64) *queue {
	t.Helper()
	q := &queue{t: t, budget: virtfusion.NewBudget(perSecond), start: time.Now(), turned: make(chan turn, 1000)}
	for range max(1, int(perSecond)) {
		if err := q.budget.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if waited := time.Since(q.start); waited != 0 {
		t.Fatalf("the burst took %v", waited)
	}
	return q
}

// add has a call wait, behind those that were added before.
func (q *queue) add(ctx context.Context, name string) {
	q.calls.Go(func() error {
		err := q.budget.Wait(ctx)
		if err == nil {
			q.turned <- turn{name, time.Since(q.start)}
		}
		return err
	})
	synctest.Wait()
}

// end returns the turns in order, once all calls have ended, and what the first
// call that failed failed with.
func (q *queue) end() ([]turn, error) {
	err := q.calls.Wait()
	close(q.turned)
	for turn := range q.turned {
		q.turns = append(q.turns, turn)
	}
	return q.turns, err
}

// want ends the queue and compares.
func (q *queue) want(want ...turn) {
	q.t.Helper()
	got, err := q.end()
	if err != nil {
		q.t.Errorf("a call failed: %v", err)
	}
	if !slices.Equal(got, want) {
		q.t.Errorf("turns: %v, want %v", got, want)
	}
}

func TestUrgentCallsOvertakeTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, 1)
		sweep := virtfusion.InBackground(t.Context())
		for _, name := range []string{"b1", "b2", "b3"} {
			q.add(sweep, name)
		}
		q.add(t.Context(), "u1") // b1 has the next slot already
		q.add(t.Context(), "u2")
		<-time.After(2500 * time.Millisecond) // b1 and u1 are through
		q.add(t.Context(), "u3")
		q.want(turn{"b1", time.Second}, turn{"u1", 2 * time.Second}, turn{"u2", 3 * time.Second},
			turn{"u3", 4 * time.Second}, turn{"b2", 5 * time.Second}, turn{"b3", 6 * time.Second})
		if stats := q.budget.Stats(); stats != (virtfusion.BudgetStats{Requests: 7, PerSecond: 1}) {
			t.Errorf("%+v, want the 6 and the burst's one", stats)
		}
	})
}

// TestAnUrgentCallWaitsForOneBackgroundCallAtMost: however many there are.
func TestAnUrgentCallWaitsForOneBackgroundCallAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, 10)
		ctx, cancel := context.WithCancel(virtfusion.InBackground(t.Context()))
		for range 500 {
			q.add(ctx, "background")
		}
		if err := q.budget.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(q.start); waited != 200*time.Millisecond {
			t.Errorf("waited %v, want 200ms: one call ahead, then ours", waited)
		}
		cancel()
		if _, err := q.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("the rest ended with %v", err)
		}
	})
}

// TestEachClassAloneIsServedInOrder, and at the whole rate.
func TestEachClassAloneIsServedInOrder(t *testing.T) {
	t.Parallel()
	for name, class := range map[string]func(context.Context) context.Context{
		"urgent":     func(ctx context.Context) context.Context { return ctx },
		"background": virtfusion.InBackground,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t, 4)
				var want []turn
				for i := range 40 {
					name := string(rune('A' + i))
					q.add(class(t.Context()), name)
					want = append(want, turn{name, time.Duration(i+1) * 250 * time.Millisecond})
				}
				q.want(want...)
			})
		})
	}
}

// TestTheBackgroundGoesOnAfterEveryUrgentCall, whichever way that ended.
func TestTheBackgroundGoesOnAfterEveryUrgentCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			q.calls.Go(func() error {
				if err := q.budget.Wait(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("Wait = %v, want canceled", err)
				}
				return nil
			})
		}
		synctest.Wait()
		q.add(virtfusion.InBackground(t.Context()), "background")
		cancel()
		if turns, err := q.end(); err != nil || len(turns) != 1 || turns[0].at > 4*time.Second {
			t.Errorf("turns: %v, %v", turns, err)
		}
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	background := virtfusion.InBackground
	urgent := func(ctx context.Context) context.Context { return ctx }
	for name, test := range map[string]struct {
		class func(context.Context) context.Context
		ahead []func(context.Context) context.Context
	}{
		"urgent":                                {urgent, nil},
		"urgent, behind another":                {urgent, []func(context.Context) context.Context{urgent}},
		"background, with a slot":               {background, nil},
		"background, in the lane":               {background, []func(context.Context) context.Context{urgent}},
		"background, before the lane":           {background, []func(context.Context) context.Context{background}},
		"background, before the lane, long ago": {background, []func(context.Context) context.Context{background, urgent, background}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t, 1.0/3600)
				for _, class := range test.ahead {
					q.add(class(t.Context()), "ahead")
				}
				ctx, cancel := context.WithCancel(test.class(t.Context()))
				left := make(chan error, 1)
				go func() { left <- q.budget.Wait(ctx) }()
				synctest.Wait()
				cancel()
				synctest.Wait()
				select {
				case err := <-left:
					if !errors.Is(err, context.Canceled) {
						t.Errorf("Wait = %v, want canceled", err)
					}
				default:
					t.Error("still waits")
				}
				if waited := time.Since(q.start); waited != 0 {
					t.Errorf("ended after %v", waited)
				}
				if err := q.budget.Wait(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("Wait with a context that has ended = %v", err)
				}
				if turns, err := q.end(); err != nil || len(turns) != len(test.ahead) {
					t.Errorf("those ahead: %v, %v", turns, err)
				}
				if granted := q.budget.Stats().Requests; granted != int64(1+len(test.ahead)) {
					t.Errorf("%d granted", granted)
				}
			})
		})
	}
}

func TestATurnAfterTheDeadline(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		class  func(context.Context) context.Context
		ahead  bool
		waited time.Duration
	}{
		"urgent":                  {func(ctx context.Context) context.Context { return ctx }, false, 0},
		"background":              {virtfusion.InBackground, false, 0},
		"background, not at once": {virtfusion.InBackground, true, 5 * time.Second}, // nobody can tell before
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t, 0.1)
				if test.ahead {
					q.add(t.Context(), "ahead")
				}
				ctx, cancel := context.WithTimeout(test.class(t.Context()), 5*time.Second)
				defer cancel()
				if err := q.budget.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Wait = %v, want the deadline", err)
				}
				if waited := time.Since(q.start); waited != test.waited {
					t.Errorf("waited %v, want %v", waited, test.waited)
				}
				if _, err := q.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestBudgetWithoutLimit(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{math.Inf(1), math.MaxFloat64} {
		budget := virtfusion.NewBudget(perSecond)
		for i := range 1000 {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = virtfusion.InBackground(ctx)
			}
			if err := budget.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if stats := budget.Stats(); stats != (virtfusion.BudgetStats{Requests: 1000}) {
			t.Errorf("%+v", stats)
		}
	}
}

func TestBudgetsThatLetNothingThroughAreRefused(t *testing.T) {
	t.Parallel()
	for perSecond, fine := range map[float64]bool{0: false, -1: false, math.Inf(-1): false, math.NaN(): false, 0.001: true, 1e300: true} {
		_, err := virtfusion.New(virtfusion.Config{BaseURL: "https://cp.example.com", Token: token, Budget: virtfusion.NewBudget(perSecond)})
		if (err == nil) != fine {
			t.Errorf("%g a second: %v", perSecond, err)
		}
	}
}
