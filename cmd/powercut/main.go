//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var c config
	flag.StringVar(&c.vm, "vm", "bin/powercut-vm", "the directory with the machine's vmlinuz and initramfs (scripts/powercut-vm.sh)")
	flag.StringVar(&c.accel, "accel", "tcg", "what runs the machine: tcg, which works everywhere, or kvm, where that works; see QEMU's -accel")
	flag.IntVar(&c.rounds, "rounds", 5, "how many power cuts")
	flag.IntVar(&c.controls, "controls", 1, "how many power cuts of each control")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "the same seed cuts after the same times")
	flag.BoolVar(&c.keep, "keep", false, "keep the directory, with the machine's console")
	guest := flag.String("guest", "", "in the machine: what to do there")
	flag.Parse()
	c.out = os.Stdout

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *guest != "" {
		err = beGuest(ctx, *guest)
	} else {
		err = run(ctx, c)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "powercut: %v\n", err)
		os.Exit(1)
	}
}
