package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/urfave/cli/v3"
)

func replayCommand() *cli.Command {
	all := adminSettings()
	return &cli.Command{
		Name:  "replay",
		Usage: "replay what was heard of a user's servers, and bring them in step with VirtFusion",
		Description: "Publishes the stream's events of a user's servers again, all that were ever linked to the user, in their order, and\n" +
			"ends with a sync of the user: the books are then as VirtFusion is today, whatever they looked like. Old events\n" +
			"overwrite nothing that is newer. It starts a run through the running service and watches it to its end, as sweep does;\n" +
			"what would change more than SWEEP_MAX_CHANGES (and more than 10 servers) waits for sweep --approve. Ctrl-C ends the\n" +
			"watching, not the run.\n\n" +
			"Exit codes: 0 everything was seen and done (of a dry run: seen), 1 failed, 2 wrong usage, 3 incomplete, waiting for\n" +
			"approval or superseded.",
		Flags: adminFlags(all,
			&cli.StringFlag{Name: "user", Usage: "the user whose servers: SkyPANEL's users.id", Sources: cli.EnvVars("REPLAY_USER")},
			&cli.StringFlag{Name: "since", Usage: "from when on: how long ago, such as 720h, or a time such as 2026-03-01T12:00:00Z (default: all that the stream holds)", Sources: cli.EnvVars("REPLAY_SINCE")},
			&cli.StringFlag{Name: "until", Usage: "until when: a time, or how long ago (default: now)", Sources: cli.EnvVars("REPLAY_UNTIL")},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would change, and change nothing", Sources: cli.EnvVars("REPLAY_DRY_RUN")},
			&cli.BoolFlag{Name: "no-wait", Usage: "do not watch the run", Sources: cli.EnvVars("REPLAY_NO_WAIT")},
			changesOverFlag("REPLAY"), csvFlag("REPLAY"),
			&cli.BoolFlag{Name: "json", Usage: "print the run as JSON, and nothing else", Sources: cli.EnvVars("REPLAY_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			begin, err := replayRequest(cmd)
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
			err = sweep(ctx, cmd, client, begin)
			if refused, ok := errors.AsType[*apiError](err); ok && refused.status == http.StatusBadRequest {
				return &usageError{err}
			}
			return err
		},
	}
}

// replayRequest is what the flags ask for.
func replayRequest(cmd *cli.Command) (request, error) {
	user, since, until := cmd.String("user"), cmd.String("since"), cmd.String("until")
	if user == "" {
		return request{}, &usageError{errors.New("say whose servers to replay: --user and SkyPANEL's users.id")}
	}
	id, err := userID(user)
	if err != nil {
		return request{}, err
	}
	for flag, value := range map[string]string{"since": since, "until": until} {
		if err := checkMoment(flag, value); err != nil {
			return request{}, err
		}
	}
	return request{
		method: http.MethodPost, path: fmt.Sprintf("/api/admin/users/%d/servers/replay", id),
		body: map[string]any{"since": since, "until": until, "dryRun": cmd.Bool("dry-run")},
	}, nil
}

// checkMoment refuses what is neither a time nor a duration; the service reads
// it.
func checkMoment(flag, value string) error {
	if value == "" {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, value); err == nil {
		return nil
	}
	if d, err := time.ParseDuration(value); err == nil && d > 0 {
		return nil
	}
	return &usageError{fmt.Errorf("--%s takes how long ago, such as 720h, or a time such as 2026-03-01T12:00:00Z", flag)}
}
