//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "upgrade: this rehearsal needs Linux")
	os.Exit(1)
}
