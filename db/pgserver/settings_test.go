package pgserver

import "testing"

// TestDurableMeansTheDisk: of all systems macOS alone has an fsync that stops at
// the disk's cache.
func TestDurableMeansTheDisk(t *testing.T) {
	t.Parallel()
	for goos, want := range map[string]string{"darwin": "fsync_writethrough", "linux": ""} {
		if got := durableSettings(goos)["wal_sync_method"]; got != want {
			t.Errorf("%s: wal_sync_method is %q, want %q", goos, got, want)
		}
	}
}
