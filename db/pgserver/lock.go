package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// lockName is the file whose lock says that its directory has an owner. It
// holds the owner's process id, for people; the lock itself is what counts, and
// the kernel lets it go with the process.
const lockName = "pgserver.lock"

// acquireLock takes the lock of dir or says who has it.
func acquireLock(dir string) (*flock.Flock, error) {
	path := filepath.Join(dir, lockName)
	l := flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %s is held by %s: end that process first, or use another directory",
			ErrInUse, dir, lockHolder(path))
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write the lock of the data directory: %w", err), l.Close())
	}
	return l, nil
}

// lockHolder names the process that wrote the lock file, as well as it can.
func lockHolder(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // G304: a file of ours in the configured directory
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || convErr != nil {
		return "another process"
	}
	return fmt.Sprintf("process %d", pid)
}
