//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "guide: needs Linux: its machine is a Debian")
	os.Exit(1)
}
