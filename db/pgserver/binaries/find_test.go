package binaries

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeInstallation makes programs that only know their version.
func fakeInstallation(t *testing.T, bindir, version string) string {
	t.Helper()
	if err := os.MkdirAll(bindir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeProgram(t, filepath.Join(bindir, "postgres"), "echo 'postgres (PostgreSQL) "+version+" (Fake)'")
	writeProgram(t, filepath.Join(bindir, "initdb"), "exit 1")
	return bindir
}

// writeProgram writes a shell script. Meanwhile nothing is forked: a child of a
// parallel test would keep the file open for writing until it has turned into
// its own program, and the kernel runs no file that is being written ("text
// file busy").
func writeProgram(t *testing.T, path, script string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(path string) string { return filepath.Join(dir, path) }
	for path, version := range map[string]string{
		"debian/9/bin": "9.6.24", "debian/14/bin": "14.1", "debian/15/bin": "15.18", "debian/17/bin": "17.2", "debian/18/bin": "18beta1",
		"old/14/bin": "14.1", "new/19/bin": "19.0", "cellar/bin": "16.1", "config/bin": "15.1", "mine": "15.0",
		"downloads/18a/bin": "18.4", "downloads/18b/bin": "18.10", "downloads/20.0.0/bin": "20.0",
	} {
		fakeInstallation(t, at(path), version)
	}
	fakeInstallation(t, at("downloads/broken/bin"), "21.0")
	writeProgram(t, at("downloads/broken/bin/postgres"), "echo 'libicu.so.60: not found' >&2; exit 127")
	symlink(t, at("cellar/bin/postgres"), at("path/postgres"))
	writeProgram(t, at("pg_config"), "echo "+at("config/bin"))

	debian, old, downloads := at("debian/*/bin"), at("old/*/bin"), at("downloads/18*/bin")
	linked := map[string]string{"postgres": at("path/postgres"), "pg_config": at("pg_config")}
	for name, tc := range map[string]struct {
		bindir    string
		globs     []string
		downloads string
		path      map[string]string
		dataMajor int
		want      string // the directory, or what the error says
	}{
		"PG_BINDIR before all":             {bindir: at("mine"), globs: []string{debian}, want: at("mine")},
		"PG_BINDIR that is wrong":          {bindir: at("nowhere"), globs: []string{debian}, want: "PG_BINDIR is " + at("nowhere")},
		"PG_BINDIR that is too old":        {bindir: at("old/14/bin"), globs: []string{debian}, want: "older than 15"},
		"the highest number":               {globs: []string{debian}, path: linked, want: at("debian/18/bin")},
		"the highest number of all":        {globs: []string{debian, at("new/*/bin")}, path: linked, want: at("new/19/bin")},
		"the one that the data are of":     {globs: []string{debian}, dataMajor: 15, want: at("debian/15/bin")},
		"of PATH, through a link":          {globs: []string{old}, path: linked, want: at("cellar/bin")},
		"of pg_config":                     {path: map[string]string{"pg_config": at("pg_config")}, want: at("config/bin")},
		"data that are nobody's":           {globs: []string{debian}, dataMajor: 99, want: at("debian/18/bin")},
		"a download, the newest by number": {globs: []string{old}, downloads: downloads, want: at("downloads/18b/bin")},
		"no download where there is one":   {globs: []string{old}, path: linked, downloads: downloads, want: at("cellar/bin")},
		"a download for its data":          {globs: []string{debian}, downloads: at("downloads/2*/bin"), dataMajor: 20, want: at("downloads/20.0.0/bin")},
		"none":                             {want: "version 15 or newer"},
		"none that is new enough, said":    {globs: []string{old, old}, want: "14.1 is older than 15"},
		"none that runs, said":             {downloads: at("downloads/broken/bin"), want: "libicu.so.60: not found"},
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
				globs:     tc.globs,
				downloads: []string{tc.downloads},
			}
			inst, err := f.find(t.Context(), tc.dataMajor)
			if filepath.IsAbs(tc.want) {
				if err != nil || inst.Dir != tc.want {
					t.Errorf("found %s (%v), want %s", inst.Dir, err, tc.want)
				}
				return
			}
			if !errors.Is(err, ErrNotFound) || strings.Count(err.Error(), tc.want) != 1 {
				t.Errorf("the error is %v; want one that says %q once", err, tc.want)
			}
		})
	}
}

// TestKnownPlaces has each system's layout, as its packages make it, beneath a
// directory of its own.
func TestKnownPlaces(t *testing.T) {
	t.Parallel()
	const app = "/Applications/Postgres.app/Contents/Versions/"
	for name, tc := range map[string]struct {
		versions map[string]string // by directory
		links    map[string]string // what they lead to, by path
		want     string
	}{
		"Debian": {
			versions: map[string]string{"/usr/lib/postgresql/15/bin": "15.18", "/usr/lib/postgresql/16/bin": "16.4"},
			want:     "/usr/lib/postgresql/16/bin",
		},
		"PGDG on Red Hat": {
			versions: map[string]string{"/usr/pgsql-9.6/bin": "9.6.24", "/usr/pgsql-17/bin": "17.2"},
			want:     "/usr/pgsql-17/bin",
		},
		"Homebrew on Apple silicon": {
			versions: map[string]string{"/opt/homebrew/Cellar/postgresql@16/16.4/bin": "16.4", "/opt/homebrew/Cellar/postgresql@17/17.2/bin": "17.2"},
			links: map[string]string{
				"/opt/homebrew/opt/postgresql@16": "../Cellar/postgresql@16/16.4", "/opt/homebrew/opt/postgresql@17": "../Cellar/postgresql@17/17.2",
				"/opt/homebrew/opt/postgresql": "../Cellar/postgresql@17/17.2",
			},
			want: "/opt/homebrew/opt/postgresql@17/bin",
		},
		"Homebrew on Intel, plain": {
			versions: map[string]string{"/usr/local/Cellar/postgresql/15.1/bin": "15.1"},
			links:    map[string]string{"/usr/local/opt/postgresql": "../Cellar/postgresql/15.1"},
			want:     "/usr/local/opt/postgresql/bin",
		},
		"Homebrew on Linux": {
			versions: map[string]string{"/home/linuxbrew/.linuxbrew/opt/postgresql@17/bin": "17.2"},
			want:     "/home/linuxbrew/.linuxbrew/opt/postgresql@17/bin",
		},
		"Postgres.app": {
			versions: map[string]string{app + "14/bin": "14.9", app + "17/bin": "17.2"},
			links:    map[string]string{app + "latest": "17"},
			want:     app + "17/bin",
		},
		"Postgres.app, latest alone": {
			versions: map[string]string{"/elsewhere/17/bin": "17.2"},
			links:    map[string]string{app + "latest": "../../../../elsewhere/17"},
			want:     app + "latest/bin",
		},
		"the newest of several": {
			versions: map[string]string{app + "16/bin": "16.4", "/opt/homebrew/opt/postgresql@17/bin": "17.2", "/usr/lib/postgresql/15/bin": "15.18"},
			want:     "/opt/homebrew/opt/postgresql@17/bin",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, version := range tc.versions {
				fakeInstallation(t, root+path, version)
			}
			for path, to := range tc.links {
				symlink(t, to, root+path)
			}
			f := newFinder(root)
			f.getenv = func(string) string { return "" }
			f.lookPath = func(string) (string, error) { return "", exec.ErrNotFound }
			f.downloads = nil
			inst, err := f.find(t.Context(), 0)
			if err != nil || inst.Dir != root+tc.want {
				t.Errorf("found %s (%v), want %s", inst.Dir, err, tc.want)
			}
		})
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for out, want := range map[string][2]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": {15, 18},
		"postgres (PostgreSQL) 18beta1\n":                        {18, 0},
		"postgres (PostgreSQL) 19devel\n":                        {19, 0},
		"postgres (PostgreSQL) \n":                               {},
		"something else\n":                                       {},
	} {
		inst, err := parseVersion(out)
		if inst.Major != want[0] || inst.minor != want[1] || (err == nil) != (want[0] > 0) {
			t.Errorf("%q: %+v, %v", out, inst, err)
		}
	}
}
