//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The short form of `make chaos`: each kind of blow that comes first, once.
func TestWhatIsAnsweredSurvivesCrashes(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "serversync")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "../serversync").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	report, err := run(t.Context(), config{binary: binary, rounds: 5, seed: 1, inTurn: true, out: t.Output()})
	report.print(t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if !report.checked || report.accepted < 100 || report.rows < 10 || report.starts < 3 {
		t.Errorf("that proved little: %+v", report)
	}
}
