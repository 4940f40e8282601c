package pgserver

import (
	"maps"
	"runtime"
	"slices"
)

// arguments are the command line of the server. Everything is given there and
// nothing is written to postgresql.conf, so that a cluster made by an older
// release of ours runs with today's settings.
func arguments(dataDir, socketDir string, d Durability, extra map[string]string) []string {
	settings := commonSettings()
	if d == Fast {
		maps.Copy(settings, fastSettings())
	} else {
		maps.Copy(settings, durableSettings(runtime.GOOS))
	}
	maps.Copy(settings, extra)
	maps.Copy(settings, map[string]string{
		"listen_addresses":        "",
		"port":                    socketPort,
		"unix_socket_directories": socketDir,
		"unix_socket_permissions": "0700",
		// The log goes to standard error, which we read, in the form that
		// logWriter understands.
		"logging_collector": "off",
		"log_destination":   "stderr",
		"log_line_prefix":   logPrefix,
		"lc_messages":       "C",
	})
	args := []string{"-D", dataDir}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

func commonSettings() map[string]string {
	return map[string]string{
		"timezone":     "UTC",
		"log_timezone": "UTC",
		"jit":          "off",
		// A failing statement and its values may be a customer's data: the
		// log gets the message alone.
		"log_error_verbosity":     "terse",
		"log_min_error_statement": "panic",
	}
}

func durableSettings(goos string) map[string]string {
	settings := map[string]string{
		"fsync":              "on",
		"synchronous_commit": "on",
		"full_page_writes":   "on",
		"autovacuum":         "on",
		"shared_buffers":     "128MB",
		"max_connections":    "100",
	}
	if goos == "darwin" {
		// Its fsync leaves writes in the disk's cache, and so do PostgreSQL's
		// other methods there.
		settings["wal_sync_method"] = "fsync_writethrough"
	}
	return settings
}

// fastSettings trade durability for speed and keep a server small: many test
// binaries run one each, side by side.
func fastSettings() map[string]string {
	return map[string]string{
		"fsync":              "off",
		"synchronous_commit": "off",
		"full_page_writes":   "off",
		"wal_level":          "minimal",
		"max_wal_senders":    "0",
		// A worker that visits a template database would be in the way of
		// CREATE DATABASE.
		"autovacuum":                      "off",
		"shared_buffers":                  "16MB",
		"max_connections":                 "60",
		"max_parallel_workers_per_gather": "0",
		"max_logical_replication_workers": "0",
	}
}
