package events

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// filesystems on which syncfs(2) writes everything to the disk, and says when it
// could not. Of others (network, FUSE) nobody knows.
var filesystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC:      "ext",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	0x2fc12fc1:                 "zfs",
}

// Since Linux 5.8 syncfs tells of writes that failed since the directory was
// opened.
const (
	syncfsMajor = 5
	syncfsMinor = 8
)

// openStoreSync returns what brings everything that was written to a directory's
// file system to the disk, nil where that cannot be relied on, and why.
func openStoreSync(dir string) (sync func() error, closeSync func() error, why string, err error) {
	var system unix.Utsname
	if err := unix.Uname(&system); err != nil {
		return nil, nil, "", fmt.Errorf("ask for the kernel's version: %w", err)
	}
	if release := unix.ByteSliceToString(system.Release[:]); !atLeast(release, syncfsMajor, syncfsMinor) {
		return nil, nil, "Linux " + release + " does not tell of failed writes", nil
	}
	d, err := os.Open(dir) //nolint:gosec // G304: the store's directory
	if err != nil {
		return nil, nil, "", fmt.Errorf("open the event store's directory: %w", err)
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &stat); err != nil {
		d.Close() //nolint:errcheck,gosec // nothing was written
		return nil, nil, "", fmt.Errorf("ask for the event store's file system: %w", err)
	}
	if filesystems[int64(stat.Type)] == "" { //nolint:unconvert // its type differs between architectures
		d.Close() //nolint:errcheck,gosec // nothing was written
		return nil, nil, fmt.Sprintf("the file system (type %#x) is not one of which syncfs is known to be reliable", stat.Type), nil
	}
	return func() error { return unix.Syncfs(int(d.Fd())) }, d.Close, "", nil
}

// atLeast compares the beginning of a kernel's release, such as 6.1.0-13-amd64.
func atLeast(release string, major, minor int) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	a, errA := strconv.Atoi(parts[0])
	b, errB := strconv.Atoi(parts[1])
	return errA == nil && errB == nil && (a > major || a == major && b >= minor)
}
