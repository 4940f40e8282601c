package skypanelsim

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"
)

// DefaultInterval is how often SkyPANEL runs its hourly job.
const DefaultInterval = time.Minute

// tickLimit bounds one tick of Run, and so what Run may still take once its
// context has ended.
const tickLimit = 30 * time.Second

// OwnerFunc asks VirtFusion whose a server is; all ids are VirtFusion's.
type OwnerFunc func(ctx context.Context, virtfusionServerID int64) (ownerID int64, err error)

// DebitFunc takes tokens (cents) from a customer's credit at VirtFusion, which
// knows the customer by SkyPANEL's user id. The reference is the id of the line
// in SkyPANEL's transactions.
type DebitFunc func(ctx context.Context, userID, tokens, reference int64) error

// Failure is what becomes of an hour whose credit call failed. SkyPANEL's
// versions differ.
type Failure int

const (
	// FailureSkips moves last_billed_at to the end of all hours that were
	// tried. A failed hour is never charged again.
	FailureSkips Failure = iota
	// FailureRetries moves last_billed_at only with an hour that was charged. The
	// failed hours at the end of a catch-up are tried again by the next run,
	// each time with a failed transaction more; one that a charged hour
	// follows is skipped.
	FailureRetries
)

// JobConfig describes SkyPANEL's billing job. Its zero value is one worker
// that checks no owners and whose credit calls all succeed.
type JobConfig struct {
	// Owner is asked for each row that has a server_uuid, due or not, before
	// anything is charged; nil: nobody is. An error, another owner than the
	// customer's users.virtfusion_id, and a UUID that is the sentinel of
	// deleted users all switch the row off.
	Owner OwnerFunc
	// Debit takes the credit; nil: it is always there. An hour of 0 tokens
	// takes none and asks nobody.
	Debit DebitFunc
	// Failure says what happens when Debit fails.
	Failure Failure
	// RoundFirst: the job rounds each hour to the nearest token, also a row's
	// first one. Otherwise the first charge of a row, which is one that has no
	// completed transaction yet, is rounded up whoever makes it: the order
	// ([PayUpfront]) or the job.
	RoundFirst bool
	// Describe words the job's lines in transactions; nil: "Server #7 - Hourly
	// billing (1 hour)". So they begin as the order's line does, and a server
	// that was not ordered through SkyPANEL has one, too, once it is charged.
	// Other versions of SkyPANEL write "VirtFusion Server 7 - …" here.
	Describe func(serverID int64) string

	// Hour is how long an hour lasts that is billed; 0: an hour. A shorter one
	// shows in little time how SkyPANEL bills: everything else, its price and the
	// hours of a month too, is as ever. Whoever records servers and takes orders
	// must go by the same one.
	Hour time.Duration

	// Workers is how many of SkyPANEL's processes run the job at each tick, at
	// once and without a lock; 0: one.
	Workers int
	// Together makes the worst of it: all workers have selected what is due
	// before the first one charges, so that each charges all of it. Otherwise
	// they race as it happens.
	Together bool
	// Pause is the time between a worker's selecting and its charging; nil is
	// none. In a test it decides what happens meanwhile.
	Pause PauseFunc

	// Interval is the time between Run's ticks; 0: DefaultInterval.
	Interval time.Duration
	// Clock says at what time Run's ticks are; nil: the real time. See
	// [FastClock].
	Clock func() time.Time
	// OnTick, when set, gets what each of Run's ticks did.
	OnTick func(Report, error)
}

// Job is SkyPANEL's hourly billing job, with its flaws: it charges in advance
// and for all hours that a row is behind, at the price in the row, in steps
// that no transaction holds together, by values that it read before and never
// looks at again. Its monthly job is not simulated.
//
// A Job may be used by several goroutines, which then race as SkyPANEL's
// processes do.
type Job struct {
	database *bun.DB
	config   JobConfig
}

// NewJob returns the billing job of the SkyPANEL that owns the database.
func NewJob(database *bun.DB, config JobConfig) *Job {
	config.Workers = max(config.Workers, 1)
	config.Interval = cmp.Or(max(config.Interval, 0), DefaultInterval)
	config.Hour = cmp.Or(max(config.Hour, 0), time.Hour)
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Describe == nil {
		config.Describe = func(serverID int64) string {
			return fmt.Sprintf("Server #%d - Hourly billing (1 hour)", serverID)
		}
	}
	return &Job{database: database, config: config}
}

// Tick runs the job once, as if it were now; each worker makes a pass of its
// own. It returns an error when a pass could not be made; a row that fails is
// in the report, and the others go on. With an error, too, the report says what
// was done.
func (j *Job) Tick(ctx context.Context, now time.Time) (Report, error) {
	now = now.UTC()
	passes := make([]pass, j.config.Workers)
	for i := range passes {
		passes[i] = pass{job: j, now: now}
	}
	if j.config.Together {
		for i := range passes {
			if err := passes[i].choose(ctx); err != nil {
				return Report{At: now}, err
			}
		}
	}
	var g errgroup.Group // one worker's failure does not stop the others
	for i := range passes {
		g.Go(func() error {
			p := &passes[i]
			if !j.config.Together {
				if err := p.choose(ctx); err != nil {
					return err
				}
			}
			if j.config.Pause != nil && p.report.Off == "" {
				if err := j.config.Pause(ctx); err != nil {
					return fmt.Errorf("pause before charging: %w", err)
				}
			}
			return p.charge(ctx)
		})
	}
	err := g.Wait()
	report := Report{At: now}
	for i := range passes {
		report.add(passes[i].report)
	}
	return report, err
}

// Run ticks at the interval until ctx ends, and then returns nil. A tick in
// hand is finished first. It goes on after a tick that failed.
func (j *Job) Run(ctx context.Context) error {
	ticker := time.NewTicker(j.config.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // the end of ctx is how Run ends
		case <-ticker.C:
		}
		if ctx.Err() != nil {
			return nil
		}
		report, err := j.tickInHand(ctx)
		if j.config.OnTick != nil {
			j.config.OnTick(report, err)
		}
	}
}

func (j *Job) tickInHand(ctx context.Context) (Report, error) {
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), tickLimit)
	defer cancel()
	return j.Tick(finish, j.config.Clock())
}

// FastClock returns a clock that begins at start and runs faster than the real
// one by a factor: 3600 makes an hour of every second. Whoever creates servers
// and whoever records them must go by the same clock; else the job charges
// hours that nobody has lived.
func FastClock(start time.Time, factor float64) func() time.Time {
	begun := time.Now()
	return func() time.Time {
		return start.Add(time.Duration(float64(time.Since(begun)) * factor))
	}
}
