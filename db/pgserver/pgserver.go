// Package pgserver runs a private PostgreSQL as a child of this process.
//
// It uses the binaries that are installed on the machine (version 15 or
// newer), keeps everything beneath one directory of mode 0700, and listens on
// nothing but a Unix socket in there. The server ends with the process that
// started it, however that process ends, and one directory never has two.
//
// [Start] returns once the server answers queries; [Server.Stop] ends it. The
// package changes no data directory that it cannot use: one of another major
// version, of another owner or of unknown content is an error that says what
// to do about it.
//
// Linux is supported in full. On other Unix systems, macOS among them, a server
// has a supervisor, which is this same program in another role, and root cannot
// run one. Elsewhere the package compiles; see pgserver_other.go for what is
// missing.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// MinVersion is the oldest major version of PostgreSQL that is accepted.
const MinVersion = binaries.MinVersion

// Durability says what has to survive a crash of the machine.
type Durability int

const (
	// Durable is for data that matters: what was committed is on disk.
	Durable Durability = iota
	// Fast is for tests: nothing is ever flushed and memory use is small. A
	// crash of the server may cost the last second's commits, one of the
	// machine the whole cluster.
	Fast
)

var (
	// ErrNotInstalled means that no usable PostgreSQL was found.
	ErrNotInstalled = binaries.ErrNotFound
	// ErrInUse means that another process runs a server in the directory.
	ErrInUse = errors.New("data directory is in use")
	// ErrDataVersion means that the data belongs to another major version of
	// PostgreSQL than the installed ones.
	ErrDataVersion = errors.New("data directory is of another PostgreSQL version")
	// ErrUnreachable means that the account which has to run the server
	// cannot get at a path.
	ErrUnreachable = errors.New("path is out of the server account's reach")
	// ErrForeign means that a directory holds something that is not ours, or
	// belongs to somebody else.
	ErrForeign = errors.New("directory is not ours")
)

// Config says where and how the server runs.
type Config struct {
	// Dir is the directory that holds the cluster (Dir/data), the socket and
	// the lock. It is made, with its parents, when missing. It must be for
	// this server alone. Empty, which only Fast allows: a new directory,
	// preferably in memory, that Stop removes.
	Dir string
	// Durability defaults to Durable.
	Durability Durability
	// Logger receives the server's log: warnings and errors at warn, the rest
	// at debug. The zero Logger discards it.
	Logger zerolog.Logger
	// Settings are server settings by name (as in postgresql.conf), on top of
	// those that Durability implies. Where the server listens is not theirs
	// to choose.
	Settings map[string]string

	// identity restricts how the server's user is chosen; for tests.
	identity identityKind
	// supervised has a supervisor where none is needed; for tests.
	supervised bool
}

// Start starts the server of cfg.Dir, creating its cluster when there is none,
// and returns when it answers queries.
//
// A predecessor that still runs on the same directory without an owner is
// shut down first. Crash recovery takes as long as it takes: ctx bounds the
// wait. When ctx ends or Start fails, nothing is left running. Once Start has
// returned, ctx has no influence any more: the server runs until
// [Server.Stop], or until this process ends.
//
// Errors wrap [ErrNotInstalled], [ErrInUse], [ErrDataVersion],
// [ErrUnreachable] or [ErrForeign] where one of these is the reason.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{log: cfg.Logger}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.cleanUp())
		}
	}()

	if err := s.openDir(cfg); err != nil {
		return nil, err
	}
	dataMajor, err := dataVersion(s.dataDir())
	if err != nil {
		return nil, err
	}
	inst, err := findBinaries(ctx, dataMajor)
	if err != nil {
		return nil, err
	}
	if err := accepts(inst, s.dataDir(), dataMajor); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.dataDir(), s.newDataDir()} {
		if err := endPredecessor(ctx, dir, cfg.Logger); err != nil {
			return nil, err
		}
	}
	id, err := chooseIdentity(ctx, cfg.identity, inst, s.dir)
	if err != nil {
		return nil, err
	}
	id.supervised = needSupervisor || cfg.supervised
	c := cluster{dir: s.dataDir(), tmp: s.newDataDir(), inst: inst, id: id, durability: cfg.Durability, log: cfg.Logger}
	if dataMajor == 0 {
		if err := c.create(ctx); err != nil {
			return nil, err
		}
	}
	if err := id.takeOver(s.dataDir()); err != nil {
		return nil, err
	}
	if s.socketDir, err = makeSocketDir(ctx, s.dir, id); err != nil {
		return nil, err
	}
	if err := s.launch(ctx, inst, id, cfg); err != nil {
		return nil, err
	}
	cfg.Logger.Info().Str("version", inst.Version).Str("bindir", inst.Dir).Str("dir", s.dir).
		Stringer("user", id).Int("pid", s.child.pid()).Msg("embedded PostgreSQL is ready")
	return s, nil
}

// findBinaries finds the programs for data of a major version (0: there is none
// yet), or says what to do.
func findBinaries(ctx context.Context, dataMajor int) (binaries.Installation, error) {
	inst, err := binaries.Find(ctx, "", dataMajor)
	if _, nothing := errors.AsType[*binaries.SearchError](err); nothing {
		return inst, fmt.Errorf("%w: on Debian and Ubuntu, as root: apt-get install postgresql; on macOS: brew install postgresql@17 "+
			"(scripts/install-postgresql.sh does what this machine needs, without starting a server of its own); "+
			"or set PG_BINDIR to the directory with postgres and initdb", err)
	}
	return inst, err
}

// openDir makes and locks the server's directory.
func (s *Server) openDir(cfg Config) error {
	if cfg.Dir == "" {
		if cfg.Durability != Fast {
			return errors.New("Config.Dir is empty: name a directory to keep the data in")
		}
		var err error
		s.dir, s.lock, err = makeScratch(cfg.Logger)
		s.scratch = err == nil
		return err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", cfg.Dir, err)
	}
	if err := makePrivate(dir); err != nil {
		return err
	}
	s.dir = dir
	s.lock, err = acquireLock(dir)
	return err
}

// makePrivate creates dir with mode 0700, or takes everybody else's rights away
// from one that is empty or was a server's before. What holds other files, or
// belongs to another user, is refused as it is.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the data directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("examine the data directory: %w", err)
	}
	if owner, ok := ownerOf(info); ok && owner != os.Geteuid() && os.Geteuid() != 0 {
		return fmt.Errorf("%w: %s belongs to uid %d: start this program as its owner, or choose another directory", ErrForeign, dir, owner)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	foreign := func(e os.DirEntry) bool {
		return !slices.Contains([]string{dataName, newDataName, socketName, lockName}, e.Name())
	}
	if slices.ContainsFunc(entries, foreign) {
		return fmt.Errorf("%w: %s is open to others (mode %04o) and has files of its own: choose a directory for PostgreSQL alone, or chmod 0700 it",
			ErrForeign, dir, info.Mode().Perm())
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // G302: a directory needs its x bit; 0700 is the strictest that works
		return fmt.Errorf("make the data directory private: %w", err)
	}
	return nil
}
