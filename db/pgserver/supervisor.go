//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// supervisorVariable makes a program a supervisor: a process between us and a
// server, which ends the server when we die. Only Linux's kernel does that by
// itself. Its value is the number of the signal that the server gets first
// then; the arguments are the server's command.
//
// A supervisor and its parent have two pipes. On one the parent sends orders,
// each a byte with the number of a signal for the server; its end, which comes
// however the parent ends, means that the parent is gone. On the other the
// supervisor says once how the start went: the server's process id, or why
// there is none.
const supervisorVariable = "SERVERSYNC_PGSERVER_SUPERVISOR"

// What a supervisor is called in lists of processes, and where its pipes are.
const (
	supervisorName = "serversync-pgserver-supervisor"
	ordersFile     = 3
	reportFile     = 4
)

// Every program that can start a server, each package's tests among them, can
// be its supervisor without a line in its main function: forgotten in one, that
// program would start itself again instead, and again.
func init() { //nolint:gochecknoinits // says the comment above
	if text, ok := os.LookupEnv(supervisorVariable); ok {
		os.Exit(superviseServer(text))
	}
}

// superviseChild turns cmd into its own supervisor, and c into the one that
// gives it orders. The function that it returns starts it, and returns when the
// server itself was started.
func superviseChild(c *child, cmd *exec.Cmd, deathSignal syscall.Signal) (start func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to supervise the server: %w", err)
	}
	hear, orders, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to the supervisor: %w", err)
	}
	answer, report, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a pipe to the supervisor: %w", err), hear.Close(), orders.Close())
	}
	cmd.Env = append(cmd.Environ(), supervisorVariable+"="+strconv.Itoa(int(deathSignal)))
	cmd.Args = append([]string{supervisorName, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.ExtraFiles = []*os.File{hear, report} // ordersFile, reportFile
	if cmd.Cancel != nil {
		cmd.Cancel = func() error { return c.signal(killSignal) }
	}
	c.orders = orders
	return func() error {
		err := cmd.Start()
		// The supervisor has its ends now, and ours would keep the pipes open.
		err = errors.Join(err, hear.Close(), report.Close())
		if err == nil {
			c.number, err = readReport(answer)
			if err != nil {
				_ = cmd.Wait() // it has nothing to do, and has said why
			}
		}
		if err != nil {
			err = errors.Join(err, orders.Close())
		}
		return errors.Join(err, answer.Close())
	}, nil
}

// readReport returns the process id of the server, or why there is none.
func readReport(answer io.Reader) (int, error) {
	text, err := io.ReadAll(answer)
	if err != nil {
		return 0, fmt.Errorf("hear from the supervisor: %w", err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("the supervisor started nothing: %s", strings.TrimSpace(string(text)))
	}
	return pid, nil
}

// superviseServer is a supervisor's whole life. It returns the exit code, which
// is the server's.
func superviseServer(deathSignal string) int {
	orders, report := os.NewFile(ordersFile, "orders"), os.NewFile(reportFile, "report")
	// The server is to have neither.
	syscall.CloseOnExec(ordersFile)
	syscall.CloseOnExec(reportFile)
	number, err := strconv.Atoi(deathSignal)
	if err != nil || len(os.Args) < 2 || orders == nil || report == nil {
		fmt.Fprintf(os.Stderr, "%s is for this program's own use: unset it\n", supervisorVariable)
		return 1
	}
	// Who ends us means the server. Writing to a parent that is gone is no
	// reason to end before the server.
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	server := exec.Command(os.Args[1], os.Args[2:]...) //nolint:gosec,noctx // what our parent wants to run; its end is what this is about
	server.Env = withoutVariable(os.Environ(), supervisorVariable)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		fmt.Fprint(report, err)
		return 1
	}
	fmt.Fprint(report, server.Process.Pid)
	_ = report.Close() // a parent that is gone is noticed below
	ended := make(chan struct{})
	go func() {
		_ = server.Wait() // its state says it
		close(ended)
	}()
	obey(server, ended, told, listen(orders), syscall.Signal(number))
	return exitCode(server.ProcessState)
}

// obey passes orders on until the server has ended, and ends it when nobody is
// left who gives them.
func obey(server *exec.Cmd, ended <-chan struct{}, told <-chan os.Signal, orders <-chan syscall.Signal, deathSignal syscall.Signal) {
	for {
		select {
		case <-ended:
			return
		case sig, ok := <-orders:
			if ok {
				_ = server.Process.Signal(sig) // the parent sees whether the server ends
				continue
			}
		case <-told:
		}
		endOrphan(server, ended, deathSignal)
		return
	}
}

// endOrphan ends the server, more firmly with time, and returns when it is gone.
func endOrphan(server *exec.Cmd, ended <-chan struct{}, deathSignal syscall.Signal) {
	for _, step := range []struct {
		signal syscall.Signal
		limit  time.Duration
	}{
		{deathSignal, predecessorFast},
		{immediateSignal, predecessorImmediate},
	} {
		// What is stopped cannot act on a signal.
		_ = server.Process.Signal(syscall.SIGCONT)
		_ = server.Process.Signal(step.signal) // it fails when the server has ended
		timer := time.NewTimer(step.limit)
		select {
		case <-ended:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
	_ = server.Process.Kill() // as above
	<-ended
}

// listen returns what the parent wants sent, until it is gone.
func listen(orders io.ReadCloser) <-chan syscall.Signal {
	heard := make(chan syscall.Signal)
	go func() {
		defer close(heard)
		order := make([]byte, 1)
		for {
			if _, err := io.ReadFull(orders, order); err != nil {
				return
			}
			heard <- syscall.Signal(order[0])
		}
	}()
	return heard
}

// exitCode is the server's, or 128 and the number of the signal that ended it.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		fmt.Fprintln(os.Stderr, "postgres:", state)
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

func withoutVariable(env []string, name string) []string {
	var out []string
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return out
}
