//go:build linux

package main

import (
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

	"serversync/cmd/internal/siege"
)

// blow is one way of making trouble.
type blow struct {
	name   string
	strike func(ctx context.Context) error
	// lasts: strike returns once its cause has ended, and recovery counts from
	// there.
	lasts bool
}

// blows are those that can be struck here.
func (c *chaos) blows() []blow {
	all := []blow{
		{name: "SIGKILL service", strike: func(ctx context.Context) error {
			c.service.Signal(syscall.SIGKILL)
			return c.service.Await(ctx, 10*time.Second)
		}},
		{name: "SIGKILL PostgreSQL", strike: c.toPostgreSQL(syscall.SIGKILL)},
	}
	if c.disk != nil {
		all = append(all,
			blow{name: "disk full", strike: c.fillDisk, lasts: true},
			blow{name: "SIGKILL service, disk full", strike: func(ctx context.Context) error {
				return c.disk.full(func() error {
					siege.Pause(ctx, c.moment(500))
					c.service.Signal(syscall.SIGKILL)
					return c.startInTrouble(ctx)
				})
			}, lasts: true})
	}
	if c.service.Who != nil {
		all = append(all,
			blow{name: "no permissions", strike: func(ctx context.Context) error {
				return c.forbidden(func() error {
					siege.Pause(ctx, c.moment(1500))
					return nil
				})
			}, lasts: true},
			blow{name: "SIGKILL, no permissions", strike: func(ctx context.Context) error {
				return c.forbidden(func() error {
					siege.Pause(ctx, c.moment(500))
					c.service.Signal(syscall.SIGKILL)
					return c.startInTrouble(ctx)
				})
			}, lasts: true})
	}
	return append(all,
		blow{name: "SIGTERM service", strike: func(ctx context.Context) error {
			c.service.Signal(syscall.SIGTERM)
			return c.service.Await(ctx, 15*time.Second)
		}},
		blow{name: "PostgreSQL shut down", strike: c.toPostgreSQL(syscall.SIGINT)},
		blow{name: "SIGKILL a backend", strike: c.killBackend},
		blow{name: "PostgreSQL frozen", strike: c.freeze, lasts: true},
	)
}

// toPostgreSQL signals the embedded server, and waits until it is gone: the
// service notices, says so and ends.
func (c *chaos) toPostgreSQL(sig syscall.Signal) func(context.Context) error {
	return func(ctx context.Context) error {
		pid := c.service.postmaster()
		if pid == 0 {
			return errors.New("there is no PostgreSQL to strike")
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("signal PostgreSQL %d: %w", pid, err)
		}
		return c.service.Await(ctx, 30*time.Second)
	}
}

// killBackend kills one process of PostgreSQL's: it then drops all connections
// and recovers by itself.
func (c *chaos) killBackend(context.Context) error {
	backends := children(c.service.postmaster())
	if len(backends) == 0 {
		return errors.New("PostgreSQL has no processes to strike")
	}
	// It may have ended just now.
	_ = syscall.Kill(backends[c.random.IntN(len(backends))], syscall.SIGKILL)
	return nil
}

// freeze stops all of PostgreSQL's processes for a moment.
func (c *chaos) freeze(ctx context.Context) error {
	postmaster := c.service.postmaster()
	frozen := append(children(postmaster), postmaster)
	if postmaster == 0 {
		return errors.New("there is no PostgreSQL to strike")
	}
	for _, pid := range frozen {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // some may have ended
	}
	siege.Pause(ctx, 200*time.Millisecond+c.moment(2000))
	for _, pid := range frozen {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	return nil
}

// children are the processes that a process has started.
func children(parent int) []int {
	if parent == 0 {
		return nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		return nil
	}
	var pids []int
	for word := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// fillDisk leaves no room for a while.
func (c *chaos) fillDisk(ctx context.Context) error {
	return c.disk.full(func() error {
		siege.Pause(ctx, 300*time.Millisecond+c.moment(1500))
		return nil
	})
}

// startInTrouble tries for a while to start a service that was killed, as a
// supervisor would.
func (c *chaos) startInTrouble(ctx context.Context) error {
	if err := c.service.Await(ctx, 10*time.Second); err != nil {
		return err
	}
	for range 1 + c.random.IntN(3) {
		c.service.StartIfDead(ctx)
		siege.Pause(ctx, c.moment(700))
	}
	return nil
}

// forbidden takes the right to write from the directories of both stores,
// while something happens.
func (c *chaos) forbidden(meanwhile func() error) (err error) {
	modes := make(map[string]fs.FileMode)
	for _, root := range []string{filepath.Join(c.data, "nats"), filepath.Join(c.data, "postgres", "data")} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil //nolint:nilerr // it went away while we looked
			}
			if info, err := entry.Info(); err == nil {
				modes[path] = info.Mode().Perm()
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look through %s: %w", root, err)
		}
	}
	defer func() {
		for path, mode := range modes {
			if chmodErr := os.Chmod(path, mode); chmodErr != nil && !errors.Is(chmodErr, fs.ErrNotExist) {
				err = errors.Join(err, chmodErr)
			}
		}
	}()
	for path, mode := range modes {
		if err := os.Chmod(path, mode&^0o222); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("take permissions: %w", err)
		}
	}
	return meanwhile()
}
