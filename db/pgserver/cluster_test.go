package pgserver

import (
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// TestSystemWithoutTheLocale makes a cluster where the system has no C.UTF-8, as
// macOS has none.
func TestSystemWithoutTheLocale(t *testing.T) {
	t.Parallel()
	inst, err := binaries.Find(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	bindir := publicDir(t)
	writeExecutable(t, filepath.Join(bindir, "initdb"), []byte(`#!/bin/sh
case " $* " in *" --locale=C.UTF-8 "*) echo "invalid locale name" >&2; exit 1 ;; esac
exec '`+inst.Program("initdb")+`' "$@"
`))
	fake := inst
	fake.Dir = bindir
	dir := t.TempDir()
	id, err := chooseIdentity(t.Context(), identityAuto, inst, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := cluster{dir: filepath.Join(dir, dataName), tmp: filepath.Join(dir, newDataName), inst: fake, id: id, durability: Fast, log: zerolog.Nop()}
	if err := c.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "É" // nobody to fold it
	if inst.Major >= builtinLocales {
		want = "é"
	}
	s := startServer(t, Config{Dir: dir, Durability: Fast})
	if got := query(t, s.DSN("postgres"), "SELECT lower('É')"); got != want {
		t.Errorf("PostgreSQL %s folds É to %s, want %s", inst.Version, got, want)
	}
	for text, order := range map[string]string{"'Z' < 'a'": "true", "'z' < 'é'": "true"} {
		if got := query(t, s.DSN("postgres"), "SELECT ("+text+")::text"); got != order {
			t.Errorf("%s is %s", text, got)
		}
	}
}
