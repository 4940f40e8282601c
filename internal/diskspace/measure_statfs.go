//go:build linux || darwin

package diskspace

import "golang.org/x/sys/unix"

func measure(dir string) (free, total uint64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, 0, err
	}
	block := uint64(stat.Bsize) //nolint:gosec // G115: a block has a size, whose type differs between systems
	return stat.Bavail * block, stat.Blocks * block, nil
}
