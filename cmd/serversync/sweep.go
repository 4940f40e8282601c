package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v3"

	"serversync/api"
)

func sweepCommand() *cli.Command {
	all := adminSettings()
	return &cli.Command{
		Name:  "sweep",
		Usage: "compare all servers of VirtFusion with the books now, and mend what differs",
		Description: "Starts a run through the running service, as explain does, and watches it to its end: a progress bar on a terminal,\n" +
			"lines otherwise, and a summary. What would change more than SWEEP_MAX_CHANGES waits for --approve. Ctrl-C ends the\n" +
			"watching, not the run.\n\n" +
			"Exit codes: 0 everything was seen and done (of a dry run: seen), 1 failed, 2 wrong usage, 3 incomplete, waiting for\n" +
			"approval or superseded.",
		Flags: adminFlags(all,
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would change, and change nothing", Sources: cli.EnvVars("SWEEP_DRY_RUN")},
			&cli.StringFlag{Name: "user", Usage: "only the servers of this user: SkyPANEL's users.id", Sources: cli.EnvVars("SWEEP_USER")},
			&cli.StringFlag{Name: "approve", Usage: "let this run go on, which waits for approval", Sources: cli.EnvVars("SWEEP_APPROVE")},
			&cli.StringFlag{Name: "preview", Usage: "with --approve: the preview that is approved; refused when the run was previewed again since", Sources: cli.EnvVars("SWEEP_PREVIEW")},
			&cli.StringFlag{Name: "watch", Usage: "start nothing, watch this run", Sources: cli.EnvVars("SWEEP_WATCH")},
			&cli.BoolFlag{Name: "no-wait", Usage: "do not watch the run", Sources: cli.EnvVars("SWEEP_NO_WAIT")},
			changesOverFlag("SWEEP"), csvFlag("SWEEP"),
			&cli.BoolFlag{Name: "json", Usage: "print the run as JSON, and nothing else", Sources: cli.EnvVars("SWEEP_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			begin, err := sweepRequest(cmd)
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

// request is what begins a run, or finds it.
type request struct {
	method, path string
	query        url.Values
	body         any // as JSON; nil: none
}

// sweepRequest is what the flags ask for.
func sweepRequest(cmd *cli.Command) (request, error) {
	if err := refuseEmpty(cmd, "user", "approve", "watch", "preview"); err != nil {
		return request{}, err
	}
	user, approve, watch, dryRun := cmd.String("user"), cmd.String("approve"), cmd.String("watch"), cmd.Bool("dry-run")
	query := url.Values{"dryRun": {strconv.FormatBool(dryRun)}}
	switch {
	case (approve != "" || watch != "") && (user != "" || dryRun) || approve != "" && watch != "":
		return request{}, &usageError{errors.New("--approve and --watch name a run that there is: leave out the other one, --user and --dry-run")}
	case approve == "" && cmd.String("preview") != "":
		return request{}, &usageError{errors.New("--preview says what is approved: name the run with --approve")}
	case approve != "":
		query := url.Values{}
		if mark := cmd.String("preview"); mark != "" {
			query.Set("preview", mark)
		}
		return request{method: http.MethodPost, path: runPath(approve) + "/approve", query: query}, nil
	case watch != "":
		return request{method: http.MethodGet, path: runPath(watch)}, nil
	case user != "":
		id, err := userID(user)
		if err != nil {
			return request{}, err
		}
		query.Set("wait", "0") // we watch the run ourselves
		return request{method: http.MethodPost, path: fmt.Sprintf("/api/admin/users/%d/servers/sync", id), query: query}, nil
	}
	return request{method: http.MethodPost, path: "/api/admin/servers/sync", query: query}, nil
}

func runPath(id string) string { return "/api/admin/runs/" + url.PathEscape(id) }

// userID reads SkyPANEL's id of a user.
func userID(value string) (int64, error) {
	id, err := strconv.ParseInt(value, 10, 64)
	if err != nil || id < 1 || id > math.MaxInt32 {
		return 0, &usageError{errors.New("--user takes SkyPANEL's users.id, a number above 0")}
	}
	return id, nil
}

// sweep begins a run and watches it, unless nobody wants to.
func sweep(ctx context.Context, cmd *cli.Command, client *adminClient, begin request) error {
	// A user's sync that has ended already answers with its result, not its run.
	var begun struct{ ID, RunID string }
	if err := client.send(ctx, &begin, &begun); err != nil {
		return err
	}
	id := cmp.Or(begun.ID, begun.RunID)
	out, asJSON := cmd.Root().Writer, cmd.Bool("json")
	if cmd.Bool("no-wait") {
		return showBegun(ctx, client, out, id, asJSON)
	}
	run, err := newWatcher(client, cmd.Root().ErrWriter, asJSON).watch(ctx, id)
	if err != nil {
		return err
	}
	customers, unread := readPreview(ctx, cmd, client, &run)
	unread = errors.Join(unread, listLeft(ctx, client, &run))
	if asJSON {
		err = printJSON(out, run)
	} else {
		err = tellRun(&run, customers).print(out)
	}
	return errors.Join(unread, err, verdict(&run))
}

// showBegun shows a run that nobody watches.
func showBegun(ctx context.Context, client *adminClient, out io.Writer, id string, asJSON bool) error {
	if !asJSON {
		var p page
		p.linef("Run %s is at work. To watch it: serversync sweep --watch %s", id, id)
		return p.print(out)
	}
	var run api.Run
	if err := client.call(ctx, http.MethodGet, runPath(id), nil, &run); err != nil {
		return err
	}
	return printJSON(out, run)
}

// verdict is nil only for a run that has seen and done everything: its exit
// code is 0.
func verdict(run *api.Run) error {
	switch {
	case run.State == "succeeded", run.State == "needs_approval" && run.DryRun:
		return nil
	case run.State == "needs_approval":
		return &incompleteError{errors.New("run " + run.ID + " waits for approval: nothing that it asks about was changed")}
	case run.State == "incomplete":
		return &incompleteError{errors.New("run " + run.ID + " is incomplete: not everything could be seen or done")}
	case run.State == "superseded":
		return &incompleteError{errors.New("run " + run.ID + " was superseded: a newer run took over what it found")}
	}
	return fmt.Errorf("run %s failed: %s", run.ID, printable(cmp.Or(run.Note, "nobody said why")))
}
