package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v3"

	"serversync/api"
)

func cleanupCommand() *cli.Command {
	all := adminSettings()
	return &cli.Command{
		Name:  "cleanup",
		Usage: "find and mend duplicate and orphaned billing records",
		Description: "Looks for servers that several billing rows bill, for rows that bill servers which are gone or unknown, and for\n" +
			"pending charges of rows that were withdrawn; says why each is wrong, and mends it unless --dry-run is given.\n" +
			"Rows that SkyPANEL made are left alone while their server lives. Acts through the running service, as explain does.",
		Flags: adminFlags(all,
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing", Sources: cli.EnvVars("CLEANUP_DRY_RUN")},
			&cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: cli.EnvVars("CLEANUP_JSON")}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			client, err := newAdminClient(cmd, all)
			if err != nil {
				return err
			}
			var result api.Cleanup
			query := url.Values{"dryRun": {strconv.FormatBool(cmd.Bool("dry-run"))}}
			if err := client.call(ctx, http.MethodPost, "/api/admin/cleanup", query, &result); err != nil {
				return err
			}
			if cmd.Bool("json") {
				return printJSON(cmd.Root().Writer, result)
			}
			return tellCleanup(&result).print(cmd.Root().Writer)
		},
	}
}

// tellCleanup writes what was found, and what became of it, in plain words.
func tellCleanup(result *api.Cleanup) *page {
	var p page
	var done int
	for i := range result.Findings {
		f := &result.Findings[i]
		p.linef("%-14s  %s", outcome(f), f.What)
		p.linef("%-14s  %s", "", f.Why)
		if f.Done != nil && *f.Done {
			done++
		}
	}
	switch n := len(result.Findings); {
	case n == 0:
		p.linef("No duplicate and no orphaned records.")
	case result.DryRun:
		p.linef("%d findings; nothing was changed. Without --dry-run what says \"would\" is done.", n)
	default:
		p.linef("%d findings, %d mended. What is left needs what it says above.", n, done)
	}
	if result.Truncated {
		p.linef("There may be more: run it again.")
	}
	return &p
}

// outcome is what became of a finding, or would.
func outcome(f *api.CleanupFinding) string {
	words := map[string][2]string{
		"withdraw":       {"would withdraw", "withdrawn"},
		"switch_off":     {"would end", "ended"},
		"void":           {"would void", "voided"},
		"ask_virtfusion": {"to ask", "in order"},
		"review":         {"to review", "in order"},
	}[f.Action]
	switch {
	case f.Done == nil:
		return words[0]
	case *f.Done:
		return words[1]
	default:
		return "left"
	}
}
