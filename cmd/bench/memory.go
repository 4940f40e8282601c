package main

import (
	"runtime"
	"runtime/debug"
)

// heapInUse is the memory in use after everything that can be freed was.
func heapInUse() uint64 {
	debug.FreeOSMemory()
	return uint64(inUse()) //nolint:gosec // G115: not negative
}

func inUse() int64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) //nolint:gosec // G115: memory is small
}
