package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/rs/zerolog"
)

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
func endPredecessor(ctx context.Context, dataDir string, log zerolog.Logger) error {
	family := findFamily(dataDir)
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
		family = findFamily(dataDir)
		for _, p := range family {
			// What is stopped cannot act on a signal.
			p.signal(dataDir, syscall.SIGCONT)
			if step.signal == killSignal || !p.hasParentIn(family) {
				p.signal(dataDir, step.signal)
			}
		}
		gone, err := waitForFamily(ctx, dataDir, step.limit)
		if err != nil {
			return fmt.Errorf("end the PostgreSQL that still runs on %s: %w", dataDir, err)
		}
		if gone {
			return removeStalePID(dataDir)
		}
	}
	return fmt.Errorf("%w: PostgreSQL processes %v still run on %s and cannot be ended: end them, then start again",
		ErrInUse, pids(findFamily(dataDir)), dataDir)
}

// waitForFamily reports whether no process is left in dataDir within the limit.
func waitForFamily(ctx context.Context, dataDir string, limit time.Duration) (bool, error) {
	errAlive := errors.New("still running")
	tries := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(5*time.Millisecond),
		backoff.WithMaxInterval(100*time.Millisecond),
		backoff.WithMaxElapsedTime(limit),
	)
	err := backoff.Retry(func() error {
		if len(findFamily(dataDir)) > 0 {
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
	path := filepath.Join(dataDir, "postmaster.pid")
	text, err := os.ReadFile(path) //nolint:gosec // G304: a file in the configured directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read postmaster.pid: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if _, err := os.Stat(filepath.Join("/proc", strings.TrimSpace(first))); err != nil {
		return nil //nolint:nilerr // no such process: not the case that matters here
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove a stale postmaster.pid: %w", err)
	}
	return nil
}

// process is one that was seen in /proc.
type process struct {
	pid, parent int
}

func (p process) hasParentIn(family []process) bool {
	for _, other := range family {
		if other.pid == p.parent {
			return true
		}
	}
	return false
}

// signal sends sig if the process still is who it was when it was found. The
// handle is taken first and the look comes second: what the handle stands for
// cannot be replaced in between.
func (p process) signal(dataDir string, sig syscall.Signal) {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return
	}
	defer handle.Release() //nolint:errcheck // nothing to be done about it
	dir, err := os.Stat(dataDir)
	if err != nil || !worksIn(p.pid, dataDir, dir) {
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

// findFamily returns the processes of a PostgreSQL server that work in dataDir.
// Processes that have ended and wait for their parent's notice do not count.
func findFamily(dataDir string) []process {
	dir, err := os.Stat(dataDir)
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var family []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !worksIn(pid, dataDir, dir) {
			continue
		}
		family = append(family, process{pid: pid, parent: parentOf(pid)})
	}
	return family
}

// worksIn reports whether pid is a PostgreSQL server process whose working
// directory, which every one of them makes its data directory, is dir. Where
// that may not be seen (another user's process, without CAP_SYS_PTRACE), the
// server's command line decides.
func worksIn(pid int, dataDir string, dir fs.FileInfo) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	name, err := os.ReadFile(filepath.Join(proc, "comm")) //nolint:gosec // G304: /proc
	if err != nil || strings.TrimSpace(string(name)) != "postgres" {
		return false
	}
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	if err == nil {
		return os.SameFile(cwd, dir)
	}
	if !errors.Is(err, fs.ErrPermission) {
		return false
	}
	line, err := os.ReadFile(filepath.Join(proc, "cmdline")) //nolint:gosec // G304: /proc
	return err == nil && bytes.Contains(line, []byte("\x00-D\x00"+dataDir+"\x00"))
}

// parentOf is the process id of pid's parent, or 0.
func parentOf(pid int) int {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// "pid (name) state parent …", and the name may have anything in it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}
