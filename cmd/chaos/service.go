//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"serversync/cmd/internal/siege"
	"serversync/db"
)

const webhookToken = "a-token-for-chaos"

// service is the program under torment, with its embedded stores.
type service struct {
	siege.Process
	data   string // DATA_DIR
	addr   string
	client *http.Client
}

func newService(ctx context.Context, dir, data, binary string, who *syscall.Credential) (*service, error) {
	addr, err := siege.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	return &service{
		Process: siege.Process{
			Binary: binary, Args: []string{"serve"}, Dir: dir, Name: "service", Who: who,
			Env: append(siege.Inherited(),
				"HOME="+dir, "LISTEN_ADDR="+addr, "DATA_DIR="+data, "WEBHOOK_TOKENS="+webhookToken,
				"SETTLE_DELAY=1s", "LOG_FORMAT=json", "LOG_LEVEL=info"),
		},
		data: data, addr: addr, client: &http.Client{Timeout: answerTimeout},
	}, nil
}

// answerTimeout is how long an answer of the service is waited for.
const answerTimeout = 6 * time.Second

// newWorld makes the world whose webhooks go to the service, and from its next
// start on tells that where VirtFusion is.
func newWorld(ctx context.Context, s *service, seed uint64) (*siege.World, error) {
	database, err := db.Open(s.dsn())
	if err != nil {
		return nil, err
	}
	w, err := siege.NewWorld(ctx, database, siege.WorldConfig{
		Seed: seed, Token: webhookToken, Targets: []string{s.addr}, Timeout: answerTimeout, Pace: 4 * time.Millisecond,
	})
	if err := errors.Join(err, database.Close()); err != nil {
		return nil, err
	}
	s.Env = append(s.Env, "VIRTFUSION_API_URL="+w.APIURL(), "VIRTFUSION_API_TOKEN="+siege.APIToken, "VIRTFUSION_RPS=100")
	return w, nil
}

// end kills the service and waits until it is gone, PostgreSQL too.
func (s *service) end(ctx context.Context) error {
	postmaster := s.postmaster()
	s.Kill()
	for range 500 { // its PostgreSQL sees that it is gone
		if postmaster == 0 || errors.Is(syscall.Kill(postmaster, 0), syscall.ESRCH) {
			return nil
		}
		siege.Pause(ctx, 20*time.Millisecond)
	}
	return errors.Join(fmt.Errorf("PostgreSQL %d outlived its service by 10 s", postmaster), syscall.Kill(postmaster, syscall.SIGKILL))
}

// ready asks the service whether it can do its work.
func (s *service) ready(ctx context.Context) bool {
	status, _ := siege.Ask(ctx, s.client, "http://"+s.addr+"/readyz")
	return status == http.StatusOK
}

// postmaster is the process id of the embedded PostgreSQL, 0 when there is none.
func (s *service) postmaster() int { return siege.Postmaster(filepath.Join(s.data, "postgres")) }

// dsn is how the embedded PostgreSQL is reached.
func (s *service) dsn() string {
	return "host=" + filepath.Join(s.data, "postgres", "socket") + " port=5432 user=postgres dbname=postgres sslmode=disable connect_timeout=5"
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
