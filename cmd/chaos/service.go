//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const webhookToken = "a-token-for-chaos"

// service is the program under torment, started again and again.
type service struct {
	binary, dir, data string
	who               *syscall.Credential // nil: ourselves
	addr              string
	apiURL            string // the simulated VirtFusion's
	client            *http.Client

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	starts int
}

func newService(ctx context.Context, dir, data, binary string, who *syscall.Credential) (*service, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	return &service{
		binary: binary, dir: dir, data: data, who: who, addr: addr,
		client: &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
	}, nil
}

// startIfDead starts the service unless it runs. A start that fails shows in
// the log, and as a service that is not ready.
func (s *service) startIfDead(ctx context.Context) {
	if s.running() || ctx.Err() != nil {
		return
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "service.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = log.Close() }() // the child has its own
	// Not with ctx: whoever ends the run ends the service by name, in end.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.binary, "serve") //nolint:gosec // G204: the program that we were told to torment
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who, Pdeathsig: syscall.SIGKILL}
	cmd.Env = []string{
		"HOME=" + s.dir, "LISTEN_ADDR=" + s.addr, "DATA_DIR=" + s.data, "WEBHOOK_TOKENS=" + webhookToken,
		"SETTLE_DELAY=1s", "LOG_FORMAT=json", "LOG_LEVEL=info",
	}
	if s.apiURL != "" {
		cmd.Env = append(cmd.Env, "VIRTFUSION_API_URL="+s.apiURL, "VIRTFUSION_API_TOKEN="+apiToken, "VIRTFUSION_RPS=100")
	}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "LOCPATH", "PG_BINDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(log, "start:", err)
		return
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // how it ended is in its log
	}()
	s.cmd, s.exited = cmd, exited
	s.starts++
}

func (s *service) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// signal signals the service, if it runs.
func (s *service) signal(sig os.Signal) {
	if s.running() {
		_ = s.cmd.Process.Signal(sig) // it may have ended just now
	}
}

// await waits until the service has ended, up to limit.
func (s *service) await(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if s.cmd == nil {
		return nil
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the service has not ended within %s; its log ends:\n%s", limit, s.logTail())
	}
}

// end kills the service and waits until it is gone, PostgreSQL too.
func (s *service) end(ctx context.Context) error {
	postmaster := s.postmaster()
	if s.cmd != nil {
		s.signal(os.Kill)
		<-s.exited
	}
	for range 500 { // its PostgreSQL sees that it is gone
		if postmaster == 0 || errors.Is(syscall.Kill(postmaster, 0), syscall.ESRCH) {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
	return errors.Join(fmt.Errorf("PostgreSQL %d outlived its service by 10 s", postmaster), syscall.Kill(postmaster, syscall.SIGKILL))
}

// ready asks the service whether it can do its work.
func (s *service) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := s.client.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// postmaster is the process id of the embedded PostgreSQL, 0 when there is
// none: a number in its file may be a stranger's, so that its command is looked
// at too.
func (s *service) postmaster() int {
	text, err := os.ReadFile(filepath.Join(s.data, "postgres", "data", "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(command), "postgres") || !strings.Contains(string(command), s.data) {
		return 0
	}
	return pid
}

// dsn is how the embedded PostgreSQL is reached.
func (s *service) dsn() string {
	return "host=" + filepath.Join(s.data, "postgres", "socket") + " port=5432 user=postgres dbname=postgres sslmode=disable connect_timeout=5"
}

// logTail is the end of the service's log.
func (s *service) logTail() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "service.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// nobody is the account without rights of every Linux.
const nobody = 65534

// unprivileged prepares the directories for an account without rights and
// returns it, when we are root; nil with no error: permissions would not stop
// the service.
func unprivileged(ctx context.Context, dir, data, binary string) *syscall.Credential {
	if os.Geteuid() != 0 {
		return &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid()), NoSetGroups: true} //nolint:gosec // G115: ids are small
	}
	who := &syscall.Credential{Uid: nobody, Gid: nobody}
	if os.Chmod(dir, 0o711) != nil || os.Chown(data, nobody, nobody) != nil { //nolint:gosec // G302: others may pass, not look
		return nil
	}
	try := exec.CommandContext(ctx, binary, "version")
	try.Dir = dir
	try.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	if try.Run() != nil { // it cannot reach the binary, or we may not change users
		_ = os.Chown(data, 0, 0)
		return nil
	}
	return who
}
