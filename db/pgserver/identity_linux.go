package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"serversync/db/pgserver/binaries"
)

// needSupervisor: the kernel tells a server of its parent's death.
const needSupervisor = false

// chooseIdentity finds a user that can run the server in dir and gives dir to
// it. Anybody but root is that user; for root, whom PostgreSQL turns away, the
// namespace comes first, because it needs no other account and no chown, and
// works below directories that only root may enter.
func chooseIdentity(ctx context.Context, kind identityKind, inst binaries.Installation, dir string) (identity, error) {
	if kind == identityAuto && os.Geteuid() != 0 {
		kind = identitySelf
	}
	probe := []string{inst.Program("postgres"), "--version"}
	switch kind {
	case identitySelf:
		id := identity{kind: kind, uid: os.Geteuid(), gid: os.Getegid(), probe: probe}
		return id, id.claim(dir)
	case identityNamespace:
		id := namespaceIdentity(probe)
		return id, id.prepare(ctx, dir)
	case identityAccount:
		id := identity{kind: kind, probe: probe}
		var err error
		if id.uid, id.gid, err = lookupAccount(accountName); err != nil {
			return id, fmt.Errorf("no account to run the server as: %w; apt-get install postgresql makes one, or start this program as another user than root", err)
		}
		return id, id.prepare(ctx, dir)
	case identityAuto:
	}
	id, nsErr := chooseIdentity(ctx, identityNamespace, inst, dir)
	if nsErr == nil || ctx.Err() != nil || errors.Is(nsErr, ErrForeign) {
		return id, nsErr
	}
	id, err := chooseIdentity(ctx, identityAccount, inst, dir)
	if err != nil {
		return id, fmt.Errorf("%w (PostgreSQL does not run as root, and a user namespace cannot be had either: %w)", err, nsErr)
	}
	return id, nil
}

// namespaceIdentity is root under another number. PostgreSQL looks the number
// up, so it is that of an account that exists.
func namespaceIdentity(probe []string) identity {
	id := identity{kind: identityNamespace, probe: probe, innerUID: 65534, innerGID: 65534}
	for _, name := range []string{accountName, "nobody", "daemon"} {
		if uid, gid, err := lookupAccount(name); err == nil {
			id.innerUID, id.innerGID = uid, gid
			break
		}
	}
	return id
}

// prepare gives dir to id and makes sure that id can run programs at all, and
// in dir.
func (id identity) prepare(ctx context.Context, dir string) error {
	if err := id.works(ctx, "/"); err != nil {
		return err
	}
	if err := id.claim(dir); err != nil {
		return err
	}
	err := id.works(ctx, dir)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s: %s; keep the data below directories that everybody may enter (like /var/lib), or chmod o+x that one, or start this program as another user than root: %w",
		ErrUnreachable, dir, id.obstacle(dir), err)
}

// obstacle says which directory above dir stops id, going by its mode.
func (id identity) obstacle(dir string) string {
	stopped := "a directory above it cannot be entered"
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err == nil && !id.enters(info) {
			stopped = fmt.Sprintf("%s (mode %04o) cannot be entered by %s", parent, info.Mode().Perm(), id)
		}
		if parent == filepath.Dir(parent) {
			return stopped
		}
	}
}

func (id identity) enters(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	switch {
	case int(st.Uid) == id.uid:
		return info.Mode()&0o100 != 0
	case int(st.Gid) == id.gid:
		return info.Mode()&0o010 != 0
	default:
		return info.Mode()&0o001 != 0
	}
}

// reaches reports whether id may make files in dir.
func (id identity) reaches(ctx context.Context, dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	return id.kind != identityAccount || id.works(ctx, dir) == nil
}

// attributes are those of a process that runs as id and gets deathSignal when
// the thread that made it ends. The kernel forgets that signal whenever a
// process changes its credentials; it is set after those of id are taken on.
func (id identity) attributes(deathSignal syscall.Signal) *syscall.SysProcAttr {
	if id.supervised {
		deathSignal = 0 // which is the supervisor's to send
	}
	attr := &syscall.SysProcAttr{
		Pdeathsig: deathSignal,
		// A process group of its own: Ctrl-C on a terminal is for us, who
		// end the server when nobody needs it any more.
		Setpgid: true,
	}
	switch id.kind {
	case identityNamespace:
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: id.innerUID, HostID: id.uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: id.innerGID, HostID: id.gid, Size: 1}}
		attr.Credential = &syscall.Credential{
			Uid: uint32(id.innerUID), Gid: uint32(id.innerGID), //nolint:gosec // G115: uids are 32 bits, read from the account database
			NoSetGroups: true, // nor could it: the namespace denies setgroups
		}
	case identityAccount:
		attr.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)} //nolint:gosec // G115: as above
	case identityAuto, identitySelf:
	}
	return attr
}

func lookupAccount(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("look up the account %s: %w", name, err)
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return 0, 0, fmt.Errorf("look up the account %s: %w", name, err)
	}
	return uid, gid, nil
}

// accountUID is the uid of the account "postgres", or -1.
func accountUID() int {
	uid, _, err := lookupAccount(accountName)
	if err != nil {
		return -1
	}
	return uid
}

func ownerOf(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
