package main

import (
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// utcTime stamps each line in UTC, as the texts say times.
type utcTime struct{}

func (utcTime) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Time(zerolog.TimestampFieldName, time.Now().UTC())
}

// newLogger writes JSON lines, or lines for people on a terminal.
func newLogger(c *config, w io.Writer) zerolog.Logger {
	f, isFile := w.(*os.File)
	terminal := isFile && isatty.IsTerminal(f.Fd())
	console := c.logFormat == "console" || c.logFormat == "" && terminal
	if console {
		writer := zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05", TimeLocation: time.UTC, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
		if c.demo {
			// The messages say it; the rest is for machines.
			writer.FieldsExclude = []string{"server", "event", "source", "status", "user", "billing_row", "part"}
		}
		w = writer
	}
	return zerolog.New(w).Level(c.logLevel).Hook(utcTime{})
}
