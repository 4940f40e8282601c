package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v3"

	"serversync/api"
)

func undoCommand() *cli.Command {
	all := adminSettings()
	return &cli.Command{
		Name:      "undo",
		Usage:     "take back what a run did, or one server's last change",
		ArgsUsage: "[RUN]",
		Description: "Billing rows that the run made are withdrawn, rows that it changed get their former values, and nothing makes it\n" +
			"again until an operator says so. Ask first with --dry-run. What cannot be taken back, and what was charged meanwhile,\n" +
			"is listed. It starts a run through the running service and watches it to its end, as sweep does. Ctrl-C ends the\n" +
			"watching, not the run.\n\n" +
			"Exit codes: 0 taken back, but for what is listed as left (of a dry run: seen), 1 failed, 2 wrong usage, 3 incomplete.",
		Flags: adminFlags(all,
			&cli.StringFlag{Name: "server", Usage: "instead of RUN: the last change of this server, VirtFusion's id", Sources: cli.EnvVars("UNDO_SERVER")},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would change and what would be left, and change nothing", Sources: cli.EnvVars("UNDO_DRY_RUN")},
			&cli.BoolFlag{Name: "no-wait", Usage: "do not watch the run", Sources: cli.EnvVars("UNDO_NO_WAIT")},
			changesOverFlag("UNDO"), csvFlag("UNDO"),
			&cli.BoolFlag{Name: "json", Usage: "print the run as JSON, and nothing else", Sources: cli.EnvVars("UNDO_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			begin, err := undoRequest(cmd)
			if err == nil {
				err = checkPreviewFlags(cmd)
			}
			if err != nil {
				return err
			}
			client, err := newAdminClient(cmd, all)
			if err != nil {
				return err
			}
			return sweep(ctx, cmd, client, begin)
		},
	}
}

// undoRequest is what the arguments ask for.
func undoRequest(cmd *cli.Command) (request, error) {
	if err := refuseEmpty(cmd, "server"); err != nil {
		return request{}, err
	}
	query := url.Values{"dryRun": {strconv.FormatBool(cmd.Bool("dry-run"))}, "wait": {"0"}} // we watch the run ourselves
	server, given := cmd.String("server"), cmd.Args()
	switch {
	case server == "" && given.Len() == 1 && given.First() != "":
		return request{method: http.MethodPost, path: runPath(given.First()) + "/undo", query: query}, nil
	case server == "" || given.Present():
		return request{}, &usageError{errors.New("undo takes one RUN, or --server and VirtFusion's id: see serversync undo --help")}
	}
	ref, err := api.ParseServer(server)
	if err != nil || ref.ID == 0 {
		return request{}, &usageError{errors.New("--server takes VirtFusion's id of a server, such as 14")}
	}
	return request{method: http.MethodPost, path: fmt.Sprintf("/api/admin/servers/%d/undo", ref.ID), query: query}, nil
}

// listLeft puts all that an undo left among its problems: a run by itself tells of
// the first servers.
func listLeft(ctx context.Context, client *adminClient, run *api.Run) error {
	if run.Undoes == nil || len(run.Problems) == 0 {
		return nil
	}
	problems := make([]api.Problem, 0, len(run.Problems))
	for _, p := range run.Problems {
		if p.ServerID == nil {
			problems = append(problems, p)
		}
	}
	query := url.Values{"limit": {"1000"}}
	for {
		var page api.RunServers
		if err := client.call(ctx, http.MethodGet, runPath(run.ID)+"/servers", query, &page); err != nil {
			return err
		}
		for _, result := range page.Items {
			if result.Error != nil {
				problems = append(problems, *result.Error)
			}
		}
		if page.NextCursor == nil {
			run.Problems = problems
			return nil
		}
		query.Set("cursor", *page.NextCursor)
	}
}
