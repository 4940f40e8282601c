//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"serversync/cmd/internal/siege"
)

// config says how much chaos.
type config struct {
	binary string
	rounds int
	seed   uint64
	only   string // strike only blows whose name contains this
	keep   bool
	out    io.Writer
	// inTurn strikes the blows one after the other rather than at random.
	inTurn bool
}

// report is what was done and found.
type report struct {
	seed     uint64
	rounds   int
	blows    map[string]int
	starts   int // of the service, the first one included
	sent     int
	accepted int // answered 202
	servers  int // in the books
	rows     int // billing rows of ours
	longest  time.Duration
	inStep   time.Duration            // from the end of the last round until the books were
	recovery map[string]time.Duration // the longest, by blow
	lost     []string
	doubled  []string
	took     time.Duration
	checked  bool
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\nseed %d: %d rounds in %s, the service started %d times\n", r.seed, r.rounds, r.took.Round(time.Second), r.starts)
	for _, name := range slices.Sorted(maps.Keys(r.blows)) {
		fmt.Fprintf(out, "  %-28s %4d   longest recovery %s\n", name, r.blows[name], r.recovery[name].Round(10*time.Millisecond))
	}
	fmt.Fprintf(out, "events sent %d, answered 202 %d\n", r.sent, r.accepted)
	if !r.checked {
		fmt.Fprintln(out, "the books were NOT checked")
		return
	}
	fmt.Fprintf(out, "servers in the books %d, billing rows of ours %d\n", r.servers, r.rows)
	fmt.Fprintf(out, "lost %d, doubled %d, longest recovery %s, books in step %s after the last round\n",
		len(r.lost), len(r.doubled), r.longest.Round(10*time.Millisecond), r.inStep.Round(100*time.Millisecond))
	for _, line := range slices.Concat(r.lost, r.doubled) {
		fmt.Fprintln(out, "  "+line)
	}
}

// chaos is one run.
type chaos struct {
	config
	random  *rand.Rand
	report  report
	dir     string // of everything
	data    string // DATA_DIR
	disk    *disk  // nil: DATA_DIR is on an ordinary disk
	service *service
	world   *siege.World
}

// run strikes rounds blows and checks the books. The report is valid as far as
// it got when there is an error.
func run(ctx context.Context, cfg config) (_ *report, err error) {
	started := time.Now()
	c := &chaos{
		config: cfg,
		random: rand.New(rand.NewPCG(cfg.seed, 1)), //nolint:gosec // G404: chaos must be repeatable, and guards nothing
		report: report{seed: cfg.seed, blows: map[string]int{}, recovery: map[string]time.Duration{}},
	}
	defer func() { c.report.took = time.Since(started) }()
	if err := c.prepare(ctx); err != nil {
		return &c.report, errors.Join(err, c.cleanUp(context.WithoutCancel(ctx), err))
	}
	err = c.play(ctx)
	return &c.report, errors.Join(err, c.cleanUp(context.WithoutCancel(ctx), err))
}

// prepare makes the directory and starts service and world.
func (c *chaos) prepare(ctx context.Context) error {
	binary, err := filepath.Abs(c.binary)
	if err != nil {
		return fmt.Errorf("find the binary: %w", err)
	}
	if c.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	c.data = filepath.Join(c.dir, "data")
	if err := os.Mkdir(c.data, 0o700); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if c.disk, err = mountDisk(c.data); err != nil {
		fmt.Fprintf(c.out, "SKIPPED: no disk-full rounds: a small disk cannot be mounted here (%v); run as root to have them\n", err)
	}
	if binary, err = copyTo(c.dir, binary); err != nil {
		return err
	}
	who := unprivileged(ctx, c.dir, c.data, binary)
	if who == nil {
		fmt.Fprintln(c.out, "SKIPPED: no permission rounds: the service would run as root, whom permissions do not stop")
	}
	if c.service, err = newService(ctx, c.dir, c.data, binary, who); err != nil {
		return err
	}
	if err := c.recover(ctx, func() bool { return true }); err != nil {
		return err
	}
	c.world, err = newWorld(ctx, c.service, c.seed)
	return err
}

// copyTo copies the binary to where an account without rights can reach it,
// and nobody builds it anew meanwhile.
func copyTo(dir, binary string) (string, error) {
	content, err := os.ReadFile(binary) //nolint:gosec // G304: the program that we were told to torment
	if err != nil {
		return "", fmt.Errorf("read the binary (build it first: make build): %w", err)
	}
	path := filepath.Join(dir, "serversync")
	if err := os.WriteFile(path, content, 0o755); err != nil { //nolint:gosec // G306: it is a program
		return "", fmt.Errorf("copy the binary: %w", err)
	}
	return path, nil
}

// play strikes the blows, then lets the service finish and checks the books.
func (c *chaos) play(ctx context.Context) error {
	blows := slices.DeleteFunc(c.blows(), func(b blow) bool { return !strings.Contains(b.name, c.only) })
	if len(blows) == 0 {
		return fmt.Errorf("no blow is called %q here", c.only)
	}
	for n := range c.rounds {
		b := blows[n%len(blows)]
		if !c.inTurn {
			b = blows[c.random.IntN(len(blows))]
		}
		if err := c.round(ctx, n+1, b); err != nil {
			return fmt.Errorf("round %d, %s: %w", n+1, b.name, err)
		}
		c.report.rounds++
	}
	return c.check(ctx)
}

// round sends webhooks, strikes one blow at a random moment among them, and
// waits until the service is ready again.
func (c *chaos) round(ctx context.Context, n int, b blow) error {
	before, after := c.moment(600), c.moment(400)
	again := c.random.IntN(4) == 0
	hit := c.moment(1200)

	living, rest := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var lifeErr error
	wg.Go(func() { lifeErr = c.world.Live(living) })
	stop := func() error {
		rest()
		wg.Wait()
		return lifeErr
	}
	siege.Pause(ctx, before)
	struck := time.Now()
	if err := b.strike(ctx); err != nil {
		return errors.Join(err, stop())
	}
	if b.lasts {
		struck = time.Now() // the cause has just ended
	}
	if again { // once more, while it recovers
		c.service.StartIfDead(ctx)
		siege.Pause(ctx, hit)
		c.service.Signal(os.Kill)
	}
	// Ready is more than a promise: a webhook of afterwards is answered 202.
	recovering := time.Now()
	if err := c.recover(ctx, func() bool { return c.world.AcceptedSince(recovering) }); err != nil {
		return errors.Join(err, stop())
	}
	took := time.Since(struck)
	siege.Pause(ctx, after)
	if err := errors.Join(stop(), ctx.Err()); err != nil {
		return err
	}
	c.report.blows[b.name]++
	if again {
		c.report.blows["SIGKILL while it recovers"]++
		c.report.recovery["SIGKILL while it recovers"] = max(c.report.recovery["SIGKILL while it recovers"], took)
	} else {
		c.report.recovery[b.name] = max(c.report.recovery[b.name], took)
	}
	c.report.longest = max(c.report.longest, took)
	sent, accepted := c.world.Counts()
	fmt.Fprintf(c.out, "round %3d  %-28s ready again after %6s   sent %6d, answered 202 %6d\n",
		n, b.name, took.Round(10*time.Millisecond), sent, accepted)
	return nil
}

// recoverTimeout bounds how long the service may take until it is ready.
const recoverTimeout = time.Minute

// recover starts the service whenever it is not running, as its supervisor
// would, until it is ready and does its work.
func (c *chaos) recover(ctx context.Context, works func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	for {
		c.service.StartIfDead(ctx)
		if c.service.ready(ctx) && works() {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the service was not ready within %s; its log ends:\n%s", recoverTimeout, c.service.LogTail())
		}
		siege.Pause(ctx, 20*time.Millisecond)
	}
}

// moment is a random time up to so many milliseconds.
func (c *chaos) moment(limit int) time.Duration {
	return time.Duration(c.random.IntN(limit)) * time.Millisecond
}

// cleanUp ends what was started and removes the directory, unless it is needed
// to see what went wrong.
func (c *chaos) cleanUp(ctx context.Context, cause error) error {
	var errs []error
	if c.service != nil {
		errs = append(errs, c.service.end(ctx))
		c.report.starts = c.service.Starts()
	}
	if c.world != nil {
		c.report.sent, c.report.accepted = c.world.Counts()
		errs = append(errs, c.world.Close())
	}
	if c.keep || cause != nil {
		fmt.Fprintf(c.out, "kept: %s (service.log)\n", c.dir)
		return errors.Join(errs...)
	}
	if c.disk != nil {
		errs = append(errs, c.disk.unmount())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
