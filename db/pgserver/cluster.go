package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// superuser is the database role that owns everything.
const superuser = "postgres"

// cluster is a data directory that is to be made.
type cluster struct {
	dir        string // where it goes
	tmp        string // where it is built, on the same file system
	inst       binaries.Installation
	id         identity
	durability Durability
	log        zerolog.Logger
}

// dataVersion is the major version of the data in dir, or 0 when there is none.
// A directory with other content is an error.
func dataVersion(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "PG_VERSION")) //nolint:gosec // G304: a file in the configured directory
	if err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, fmt.Errorf("%w: PG_VERSION in %s reads %q, which is no version that this program knows; nothing was changed: move the directory away",
				ErrDataVersion, dir, strings.TrimSpace(string(text)))
		}
		return major, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read the version of the data: %w", err)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read the data directory: %w", err)
	case len(entries) > 0:
		return 0, fmt.Errorf("%w: %s has files but no PG_VERSION, so it is no PostgreSQL data directory; nothing was changed: move it away or restore it from a backup",
			ErrForeign, dir)
	}
	return 0, nil
}

// accepts returns nil when the installation can use the data in dir, whose
// major version is dataMajor (0: there is none).
func accepts(inst binaries.Installation, dir string, dataMajor int) error {
	if dataMajor == 0 || dataMajor == inst.Major {
		return nil
	}
	return fmt.Errorf("%w: %s was made by PostgreSQL %d, and %s has %d; nothing was changed. "+
		"Install PostgreSQL %d beside it (Debian: apt-get install postgresql-%d; macOS: brew install postgresql@%d) or set PG_BINDIR to its binaries; "+
		"or upgrade the data with pg_upgrade; or move the directory away to start with an empty one",
		ErrDataVersion, dir, dataMajor, inst.Dir, inst.Major, dataMajor, dataMajor, dataMajor)
}

// create makes the cluster in c.tmp and moves it to c.dir when it is complete
// and on disk, so that c.dir is never half a cluster. What an interrupted
// attempt has left behind goes first.
func (c cluster) create(ctx context.Context) error {
	var errs []error
	for _, locale := range locales(c.inst.Major) {
		err := c.initdb(ctx, locale)
		if err == nil {
			return c.moveIntoPlace()
		}
		if ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// builtinLocales is the major version from which PostgreSQL has locales of its
// own.
const builtinLocales = 17

// locales are initdb's arguments for the locale, best first. All sort by code
// point. One that knows UTF-8 folds case beyond ASCII too: the system's, which
// macOS does not have, or PostgreSQL's own; C is everywhere.
func locales(major int) [][]string {
	out := [][]string{{"--locale=C.UTF-8"}}
	if major >= builtinLocales {
		out = append(out, []string{"--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"})
	}
	return append(out, []string{"--locale=C"})
}

func (c cluster) initdb(ctx context.Context, locale []string) error {
	if err := os.RemoveAll(c.tmp); err != nil {
		return fmt.Errorf("remove an unfinished cluster: %w", err)
	}
	if err := c.id.mkdir(c.tmp); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + c.tmp, "--username=" + superuser, "--encoding=UTF8",
		"--auth-local=trust", "--auth-host=reject", "--no-instructions",
	}
	args = append(args, locale...)
	if c.durability == Fast {
		args = append(args, "--no-sync", "--wal-segsize=1")
	}
	if out, err := c.id.run(ctx, filepath.Dir(c.tmp), c.inst.Program("initdb"), args...); err != nil {
		return fmt.Errorf("initdb %s: %w; %s", strings.Join(locale, " "), err, out)
	}
	return nil
}

func (c cluster) moveIntoPlace() error {
	// An empty directory may be in the way; os.Rename wants none.
	if err := os.Remove(c.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move the new cluster into place: %w", err)
	}
	if err := os.Rename(c.tmp, c.dir); err != nil {
		return fmt.Errorf("move the new cluster into place: %w", err)
	}
	if c.durability == Durable {
		ours := filepath.Dir(c.dir)
		if err := syncDir(ours); err != nil {
			return err
		}
		// Its own name may be as new; the directory above need not be ours to
		// open, though.
		if err := syncDir(filepath.Dir(ours)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	c.log.Info().Str("dir", c.dir).Str("version", c.inst.Version).Msg("created a PostgreSQL cluster")
	return nil
}

// syncDir puts the names in dir on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: the configured directory
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
