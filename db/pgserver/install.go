package pgserver

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// installation is a set of PostgreSQL binaries.
type installation struct {
	bindir  string
	major   int
	version string // as the binary says it, "15.18"
}

func (i installation) program(name string) string { return filepath.Join(i.bindir, name) }

// accepts returns nil when the installation can use the data in dir, whose
// major version is dataMajor (0: there is none).
func (i installation) accepts(dir string, dataMajor int) error {
	if dataMajor == 0 || dataMajor == i.major {
		return nil
	}
	return fmt.Errorf("%w: %s was made by PostgreSQL %d, and %s has %d; nothing was changed. "+
		"Install PostgreSQL %d beside it (Debian: apt-get install postgresql-%d) or set PG_BINDIR to its binaries; "+
		"or upgrade the data with pg_upgrade; or move the directory away to start with an empty one",
		ErrDataVersion, dir, dataMajor, i.bindir, i.major, dataMajor, dataMajor)
}

// finder looks for installations. Its fields stand for the machine's state, so
// that tests can have machines of their own.
type finder struct {
	getenv   func(string) string
	lookPath func(string) (string, error)
	// globs are patterns of directories with binaries, one version each.
	// Other systems' places (Homebrew's, for one) belong here.
	globs []string
}

func defaultFinder() finder {
	return finder{
		getenv:   os.Getenv,
		lookPath: exec.LookPath,
		globs:    []string{"/usr/lib/postgresql/*/bin"},
	}
}

// find returns the installation to use: that of PG_BINDIR when set, else the
// newest in the known places, else that of PATH, else that of pg_config; each
// only from MinVersion on. When there is data already (dataMajor is not 0), the
// first one of exactly that version comes before all others.
func (f finder) find(ctx context.Context, dataMajor int) (installation, error) {
	if dir := f.getenv("PG_BINDIR"); dir != "" {
		inst, err := examine(ctx, dir)
		if err != nil {
			return installation{}, fmt.Errorf("%w: PG_BINDIR is %s: %w; set it to a directory with initdb and postgres, or unset it",
				ErrNotInstalled, dir, err)
		}
		return inst, nil
	}
	var found []installation
	var rejected []string
	for _, dir := range f.candidates(ctx) {
		inst, err := examine(ctx, dir)
		if err != nil {
			rejected = append(rejected, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		if inst.major == dataMajor {
			return inst, nil
		}
		found = append(found, inst)
	}
	if len(found) > 0 {
		return found[0], nil
	}
	if err := ctx.Err(); err != nil {
		return installation{}, err
	}
	why := ""
	if len(rejected) > 0 {
		why = " (not usable: " + strings.Join(rejected, "; ") + ")"
	}
	return installation{}, fmt.Errorf("%w, version %d or newer%s: on Debian and Ubuntu, as root: apt-get install postgresql "+
		"(scripts/install-postgresql.sh does so without starting a server of its own); or set PG_BINDIR to the directory with postgres and initdb",
		ErrNotInstalled, MinVersion, why)
}

// candidates lists directories that may hold binaries, best first.
func (f finder) candidates(ctx context.Context) []string {
	var dirs []string
	for _, pattern := range f.globs {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // only a malformed pattern
		}
		slices.SortStableFunc(matches, func(a, b string) int { return cmp.Compare(pathVersion(b), pathVersion(a)) })
		dirs = append(dirs, matches...)
	}
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
	return unique(dirs)
}

// pathVersion is the number in ".../15/bin", or 0.
func pathVersion(bindir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bindir)))
	if err != nil {
		return 0
	}
	return n
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// examine looks at the binaries in dir and asks them for their version.
func examine(ctx context.Context, dir string) (installation, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return installation{}, err
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return installation{}, err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version") //nolint:gosec // G204: the program that was configured or found
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return installation{}, fmt.Errorf("postgres --version: %w", err)
	}
	version, major, err := parseVersion(string(out))
	if err != nil {
		return installation{}, err
	}
	if major < MinVersion {
		return installation{}, fmt.Errorf("version %s is older than %d", version, MinVersion)
	}
	return installation{bindir: dir, major: major, version: version}, nil
}

// parseVersion reads "postgres (PostgreSQL) 15.18 (Debian …)" and the forms of
// releases under test, "18beta1".
func parseVersion(out string) (version string, major int, err error) {
	_, rest, ok := strings.Cut(out, "(PostgreSQL) ")
	if ok {
		if fields := strings.Fields(rest); len(fields) > 0 {
			version = fields[0]
		}
	}
	digits := version[:len(version)-len(strings.TrimLeft(version, "0123456789"))]
	major, err = strconv.Atoi(digits)
	if err != nil {
		return "", 0, fmt.Errorf("cannot read the version in %q", strings.TrimSpace(out))
	}
	return version, major, nil
}

// environment is what the server's programs get to see: enough to run, and
// none of the secrets and PG* variables of ours.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LOCPATH", "TZDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
