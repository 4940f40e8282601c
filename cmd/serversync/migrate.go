package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"serversync/db"
)

// connectTimeout bounds how long a command waits for a store.
const connectTimeout = 15 * time.Second

func migrateCommand() *cli.Command {
	all := pick(settings(), "DATABASE_URL")
	return &cli.Command{
		Name:  "migrate",
		Usage: "bring SkyPANEL's database up to date for serversync",
		Description: "Makes or updates the schema serversync, and adds the columns and indexes that SkyPANEL's tables lack.\n" +
			"Nothing of SkyPANEL's is changed or dropped. serve does the same at its start.",
		Flags: append(flags(all), &cli.BoolFlag{
			Name: "dry-run", Usage: "say what would be done, and do nothing", Sources: cli.EnvVars("MIGRATE_DRY_RUN"),
		}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := readConfig(cmd, all)
			if err != nil {
				return err
			}
			if c.databaseURL == "" {
				return &usageError{errors.New("DATABASE_URL is not set: the embedded database is brought up to date by serve itself, at its start")}
			}
			return migrate(ctx, c.databaseURL, cmd.Bool("dry-run"), cmd.Root().Writer)
		},
	}
}

// pick selects settings by their variables.
func pick(all []setting, names ...string) []setting {
	return slices.DeleteFunc(all, func(s setting) bool { return !slices.Contains(names, s.env) })
}

func migrate(ctx context.Context, dsn string, dryRun bool, out io.Writer) error {
	database, err := db.Open(dsn)
	if err != nil {
		return err
	}
	defer func() { _ = database.Close() }()
	connect, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := database.PingContext(connect); err != nil {
		return fmt.Errorf("reach the database (check DATABASE_URL, and that PostgreSQL accepts us): %w", err)
	}
	report, err := db.Migrate(ctx, database, db.MigrateOptions{DryRun: dryRun})
	if err != nil {
		return err
	}
	done, verb := "done", "applied"
	if dryRun {
		done, verb = "nothing was done", "would be applied"
	}
	if report.Empty() {
		printf(out, "The database is up to date.\n")
		return nil
	}
	for _, m := range report.Migrations {
		printf(out, "migration  %s %s\n", m, verb)
	}
	for _, c := range report.Columns {
		printf(out, "column     %s %s\n", c, verb)
	}
	for _, i := range report.Indexes {
		printf(out, "index      %s %s\n", i, verb)
	}
	printf(out, "%d changes: %s.\n", len(report.Migrations)+len(report.Columns)+len(report.Indexes), done)
	return nil
}
