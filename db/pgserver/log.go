package pgserver

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"
)

const (
	// logPrefix opens each line of the server's log: process id and SQLSTATE.
	logPrefix = "[%p %e] "
	// tailLines is how many of the last lines an error quotes.
	tailLines = 20
	// maxLine bounds one line of the log, in bytes; the rest of it is dropped.
	maxLine = 8 << 10
)

// logWriter passes a process's output on to a logger, line by line, and
// remembers the last lines. It is safe for concurrent use.
type logWriter struct {
	log zerolog.Logger

	mu      sync.Mutex
	partial []byte
	level   zerolog.Level
	last    []string
}

func newLogWriter(log zerolog.Logger) *logWriter {
	return &logWriter{log: log, level: zerolog.DebugLevel}
}

// Write implements [io.Writer]; it never fails.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := p
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		w.partial = append(w.partial, line[:min(len(line), maxLine-len(w.partial))]...)
		if !found {
			return len(p), nil
		}
		w.emit(string(w.partial))
		w.partial = w.partial[:0]
		rest = after
	}
}

func (w *logWriter) emit(line string) {
	line = strings.TrimRight(line, "\r")
	if line == "" {
		return
	}
	if len(w.last) == tailLines {
		w.last = append(w.last[:0], w.last[1:]...)
	}
	w.last = append(w.last, line)
	w.level = lineLevel(line, w.level)
	w.log.WithLevel(w.level).Str("component", "postgresql").Msg(line)
}

// tail returns the last lines, indented, to be quoted in an error.
func (w *logWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.last
	if len(w.partial) > 0 {
		lines = append(slices.Clip(lines), string(w.partial))
	}
	if len(lines) == 0 {
		return "it wrote nothing to its log"
	}
	return "the end of its log:\n  " + strings.Join(lines, "\n  ")
}

// lineLevel is the level of one line of the server's log. A line without a
// severity continues the one before, whose level is previous.
func lineLevel(line string, previous zerolog.Level) zerolog.Level {
	prefix, message, ok := strings.Cut(line, "] ")
	if !ok || !strings.HasPrefix(prefix, "[") {
		return previous
	}
	severity, _, ok := strings.Cut(message, ":")
	if !ok {
		return previous
	}
	_, state, _ := strings.Cut(prefix, " ")
	switch severity {
	case "WARNING", "ERROR", "FATAL", "PANIC":
		// Turned away while starting or stopping (57P03), or sent away by a
		// shutdown or a forced drop (57P01): part of every life.
		if state == cannotConnectNow || state == "57P01" {
			return zerolog.DebugLevel
		}
		return zerolog.WarnLevel
	case "DETAIL", "HINT", "QUERY", "CONTEXT", "STATEMENT", "LOCATION", "BACKTRACE":
		return previous
	default:
		return zerolog.DebugLevel
	}
}
