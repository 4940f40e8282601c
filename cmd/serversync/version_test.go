package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestDescribeBuild(t *testing.T) {
	t.Parallel()
	made := runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH
	recorded := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	repository := []debug.BuildSetting{{Key: "vcs.revision", Value: "0a1b2c"}, {Key: "vcs.time", Value: "2026-03-01T12:00:00Z"}}
	for name, test := range map[string]struct {
		told build
		info *debug.BuildInfo
		want string
	}{
		"nobody knows":           {want: "dev (" + made + ")"},
		"go build without git":   {info: recorded("(devel)"), want: "dev (" + made + ")"},
		"go build in a checkout": {info: recorded("(devel)", repository...), want: "dev (commit 0a1b2c, 2026-03-01T12:00:00Z, " + made + ")"},
		"with changes": {
			info: recorded("v1.2.1-0.20260301120000-0a1b2c+dirty", append(repository, debug.BuildSetting{Key: "vcs.modified", Value: "true"})...),
			want: "v1.2.1-0.20260301120000-0a1b2c+dirty (commit 0a1b2c, 2026-03-01T12:00:00Z, with changes, " + made + ")",
		},
		"go install of a release": {info: recorded("v1.2.0"), want: "v1.2.0 (" + made + ")"},
		"what the linker was told wins": {
			told: build{Version: "v1.3.0", Commit: "ffffff", Date: "2026-04-01T00:00:00Z"},
			info: recorded("v1.2.0", append(repository, debug.BuildSetting{Key: "vcs.modified", Value: "true"})...),
			want: "v1.3.0 (commit ffffff, 2026-04-01T00:00:00Z, " + made + ")",
		},
		"a dirty make build": {told: build{Version: "v1.3.0-4-gffffff-dirty", Commit: "ffffff"}, want: "v1.3.0-4-gffffff-dirty (commit ffffff, with changes, " + made + ")"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := describeBuild(test.told, test.info).String(); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
