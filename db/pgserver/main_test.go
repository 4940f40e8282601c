package pgserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// helperVariable makes the test binary a helper: a process of its own that
// runs a server until its standard input ends.
const helperVariable = "PGSERVER_TEST_HELPER"

// helperOrder is what a helper is to do.
type helperOrder struct {
	Dir        string
	Durability Durability
	Identity   identityKind
	// NoNamespaces forbids user namespaces first, as some systems do.
	NoNamespaces bool
	// Supervised has a supervisor between the helper and its server.
	Supervised bool
}

// helperAnswer is the line that a helper writes once its server is up or has
// failed.
type helperAnswer struct {
	Postmaster int
	DSN        string
	User       string
	Error      string
}

func TestMain(m *testing.M) {
	if order, ok := os.LookupEnv(helperVariable); ok {
		if err := serveAsHelper(order); err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

func serveAsHelper(text string) error {
	var order helperOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	if order.NoNamespaces {
		// It counts for the namespace that we are in, and its children.
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o600); err != nil {
			return err
		}
	}
	var log bytes.Buffer
	s, err := Start(context.Background(), Config{
		Dir: order.Dir, Durability: order.Durability, identity: order.Identity, supervised: order.Supervised,
		Logger: zerolog.New(&log).Level(zerolog.InfoLevel),
	})
	if err != nil {
		return json.NewEncoder(os.Stdout).Encode(helperAnswer{Error: err.Error()})
	}
	answer := helperAnswer{Postmaster: s.child.pid(), DSN: s.DSN("postgres"), User: log.String()}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Stop(context.Background())
}

// helper is a running helper process.
type helper struct {
	helperAnswer

	cmd   *exec.Cmd
	stdin io.Closer
}

// startHelper runs a helper with the attributes and waits for its answer.
func startHelper(t *testing.T, order helperOrder, attr *syscall.SysProcAttr) *helper {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(helperBinary(t)) //nolint:noctx // its end is part of the tests
	cmd.Env = append(os.Environ(), helperVariable+"="+string(text))
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a helper: %v", err)
	}
	h := &helper{cmd: cmd, stdin: stdin}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			h.kill(t)
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("read a helper's answer: %v", err)
	}
	if err := json.Unmarshal(line, &h.helperAnswer); err != nil {
		t.Fatal(err)
	}
	return h
}

// kill ends the helper as a crash would: it gets no chance to do anything.
func (h *helper) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := h.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
}

// stop lets the helper stop its server and waits for its end.
func (h *helper) stop(t *testing.T) {
	t.Helper()
	if err := h.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Fatalf("the helper could not stop its server: %v", err)
	}
}

// helperBinary copies the test binary to where every account can run it.
func helperBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return self
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(publicDir(t), "helper")
	writeExecutable(t, path, text)
	return path
}

// writeExecutable writes a program that every account may run. Meanwhile
// nothing is forked: a child of a parallel test would keep the file open for
// writing until it has turned into its own program, and the kernel runs no file
// that is being written ("text file busy").
func writeExecutable(t *testing.T, path string, text []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
}

// publicDir is a temporary directory that every account may enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgserver-test-") //nolint:usetesting // t.TempDir is below a directory for us alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startServer starts a server that ends with the test.
func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(t, s) })
	return s
}

func stopServer(t *testing.T, s *Server) {
	t.Helper()
	// The test's context has ended when this runs as its clean-up.
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// execute runs a statement in the database postgres.
func execute(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), statement)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// query returns the one value of a query in the database postgres, as text.
func query(t *testing.T, dsn, statement string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	var value string
	err = conn.QueryRow(t.Context(), statement).Scan(&value)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return value
}

// eventually waits until the condition holds and fails the test when it does
// not within half a minute.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tries := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Millisecond),
		backoff.WithMaxInterval(50*time.Millisecond),
		backoff.WithMaxElapsedTime(30*time.Second),
	)
	err := backoff.Retry(func() error {
		if !condition() {
			return errors.New("not yet")
		}
		return nil
	}, tries)
	if err != nil {
		t.Fatalf("%s: it never happened", what)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
}

func wantError(t *testing.T, err, sentinel error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if !errors.Is(err, sentinel) {
		t.Errorf("the error is not %q: %v", sentinel, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}
