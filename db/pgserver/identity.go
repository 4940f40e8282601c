package pgserver

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// identityKind is a way to choose the user that the server runs as.
type identityKind int

const (
	// identityAuto takes the first way that works.
	identityAuto identityKind = iota
	// identitySelf is our own user; PostgreSQL refuses root.
	identitySelf
	// identityNamespace is root in the clothes of another user: a user
	// namespace in which our uid has another number. Its files are root's.
	identityNamespace
	// identityAccount is the account "postgres", which has to own the files.
	identityAccount
)

// identity is who the server's programs run as.
type identity struct {
	kind identityKind
	// uid and gid own the server's files, as we see them.
	uid, gid int
	// innerUID and innerGID are what a namespace shows for uid and gid.
	innerUID, innerGID int
	// supervised puts a supervisor between us and the programs.
	supervised bool
	// probe is a program that ends at once, to see what this user can reach.
	probe []string
}

// String says who it is, for logs and errors.
func (id identity) String() string {
	switch id.kind {
	case identityNamespace:
		return fmt.Sprintf("root as uid %d of a user namespace", id.innerUID)
	case identityAccount:
		return fmt.Sprintf("account %s (uid %d)", accountName, id.uid)
	case identityAuto, identitySelf:
		return fmt.Sprintf("uid %d", id.uid)
	default:
		return "nobody known"
	}
}

// accountName is the account that every PostgreSQL package makes.
const accountName = "postgres"

// run runs a program to its end as id, in dir, and returns the end of its
// output, which is worth quoting when err is not nil. The program dies with
// ctx and with us.
func (id identity) run(ctx context.Context, dir, program string, args ...string) (out string, err error) {
	w := newLogWriter(zerolog.Nop())
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: a program of the installation that was configured or found
	cmd.Dir = dir
	cmd.Env = binaries.Environment()
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = outputDelay
	c, err := startChild(cmd, id, killSignal)
	if err != nil {
		return w.tail(), err
	}
	<-c.done
	if ctx.Err() != nil {
		return w.tail(), context.Cause(ctx)
	}
	return w.tail(), c.err
}

// works returns nil when a program runs as id with dir as its working
// directory.
func (id identity) works(ctx context.Context, dir string) error {
	out, err := id.run(ctx, dir, id.probe[0], id.probe[1:]...)
	if err != nil {
		return fmt.Errorf("run %s as %s in %s: %w; %s", id.probe[0], id, dir, err, out)
	}
	return nil
}

// mkdir makes a directory with mode 0700 that belongs to id.
func (id identity) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("create a private directory: %w", err)
	}
	if id.kind != identityAccount {
		return nil
	}
	if err := os.Chown(path, id.uid, id.gid); err != nil {
		return fmt.Errorf("give the directory to %s: %w", id, err)
	}
	return nil
}

// takeOver gives the directory tree to id, if it belongs to root or to the
// account "postgres", which is who we have been before: a directory made in
// one way stays usable in the other. A missing one is fine.
func (id identity) takeOver(dir string) error {
	root, err := os.OpenRoot(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("examine the data directory: %w", err)
	}
	change, err := id.wants(dir, info)
	if err != nil || !change {
		return err
	}
	// The top comes last: as long as it has its old owner, there is something
	// to do.
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, id.uid, id.gid)
	})
	if err == nil {
		err = root.Lchown(".", id.uid, id.gid)
	}
	if err != nil {
		return fmt.Errorf("give %s to %s: %w", dir, id, err)
	}
	return nil
}

// wants says whether the directory, whose info is given, has to change hands
// before id can use it, and refuses what is not ours to take.
func (id identity) wants(dir string, info fs.FileInfo) (bool, error) {
	owner, ok := ownerOf(info)
	if !ok || owner == id.uid {
		return false, nil
	}
	if id.kind == identitySelf || (owner != 0 && owner != accountUID()) {
		return false, fmt.Errorf("%w: %s belongs to uid %d, and the server would run as %s; nothing was changed: start this program as the owner, or chown -R the directory",
			ErrForeign, dir, owner, id)
	}
	return true, nil
}

// owns reports whether the file is id's or our own.
func (id identity) owns(info fs.FileInfo) bool {
	owner, ok := ownerOf(info)
	return !ok || owner == id.uid || owner == os.Geteuid() || (os.Geteuid() == 0 && owner == accountUID())
}

// claim gives dir itself, not what is in it, to id.
func (id identity) claim(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("examine the data directory: %w", err)
	}
	change, err := id.wants(dir, info)
	if err != nil || !change {
		return err
	}
	if err := os.Chown(dir, id.uid, id.gid); err != nil {
		return fmt.Errorf("give %s to %s: %w", dir, id, err)
	}
	return nil
}
