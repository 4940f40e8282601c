//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The short form of `make cluster`: the faults that come first, once each.
func TestWhatIsAnsweredSurvivesTheLossOfMachines(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts ten processes and takes about half a minute")
	}
	dir := t.TempDir()
	build := func(name, what string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, what).CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		return path
	}
	report, err := run(t.Context(), config{
		binary: build("serversync", "../serversync"), nats: build("nats-server", "github.com/nats-io/nats-server/v2"),
		rounds: shortRounds, seed: 1, inTurn: true, out: t.Output(),
	})
	report.print(t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if !report.checked || report.accepted < 100 || report.rows < 10 || report.moves < 1 || report.sweeps < 1 {
		t.Errorf("that proved little: %+v", report)
	}
}

// shortRounds is how many of the faults are among the tests.
const shortRounds = 6

// What roles may say and hear is what operators are told to let them.
func TestPermissionsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/scale-out.md")
	if err != nil {
		t.Fatal(err)
	}
	for role, p := range permissions {
		for what, subjects := range map[string][]string{"publish": p.publish, "subscribe": p.subscribe} {
			if line := what + ": [" + quoted(subjects) + "]"; !strings.Contains(string(text), line) {
				t.Errorf("docs/scale-out.md does not have, for %s:\n%s", role, line)
			}
		}
	}
}

// deploy/nats is what the real broker takes, with the same permissions.
func TestDeployedBrokerHasThePermissions(t *testing.T) {
	t.Setenv("SERVER_NAME", "nats-1") // the broker reads these from the environment
	for role := range permissions {
		t.Setenv(strings.ToUpper(role)+"_PASSWORD", "of"+role)
	}
	t.Setenv("OPERATOR_PASSWORD", "ofoperator")
	options, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !options.SyncAlways || !options.JetStream || options.StoreDir != "/data" || options.ServerName != "nats-1" || len(options.Routes) != natsServers || options.Cluster.Name == "" {
		t.Errorf("the broker would not keep what it confirms: sync always %t, JetStream %t in %s, server %s, %d routes of %s",
			options.SyncAlways, options.JetStream, options.StoreDir, options.ServerName, len(options.Routes), options.Cluster.Name)
	}
	for _, user := range options.Users {
		if user.Password != "of"+user.Username {
			t.Errorf("%s has a password that was not set for it", user.Username)
		}
		if user.Username == "operator" {
			continue
		}
		p, known := permissions[user.Username]
		got := user.Permissions
		if !known || got == nil || !slices.Equal(got.Publish.Allow, p.publish) || !slices.Equal(got.Subscribe.Allow, p.subscribe) || got.Response == nil {
			t.Errorf("%s may do %+v, and the proof runs with %+v", user.Username, got, p)
		}
	}
	if len(options.Users) != len(permissions)+1 {
		t.Errorf("%d users, want the roles and the operator", len(options.Users))
	}
}

// A link passes everything on, nothing while it is cut, and the rest when it is
// mended.
func TestALinkThatIsCutLosesNothing(t *testing.T) {
	t.Parallel()
	echo, err := newEcho(t)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink(t.Context(), echo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	conn := dial(t, l.addr)
	say(t, conn, "one")
	hear(t, conn, "one")
	l.cut()
	say(t, conn, "two")
	hearNothing(t, conn)
	l.mend()
	hear(t, conn, "two")
}

// newEcho listens where everything comes back that is said.
func newEcho(t *testing.T) (string, error) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
	return listener.Addr().String(), nil
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func say(t *testing.T, conn net.Conn, words string) {
	t.Helper()
	if _, err := io.WriteString(conn, words); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

func hearNothing(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %d bytes of a link that is cut: %v", n, err)
	}
}
