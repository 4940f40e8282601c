//go:build linux

package siege

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program that is started again and again. It ends with this one.
type Process struct {
	// Binary is the program, Args what it is told, Env its whole environment.
	Binary string
	Args   []string
	Env    []string
	// Dir is where it runs, and where its log is: Name with ".log".
	Dir, Name string
	// Who runs it; nil: ourselves.
	Who *syscall.Credential

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	starts int
}

// LogPath is where its log is.
func (p *Process) LogPath() string { return filepath.Join(p.Dir, p.Name+".log") }

// StartIfDead starts it unless it runs. A start that fails shows in the log, and
// as a process that is not ready.
func (p *Process) StartIfDead(ctx context.Context) {
	if p.Running() || ctx.Err() != nil {
		return
	}
	log, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = log.Close() }() // the child has its own
	// Not with ctx: whoever ends the run ends the process by name, in End.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.Binary, p.Args...) //nolint:gosec // G204: the program that we were told to torment
	cmd.Dir, cmd.Env = p.Dir, p.Env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.Who, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(log, "start:", err)
		return
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // how it ended is in its log
	}()
	p.cmd, p.exited = cmd, exited
	p.starts++
}

// Starts is how often it was started.
func (p *Process) Starts() int { return p.starts }

// Running reports whether it runs.
func (p *Process) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal signals it, if it runs.
func (p *Process) Signal(sig os.Signal) {
	if p.Running() {
		_ = p.cmd.Process.Signal(sig) // it may have ended just now
	}
}

// Await waits until it has ended, up to limit.
func (p *Process) Await(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if p.cmd == nil {
		return nil
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s has not ended within %s; its log ends:\n%s", p.Name, limit, p.LogTail())
	}
}

// Kill kills it and waits until it is gone.
func (p *Process) Kill() {
	if p.cmd != nil {
		p.Signal(os.Kill)
		<-p.exited
	}
}

// LogTail is the end of its log.
func (p *Process) LogTail() string {
	text, err := os.ReadFile(p.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// Ask gets a path of a service; 0: it did not answer within 3 s.
func Ask(ctx context.Context, client *http.Client, url string) (status int, body []byte) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = response.Body.Close() }()
	if body, err = io.ReadAll(response.Body); err != nil {
		return 0, nil
	}
	return response.StatusCode, body
}

// Postmaster is the process id of the PostgreSQL that runs on a directory of
// pgserver's, 0 when there is none: a number in its file may be a stranger's, so
// that its command is looked at too.
func Postmaster(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid")) //nolint:gosec // G304: a server that we started
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(command), "postgres") || !strings.Contains(string(command), dir) {
		return 0
	}
	return pid
}

// Inherited are the variables of our environment that programs need to be found
// and to work.
func Inherited() []string {
	var env []string
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "LOCPATH", "PG_BINDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
