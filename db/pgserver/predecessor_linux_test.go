package pgserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"serversync/db/pgserver/binaries"
)

// identities are the ways in which the tests' own user can run a server.
func identities() map[string]identityKind {
	if os.Geteuid() != 0 {
		return map[string]identityKind{"ourselves": identitySelf}
	}
	return map[string]identityKind{"namespace": identityNamespace, "account": identityAccount}
}

func TestServerDiesWithItsParent(t *testing.T) {
	t.Parallel()
	for name, kind := range identities() {
		for _, d := range []Durability{Durable, Fast} {
			t.Run(name+strconv.Itoa(int(d)), func(t *testing.T) {
				t.Parallel()
				if kind != identitySelf {
					needIdentity(t, kind)
				}
				dir := filepath.Join(publicDir(t), "pg")
				h := startHelper(t, helperOrder{Dir: dir, Durability: d, Identity: kind}, nil)
				if h.Error != "" {
					t.Fatal(h.Error)
				}
				execute(t, h.DSN, "CREATE TABLE kept AS SELECT 'still here' AS word")
				h.kill(t)
				eventually(t, "the server ends", func() bool { return len(findFamily(filepath.Join(dir, "data"))) == 0 })

				s := startServer(t, Config{Dir: dir, Durability: d, identity: kind})
				if d == Fast {
					return // whose last commits may be lost
				}
				if got := query(t, s.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
					t.Errorf("found %q after the crash", got)
				}
			})
		}
	}
}

// TestPredecessorIsEndedFirst runs a server on the directory for which nobody
// holds the lock, as an orphan would. (The kernel wakes stopped orphans of a
// killed parent; these stay stopped.)
func TestPredecessorIsEndedFirst(t *testing.T) {
	t.Parallel()
	for name, kind := range identities() {
		for state, stopped := range map[string]bool{"running": false, "stopped": true} {
			t.Run(name+" "+state, func(t *testing.T) {
				t.Parallel()
				if kind != identitySelf {
					needIdentity(t, kind)
				}
				cfg := Config{Dir: filepath.Join(publicDir(t), "pg"), identity: kind}
				s := startServer(t, cfg)
				execute(t, s.DSN("postgres"), "CREATE TABLE kept AS SELECT 'still here' AS word")
				stopServer(t, s)

				orphan := startOrphan(t, s, kind)
				if stopped {
					if err := syscall.Kill(orphan.pid(), syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				}
				next := startServer(t, cfg)
				<-orphan.done
				if orphan.err != nil {
					t.Errorf("it did not shut down in order: %v", orphan.err)
				}
				if got := query(t, next.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
					t.Errorf("found %q after it", got)
				}
			})
		}
	}
}

// startOrphan runs a server on the data of s, which has stopped, past all that
// Start sees to.
func startOrphan(t *testing.T, s *Server, kind identityKind) *child {
	t.Helper()
	inst, err := binaries.Find(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	id, err := chooseIdentity(t.Context(), kind, inst, s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.mkdir(s.socketDir); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(inst.Program("postgres"), arguments(s.dataDir(), s.socketDir, Durable, nil)...) //nolint:noctx // Start is to end it
	cmd.Dir = s.dir
	orphan, err := startChild(cmd, id, killSignal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !orphan.ended() {
			_ = orphan.cmd.Process.Kill() // it may have ended meanwhile
		}
	})
	eventually(t, "the orphan answers", func() bool {
		conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
		return err == nil && conn.Close(t.Context()) == nil
	})
	return orphan
}

// TestStoppedOrphanOfAKilledParent has the kernel do its part: it wakes a
// stopped process whose parent dies, which then acts on its death signal.
func TestStoppedOrphanOfAKilledParent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(publicDir(t), "pg")
	h := startHelper(t, helperOrder{Dir: dir}, nil)
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	execute(t, h.DSN, "CREATE TABLE kept AS SELECT 'still here' AS word")
	if err := syscall.Kill(h.Postmaster, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.kill(t)
	s := startServer(t, Config{Dir: dir})
	if got := query(t, s.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
		t.Errorf("found %q after the orphan", got)
	}
}

// TestStrangerIsNeverEnded puts the number of a process that is no server of
// this directory into postmaster.pid.
func TestStrangerIsNeverEnded(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast}
	s := startServer(t, cfg)
	stopServer(t, s)
	other := startServer(t, Config{Dir: t.TempDir(), Durability: Fast})
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	sleeper.Dir = s.dataDir()
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sleeper.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = sleeper.Wait() // it was killed
	})
	for name, pid := range map[string]int{"another server": other.child.pid(), "another program": sleeper.Process.Pid} {
		text := strconv.Itoa(pid) + "\n" + s.dataDir() + "\n"
		if err := os.WriteFile(filepath.Join(s.dataDir(), "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		next, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stopServer(t, next)
	}
	if got := query(t, other.DSN("postgres"), "SELECT 'alive'"); got != "alive" {
		t.Errorf("the other server says %q", got)
	}
	if state, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(sleeper.Process.Pid), "comm")); err != nil || string(state) != "sleep\n" {
		t.Errorf("the other program is gone: %q %v", state, err)
	}
}

func TestStaleFilesOfAnEarlierBoot(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast}
	s := startServer(t, cfg)
	stopServer(t, s)
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(gone.Process.Pid)
	if err := os.Mkdir(s.socketDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(s.dataDir(), "postmaster.pid"):   pid + "\n" + s.dataDir() + "\n1\n5432\n" + s.socketDir + "\n\n  1 1\nready   \n",
		filepath.Join(s.socketDir, socketFile):         "",
		filepath.Join(s.socketDir, socketFile+".lock"): pid + "\n",
		filepath.Join(s.dir, lockName):                 pid + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startServer(t, cfg)
}
