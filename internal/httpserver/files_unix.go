//go:build unix

package httpserver

import "syscall"

// OpenFiles is how many files this process may have open, connections included;
// 0: nobody knows. Go's runtime has raised it as far as it may be raised, from
// the soft limit to the hard one.
func OpenFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // its type differs between systems
}
