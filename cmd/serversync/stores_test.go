package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory that others use is not taken away from them; ours is closed to them.
func TestTheDataDirectoryIsOursAlone(t *testing.T) {
	t.Parallel()
	mode := func(dir string) os.FileMode {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	dirOf := func(mode os.FileMode, entries ...string) string {
		dir := t.TempDir()
		for _, entry := range entries {
			if err := os.Mkdir(filepath.Join(dir, entry), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, dir := range map[string]string{
		"new": filepath.Join(t.TempDir(), "a", "b"), "empty": dirOf(0o755), "ours": dirOf(0o750, "nats", "postgres", adminTokenFile, "lost+found"), "closed": dirOf(0o700, "notes"),
	} {
		if err := makeDataDir(dir); err != nil || mode(dir) != 0o700 {
			t.Errorf("%s: %v, mode %o", name, err, mode(dir))
		}
	}
	withLog := func(mode os.FileMode) string {
		dir := dirOf(0o755, "nats")
		if err := os.WriteFile(filepath.Join(dir, "serve.log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	beside := withLog(0o755)
	if err := makeDataDir(beside); err != nil || mode(beside) != 0o700 {
		t.Errorf("with its log: %v, mode %o", err, mode(beside))
	}
	for stranger, dir := range map[string]string{"home": dirOf(0o755, "nats", "home"), "serve.log": withLog(0o777)} {
		was := mode(dir)
		err := makeDataDir(dir)
		if _, usage := errors.AsType[*usageError](err); !usage || !strings.Contains(err.Error(), stranger+" is in it") || mode(dir) != was {
			t.Errorf("with %s: %v, mode %o", stranger, err, mode(dir))
		}
	}
}
