package events_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/events"
)

// external starts a broker of somebody else's, listening on loopback; port 0
// picks one.
func external(t *testing.T, dir string, port int, change func(*server.Options)) *server.Server {
	t.Helper()
	srv := launch(t, dir, port, change)
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the external broker is not ready")
	}
	return srv
}

// launch does not wait until it is ready.
func launch(t *testing.T, dir string, port int, change func(*server.Options)) *server.Server {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	o := &server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true}
	if change != nil {
		change(o)
	}
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return srv
}

// connect uses JetStream at url until the test ends.
func connect(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := events.Dial(url, "", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestAnAccountThatForbidsStreamsIsToldSo(t *testing.T) {
	t.Parallel()
	srv := external(t, t.TempDir(), 0, func(o *server.Options) {
		o.Users = []*server.User{{
			Username: "guest", Password: "guest",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.>"}}},
		}}
	})
	js := connect(t, "nats://guest:guest@"+srv.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := events.EnsureStream(ctx, js, events.StreamOptions{}); err == nil || !strings.Contains(err.Error(), "$JS.API") {
		t.Errorf("EnsureStream = %v; it must say what the account lacks", err)
	}
}

func TestABrokerWithoutJetStreamIsToldSo(t *testing.T) {
	t.Parallel()
	srv := external(t, t.TempDir(), 0, func(o *server.Options) { o.JetStream = false })
	js := connect(t, srv.ClientURL())
	if _, err := events.EnsureStream(t.Context(), js, events.StreamOptions{}); err == nil || !strings.Contains(err.Error(), "JetStream") {
		t.Errorf("EnsureStream = %v; it must say that JetStream is off", err)
	}
}

func TestAStreamThatDoesNotFitIsToldSo(t *testing.T) {
	t.Parallel()
	srv := external(t, t.TempDir(), 0, func(o *server.Options) { o.JetStreamMaxStore = 1 << 20 })
	js := connect(t, srv.ClientURL())
	if _, err := events.EnsureStream(t.Context(), js, events.StreamOptions{}); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("EnsureStream = %v; it must say that there is no room", err)
	}
}

// A stream that is somebody else's is not taken, and it is said what to do.
func TestAStreamOfSomebodyElsesIsToldSo(t *testing.T) {
	t.Parallel()
	for name, theirs := range map[string]jetstream.StreamConfig{
		"the same name":     {Name: events.StreamName, Subjects: []string{events.SubjectAll}, Storage: jetstream.MemoryStorage},
		"the same subjects": {Name: "THEIRS", Subjects: []string{"virtfusion.>"}},
	} {
		js := connect(t, external(t, t.TempDir(), 0, nil).ClientURL())
		if _, err := js.CreateStream(t.Context(), theirs); err != nil {
			t.Fatal(err)
		}
		if _, err := events.EnsureStream(t.Context(), js, events.StreamOptions{MaxBytes: 1 << 20}); err == nil || !strings.Contains(err.Error(), "of serversync's own") {
			t.Errorf("%s: EnsureStream = %v; it must say what to do", name, err)
		}
	}
}

// A server that answers and confirms nothing is left for one that does.
func TestAUselessServerIsLeft(t *testing.T) {
	t.Parallel()
	useless := external(t, t.TempDir(), 0, func(o *server.Options) { o.JetStream = false })
	place := freeAddress(t)
	nc, err := events.Dial(useless.ClientURL()+",nats://"+place, "", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if !nc.IsConnected() || nc.ConnectedUrl() != useless.ClientURL() {
		t.Fatalf("connected to %q", nc.ConnectedUrl())
	}
	_, text, err := net.SplitHostPort(place)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	useful := external(t, t.TempDir(), port, nil)
	if _, err := events.EnsureStream(t.Context(), connect(t, useful.ClientURL()), events.StreamOptions{MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := events.NewPublisher(nc)
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	ctx, cancel := context.WithCancel(t.Context())
	roaming := make(chan error, 1)
	go func() { roaming <- events.Roam(ctx, js, publisher, zerolog.Nop()) }()
	e := sample(1)
	insist(t, func(ctx context.Context) error {
		_, err := publisher.Publish(ctx, &e)
		return err
	})
	cancel()
	if err := <-roaming; err != nil {
		t.Errorf("Roam = %v at the end of its context", err)
	}
}

func TestABrokerThatComesAndGoes(t *testing.T) {
	t.Parallel()
	// A port that nobody listens on yet.
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}

	nc, err := events.Dial("nats://127.0.0.1:"+text, "", zerolog.Nop())
	if err != nil {
		t.Fatalf("a broker that is away is no wrong configuration: %v", err)
	}
	defer nc.Close()
	publisher, err := events.NewPublisher(nc)
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	e := sample(1)
	if _, err := publisher.Publish(t.Context(), &e); !errors.Is(err, events.ErrNotDurable) {
		t.Fatalf("the broker is away: %v, want ErrNotDurable", err)
	}

	dir := t.TempDir()
	reach := func() {
		t.Helper()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			ctx, cancel := context.WithTimeout(deadline, time.Second)
			_, err := events.EnsureStream(ctx, js, events.StreamOptions{MaxBytes: 1 << 20})
			cancel()
			if err == nil {
				return
			}
			if deadline.Err() != nil {
				t.Fatalf("the broker is back, but: %v", err)
			}
		}
	}
	first := external(t, dir, port, nil)
	reach()
	if _, err := publisher.Publish(t.Context(), &e); err != nil {
		t.Fatalf("the broker has come: %v", err)
	}
	first.Shutdown()
	first.WaitForShutdown()
	other := sample(2)
	if _, err := publisher.Publish(t.Context(), &other); !errors.Is(err, events.ErrNotDurable) {
		t.Fatalf("the broker has gone: %v, want ErrNotDurable", err)
	}
	external(t, dir, port, nil)
	reach()
	if _, err := publisher.Publish(t.Context(), &other); err != nil {
		t.Fatalf("the broker is back: %v", err)
	}
}

func TestDialHidesPasswords(t *testing.T) {
	t.Parallel()
	_, err := events.Dial("nats://user:hunter2@127.0.0.1:1", "/no/such/file.creds", zerolog.Nop())
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "NATS_CREDS") {
		t.Errorf("Dial = %v", err)
	}
}

// lines is a log that a test reads while others write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A broker that refused our password for a while, and was mended, is used again by
// the same process; the log says once what to do, and nothing when we hang up.
func TestABrokerThatRefusesUsIsTriedAgain(t *testing.T) {
	t.Parallel()
	var refusals atomic.Int64
	knows := func(password string) func(*server.Options) {
		return func(o *server.Options) {
			o.CustomClientAuthentication = &guard{password: password, refusals: &refusals}
		}
	}
	dir, place := t.TempDir(), freeAddress(t)
	_, text, err := net.SplitHostPort(place)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	srv := external(t, dir, port, knows("old"))
	var log lines
	nc, err := events.Dial("nats://us:old@"+place, "", zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, password := range []string{"other", "old"} {
		srv.Shutdown()
		srv.WaitForShutdown()
		srv = external(t, dir, port, knows(password))
		eventually(t, func() bool { return refusals.Load() >= 3 })
	}
	eventually(t, nc.IsConnected)
	if said := strings.Count(log.String(), "check the user and password of NATS_URL"); said != 1 {
		t.Errorf("what to do was said %d times, want once: %s", said, log.String())
	}
	lost := strings.Count(log.String(), "lost the broker")
	nc.Close()
	eventually(t, nc.IsClosed)
	if said := strings.Count(log.String(), "lost the broker"); said != lost {
		t.Errorf("hanging up was taken for a loss: %s", log.String())
	}
}

// guard lets in whoever knows the password, and counts the others.
type guard struct {
	password string
	refusals *atomic.Int64
}

func (g *guard) Check(c server.ClientAuthentication) bool {
	if c.GetOpts().Password == g.password {
		return true
	}
	g.refusals.Add(1)
	return false
}

// eventually waits for a condition that others bring about.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("it did not come about within a minute")
		}
	}
}
