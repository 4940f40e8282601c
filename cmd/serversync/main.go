// Command serversync keeps SkyPANEL's billing in step with VirtFusion: one
// binary, whose subcommands are listed by --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"
)

// Exit codes, fixed by the interface.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2 // wrong usage or configuration
	exitIncomplete = 3 // a run could not see or do everything, or waits for approval
)

func main() {
	stopping := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		stopping = append(stopping, syscall.SIGHUP) // the terminal is gone
	}
	ctx, stop := signal.NotifyContext(context.Background(), stopping...)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if err := loadDotenv(".env"); err != nil {
		_, _ = fmt.Fprintf(stderr, "serversync: read the file .env: %v\nCorrect it, or remove it.\n", err)
		return exitUsage
	}
	understood := false
	cmd := root(stdout, stderr)
	for _, sub := range cmd.Commands {
		before := sub.Before
		sub.Before = func(ctx context.Context, cmd *cli.Command) (context.Context, error) {
			understood = true // its flags and their variables were read
			if before == nil {
				return ctx, nil
			}
			return before(ctx, cmd)
		}
	}
	err := cmd.Run(ctx, args)
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintf(stderr, "serversync: %v\n", err)
	if _, usage := errors.AsType[*usageError](err); usage || !understood {
		return exitUsage
	}
	if _, incomplete := errors.AsType[*incompleteError](err); incomplete {
		return exitIncomplete
	}
	return exitFailed
}

// usageError is wrong usage or configuration: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// incompleteError is a run that could not see or do everything: exit code 3.
type incompleteError struct{ err error }

func (e *incompleteError) Error() string { return e.err.Error() }
func (e *incompleteError) Unwrap() error { return e.err }

// root is the command line.
func root(stdout, stderr io.Writer) *cli.Command {
	cmd := &cli.Command{
		Name:      "serversync",
		Usage:     "keeps SkyPANEL's billing in step with VirtFusion",
		Version:   thisBuild().Version,
		Writer:    stdout,
		ErrWriter: stderr,
		Commands: []*cli.Command{
			serveCommand(), demoCommand(), simulateCommand(), sweepCommand(), replayCommand(), undoCommand(), statusCommand(), explainCommand(), cleanupCommand(),
			migrateCommand(), doctorCommand(), auditCommand(), readyCommand(), versionCommand(),
		},
		// Errors are printed and mapped to exit codes in run, nowhere else.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		OnUsageError:   onUsageError,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.Args().Present() {
				return &usageError{fmt.Errorf("no command %q: see serversync --help", cmd.Args().First())}
			}
			return cli.ShowRootCommandHelp(cmd)
		},
	}
	for _, sub := range cmd.Commands {
		sub.OnUsageError = onUsageError
		if sub.ArgsUsage == "" {
			sub.Before = refuseArguments
		}
	}
	return cmd
}

func onUsageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	return &usageError{fmt.Errorf("%w: see %s --help", err, cmd.FullName())}
}

// refuseEmpty fails where a flag, or its variable, is given and empty. Who names a
// customer or a run by a variable that was never set does not mean all, or a new one.
func refuseEmpty(cmd *cli.Command, names ...string) error {
	for _, name := range names {
		if cmd.IsSet(name) && cmd.String(name) == "" {
			return &usageError{fmt.Errorf("--%s is given and empty: say which, or leave it out", name)}
		}
	}
	return nil
}

// refuseArguments fails on words that no command here takes, rather than
// ignoring what somebody meant by them.
func refuseArguments(ctx context.Context, cmd *cli.Command) (context.Context, error) {
	if cmd.Args().Present() {
		return ctx, &usageError{fmt.Errorf("%s takes no argument %q: see %s --help", cmd.FullName(), cmd.Args().First(), cmd.FullName())}
	}
	return ctx, nil
}
