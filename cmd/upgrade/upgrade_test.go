//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestRehearsalWithItself is the short form: this version beside itself, which
// every clone can build.
func TestRehearsalWithItself(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes about half a minute")
	}
	binary := filepath.Join(t.TempDir(), "serversync")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "../serversync").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	report, err := run(t.Context(), config{older: binary, newer: binary, skypanel: "../../db/skypanel.sql", phase: time.Second, seed: 1, out: t.Output()})
	report.print(t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if !report.checked || report.accepted < 100 || report.rows < 10 || report.refused > 0 {
		t.Errorf("that proved little, or webhooks were refused: %+v", report)
	}
}
