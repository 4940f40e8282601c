//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/rs/zerolog"
)

// census finds the processes of servers.
type census struct {
	// family returns the server processes that work in a data directory: of
	// several at least the one that all others end with. Processes that have
	// ended and wait for their parent's notice do not count.
	family func(dataDir string) []process
	// works reports whether a process is one of those.
	works func(pid int, dataDir string) bool
}

// How long a predecessor may take to end, by how it was asked to.
const (
	predecessorFast      = 30 * time.Second
	predecessorImmediate = 10 * time.Second
	predecessorKill      = 10 * time.Second
)

// endPredecessor ends every server process that works in dataDir and returns
// when there is none. The caller holds the directory's lock, so nobody answers
// for them: their parent died while they were stopped, say, or they are still
// shutting down. They get a fast shutdown first, then an immediate one, and are
// killed in the end.
//
// Who works there is told by what a process is and where it stands, never by
// the number in postmaster.pid, which may be a stranger's by now.
func (c census) endPredecessor(ctx context.Context, dataDir string, log zerolog.Logger) error {
	family := c.family(dataDir)
	if len(family) == 0 {
		return removeStalePID(dataDir)
	}
	log.Warn().Ints("pids", pids(family)).Str("dir", dataDir).Msg("a PostgreSQL without an owner still runs on the data directory; ending it")
	steps := []struct {
		signal syscall.Signal
		limit  time.Duration
	}{
		{fastSignal, predecessorFast},
		{immediateSignal, predecessorImmediate},
		{killSignal, predecessorKill},
	}
	for _, step := range steps {
		family = c.family(dataDir)
		for _, p := range family {
			// What is stopped cannot act on a signal.
			c.signal(p, dataDir, syscall.SIGCONT)
			if step.signal == killSignal || !p.hasParentIn(family) {
				c.signal(p, dataDir, step.signal)
			}
		}
		gone, err := c.waitForFamily(ctx, dataDir, step.limit)
		if err != nil {
			return fmt.Errorf("end the PostgreSQL that still runs on %s: %w", dataDir, err)
		}
		if gone {
			return removeStalePID(dataDir)
		}
	}
	return fmt.Errorf("%w: PostgreSQL processes %v still run on %s and cannot be ended: end them, then start again",
		ErrInUse, pids(c.family(dataDir)), dataDir)
}

// waitForFamily reports whether no process is left in dataDir within the limit.
func (c census) waitForFamily(ctx context.Context, dataDir string, limit time.Duration) (bool, error) {
	errAlive := errors.New("still running")
	tries := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(5*time.Millisecond),
		backoff.WithMaxInterval(100*time.Millisecond),
		backoff.WithMaxElapsedTime(limit),
	)
	err := backoff.Retry(func() error {
		if len(c.family(dataDir)) > 0 {
			return errAlive
		}
		return nil
	}, backoff.WithContext(tries, ctx))
	if err != nil && ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil, nil
}

// removeStalePID removes a postmaster.pid whose number has become somebody
// else's: the server would take that process for its predecessor and not
// start, for ever. Any other stale one is left to the server, which also checks
// that no shared memory of its writer is in use.
func removeStalePID(dataDir string) error {
	pid, err := postmasterPID(dataDir)
	if err != nil {
		return err
	}
	if pid == 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil // no such process: not the case that matters here
	}
	if err := os.Remove(filepath.Join(dataDir, postmasterFile)); err != nil {
		return fmt.Errorf("remove a stale postmaster.pid: %w", err)
	}
	return nil
}

// postmasterFile is where a server writes its process id, in its data directory.
const postmasterFile = "postmaster.pid"

// postmasterPID is the number in that file, 0 when there is none. It may be
// anybody's by now.
func postmasterPID(dataDir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, postmasterFile)) //nolint:gosec // G304: a file in the configured directory
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read postmaster.pid: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return 0, nil //nolint:nilerr // a file without a number names nobody
	}
	return pid, nil
}

// process is one that was seen to work in a data directory; parent is 0 where
// that is not known.
type process struct {
	pid, parent int
}

func (p process) hasParentIn(family []process) bool {
	return slices.ContainsFunc(family, func(other process) bool { return other.pid == p.parent })
}

// signal sends sig if the process still is who it was when it was found. The
// handle is taken first and the look comes second: what the handle stands for
// cannot be replaced in between.
func (c census) signal(p process, dataDir string, sig syscall.Signal) {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return
	}
	defer handle.Release() //nolint:errcheck // nothing to be done about it
	if !c.works(p.pid, dataDir) {
		return
	}
	_ = handle.Signal(sig) // if it fails, the process is found again
}

func pids(family []process) []int {
	var out []int
	for _, p := range family {
		out = append(out, p.pid)
	}
	return out
}

// processTable is the census of systems without /proc: the number in
// postmaster.pid counts when ps says that it is a server of that directory.
func processTable() census {
	works := func(pid int, dataDir string) bool {
		out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output() //nolint:noctx,gosec // it answers at once, and is given a number
		return err == nil && strings.Contains(string(out), "/postgres -D "+dataDir+" ")
	}
	return census{works: works, family: func(dataDir string) []process {
		pid, err := postmasterPID(dataDir)
		if err != nil || pid == 0 || !works(pid, dataDir) {
			return nil
		}
		return []process{{pid: pid}}
	}}
}
