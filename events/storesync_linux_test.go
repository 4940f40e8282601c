package events

import "testing"

func TestKernelReleases(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"5.8.0": true, "5.10.0-28-amd64": true, "6.1": true, "10.0.1": true, "6.18.44-fc-v595": true,
		"5.7.19": false, "4.19.0": false, "": false, "linux": false, "6": false,
	} {
		if got := atLeast(release, 5, 8); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
