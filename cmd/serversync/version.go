package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/urfave/cli/v3"
)

// Set by the build (Makefile, .goreleaser.yaml). Where they are not, Go's own
// record of the build has what is known.
var (
	version string // of the release, or as git describes it
	commit  string // the whole hash
	date    string // of the commit, RFC 3339
)

// build is what this program was made of.
type build struct {
	Version  string `json:"version"`            // "dev" when nobody knows
	Commit   string `json:"commit,omitempty"`   // empty: not known
	Date     string `json:"date,omitempty"`     // of the commit, RFC 3339
	Modified bool   `json:"modified,omitempty"` // it has changes that the commit does not have
	Go       string `json:"goVersion"`
	Platform string `json:"platform"`
}

// thisBuild is that of this program.
var thisBuild = sync.OnceValue(func() build {
	info, _ := debug.ReadBuildInfo()
	return describeBuild(build{Version: version, Commit: commit, Date: date}, info)
})

// describeBuild completes what the linker was told by what Go recorded: of a
// build from a module (go install serversync@v1), or in a repository. info may
// be nil.
func describeBuild(told build, info *debug.BuildInfo) build {
	b := told
	b.Go, b.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
	b.Modified = strings.HasSuffix(told.Version, "-dirty")
	if info != nil {
		if v := info.Main.Version; v != "(devel)" {
			b.Version = cmp.Or(b.Version, v)
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				b.Commit = cmp.Or(b.Commit, s.Value)
			case s.Key == "vcs.time":
				b.Date = cmp.Or(b.Date, s.Value)
			case s.Key == "vcs.modified" && told.Commit == "":
				b.Modified = s.Value == "true"
			}
		}
	}
	b.Version = cmp.Or(b.Version, "dev")
	return b
}

// String is one line for people: "v1.2.0 (commit 0a1b2c…, 2026-03-01T12:00:00Z,
// go1.26, linux/amd64)", without what is not known.
func (b build) String() string {
	var about []string
	if b.Commit != "" {
		about = append(about, "commit "+b.Commit)
	}
	if b.Date != "" {
		about = append(about, b.Date)
	}
	if b.Modified {
		about = append(about, "with changes")
	}
	return fmt.Sprintf("%s (%s)", b.Version, strings.Join(append(about, b.Go, b.Platform), ", "))
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print version, commit and date",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("VERSION_JSON")}},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if cmd.Bool("json") {
				return json.NewEncoder(cmd.Root().Writer).Encode(thisBuild())
			}
			_, err := fmt.Fprintln(cmd.Root().Writer, thisBuild())
			return err
		},
	}
}
