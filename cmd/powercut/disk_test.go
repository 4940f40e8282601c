//go:build linux

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func TestTheDiskKeepsWhatWasFlushedAndNoMoreForSure(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, diskSize); err != nil {
		t.Fatal(err)
	}
	const pages = 64
	fill := func(content byte) []byte { return bytes.Repeat([]byte{content}, pages*pageSize) }
	read := func(d *disk) []byte {
		b := make([]byte, pages*pageSize)
		if err := d.read(b, 0); err != nil {
			t.Fatal(err)
		}
		return b
	}

	d, err := newDisk(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(fill('a'), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.flush(); err != nil {
		t.Fatal(err)
	}
	if err := d.write(fill('b'), 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(d), fill('b')) {
		t.Error("what was written last is not read")
	}
	lost, of, err := d.cut(rand.New(rand.NewPCG(1, 1)))
	if err != nil || of != pages || lost == 0 || lost == pages {
		t.Errorf("the cut lost %d of %d pages, %v", lost, of, err)
	}
	if err := d.flush(); !errors.Is(err, errNoPower) {
		t.Errorf("a flush without power: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}

	if d, err = newDisk(image); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close() }() // nothing was written
	left := read(d)
	old := 0
	for page := range pages {
		content := left[page*pageSize : (page+1)*pageSize]
		switch {
		case bytes.Equal(content, fill('a')[:pageSize]):
			old++
		case !bytes.Equal(content, fill('b')[:pageSize]):
			t.Errorf("page %d is neither old nor new", page)
		}
	}
	if old != lost {
		t.Errorf("%d pages are old, %d were lost", old, lost)
	}
	if d.write(make([]byte, 512), 0) == nil || d.write(make([]byte, pageSize), diskSize) == nil {
		t.Error("writes a part of a page, or beyond its end")
	}
}
