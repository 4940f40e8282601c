package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/urfave/cli/v3"
)

func readyCommand() *cli.Command {
	all := pick(settings(), "LISTEN_ADDR")
	return &cli.Command{
		Name:  "ready",
		Usage: "ask the service on this machine whether it can do its work",
		Description: "Exits 0 when GET /readyz of the process at LISTEN_ADDR says so, else 1. For the health checks of\n" +
			"containers without a shell.",
		Flags: append(flags(all),
			&cli.StringFlag{Name: "url", Usage: "the running service (default: from LISTEN_ADDR)", Sources: cli.EnvVars("SERVERSYNC_URL")},
			&cli.StringFlag{Name: "role", Usage: "this role alone (default: those of the process)", Sources: cli.EnvVars("READY_ROLE")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := readConfig(cmd, all)
			if err != nil {
				return err
			}
			return askReady(ctx, cmp.Or(cmd.String("url"), urlOf(c.listenAddr)), cmd.String("role"), cmd.Root().Writer)
		},
	}
}

// mostReady bounds how much of the answer is repeated.
const mostReady = 16 << 10

// askReady prints what /readyz answers; an error unless that is 200.
func askReady(ctx context.Context, base, role string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address := base + "/readyz"
	if role != "" {
		address += "?role=" + url.QueryEscape(role)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return &usageError{fmt.Errorf("ask %s (say a URL such as http://127.0.0.1:8080): %w", address, err)}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no service answers at %s: %w", base, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, mostReady))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", address, err)
	}
	printf(out, "%s\n", answer)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s answered %s", address, response.Status)
	}
	return nil
}
