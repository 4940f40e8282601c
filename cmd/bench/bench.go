package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// config says what to measure, and how much of it.
type config struct {
	sections *regexp.Regexp
	rounds   int
	quick    bool   // so little that the figures mean nothing: to see that it works
	parent   string // where the temporary directory is made; empty: the system's place
	binary   string // the program whose idleness is measured
	profiles string // where CPU profiles go; empty: none
	document string // what is written; empty: nothing
	command  string // how it was called
	out      io.Writer
}

// bench is one run.
type bench struct {
	config
	dir     string // of everything
	stores  stores
	results results
	machine []fact
	left    []string // sections that were left out
	now     section  // the one that is running
	started time.Time
}

// section is a part of the run that can be chosen by its name.
type section struct {
	name string
	run  func(*bench, context.Context) error
	// patience is how long a series of its rounds may take. On a machine that
	// others keep busy it has fewer rounds then, but never less than leastRounds.
	patience time.Duration
}

// leastRounds are enough for a median.
const leastRounds = 3

// sections in the order in which they run.
var sections = []section{
	{"ingest_durable", (*bench).ingestDurable, 45 * time.Second},
	{"reconcile", (*bench).reconcile, 100 * time.Second},
	{"end_to_end", (*bench).endToEnd, 70 * time.Second},
	{"sweep", (*bench).sweeps, 30 * time.Second},
	{"replay", (*bench).replay, 40 * time.Second},
	{"api", (*bench).api, 30 * time.Second},
	{"idle", (*bench).idle, 50 * time.Second},
	{"growth", (*bench).growth, 80 * time.Second}, // last: it leaves the disk the most to do
}

// logger is that of everything that is measured: as chatty as in production, and
// nobody reads it.
func logger() zerolog.Logger { return zerolog.New(io.Discard).Level(zerolog.InfoLevel) }

// run measures what was asked for and returns what was found, as far as it got.
func run(ctx context.Context, c config) (_ *bench, err error) {
	b := &bench{config: c, started: time.Now()}
	if b.dir, err = os.MkdirTemp(c.parent, "serversync-bench-"); err != nil {
		return b, fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	// PostgreSQL, which root must not run, has to pass.
	if err := os.Chmod(b.dir, 0o711); err != nil { //nolint:gosec // G302: others may pass, not look
		return b, fmt.Errorf("open the directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, b.stores.close(ctx)) }()
	if b.machine, err = describe(ctx, b); err != nil {
		return b, err
	}
	for _, s := range sections {
		if !c.sections.MatchString(s.name) {
			b.left = append(b.left, s.name)
			continue
		}
		b.tell("%s", s.name)
		b.now = s
		before := len(b.results.sections)
		if err := s.run(b, ctx); err != nil {
			return b, fmt.Errorf("%s: %w", s.name, err)
		}
		for _, m := range b.results.sections[before:] {
			m.print(b.out)
		}
	}
	return b, ctx.Err()
}

// tell writes a line of progress.
func (b *bench) tell(format string, args ...any) {
	fmt.Fprintf(b.out, "[%4.0f s] %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

// amount is a number, or next to none of it in a quick run.
func (b *bench) amount(n, quick int) int {
	if b.quick {
		return quick
	}
	return n
}

// lasting is how long a round of something takes.
func (b *bench) lasting(d time.Duration) time.Duration {
	if b.quick {
		return 200 * time.Millisecond
	}
	return d
}

// each runs a series of rounds. All are told which round it is, so that they can
// change the order in which they measure.
func (b *bench) each(ctx context.Context, what string, round func(n int) error) error {
	began := time.Now()
	for n := range b.rounds {
		if n >= leastRounds && time.Since(began) > b.now.patience {
			b.tell("%s: enough after %d rounds: this takes long today", what, n)
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b.tell("%s: round %d of %d", what, n+1, b.rounds)
		if err := round(n); err != nil {
			return err
		}
	}
	return nil
}

// profiled does something, and writes a CPU profile of it if there are to be
// any. What was garbage before is no concern of it.
func (b *bench) profiled(name string, do func() error) error {
	runtime.GC()
	if b.profiles == "" {
		return do()
	}
	if err := os.MkdirAll(b.profiles, 0o750); err != nil {
		return fmt.Errorf("make the directory of the profiles: %w", err)
	}
	for n := 1; ; n++ {
		f, err := os.OpenFile(filepath.Join(b.profiles, fmt.Sprintf("%s-%d.pprof", name, n)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write a profile: %w", err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		err = do()
		pprof.StopCPUProfile()
		return errors.Join(err, f.Close())
	}
}

// inTurn does things one after the other, every second round in the other
// direction, so that none is always the one that comes after another.
func inTurn(round int, things ...func() error) error {
	for i := range things {
		if round%2 == 1 {
			i = len(things) - 1 - i
		}
		if err := things[i](); err != nil {
			return err
		}
	}
	return nil
}

// fileName is a name without blanks.
func fileName(name string) string { return strings.ReplaceAll(name, " ", "-") }
