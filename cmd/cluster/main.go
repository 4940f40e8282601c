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
	flag.StringVar(&c.binary, "binary", "bin/serversync", "the program to torment")
	flag.StringVar(&c.nats, "nats", "bin/nats-server", "the broker's program")
	flag.IntVar(&c.rounds, "rounds", 20, "how many rounds")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "the same seed makes the same faults")
	flag.StringVar(&c.only, "only", "", "only faults whose name contains this")
	flag.BoolVar(&c.keep, "keep", false, "keep the directory, with all logs")
	flag.Parse()
	c.out = os.Stdout

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	report, err := run(ctx, c)
	stop()
	report.print(c.out)
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}
