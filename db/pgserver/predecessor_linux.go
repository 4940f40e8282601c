package pgserver

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
)

func endPredecessor(ctx context.Context, dataDir string, log zerolog.Logger) error {
	return procFiles().endPredecessor(ctx, dataDir, log)
}

// procFiles is Linux's census, which needs no file of the server's.
func procFiles() census {
	return census{family: findFamily, works: func(pid int, dataDir string) bool {
		dir, err := os.Stat(dataDir)
		return err == nil && worksIn(pid, dataDir, dir)
	}}
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
