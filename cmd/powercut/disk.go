//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

const (
	// diskSize holds what a few rounds put on the stream. The file is sparse.
	diskSize = 2 << 30
	// pageSize is what the disk writes as a whole or not at all.
	pageSize = 4096
	// flushTakes is long for an SSD, as everything is for an emulated processor:
	// many power cuts have to fall between a write and its flush.
	flushTakes = 25 * time.Millisecond
)

var (
	errNotWhole = errors.New("not whole pages of the disk")
	errNoPower  = errors.New("the disk has no power")
)

// disk is a disk with a volatile cache: what was written is in the file only
// after a flush.
type disk struct {
	file *os.File
	off  chan struct{} // closed when its power is cut

	mu      sync.Mutex
	cache   map[int64][]byte // pages by number, not flushed yet
	flushes int
}

// newDisk uses a file, as it is.
func newDisk(path string) (*disk, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // G304: a file of ours
	if err != nil {
		return nil, fmt.Errorf("open the disk: %w", err)
	}
	return &disk{file: file, off: make(chan struct{}), cache: map[int64][]byte{}}, nil
}

// eachPage calls do with the number of each page of a range, and its part of b.
func eachPage(b []byte, offset int64, do func(page int64, part []byte) error) error {
	if offset%pageSize != 0 || len(b)%pageSize != 0 || offset < 0 || offset+int64(len(b)) > diskSize {
		return errNotWhole
	}
	for i := 0; i < len(b); i += pageSize {
		if err := do((offset+int64(i))/pageSize, b[i:i+pageSize]); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) read(b []byte, offset int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := eachPage(b, offset, func(int64, []byte) error { return nil }); err != nil {
		return err
	}
	if _, err := d.file.ReadAt(b, offset); err != nil {
		return fmt.Errorf("read the disk: %w", err)
	}
	return eachPage(b, offset, func(page int64, part []byte) error {
		if cached, ok := d.cache[page]; ok {
			copy(part, cached)
		}
		return nil
	})
}

// write takes pages into the cache, where b must stay as it is.
func (d *disk) write(b []byte, offset int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return eachPage(b, offset, func(page int64, part []byte) error {
		d.cache[page] = part
		return nil
	})
}

// flush puts the cache into the file, unless the power is cut meanwhile. The file
// itself need not be synced: it is the machine that loses its power, not we.
func (d *disk) flush() error {
	select {
	case <-time.After(flushTakes):
	case <-d.off:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.off:
		return errNoPower
	default:
	}
	d.flushes++
	for page, content := range d.cache {
		if err := d.put(page, content); err != nil {
			return err
		}
	}
	clear(d.cache)
	return nil
}

func (d *disk) put(page int64, content []byte) error {
	if _, err := d.file.WriteAt(content, page*pageSize); err != nil {
		return fmt.Errorf("write the disk: %w", err)
	}
	return nil
}

// cut takes the disk's power: each page of the cache has been written by then or
// not, whatever its place in time. A flush that is not done yet does nothing, and
// what comes now is nobody's any more. It returns how many pages were lost, and of
// how many.
func (d *disk) cut(random *rand.Rand) (lost, of int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.off)
	of = len(d.cache)
	survives := random.Float64()
	for page, content := range d.cache {
		if random.Float64() >= survives {
			lost++
		} else if err := d.put(page, content); err != nil {
			return lost, of, err
		}
	}
	clear(d.cache)
	return lost, of, nil
}

func (d *disk) close() error { return d.file.Close() }
