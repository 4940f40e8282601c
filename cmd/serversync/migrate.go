package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
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
			Name: "dry-run", Usage: "print the SQL that would be run, and do nothing", Sources: cli.EnvVars("MIGRATE_DRY_RUN"),
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
		return fmt.Errorf("reach the database (%s): %w", db.Remedy(err), err)
	}
	report, err := db.Migrate(ctx, database, db.MigrateOptions{DryRun: dryRun})
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w\nOur role may not do this. Let DATABASE_URL be that of serversync_migrate (deploy/grants.sql); for SkyPANEL's own tables it has to act as their owner, or their owner runs what serversync migrate --dry-run prints", err)
	}
	if err != nil {
		return err
	}
	tellMigration(out, &report, dryRun)
	return nil
}

// tellMigration prints what was done, or what would be: then as SQL that can be
// run, with all else as its comments.
func tellMigration(out io.Writer, report *db.MigrateReport, dryRun bool) {
	done, verb, mark := "done", "applied", ""
	if dryRun {
		done, verb, mark = "nothing was done", "would be applied", "-- "
	}
	if len(report.Newer) > 0 {
		printf(out, "%sThe schema is newer than this program, which can work with it: it has the migrations %s.\n", mark, strings.Join(report.Newer, ", "))
	}
	if report.Empty() {
		printf(out, "%sThe database is up to date.\n", mark)
		return
	}
	for _, m := range report.Migrations {
		printf(out, "%smigration  %s %s\n", mark, m, verb)
	}
	for _, c := range report.Columns {
		printf(out, "%scolumn     %s %s\n", mark, c, verb)
	}
	for _, i := range report.Indexes {
		printf(out, "%sindex      %s %s\n", mark, i, verb)
	}
	if dryRun {
		tellSQL(out, "In the schema serversync, as its owner:", report.SchemaSQL)
		tellSQL(out, "In SkyPANEL's tables, as their owner, not within a transaction:", report.GuestSQL)
	}
	printf(out, "%s%d changes: %s.\n", mark, len(report.Migrations)+len(report.Columns)+len(report.Indexes), done)
}

func tellSQL(out io.Writer, title string, statements []string) {
	if len(statements) == 0 {
		return
	}
	printf(out, "\n-- %s\n", title)
	for _, statement := range statements {
		printf(out, "%s\n", statement)
	}
	printf(out, "\n")
}
