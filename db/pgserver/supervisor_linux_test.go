package pgserver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
)

// Linux needs no supervisor, but has /proc, where it can be seen what one does.

func TestSupervisedServer(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), supervised: true}
	s := startServer(t, cfg)
	if family := findFamily(s.dataDir()); len(family) == 0 || s.child.pid() == s.child.cmd.Process.Pid || !s.child.isOneOf(family) {
		t.Errorf("the server is process %d and its supervisor %d; those of the directory are %v", s.child.pid(), s.child.cmd.Process.Pid, pids(family))
	}
	if env := content(t, filepath.Join("/proc", strconv.Itoa(s.child.pid()), "environ")); strings.Contains(env, supervisorVariable) {
		t.Errorf("the server's environment has %s", supervisorVariable)
	}
	for _, pid := range []int{s.child.pid(), s.child.cmd.Process.Pid} {
		group, err := syscall.Getpgid(pid)
		if err != nil || group == syscall.Getpgrp() {
			t.Errorf("process %d is in our group %d, where Ctrl-C would reach it (%v)", pid, group, err)
		}
	}
	execute(t, s.DSN("postgres"), "CREATE TABLE kept AS SELECT 'still here' AS word")
	stopServer(t, s)
	if err := s.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}
	if family := findFamily(s.dataDir()); len(family) > 0 {
		t.Errorf("processes %v still run", pids(family))
	}
	var log bytes.Buffer
	cfg.Logger = zerolog.New(zerolog.SyncWriter(&log))
	next := startServer(t, cfg)
	if got := query(t, next.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
		t.Errorf("found %q after the restart", got)
	}
	stopServer(t, next)
	wantOrderlyEnd(t, log.String())
}

// TestSupervisedServerDiesWithItsParent kills the parent, which has no chance to
// say anything.
func TestSupervisedServerDiesWithItsParent(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Durability{"durable": Durable, "fast": Fast} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(publicDir(t), "pg")
			h := startHelper(t, helperOrder{Dir: dir, Durability: d, Supervised: true}, nil)
			if h.Error != "" {
				t.Fatal(h.Error)
			}
			supervisor := parentOf(h.Postmaster)
			if line := content(t, filepath.Join("/proc", strconv.Itoa(supervisor), "cmdline")); !strings.HasPrefix(line, supervisorName) {
				t.Fatalf("the server's parent is %q", line)
			}
			execute(t, h.DSN, "CREATE TABLE kept AS SELECT 'still here' AS word")
			h.kill(t)
			eventually(t, "the server ends", func() bool { return len(findFamily(filepath.Join(dir, dataName))) == 0 })
			eventually(t, "the supervisor ends", func() bool {
				return !strings.HasPrefix(content(t, filepath.Join("/proc", strconv.Itoa(supervisor), "cmdline")), supervisorName)
			})
			if d == Fast {
				return // whose last commits may be lost
			}
			var log bytes.Buffer
			s := startServer(t, Config{Dir: dir, Logger: zerolog.New(zerolog.SyncWriter(&log))})
			if got := query(t, s.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
				t.Errorf("found %q after the crash", got)
			}
			stopServer(t, s)
			wantOrderlyEnd(t, log.String())
		})
	}
}

func TestStoppedServerOfAKilledParent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(publicDir(t), "pg")
	h := startHelper(t, helperOrder{Dir: dir, Supervised: true}, nil)
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	if err := syscall.Kill(h.Postmaster, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.kill(t)
	eventually(t, "the server ends", func() bool { return len(findFamily(filepath.Join(dir, dataName))) == 0 })
}

func TestSupervisorThatIsToldToEnd(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	cfg := Config{Dir: t.TempDir(), supervised: true}
	s := startServer(t, cfg)
	if err := s.child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	wantWords(t, s.Err(), "ended by itself", "fast shutdown request")
	stopServer(t, s)
	cfg.Logger = zerolog.New(zerolog.SyncWriter(&log))
	stopServer(t, startServer(t, cfg))
	wantOrderlyEnd(t, log.String())
}

func TestSupervisedServerThatEndsByItself(t *testing.T) {
	t.Parallel()
	for sig, words := range map[syscall.Signal]string{syscall.SIGQUIT: "immediate shutdown request", syscall.SIGKILL: "postgres: signal: killed"} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, Config{Dir: t.TempDir(), Durability: Fast, supervised: true})
			if err := syscall.Kill(s.child.pid(), sig); err != nil {
				t.Fatal(err)
			}
			<-s.Done()
			wantWords(t, s.Err(), "ended by itself", words)
			if err := s.Stop(t.Context()); err != nil {
				t.Errorf("Stop of a dead server: %v", err)
			}
		})
	}
}

func TestSupervisedStartThatFails(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Durability: Fast, supervised: true, Settings: map[string]string{"shared_buffers": "plenty"}}
	_, err := Start(t.Context(), cfg)
	wantWords(t, err, `invalid value for parameter "shared_buffers"`)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(cancelled, cfg); err == nil {
		t.Error("it started when it was cancelled")
	}
	_, err = startChild(exec.Command("/nonexistent/postgres"), identity{supervised: true}, killSignal) //nolint:noctx // it does not start
	wantWords(t, err, "/nonexistent/postgres")
	// Nothing is left behind that would be in the way.
	cfg.Settings = nil
	startServer(t, cfg)
}

func TestSupervisedCommandThatIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "sleep", "1000")
	c, err := startChild(cmd, identity{supervised: true}, killSignal)
	if err != nil {
		t.Fatal(err)
	}
	if name := content(t, filepath.Join("/proc", strconv.Itoa(c.pid()), "comm")); name != "sleep\n" {
		t.Errorf("process %d is %q", c.pid(), name)
	}
	cancel()
	<-c.done
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(c.pid()))); !os.IsNotExist(err) {
		t.Errorf("process %d still runs (%v)", c.pid(), err)
	}
}

func TestSupervisedStopThatIsHurried(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Dir: t.TempDir(), Durability: Fast, supervised: true})
	// A stopped server acts on no request, so that it has to be killed.
	if err := syscall.Kill(s.child.pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.stopOnce.Do(func() { // as Stop does, whose error the clean-up would report
		close(s.stopping)
		wantWords(t, s.end(ctx), "was killed")
		if err := s.cleanUp(); err != nil {
			t.Error(err)
		}
	})
	if family := findFamily(s.dataDir()); len(family) > 0 {
		t.Errorf("processes %v still run", pids(family))
	}
}

// TestOrphanOfAKilledSupervisor is what a supervisor cannot help: its own death.
// The next start finds the server without /proc.
func TestOrphanOfAKilledSupervisor(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), supervised: true}
	s := startServer(t, cfg)
	execute(t, s.DSN("postgres"), "CREATE TABLE kept AS SELECT 'still here' AS word")
	if err := s.child.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	wantWords(t, s.Err(), "ended by itself")
	if family := processTable().family(s.dataDir()); len(family) != 1 || !s.child.isOneOf(family) {
		t.Errorf("the orphans are %v, want %d", pids(family), s.child.pid())
	}
	if err := processTable().endPredecessor(t.Context(), s.dataDir(), zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	if family := findFamily(s.dataDir()); len(family) > 0 {
		t.Errorf("processes %v still run", pids(family))
	}
	stopServer(t, s)
	var log bytes.Buffer
	cfg.Logger = zerolog.New(zerolog.SyncWriter(&log))
	next := startServer(t, cfg)
	if got := query(t, next.DSN("postgres"), "SELECT word FROM kept"); got != "still here" {
		t.Errorf("found %q after the orphan", got)
	}
	stopServer(t, next)
	wantOrderlyEnd(t, log.String())
}

// TestProcessTableKnowsStrangers puts the number of another directory's server
// into postmaster.pid.
func TestProcessTableKnowsStrangers(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Dir: t.TempDir(), Durability: Fast})
	stopServer(t, s)
	other := startServer(t, Config{Dir: t.TempDir(), Durability: Fast})
	path := filepath.Join(s.dataDir(), postmasterFile)
	if err := os.WriteFile(path, []byte(strconv.Itoa(other.child.pid())+"\n"+s.dataDir()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if family := processTable().family(s.dataDir()); len(family) > 0 {
		t.Errorf("it takes %v for the directory's", pids(family))
	}
	if err := processTable().endPredecessor(t.Context(), s.dataDir(), zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the stranger's number stays, and the server would not start (%v)", err)
	}
	if got := query(t, other.DSN("postgres"), "SELECT 'alive'"); got != "alive" {
		t.Errorf("the other server says %q", got)
	}
}

func (c *child) isOneOf(family []process) bool {
	return slices.ContainsFunc(family, func(p process) bool { return p.pid == c.pid() })
}

// content is a file's text, or nothing when there is no file, or its process has
// ended meanwhile.
func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	return string(text)
}

func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("the error is %v; want one that says %q", err, word)
		}
	}
}

// wantOrderlyEnd fails unless the log of a start says that the server before had
// been shut down in order.
func wantOrderlyEnd(t *testing.T, log string) {
	t.Helper()
	if !strings.Contains(log, "database system was shut down at") {
		t.Errorf("the server before was not shut down in order:\n%s", log)
	}
}
