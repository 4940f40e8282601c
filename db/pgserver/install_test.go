package pgserver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// fakeInstallation makes binaries that only know their version.
func fakeInstallation(t *testing.T, bindir, version string) string {
	t.Helper()
	if err := os.MkdirAll(bindir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeProgram(t, filepath.Join(bindir, "postgres"), "echo 'postgres (PostgreSQL) "+version+" (Fake)'")
	writeProgram(t, filepath.Join(bindir, "initdb"), "exit 1")
	return bindir
}

func writeProgram(t *testing.T, path, script string) {
	t.Helper()
	writeExecutable(t, path, []byte("#!/bin/sh\n"+script+"\n"))
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(path string) string { return filepath.Join(dir, path) }
	for path, version := range map[string]string{
		"debian/9/bin": "9.6.24", "debian/14/bin": "14.1", "debian/15/bin": "15.18", "debian/17/bin": "17.2", "debian/18/bin": "18beta1",
		"old/14/bin": "14.1", "cellar/bin": "16.1", "config/bin": "15.1", "mine": "15.0",
	} {
		fakeInstallation(t, at(path), version)
	}
	if err := os.Mkdir(at("path"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("cellar/bin/postgres"), at("path/postgres")); err != nil {
		t.Fatal(err)
	}
	writeProgram(t, at("pg_config"), "echo "+at("config/bin"))

	debian, old := at("debian/*/bin"), at("old/*/bin")
	linked := map[string]string{"postgres": at("path/postgres"), "pg_config": at("pg_config")}
	for name, tc := range map[string]struct {
		bindir    string
		glob      string
		path      map[string]string
		dataMajor int
		want      string // the directory, or what the error says
	}{
		"PG_BINDIR before all":          {bindir: at("mine"), glob: debian, want: at("mine")},
		"PG_BINDIR that is wrong":       {bindir: at("nowhere"), glob: debian, want: "PG_BINDIR is " + at("nowhere")},
		"PG_BINDIR that is too old":     {bindir: at("old/14/bin"), glob: debian, want: "older than 15"},
		"the highest number":            {glob: debian, path: linked, want: at("debian/18/bin")},
		"the one that the data are of":  {glob: debian, dataMajor: 15, want: at("debian/15/bin")},
		"of PATH, through a link":       {glob: old, path: linked, want: at("cellar/bin")},
		"of pg_config":                  {path: map[string]string{"pg_config": at("pg_config")}, want: at("config/bin")},
		"data that are nobody's":        {glob: debian, dataMajor: 99, want: at("debian/18/bin")},
		"none":                          {want: "apt-get install postgresql"},
		"none that is new enough, said": {glob: old, want: "14.1 is older than 15"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := finder{
				getenv: func(string) string { return tc.bindir },
				lookPath: func(program string) (string, error) {
					if path, ok := tc.path[program]; ok {
						return path, nil
					}
					return "", exec.ErrNotFound
				},
			}
			if tc.glob != "" {
				f.globs = []string{tc.glob}
			}
			inst, err := f.find(t.Context(), tc.dataMajor)
			if filepath.IsAbs(tc.want) {
				if err != nil || inst.bindir != tc.want {
					t.Errorf("found %s (%v), want %s", inst.bindir, err, tc.want)
				}
				return
			}
			wantError(t, err, ErrNotInstalled, tc.want)
		})
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18beta1\n":                        18,
		"postgres (PostgreSQL) 19devel\n":                        19,
		"postgres (PostgreSQL) \n":                               0,
		"something else\n":                                       0,
	} {
		_, major, err := parseVersion(out)
		if major != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", out, major, err)
		}
	}
}

func TestLineLevel(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]zerolog.Level{
		"[12 00000] LOG:  database system is ready":                zerolog.DebugLevel,
		"[12 23505] ERROR:  duplicate key value":                   zerolog.WarnLevel,
		"[12 00000] HINT:  continues what was":                     zerolog.InfoLevel,
		"\tcontinues what was":                                     zerolog.InfoLevel,
		"[12 57P03] FATAL:  the database system is starting up":    zerolog.DebugLevel,
		"[12 57P01] FATAL:  terminating connection":                zerolog.DebugLevel,
		"[12 XX000] PANIC:  could not locate a valid checkpoint":   zerolog.WarnLevel,
		"[12 01000] WARNING:  there is no transaction in progress": zerolog.WarnLevel,
	} {
		if got := lineLevel(line, zerolog.InfoLevel); got != want {
			t.Errorf("%q is logged at %v, want %v", line, got, want)
		}
	}
}

// TestInstallScript runs scripts/install-postgresql.sh on machines made of
// fakes.
func TestInstallScript(t *testing.T) {
	t.Parallel()
	const aptGet = `echo "apt-get $*" >>"$ROOT/calls"
case "$*" in
*postgresql-common) printf '# original\n#create_main_cluster = true\n' >"$ROOT/etc/postgresql-common/createcluster.conf" ;;
*" postgresql") cp "$ROOT/etc/postgresql-common/createcluster.conf" "$ROOT/seen"
	mkdir -p "$ROOT/usr/lib/postgresql/17"; cp -r "$ROOT/package" "$ROOT/usr/lib/postgresql/17/bin" ;;
esac`
	for name, tc := range map[string]struct {
		debian    bool
		uid       string
		installed string // version in Debian's place
		candidate string // what apt would install
		bindir    string // PG_BINDIR's version
		exit      int
		says      string
		calls     string
	}{
		"there is one":           {debian: true, uid: "0", installed: "16.1", exit: 0, says: "PostgreSQL 16.1: "},
		"PG_BINDIR":              {debian: true, uid: "0", bindir: "15.2", exit: 0, says: "PostgreSQL 15.2: "},
		"PG_BINDIR too old":      {debian: true, uid: "0", installed: "16.1", bindir: "13.2", exit: 2, says: "unset PG_BINDIR"},
		"root on Debian":         {debian: true, uid: "0", candidate: "17+1", exit: 0, says: "PostgreSQL 17.2: ", calls: "apt-get update -q\napt-get install -q -y --no-install-recommends postgresql-common\napt-get install -q -y --no-install-recommends postgresql\n"},
		"an old one on Debian":   {debian: true, uid: "0", installed: "13.1", candidate: "17+1", exit: 0, says: "PostgreSQL 17.2: ", calls: "apt-get update -q\napt-get install -q -y --no-install-recommends postgresql-common\napt-get install -q -y --no-install-recommends postgresql\n"},
		"an old Debian":          {debian: true, uid: "0", candidate: "13+225", exit: 2, says: "apt.postgresql.org.sh", calls: "apt-get update -q\n"},
		"not root":               {debian: true, uid: "1000", candidate: "17+1", exit: 2, says: "sudo sh "},
		"neither root nor known": {uid: "1000", exit: 2, says: "PG_BINDIR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			at := func(path string) string { return filepath.Join(root, path) }
			for _, dir := range []string{"etc/postgresql-common", "bin"} {
				if err := os.MkdirAll(at(dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if tc.debian {
				if err := os.WriteFile(at("etc/debian_version"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fakeInstallation(t, at("package"), "17.2")
			if tc.installed != "" {
				major, _, _ := strings.Cut(tc.installed, ".")
				fakeInstallation(t, at("usr/lib/postgresql/"+major+"/bin"), tc.installed)
			}
			env := []string{"ROOT=" + root, "PATH=" + at("bin")}
			if tc.bindir != "" {
				env = append(env, "PG_BINDIR="+fakeInstallation(t, at("mine"), tc.bindir))
			}
			writeProgram(t, at("bin/id"), "echo "+tc.uid)
			writeProgram(t, at("bin/apt-get"), aptGet)
			writeProgram(t, at("bin/apt-cache"), "printf 'postgresql:\\n  Installed: (none)\\n  Candidate: "+tc.candidate+"\\n'")
			for _, tool := range []string{"sh", "sed", "grep", "sort", "basename", "dirname", "readlink", "mkdir", "cp", "mv", "rm", "cat"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, at("bin/"+tool)); err != nil {
					t.Fatal(err)
				}
			}
			script, err := filepath.Abs("../../scripts/install-postgresql.sh")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "/bin/sh", script)
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tc.exit || !strings.Contains(string(out), tc.says) {
				t.Errorf("exit %d, want %d, and %q in:\n%s", got, tc.exit, tc.says, out)
			}
			if got := content(t, at("calls")); got != tc.calls {
				t.Errorf("it called\n%swant\n%s", got, tc.calls)
			}
			if tc.exit != 0 || tc.calls == "" {
				return
			}
			if got := content(t, at("seen")); !strings.HasSuffix(got, "\ncreate_main_cluster = false\n") {
				t.Errorf("the package was installed with createcluster.conf\n%s", got)
			}
			if got := content(t, at("etc/postgresql-common/createcluster.conf")); got != "# original\n#create_main_cluster = true\n" {
				t.Errorf("createcluster.conf is left as\n%s", got)
			}
		})
	}
}

// content is a file's text, or nothing when there is no file.
func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}
