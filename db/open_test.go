package db_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	programs "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/db/pgserver"
)

// pair starts a primary and a standby of the same data, and returns the
// directories of their sockets.
func pair(t *testing.T) (primary *pgserver.Server, primaryHost, standbyHost string) {
	t.Helper()
	start := func(dir string) *pgserver.Server {
		t.Helper()
		s, err := pgserver.Start(t.Context(), pgserver.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one, other := filepath.Join(t.TempDir(), "p"), filepath.Join(t.TempDir(), "s")
	if err := start(one).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := programs.CommandContext(t.Context(), "cp", "-a", one, other).CombinedOutput(); err != nil {
		t.Fatalf("copy the data: %v %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(other, "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	primary, standby := start(one), start(other)
	t.Cleanup(func() {
		for _, s := range []*pgserver.Server{primary, standby} {
			if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
				t.Log(err)
			}
		}
	})
	return primary, socketOf(t, primary), socketOf(t, standby)
}

func socketOf(t *testing.T, s *pgserver.Server) string {
	t.Helper()
	u, err := url.Parse(s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("host")
}

func openAt(t *testing.T, more string, hosts ...string) *bun.DB {
	t.Helper()
	database, err := db.Open("user=postgres dbname=postgres port=5432 sslmode=disable host=" + strings.Join(hosts, ",") + " " + more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	return database
}

// Of several hosts the one is used that takes writes, whichever that is by now;
// what a standby refuses is tried again, and no event is to blame.
func TestTheWritableHostIsFoundAfterAFailover(t *testing.T) {
	t.Parallel()
	primary, one, other := pair(t)
	both := openAt(t, "target_session_attrs=read-write", other, one)
	if err := db.Writable(t.Context(), both); err != nil {
		t.Errorf("with primary and standby: %v", err)
	}
	standby := openAt(t, "", other)
	if err := db.Writable(t.Context(), standby); !errors.Is(err, db.ErrReadOnly) {
		t.Errorf("the standby: %v, want ErrReadOnly", err)
	}
	if _, err := standby.ExecContext(t.Context(), `CREATE TABLE t ()`); err == nil || db.Classify(err) != db.FaultPassing {
		t.Errorf("a write to the standby: %v, of the kind %d; it must pass", err, db.Classify(err))
	}
	if err := primary.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Writable(t.Context(), both); err == nil || db.Classify(err) != db.FaultPassing {
		t.Errorf("with the standby alone: %v, of the kind %d; it must pass", err, db.Classify(err))
	}
	if _, err := standby.ExecContext(t.Context(), `SELECT pg_promote()`); err != nil {
		t.Fatal(err)
	}
	if err := db.Writable(t.Context(), both); err != nil {
		t.Errorf("with the standby promoted: %v", err)
	}
	if err := db.Writable(t.Context(), standby); err != nil {
		t.Errorf("the standby itself, promoted: %v", err)
	}
}

// A pool that was led to a standby does not stay there when its name leads to the
// primary.
func TestThePoolLeavesAStandby(t *testing.T) {
	t.Parallel()
	_, one, other := pair(t)
	name := filepath.Join(t.TempDir(), "name")
	lead := func(to string) {
		t.Helper()
		_ = os.Remove(name)
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	lead(other)
	database := openAt(t, "", name)
	if err := db.Writable(t.Context(), database); !errors.Is(err, db.ErrReadOnly) {
		t.Fatalf("the standby: %v, want ErrReadOnly", err)
	}
	lead(one)
	if err := db.Writable(t.Context(), database); err != nil {
		t.Errorf("the name leads to the primary, but: %v", err)
	}
}
