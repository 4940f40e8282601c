package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"
	"github.com/rs/zerolog"
)

// scratchRoom is what has to be free in memory to put a cluster there, in bytes.
const scratchRoom = 512 << 20

// makeScratch makes and locks a directory for a server that is thrown away at
// its end, and removes those that killed processes have left. A directory
// gets its final name only once it is locked: whoever finds one of that name
// unlocked may remove it.
func makeScratch(log zerolog.Logger) (dir string, l *flock.Flock, err error) {
	parent := scratchParent()
	prefix := "serversync-pg-" + strconv.Itoa(os.Geteuid()) + "-"
	sweepScratch(filepath.Join(parent, prefix+"*"), log)

	tmp, err := os.MkdirTemp(parent, "new-"+prefix)
	if err != nil {
		return "", nil, fmt.Errorf("create a temporary data directory: %w", err)
	}
	l, err = acquireLock(tmp)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(tmp))
	}
	dir = filepath.Join(parent, filepath.Base(tmp)[len("new-"):])
	if err := os.Rename(tmp, dir); err != nil {
		return "", nil, errors.Join(fmt.Errorf("name a temporary data directory: %w", err), l.Close(), os.RemoveAll(tmp))
	}
	return dir, l, nil
}

// sweepScratch removes the directories that match and have no owner any more.
// It is a courtesy: what it cannot do is logged and left.
func sweepScratch(pattern string, log zerolog.Logger) {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return // only a malformed pattern
	}
	for _, dir := range dirs {
		if err := sweepOne(dir); err != nil {
			log.Debug().Err(err).Str("dir", dir).Msg("cannot remove a temporary data directory that nobody uses")
		}
	}
}

func sweepOne(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || !(identity{uid: os.Geteuid()}).owns(info) {
		return fmt.Errorf("%w: %s", ErrForeign, dir)
	}
	l := flock.New(filepath.Join(dir, lockName), flock.SetFlag(os.O_RDWR))
	ok, err := l.TryLock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !ok {
		return nil // in use
	}
	return errors.Join(removeScratch(dir), l.Close())
}

// removeScratch removes dir, whose lock the caller has, the lock file last: as
// long as there is anything, it can be seen whose it is.
func removeScratch(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove the temporary data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove the temporary data directory: %w", err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the temporary data directory: %w", err)
	}
	return nil
}
