package pgserver

import (
	"os"

	"golang.org/x/sys/unix"
)

// scratchParent is where temporary data directories go: in memory if it has
// room, else with the other temporary files.
func scratchParent() string {
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || unix.Access(shm, unix.W_OK|unix.X_OK) != nil {
		return os.TempDir()
	}
	if st.Bavail*uint64(st.Bsize) < scratchRoom { //nolint:gosec // G115: a block size is positive
		return os.TempDir()
	}
	return shm
}
