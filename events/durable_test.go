package events

import (
	"errors"
	"testing"
	"time"
)

func TestASyncThatFailsIsNeverTriedAgain(t *testing.T) {
	t.Parallel()
	calls := 0
	s := &storeSync{fail: make(chan struct{}), release: func() error { return nil }, toDisk: func() error {
		calls++
		if calls == 2 {
			return errors.New("input/output error")
		}
		return nil
	}}
	if err := s.sync(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.sync(); !errors.Is(err, ErrStoreFailed) {
			t.Errorf("after a failure: %v, want ErrStoreFailed", err)
		}
	}
	if calls != 2 {
		t.Errorf("synced %d times, want 2: what a second success says nobody knows", calls)
	}
	b := &Broker{store: s}
	done := make(chan error, 1)
	go func() { done <- b.Watch(t.Context()) }()
	select {
	case err := <-done:
		if !errors.Is(err, ErrStoreFailed) {
			t.Errorf("watch: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("whoever watches the broker is not told")
	}
}
