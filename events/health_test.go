package events_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/events"
)

// A store that cannot be written is an error at once, not a wait.
func TestABrokerThatCannotStartSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A file where the store's directory should be: not even root gets past it.
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if _, err := events.StartBroker(dir, zerolog.Nop()); err == nil || time.Since(started) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(started), err)
	}
	if err := os.Remove(filepath.Join(dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	b, err := events.StartBroker(dir, zerolog.Nop())
	if err != nil {
		t.Fatalf("mended: %v", err)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
}

// A store that failed once takes nothing more, even when it could write again:
// whoever runs it must get to know.
func TestWatchTellsThatTheStoreFailed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := events.StartBroker(dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Stop() })
	nc, err := b.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.EnsureStream(t.Context(), js, events.StreamOptions{MaxBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	healthy := make(chan error, 1)
	go func() { healthy <- b.Watch(ctx) }()
	cancel()
	if err := <-healthy; err != nil {
		t.Errorf("a healthy store: %v", err)
	}

	// Its files are gone, and a file is where its directory was.
	messages := filepath.Join(dir, "jetstream", "$G", "streams", events.StreamName, "msgs")
	if err := os.RemoveAll(messages); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(messages, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := make(chan error, 1)
	go func() { broken <- b.Watch(t.Context()) }()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	large := make([]byte, 512<<10) // soon needs another file
	for {
		select {
		case err := <-broken:
			if !errors.Is(err, events.ErrStoreFailed) {
				t.Errorf("got %v, want ErrStoreFailed", err)
			}
			return
		case <-deadline.C:
			t.Fatal("nobody was told")
		default:
		}
		ask, done := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, _ = js.Publish(ask, "virtfusion.users.0.servers.9.updated", large) // that it fails is what this is about
		done()
	}
}
