// Package binaries finds PostgreSQL's programs on this machine. The embedded
// server runs what it finds, and so does the program cmd/findpostgresql, by
// which scripts/install-postgresql.sh knows whether anything is missing: where
// PostgreSQL may be is said here and nowhere else.
//
// It needs the standard library alone, so that asking it is quick.
package binaries

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// MinVersion is the oldest major version of PostgreSQL that is accepted.
const MinVersion = 15

// ErrNotFound means that no usable PostgreSQL was found.
var ErrNotFound = errors.New("no usable PostgreSQL found")

// SearchError is an [ErrNotFound] after a search, rather than because of a wrong
// PG_BINDIR: one may be installed.
type SearchError struct {
	// Rejected says of each directory with programs why they do not do.
	Rejected []string
}

// Error names what was rejected. What to do about it depends on who asks.
func (e *SearchError) Error() string {
	text := fmt.Sprintf("%v, version %d or newer", ErrNotFound, MinVersion)
	if len(e.Rejected) > 0 {
		text += " (not usable: " + strings.Join(e.Rejected, "; ") + ")"
	}
	return text
}

// Unwrap returns [ErrNotFound].
func (e *SearchError) Unwrap() error { return ErrNotFound }

// Installation is a set of PostgreSQL's programs.
type Installation struct {
	Dir     string // where they are, absolute
	Version string // as the programs say it, "15.18"
	Major   int
	minor   int // 0 for a release under test
}

// Program is the path of one of them.
func (i Installation) Program(name string) string { return filepath.Join(i.Dir, name) }

// places are patterns of directories where systems keep the programs.
func places() []string {
	return []string{
		"/usr/lib/postgresql/*/bin", // Debian and its kin
		"/usr/pgsql-*/bin",          // PostgreSQL's own packages for Red Hat's kin
		// Homebrew: Apple silicon, Intel, Linux.
		"/opt/homebrew/opt/postgresql@*/bin", "/opt/homebrew/opt/postgresql/bin",
		"/usr/local/opt/postgresql@*/bin", "/usr/local/opt/postgresql/bin",
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql/bin",
		// Postgres.app; "latest" is a link to one of the numbers.
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	}
}

// Downloads is the directory for what was downloaded because the machine has no
// PostgreSQL: an installation in each directory beneath it, its programs in bin.
// It is in the user's cache; without HOME there is none, which is an error.
func Downloads() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache: %w: set HOME", err)
	}
	return filepath.Join(cache, "serversync", "postgresql"), nil
}

// Find returns the installation to use: that of PG_BINDIR when set, else the
// newest of those in the known places, in PATH and of pg_config, else the newest
// download ([Downloads]); each only from MinVersion on. When there is data
// already (dataMajor, its major version, is not 0), one of exactly that version
// comes before all others, but for PG_BINDIR. root, usually empty, stands before
// the known places, so that the machine's own can be hidden.
//
// Errors wrap [ErrNotFound], unless ctx has ended; a [SearchError] names what was
// there but too old.
func Find(ctx context.Context, root string, dataMajor int) (Installation, error) {
	return newFinder(root).find(ctx, dataMajor)
}

// finder looks for installations. Its fields stand for the machine's state, so
// that tests can have machines of their own.
type finder struct {
	getenv   func(string) string
	lookPath func(string) (string, error)
	// globs are patterns of directories with programs; downloads those of what
	// is only used when nothing else is there.
	globs, downloads []string
}

func newFinder(root string) finder {
	f := finder{getenv: os.Getenv, lookPath: exec.LookPath}
	for _, place := range places() {
		f.globs = append(f.globs, root+place)
	}
	if dir, err := Downloads(); err == nil {
		f.downloads = []string{filepath.Join(dir, "*", "bin")}
	}
	return f
}

func (f finder) find(ctx context.Context, dataMajor int) (Installation, error) {
	if dir := f.getenv("PG_BINDIR"); dir != "" {
		inst, err := Examine(ctx, dir)
		if err != nil {
			return Installation{}, fmt.Errorf("%w: PG_BINDIR is %s: %w; set it to a directory with initdb and postgres, or unset it",
				ErrNotFound, dir, err)
		}
		return inst, nil
	}
	installed, rejected := examineAll(ctx, f.installed(ctx))
	if inst, ok := ofMajor(installed, dataMajor); ok {
		return inst, nil
	}
	downloaded, alsoRejected := examineAll(ctx, glob(f.downloads))
	if inst, ok := ofMajor(downloaded, dataMajor); ok {
		return inst, nil
	}
	if all := slices.Concat(installed, downloaded); len(all) > 0 {
		return all[0], nil
	}
	if err := ctx.Err(); err != nil {
		return Installation{}, err
	}
	return Installation{}, &SearchError{Rejected: append(rejected, alsoRejected...)}
}

// installed lists directories of the machine that may hold programs.
func (f finder) installed(ctx context.Context) []string {
	dirs := glob(f.globs)
	for _, program := range []string{"postgres", "initdb"} {
		path, err := f.lookPath(program)
		if err != nil {
			continue
		}
		// A link in a directory of PATH leads to where the others are.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if path, err := f.lookPath("pg_config"); err == nil {
		cmd := exec.CommandContext(ctx, path, "--bindir") //nolint:gosec // G204: pg_config of the user's own PATH
		if out, err := cmd.Output(); err == nil {
			dirs = append(dirs, strings.TrimSpace(string(out)))
		}
	}
	return dirs
}

func glob(patterns []string) []string {
	var dirs []string
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // only a malformed pattern
		}
		dirs = append(dirs, matches...)
	}
	return dirs
}

// examineAll returns the installations that will do, the newest first, and what
// is wrong with the others. A directory that has several names counts once.
func examineAll(ctx context.Context, dirs []string) (usable []Installation, rejected []string) {
	seen := make(map[string]bool)
	for _, dir := range dirs {
		resolved, err := filepath.EvalSymlinks(dir)
		if err != nil {
			resolved = dir
		}
		if seen[resolved] {
			continue
		}
		seen[resolved] = true
		inst, err := Examine(ctx, dir)
		if err != nil {
			rejected = append(rejected, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		usable = append(usable, inst)
	}
	slices.SortStableFunc(usable, func(a, b Installation) int {
		return cmp.Or(cmp.Compare(b.Major, a.Major), cmp.Compare(b.minor, a.minor))
	})
	return usable, rejected
}

// ofMajor is the first that has the major version; major 0 is any.
func ofMajor(list []Installation, major int) (Installation, bool) {
	i := slices.IndexFunc(list, func(inst Installation) bool { return major == 0 || inst.Major == major })
	if i < 0 {
		return Installation{}, false
	}
	return list[i], true
}

// Examine looks at the programs in dir and asks them for their version. It fails
// unless initdb and postgres are there, run, and are new enough.
func Examine(ctx context.Context, dir string) (Installation, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Installation{}, err
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return Installation{}, err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version") //nolint:gosec // G204: the program that was configured or found
	cmd.Env = Environment()
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return Installation{}, fmt.Errorf("postgres --version: %w; %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return Installation{}, fmt.Errorf("postgres --version: %w", err)
	}
	inst, err := parseVersion(string(out))
	if err != nil {
		return Installation{}, err
	}
	if inst.Major < MinVersion {
		return Installation{}, fmt.Errorf("version %s is older than %d", inst.Version, MinVersion)
	}
	inst.Dir = dir
	return inst, nil
}

// parseVersion reads "postgres (PostgreSQL) 15.18 (Debian …)" and the forms of
// releases under test, "18beta1". The answer has no directory.
func parseVersion(out string) (Installation, error) {
	var version string
	if _, rest, ok := strings.Cut(out, "(PostgreSQL) "); ok {
		if fields := strings.Fields(rest); len(fields) > 0 {
			version = fields[0]
		}
	}
	digits := version[:len(version)-len(strings.TrimLeft(version, "0123456789"))]
	major, err := strconv.Atoi(digits)
	if err != nil {
		return Installation{}, fmt.Errorf("cannot read the version in %q", strings.TrimSpace(out))
	}
	minor, err := strconv.Atoi(strings.TrimPrefix(version[len(digits):], "."))
	if err != nil {
		minor = 0 // "18beta1" comes before "18.1"
	}
	return Installation{Version: version, Major: major, minor: minor}, nil
}

// Environment is what PostgreSQL's programs get to see: enough to run, and none
// of the secrets and PG* variables of ours.
func Environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LOCPATH", "TZDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
