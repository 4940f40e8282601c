//go:build !unix

package pgserver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// What Unix has and this system does without:
//
//   - the server's end with ours, however we end: here a killed parent leaves
//     its server running;
//   - ending such a predecessor: here PostgreSQL itself refuses to start beside
//     it, naming its process id.

const needSupervisor = false

func superviseChild(*child, *exec.Cmd, syscall.Signal) (start func() error, err error) {
	return nil, errors.ErrUnsupported
}

func chooseIdentity(_ context.Context, _ identityKind, _ binaries.Installation, dir string) (identity, error) {
	id := identity{kind: identitySelf, uid: os.Geteuid(), gid: os.Getegid()}
	return id, id.claim(dir)
}

func (id identity) attributes(syscall.Signal) *syscall.SysProcAttr { return nil }

func (id identity) reaches(_ context.Context, dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

func endPredecessor(context.Context, string, zerolog.Logger) error { return nil }

func accountUID() int { return -1 }

func ownerOf(fs.FileInfo) (uid int, ok bool) { return 0, false }

func scratchParent() string { return os.TempDir() }
