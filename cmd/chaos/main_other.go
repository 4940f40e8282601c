//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "chaos: needs Linux: it looks into /proc and mounts a small disk")
	os.Exit(1)
}
