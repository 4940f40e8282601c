package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/db/pgserver"
	"serversync/events"
	"serversync/internal/diskspace"
)

// stores are the broker and the database, embedded or not.
type stores struct {
	broker   *events.Broker   // nil: external
	postgres *pgserver.Server // nil: external, or not needed
	nats     *nats.Conn
	db       *bun.DB // nil: no role of this process needs it
	// space keeps a reserve on the disks of what is embedded; nil: nothing is.
	space *diskspace.Space
}

// open starts what is embedded and connects to what is not. It does not wait
// for external stores.
func (s *stores) open(ctx context.Context, c *config, log zerolog.Logger) error {
	if err := s.openBroker(c, log); err != nil {
		return err
	}
	if c.needsDatabase() {
		if err := s.openDatabase(ctx, c, log); err != nil {
			return err
		}
	}
	var dirs []string
	if s.broker != nil {
		dirs = append(dirs, filepath.Join(c.dataDir, "nats"))
	}
	if s.postgres != nil {
		dirs = append(dirs, filepath.Join(c.dataDir, "postgres"))
	}
	var err error
	s.space, err = diskspace.Watch(dirs...)
	return err
}

func (s *stores) openBroker(c *config, log zerolog.Logger) error {
	var err error
	if c.natsURL != "" {
		s.nats, err = events.Dial(c.natsURL, c.natsCreds, log, c.natsTLS())
		return err
	}
	if err := makeDataDir(c.dataDir); err != nil {
		return err
	}
	if s.broker, err = events.StartBroker(filepath.Join(c.dataDir, "nats"), log); err != nil {
		return err
	}
	s.nats, err = s.broker.Connect()
	return err
}

// durable is how what is published becomes durable: an external broker's word is
// enough, as far as its operator has configured it so.
func (s *stores) durable() events.Option {
	if s.broker == nil {
		return events.WithSync(nil)
	}
	return events.WithSync(s.broker.Sync())
}

// room says why nothing may be published now: an embedded store must not meet a
// full disk.
func (s *stores) room() events.Option { return events.WithRoom(s.space.ForNews) }

// databaseName is where SkyPANEL's tables are in the embedded server.
const databaseName = "postgres"

// startTimeout bounds the start of the embedded PostgreSQL, crash recovery
// included.
const startTimeout = 5 * time.Minute

func (s *stores) openDatabase(ctx context.Context, c *config, log zerolog.Logger) error {
	dsn := c.databaseURL
	if dsn == "" {
		if err := makeDataDir(c.dataDir); err != nil {
			return err
		}
		start, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		var err error
		s.postgres, err = pgserver.Start(start, pgserver.Config{
			Dir:    filepath.Join(c.dataDir, "postgres"),
			Logger: log.With().Str("part", "postgres").Logger(),
		})
		if err != nil {
			return err
		}
		dsn = s.postgres.DSN(databaseName)
	}
	var err error
	s.db, err = db.Open(dsn)
	return err
}

// makeDataDir makes DATA_DIR for ourselves alone. A directory that others use is
// not taken away from them: /tmp would be of no use to anybody else.
func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory (set DATA_DIR to a place that can be written): %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the data directory: %w", err)
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	stranger, err := strangerIn(dir, info.Mode().Perm()&0o002 != 0)
	if err != nil {
		return fmt.Errorf("look into the data directory (it must be this user's): %w", err)
	}
	if stranger != "" {
		return &usageError{fmt.Errorf("DATA_DIR=%s is not serversync's own: %s is in it, and other accounts may enter. Set DATA_DIR to a directory of its own, such as %s; or, if it is ours: chmod 0700 %s",
			dir, stranger, filepath.Join(dir, "serversync"), dir)}
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // 0700 is a directory's 0600
		return fmt.Errorf("keep the data directory to ourselves (it must be this user's, and writable: see DATA_DIR): %w", err)
	}
	return nil
}

// strangerIn names something in a directory that tells that it is not ours alone:
// another directory, or, where all accounts may write, anything that we do not put
// there. Empty: there is nothing. A file beside ours may be our log.
func strangerIn(dir string, everybodys bool) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	ours := []string{"nats", "postgres", "demo", "demo.lock", adminTokenFile, "lost+found"}
	for _, e := range entries {
		if (everybodys || e.IsDir()) && !slices.Contains(ours, e.Name()) && !strings.HasPrefix(e.Name(), adminTokenFile+".") {
			return e.Name(), nil
		}
	}
	return "", nil
}

// streamOptions sizes the stream. The embedded store takes what its disk has.
func (s *stores) streamOptions(c *config) events.StreamOptions {
	o := events.StreamOptions{MaxAge: c.streamMaxAge, MaxBytes: c.streamMaxBytes, Replicas: c.natsReplicas}
	if s.broker != nil {
		o.Replicas = 1
		o.MaxBytes = s.broker.RoomFor(c.streamMaxBytes)
	}
	return o
}

// watch returns when an embedded store died by itself: the process then says
// why and ends, and its supervisor starts it again.
func (s *stores) watch(ctx context.Context, log zerolog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.space.Run(ctx, log) })
	if s.broker != nil {
		g.Go(func() error { return s.broker.Watch(ctx) })
	}
	if s.postgres != nil {
		g.Go(func() error {
			select {
			case <-ctx.Done():
				return nil
			case <-s.postgres.Done():
				return fmt.Errorf("the embedded PostgreSQL ended: %w", s.postgres.Err())
			}
		})
	}
	return g.Wait()
}

// stopTimeout bounds the end of the embedded PostgreSQL.
const stopTimeout = 3 * time.Second

// close ends connections first, then what is embedded.
func (s *stores) close(ctx context.Context) error {
	var errs []error
	if s.nats != nil {
		// Acknowledgements are sent asynchronously: they must not be lost here.
		if err := s.nats.FlushTimeout(500 * time.Millisecond); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && s.broker != nil {
			errs = append(errs, fmt.Errorf("flush to the broker: %w", err))
		}
		s.nats.Close()
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Stop())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.postgres != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		errs = append(errs, s.postgres.Stop(ctx))
	}
	return errors.Join(errs...)
}
