//go:build unix && !linux

package pgserver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// What Linux has and these systems, macOS for one, do without:
//
//   - the kernel's word that a parent has died: a supervisor waits for it;
//   - running for root.

// needSupervisor: see supervisor.go.
const needSupervisor = true

func chooseIdentity(_ context.Context, _ identityKind, _ binaries.Installation, dir string) (identity, error) {
	if os.Geteuid() == 0 {
		return identity{}, errors.New("PostgreSQL does not run as root: start this program as another user")
	}
	id := identity{kind: identitySelf, uid: os.Geteuid(), gid: os.Getegid()}
	return id, id.claim(dir)
}

// attributes give the process a group of its own: Ctrl-C on a terminal is for
// us, who end the server when nobody needs it any more.
func (id identity) attributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

func (id identity) reaches(_ context.Context, dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

func endPredecessor(ctx context.Context, dataDir string, log zerolog.Logger) error {
	return processTable().endPredecessor(ctx, dataDir, log)
}

func accountUID() int { return -1 }

func ownerOf(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

func scratchParent() string { return os.TempDir() }
