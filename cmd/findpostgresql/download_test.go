package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLinksStayInThePackage: a list of links is data from outside.
func TestLinksStayInThePackage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		list string
		ok   bool
	}{
		"a link beside its file":  {`[{"source": "native/lib/a.so.1", "target": "native/lib/a.so"}]`, true},
		"a link elsewhere":        {`[{"source": "native/lib/a.so.1", "target": "native/a.so"}]`, true},
		"a link outside":          {`[{"source": "native/lib/a.so.1", "target": "../a.so"}]`, false},
		"a link to what is there": {`[{"source": "../outside", "target": "native/lib/a.so"}]`, false},
		"a link to nothing":       {`[{"source": "native/lib/b.so.1", "target": "native/lib/a.so"}]`, false},
		"no list":                 {`{}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			pkg := filepath.Join(parent, "package")
			if err := os.MkdirAll(filepath.Join(pkg, "native", "lib"), 0o700); err != nil {
				t.Fatal(err)
			}
			for path, text := range map[string]string{
				"outside": "", "package/native/lib/a.so.1": "library", "package/native/pg-symlinks.json": tc.list,
			} {
				if err := os.WriteFile(filepath.Join(parent, path), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := makeLinks(pkg)
			if (err == nil) != tc.ok {
				t.Errorf("the error is %v", err)
			}
			if _, err := os.Lstat(filepath.Join(parent, "a.so")); !os.IsNotExist(err) {
				t.Errorf("there is a link outside the package (%v)", err)
			}
			for _, path := range []string{"native/lib/a.so", "native/a.so"} {
				text, err := os.ReadFile(filepath.Join(pkg, path))
				if err != nil && !os.IsNotExist(err) || err == nil && string(text) != "library" {
					t.Errorf("%s reads %q (%v)", path, text, err)
				}
			}
		})
	}
}
