//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// diskSize is room for a fresh PostgreSQL, some of its log, and the stream.
const diskSize = "512m"

// disk is a small file system in memory.
type disk struct{ dir string }

// mountDisk mounts a small disk on a directory. It needs root.
func mountDisk(dir string) (*disk, error) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0700,size="+diskSize); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return &disk{dir: dir}, nil
}

func (d *disk) unmount() error {
	if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	return nil
}

// full leaves no room on the disk while something happens.
func (d *disk) full(meanwhile func() error) (err error) {
	path := filepath.Join(d.dir, "filler")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // G304: a file of ours
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	for chunk := 1 << 20; chunk >= 512; chunk /= 2 {
		for {
			_, err := file.Write(make([]byte, chunk))
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
				break
			}
			if err != nil {
				return fmt.Errorf("fill the disk: %w", err)
			}
		}
	}
	return meanwhile()
}
