package pgserver

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestRestartKeepsData(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Durability{"durable": Durable, "fast": Fast} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Dir: filepath.Join(t.TempDir(), "some", "where else"), Durability: d}
			first := startServer(t, cfg)
			execute(t, first.DSN("postgres"), "CREATE TABLE kept AS SELECT 'still here' AS word")
			stopServer(t, first)
			if err := first.Err(); err != nil {
				t.Errorf("Err after Stop: %v", err)
			}
			second := startServer(t, cfg)
			if got := query(t, second.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
				t.Errorf("found %q after the restart", got)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	want := map[Durability]map[string]string{
		Durable: {
			"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on", "jit": "off",
			"TimeZone": "UTC", "log_timezone": "UTC", "listen_addresses": "", "server_encoding": "UTF8", "max_connections": "17",
		},
		Fast: {
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_level": "minimal",
			"listen_addresses": "", "server_encoding": "UTF8", "max_connections": "17",
		},
	}
	for d, settings := range want {
		t.Run(strconv.Itoa(int(d)), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, Config{
				Dir: t.TempDir(), Durability: d,
				Settings: map[string]string{"max_connections": "17", "listen_addresses": "*"},
			})
			for name, value := range settings {
				if got := query(t, s.DSN("postgres"), "SELECT current_setting('"+name+"')"); got != value {
					t.Errorf("%s is %q, want %q", name, got, value)
				}
			}
		})
	}
}

func TestDirectoriesArePrivate(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Dir: filepath.Join(t.TempDir(), "a", "b"), Durability: Fast})
	for _, dir := range []string{filepath.Dir(s.dir), s.dir, s.dataDir(), s.socketDir} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %04o", dir, info.Mode().Perm())
		}
	}
}

func TestSecondStartIsRefused(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast}
	startServer(t, cfg)
	_, err := Start(t.Context(), cfg)
	wantError(t, err, ErrInUse, cfg.Dir, "process "+strconv.Itoa(os.Getpid()))
}

func TestDirectoryOfOthersIsRefusedAsItIs(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "documents")
	file := filepath.Join(dir, "letter.txt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir, Durability: Fast})
	wantError(t, err, ErrForeign, dir, "chmod 0700")
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o755 {
		t.Errorf("its mode has become %04o", info.Mode().Perm())
	}
}

func TestEmptyDirIsForFastAlone(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Config{}); err == nil {
		t.Error("a durable server started in no directory")
	}
}

func TestScratchDirectoryIsRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Durability: Fast})
	dir := s.dir
	stopServer(t, s)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", dir, err)
	}
}

func TestScratchOfAKilledProcessIsSwept(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperOrder{Durability: Fast}, nil)
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	data := query(t, h.DSN, "SHOW data_directory")
	alive := startServer(t, Config{Durability: Fast})
	h.kill(t)
	startServer(t, Config{Durability: Fast})
	if _, err := os.Stat(filepath.Dir(data)); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", filepath.Dir(data), err)
	}
	if got := query(t, alive.DSN("postgres"), "SELECT 'alive'"); got != "alive" {
		t.Errorf("a living server's directory was swept: %q", got)
	}
}

func TestLongPathHasItsSocketElsewhere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30)+"with,comma")
	cfg := Config{Dir: dir, Durability: Fast}
	s := startServer(t, cfg)
	if strings.HasPrefix(s.socketDir, dir) || !fitsSocket(s.socketDir) {
		t.Errorf("the socket is in %s", s.socketDir)
	}
	info, err := os.Stat(s.socketDir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("it has mode %04o", info.Mode().Perm())
	}
	execute(t, s.DSN("postgres"), "SELECT 1")
	stopServer(t, s)
	if _, err := os.Stat(s.socketDir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", s.socketDir, err)
	}
	// What a killed process has left is no obstacle.
	if err := os.Mkdir(s.socketDir, 0o700); err != nil {
		t.Fatal(err)
	}
	startServer(t, cfg)
}

func TestChildThatEndsByItself(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Dir: t.TempDir(), Durability: Fast})
	if err := s.Err(); err != nil {
		t.Errorf("Err of a running server: %v", err)
	}
	if err := s.child.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	err := s.Err()
	if err == nil || !strings.Contains(err.Error(), "ended by itself") || !strings.Contains(err.Error(), "immediate shutdown request") {
		t.Errorf("Err is %v; want it to say so and to quote the log", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("Stop of a dead server: %v", err)
	}
}

func TestStartThatFailsQuotesTheLog(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast, Settings: map[string]string{"shared_buffers": "plenty"}}
	_, err := Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers"`) {
		t.Errorf("the error is %v; want the server's own words", err)
	}
	// Nothing is left behind that would be in the way.
	cfg.Settings = nil
	startServer(t, cfg)
}

func TestCancelledStartLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, cfg); err == nil {
		t.Fatal("it started")
	}
	startServer(t, cfg)
}

func TestStopThatIsHurried(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast}
	s := startServer(t, cfg)
	execute(t, s.DSN("postgres"), "CREATE TABLE kept AS SELECT 'still here' AS word")
	execute(t, s.DSN("postgres"), "CHECKPOINT")
	// A stopped server acts on no request, so that it has to be killed.
	if err := s.child.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.stopOnce.Do(func() { // as Stop does, whose error the clean-up would report
		close(s.stopping)
		if err := s.end(ctx); err == nil {
			t.Error("no word about the server having been killed")
		}
		if err := s.cleanUp(); err != nil {
			t.Error(err)
		}
	})
	if !s.child.ended() {
		t.Error("it still runs")
	}
	next := startServer(t, cfg)
	if got := query(t, next.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
		t.Errorf("found %q after the recovery", got)
	}
}

func TestInterruptedInitdb(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	half := filepath.Join(dir, "data.new")
	if err := os.MkdirAll(filepath.Join(half, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, Config{Dir: dir, Durability: Fast})
	execute(t, s.DSN("postgres"), "SELECT 1")
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", half, err)
	}
}

func TestForeignDataIsRefusedUntouched(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file, text string
		want       error
		words      []string
	}{
		"another major version": {"PG_VERSION", "99\n", ErrDataVersion, []string{"PostgreSQL 99", "PG_BINDIR", "pg_upgrade", "nothing was changed"}},
		"an ancient version":    {"PG_VERSION", "9.6\n", ErrDataVersion, []string{"9.6", "nothing was changed"}},
		"no cluster at all":     {"letter.txt", "Dear Sir\n", ErrForeign, []string{"no PG_VERSION", "nothing was changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data := filepath.Join(dir, "data")
			if err := os.Mkdir(data, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(data, tc.file), []byte(tc.text), 0o640); err != nil { // not our modes, to see that they stay
				t.Fatal(err)
			}
			before := listing(t, data)
			_, err := Start(t.Context(), Config{Dir: dir, Durability: Fast})
			wantError(t, err, tc.want, append(tc.words, data)...)
			if after := listing(t, data); after != before {
				t.Errorf("the directory was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// listing describes all that is in dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			out.WriteString(path + " " + info.Mode().String() + " " + strconv.FormatInt(info.Size(), 10) + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
