// Package diskspace keeps a reserve on the disks of the embedded stores: what
// writes stops before a disk is full, and goes on when there is room again.
// NATS and PostgreSQL both end when they cannot write what they began.
package diskspace

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// The reserve is a twentieth of a disk, within bounds. News are refused below
// it; the books stand still below half of it: what was taken before may still be
// brought in. The disks are looked at every lookInterval: what writes a gigabyte
// a second uses less than half of the least reserve up within that.
const (
	reserveShare = 20
	leastReserve = 48 << 20
	mostReserve  = 1 << 30

	lookInterval = 20 * time.Millisecond
	// logInterval is how often a shortage is told again while it lasts.
	logInterval = time.Minute
)

// ErrShort means that a disk has less room than its reserve.
var ErrShort = errors.New("the disk is nearly full")

// Room is how much room a disk has, in bytes.
type Room struct {
	Dir         string
	Free, Total uint64
}

// Reserve is how much of the disk is kept free.
func (r Room) Reserve() uint64 { return min(max(r.Total/reserveShare, leastReserve), mostReserve) }

// Of measures the disk of a directory, as far as we may use it. It returns
// [errors.ErrUnsupported] where that is not known.
func Of(dir string) (Room, error) {
	free, total, err := measure(dir)
	if err != nil {
		return Room{}, fmt.Errorf("measure the disk of %s: %w", dir, err)
	}
	return Room{Dir: dir, Free: free, Total: total}, nil
}

// Space watches the disks of some directories. The zero value, and nil, watch
// none and have all the room there is.
type Space struct {
	dirs []string
	// news and books are why they must not be written; nil: they may.
	news, books atomic.Pointer[error]
}

// Watch measures the disks of directories, which must be there. Then call
// [Space.Run].
func Watch(dirs ...string) (*Space, error) {
	s := &Space{dirs: dirs}
	for _, dir := range dirs {
		if _, err := Of(dir); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil, err
		}
	}
	s.look()
	return s, nil
}

// ForNews returns an [ErrShort] that says what to do while nothing more may be
// taken; nil: there is room.
func (s *Space) ForNews() error {
	if s == nil {
		return nil
	}
	return load(&s.news)
}

// ForBooks returns an [ErrShort] that says what to do while even what was taken
// must not be written into the books; nil: there is room.
func (s *Space) ForBooks() error {
	if s == nil {
		return nil
	}
	return load(&s.books)
}

func load(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

// Run looks again and again, until ctx ends. It tells the log when a shortage
// begins and ends.
func (s *Space) Run(ctx context.Context, log zerolog.Logger) error {
	if s == nil {
		return nil
	}
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	var told time.Time
	for {
		s.look()
		err := s.ForNews()
		switch {
		case err != nil && time.Since(told) > logInterval:
			told = time.Now()
			log.Error().Err(err).Msg("webhooks are refused with 503 until there is room: VirtFusion does not repeat them, the next sweep finds what they told")
		case err == nil && !told.IsZero():
			told = time.Time{}
			log.Info().Msg("there is room on the disk again: webhooks are taken")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look measures all disks.
func (s *Space) look() {
	var news, books error
	for _, dir := range s.dirs {
		room, err := Of(dir)
		if err != nil {
			continue // nothing is known of it: whoever writes finds out
		}
		reserve := room.Reserve()
		short := fmt.Errorf("%w: that of DATA_DIR/%s has %d MB left of %d, and %d are kept in reserve; make room there, or a larger disk", ErrShort, filepath.Base(dir), room.Free>>20, room.Total>>20, reserve>>20)
		if room.Free < reserve {
			news = short
		}
		if room.Free < reserve/2 {
			books = short
		}
	}
	keep(&s.news, news)
	keep(&s.books, books)
}

func keep(p *atomic.Pointer[error], err error) {
	if err == nil {
		p.Store(nil)
		return
	}
	p.Store(&err)
}
