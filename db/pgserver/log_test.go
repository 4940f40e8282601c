package pgserver

import (
	"testing"

	"github.com/rs/zerolog"
)

func TestLineLevel(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]zerolog.Level{
		"[12 00000] LOG:  database system is ready":                zerolog.DebugLevel,
		"[12 23505] ERROR:  duplicate key value":                   zerolog.WarnLevel,
		"[12 00000] HINT:  continues what was":                     zerolog.InfoLevel,
		"\tcontinues what was":                                     zerolog.InfoLevel,
		"[12 57P03] FATAL:  the database system is starting up":    zerolog.DebugLevel,
		"[12 57P01] FATAL:  terminating connection":                zerolog.DebugLevel,
		"[12 XX000] PANIC:  could not locate a valid checkpoint":   zerolog.WarnLevel,
		"[12 01000] WARNING:  there is no transaction in progress": zerolog.WarnLevel,
	} {
		if got := lineLevel(line, zerolog.InfoLevel); got != want {
			t.Errorf("%q is logged at %v, want %v", line, got, want)
		}
	}
}
