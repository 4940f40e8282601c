//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// commandTimeout bounds one command of a page.
const commandTimeout = 5 * time.Minute

// shell is a shell on the machine into which one command after the other is typed.
type shell struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // what is printed; closed when the shell has ended
}

// endMark ends the output of a command.
const endMark = "-- guide: exit code "

func newShell(ctx context.Context, m *machine) (*shell, error) {
	s := &shell{cmd: m.command(ctx, "/bin/bash", "--noprofile", "--norc"), lines: make(chan string, 64)}
	// Commands read nothing: they find an end of file, not what is typed next.
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open a shell: %w", err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open a shell: %w", err)
	}
	s.in, s.cmd.Stderr = in, s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("open a shell: %w", err)
	}
	go func() {
		defer close(s.lines)
		scanner := bufio.NewScanner(out)
		scanner.Buffer(nil, 4<<20)
		for scanner.Scan() {
			s.lines <- scanner.Text()
		}
		_, _ = io.Copy(io.Discard, out) // a line too long must not block the command
	}()
	_, err = io.WriteString(s.in, "cd /root\n")
	return s, err
}

// run types a command and returns what it printed and its exit code.
func (s *shell) run(ctx context.Context, command string) (printed string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if _, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null\necho \"\n%s$?\"\n", command, endMark); err != nil {
		return "", 0, fmt.Errorf("type a command: %w", err)
	}
	var b strings.Builder
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return b.String(), 0, errors.New("the shell ended")
			}
			if rest, found := strings.CutPrefix(line, endMark); found {
				code, err := strconv.Atoi(rest)
				return strings.TrimRight(b.String(), "\n"), code, err
			}
			b.WriteString(line + "\n")
		case <-ctx.Done():
			return b.String(), 0, fmt.Errorf("no end of it: %w", ctx.Err())
		}
	}
}

// close ends the shell.
func (s *shell) close() error {
	_ = s.in.Close() // its end
	return s.cmd.Wait()
}
