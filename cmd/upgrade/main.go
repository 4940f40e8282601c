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
	flag.StringVar(&c.older, "old", "", "the older version's program")
	flag.StringVar(&c.newer, "new", "bin/serversync", "the newer version's program")
	flag.StringVar(&c.skypanel, "skypanel", "db/skypanel.sql", "SkyPANEL's tables")
	flag.DurationVar(&c.phase, "phase", 5*time.Second, "how long each phase lasts, at least")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "the same seed makes the same fleet")
	flag.Parse()
	c.out = os.Stdout

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	report, err := run(ctx, c)
	stop()
	report.print(c.out)
	if err != nil {
		fmt.Fprintf(os.Stderr, "upgrade: %v\n", err)
		os.Exit(1)
	}
}
