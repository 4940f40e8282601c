//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config says which pages are followed, and with what.
type config struct {
	page    string   // is followed to the letter
	others  []string // whose commands are tried afterwards
	archive string   // as it is released
	schema  string   // SkyPANEL's tables
	keep    bool
	out     io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "guide: %v\n", err)
		if errors.Is(err, errNoMachine) {
			os.Exit(exitNoMachine)
		}
		os.Exit(1)
	}
}

// exitNoMachine: nothing was followed, for want of a machine.
const exitNoMachine = 4

func start(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == companyWord { // on the bare machine
		return company(ctx, args[1:], os.Stdin, os.Stdout)
	}
	c := config{out: os.Stdout}
	flags := flag.NewFlagSet("guide", flag.ExitOnError)
	flags.StringVar(&c.page, "page", "docs/integration.md", "the page to follow to the letter")
	flags.StringVar(&c.archive, "archive", "", "the release's archive, which the page's reader has")
	flags.StringVar(&c.schema, "schema", "db/skypanel.sql", "SkyPANEL's tables")
	flags.BoolVar(&c.keep, "keep", false, "keep the machine's files")
	_ = flags.Parse(args) // ExitOnError
	c.others = flags.Args()

	began := time.Now()
	done, err := follow(ctx, c)
	fmt.Fprintf(c.out, "\n%d commands run in %s, of these the page's own in %s; %d shown and not run\n",
		done.run, time.Since(began).Round(time.Second), done.page.Round(time.Second), done.skipped)
	return err
}
