package events

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Option says how what is published becomes durable, and who is told.
type Option func(*durability)

// WithSync has everything that the broker acknowledged brought to the disk
// before anybody is told: for an embedded broker, [Broker.Sync]. Nil, or no such
// option: the broker's acknowledgement is enough.
func WithSync(sync func() error) Option { return func(d *durability) { d.toDisk = sync } }

// WithRoom has events refused, as not durable, while room returns an error: for
// an embedded broker, which ends when its disk is full.
func WithRoom(room func() error) Option { return func(d *durability) { d.roomFor = room } }

// durability is what an acknowledgement needs to be durable, and who is told.
type durability struct {
	toDisk  func() error
	roomFor func() error      // nil: always
	metrics *PublisherMetrics // nil: nobody counts
	tracer  trace.Tracer      // nil: nothing is recorded
}

// room says why nothing may be written now.
func (d durability) room() error {
	if d.roomFor == nil {
		return nil
	}
	return d.roomFor()
}

func newDurability(opts []Option) durability {
	var d durability
	for _, set := range opts {
		set(&d)
	}
	return d
}

// byGroup reports whether many acknowledgements become durable together.
func (d durability) byGroup() bool { return d.toDisk != nil }

// sync returns once everything that was acknowledged before is on disk.
func (d durability) sync() error {
	if d.toDisk == nil {
		return nil
	}
	began := time.Now()
	err := d.toDisk()
	d.metrics.synced(time.Since(began))
	return err
}

// storeSync brings an embedded store to its disk. After a sync that failed
// nobody knows what is there: every later one fails too.
type storeSync struct {
	toDisk  func() error
	release func() error

	broken atomic.Pointer[error]
	fail   chan struct{} // closed with broken
	once   sync.Once
}

// newStoreSync returns nil, and why, where every write has to be synced by
// itself.
func newStoreSync(dir string) (s *storeSync, why string, err error) {
	toDisk, release, why, err := openStoreSync(dir)
	if err != nil || toDisk == nil {
		return nil, why, err
	}
	return &storeSync{toDisk: toDisk, release: release, fail: make(chan struct{})}, "", nil
}

// sync returns once everything that was written before is on disk. Safe for
// concurrent use.
func (s *storeSync) sync() error {
	if err := s.failure(); err != nil {
		return err
	}
	if err := s.toDisk(); err != nil {
		s.once.Do(func() {
			err = fmt.Errorf("%w: its sync to disk failed: %w; see that its disk is sound and has room, and start again", ErrStoreFailed, err)
			s.broken.Store(&err)
			close(s.fail)
		})
	}
	return s.failure()
}

// failure is why the store has failed; nil: it has not.
func (s *storeSync) failure() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// failed is closed when the store fails; never for a store that syncs each write.
func (s *storeSync) failed() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.fail
}

func (s *storeSync) close() error {
	if s == nil {
		return nil
	}
	if err := s.release(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close the event store's directory: %w", err)
	}
	return nil
}
