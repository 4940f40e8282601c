package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

func main() {
	if err := command(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func command() error {
	var c config
	only := flag.String("only", ".", "measure only sections whose name matches")
	flag.IntVar(&c.rounds, "rounds", 5, "how many alternating rounds")
	flag.BoolVar(&c.quick, "quick", false, "measure so little that the figures mean nothing")
	flag.StringVar(&c.parent, "dir", "", "where to make the temporary directory: on the disk that is to be measured")
	flag.StringVar(&c.binary, "binary", "bin/serversync", "the program whose idleness is measured")
	flag.StringVar(&c.profiles, "cpuprofile", "", "a directory for CPU profiles, one for each thing and round")
	flag.StringVar(&c.document, "write", "", "the document to write, docs/performance.md")
	flag.StringVar(&c.command, "command", strings.Join(os.Args, " "), "the command that the document names")
	flag.Parse()
	c.out = os.Stdout
	var err error
	if c.sections, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if c.rounds < 1 {
		return errors.New("-rounds: at least one")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, err := run(ctx, c)
	if err != nil {
		return err
	}
	switch {
	case c.document == "":
	case len(b.left) > 0:
		b.tell("%s stays as it was: %s were not measured", c.document, strings.Join(b.left, ", "))
	default:
		if err := b.write(c.document); err != nil {
			return err
		}
		b.tell("wrote %s", c.document)
	}
	fmt.Fprintln(c.out)
	b.results.printRatios(c.out)
	return nil
}
