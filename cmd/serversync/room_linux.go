//go:build linux

package main

import "golang.org/x/sys/unix"

// roomOf asks the file system of a directory.
func roomOf(dir string) (room, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return room{}, err
	}
	block := uint64(fs.Bsize) //nolint:gosec // G115: a block's size is above 0
	return room{free: fs.Bavail * block, total: fs.Blocks * block}, nil
}
