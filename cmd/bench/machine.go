package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// fact is a line about the machine.
type fact struct{ What, Is string }

// describe says on what was measured.
func describe(ctx context.Context, b *bench) ([]fact, error) {
	if err := b.startPostgres(ctx); err != nil {
		return nil, err
	}
	k, err := b.books(ctx, templateName)
	if err != nil {
		return nil, err
	}
	var postgres string
	if err := k.DB.DB.QueryRowContext(ctx, `SHOW server_version`).Scan(&postgres); err != nil {
		return nil, fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	if err := k.drop(ctx); err != nil {
		return nil, err
	}
	load := "unknown"
	if fields := strings.Fields(firstLine("/proc/loadavg")); len(fields) > 0 {
		load = fields[0]
	}
	return []fact{
		{"processor", fmt.Sprintf("%s, %d cores", cmp.Or(valueOf("/proc/cpuinfo", "model name"), runtime.GOARCH), runtime.NumCPU())},
		{"memory", memory()},
		{"system", strings.TrimSpace(runtime.GOOS + " " + firstLine("/proc/sys/kernel/osrelease"))},
		{"file system", fileSystem(b.dir)},
		{"Go", strings.TrimPrefix(runtime.Version(), "go")},
		{"PostgreSQL", postgres + ", fsync, synchronous_commit and full_page_writes on, shared_buffers 128 MB"},
		{"nats-server", natsserver.VERSION + ", embedded, file store"},
		{"load by others at the start", load},
	}, nil
}

// memory is how much the machine has.
func memory() string {
	kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(valueOf("/proc/meminfo", "MemTotal"), " kB"), 64)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.0f GiB", kilobytes/(1<<20))
}

// valueOf is what stands behind a name and a colon in a file; empty: nothing.
func valueOf(path, name string) string {
	f, err := os.Open(path) //nolint:gosec // G304: files of the kernel
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // G304: files of the kernel
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// fileSystem is the kind of the one that a directory is on.
func fileSystem(dir string) string {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "unknown"
	}
	kind, longest := "unknown", -1
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		if rest, err := filepath.Rel(fields[1], dir); err == nil && !strings.HasPrefix(rest, "..") && len(fields[1]) > longest {
			kind, longest = fields[2], len(fields[1])
		}
	}
	return kind
}
