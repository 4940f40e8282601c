package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"serversync/db/pgserver/binaries"
)

// What is in a server's directory, beside its lock.
const (
	dataName    = "data"
	newDataName = "data.new" // a cluster that is being made
	socketName  = "socket"
)

const (
	// fastShutdown is what a fast shutdown (SIGINT: sessions are ended, a
	// checkpoint is written) may take before it becomes an immediate one.
	fastShutdown = 6 * time.Second
	// immediateShutdown is what that (SIGQUIT: everything ends, the next
	// start recovers) may take before the server is killed.
	immediateShutdown = 3 * time.Second

	// cannotConnectNow is the SQLSTATE of a server that starts or recovers.
	cannotConnectNow = "57P03"

	fastSignal      = syscall.SIGINT
	immediateSignal = syscall.SIGQUIT
	killSignal      = syscall.SIGKILL
)

// Server is a running PostgreSQL. Its methods are safe for concurrent use.
type Server struct {
	log       zerolog.Logger
	dir       string
	scratch   bool // dir is removed at the end
	lock      *flock.Flock
	socketDir string
	child     *child
	output    *logWriter

	stopOnce sync.Once
	stopping chan struct{} // closed when Stop is called first
	stopErr  error

	done chan struct{} // closed when the server has ended and err is set
	err  error
}

func (s *Server) dataDir() string    { return filepath.Join(s.dir, dataName) }
func (s *Server) newDataDir() string { return filepath.Join(s.dir, newDataName) }

// DSN is the connection string of a database, as a URL that pgx, libpq and psql
// understand. It holds no secret: who may open the socket's directory is let
// in, as superuser. It is valid until the server ends. Nobody checks that
// the database exists.
func (s *Server) DSN(database string) string {
	query := url.Values{"host": {s.socketDir}, "port": {socketPort}, "sslmode": {"disable"}}.Encode()
	u := url.URL{
		Scheme: "postgres",
		User:   url.User(superuser),
		Path:   "/" + database,
		// A plus sign is a space to Go, and a plus sign to libpq.
		RawQuery: strings.ReplaceAll(query, "+", "%20"),
	}
	return u.String()
}

// Done returns a channel that is closed when the server has ended, because of
// Stop or by itself. After it, Err says which.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns nil while the server runs and after it ended because of Stop. It
// returns why, with the end of the server's log, when the server ended
// by itself. Stop is still to be called then: it lets the directory go.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop ends the server and returns when it is gone and its directory is free
// for another. Sessions are cut off; what they had committed is kept.
//
// A server that has not ended after some seconds, or when ctx ends, is made to
// end at once, and killed if even that does not help; its next start then takes
// longer, because it has to recover, and Stop returns an error. Later calls
// wait for the first and return what it returned. Stop of a server that ended
// by itself returns nil if all could be cleaned up.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		s.stopErr = errors.Join(s.end(ctx), s.cleanUp())
		if s.stopErr != nil {
			s.stopErr = fmt.Errorf("stop PostgreSQL: %w", s.stopErr)
		}
	})
	return s.stopErr
}

// launch starts the server process and waits until it answers.
func (s *Server) launch(ctx context.Context, inst binaries.Installation, id identity, cfg Config) error {
	s.output = newLogWriter(cfg.Logger)
	s.stopping = make(chan struct{})
	s.done = make(chan struct{})
	args := arguments(s.dataDir(), s.socketDir, cfg.Durability, cfg.Settings)
	// Its life is not that of ctx.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), inst.Program("postgres"), args...) //nolint:gosec // G204: the program that was configured or found
	cmd.Dir = s.dir
	cmd.Env = binaries.Environment()
	cmd.Stdout, cmd.Stderr = s.output, s.output
	cmd.WaitDelay = outputDelay
	// Should we die without a word, the server shuts down in order: a
	// checkpoint, and the next start has nothing to recover. Tests' data is
	// worth no checkpoint.
	deathSignal := fastSignal
	if cfg.Durability == Fast {
		deathSignal = immediateSignal
	}
	c, err := startChild(cmd, id, deathSignal)
	if err != nil {
		return fmt.Errorf("run postgres: %w", err)
	}
	s.child = c
	go s.watch()
	if err := s.waitReady(ctx); err != nil {
		return errors.Join(err, s.end(context.WithoutCancel(ctx)))
	}
	return nil
}

// watch notes how the server ended.
func (s *Server) watch() {
	<-s.child.done
	select {
	case <-s.stopping:
	default:
		how := "it was shut down by somebody else"
		if s.child.err != nil {
			how = s.child.err.Error()
		}
		s.err = fmt.Errorf("PostgreSQL (%s) ended by itself: %s; %s", s.dir, how, s.output.tail())
	}
	close(s.done)
}

// waitReady returns nil once the server answers a connection, and an error as
// soon as the process or ctx ends.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	tries := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(5*time.Millisecond),
		backoff.WithMaxInterval(100*time.Millisecond),
		backoff.WithMaxElapsedTime(0), // ctx and the process are the limit
	)
	err := backoff.Retry(func() error { return s.ping(ctx) }, backoff.WithContext(tries, ctx))
	if s.child.ended() {
		<-s.done
		return s.err
	}
	if err != nil {
		return fmt.Errorf("wait until it answers: %w; %s", err, s.output.tail())
	}
	return nil
}

// ping returns nil when the server answers, and a permanent error when it
// answers with a refusal that waiting will not change.
func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code != cannotConnectNow {
		return backoff.Permanent(err)
	}
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// end makes the process end, more firmly with time.
func (s *Server) end(ctx context.Context) error {
	if s.child == nil {
		return nil
	}
	steps := []struct {
		signal  syscall.Signal
		limit   time.Duration
		hurried <-chan struct{} // makes the limit zero
	}{
		{fastSignal, fastShutdown, ctx.Done()},
		{immediateSignal, immediateShutdown, nil},
	}
	for i, step := range steps {
		err := s.child.signal(step.signal)
		if err != nil {
			return err
		}
		if s.child.endsWithin(step.hurried, step.limit) {
			if i > 0 {
				err = errors.New("it did not shut down in time and was ended at once; its next start will recover")
			}
			<-s.done
			return err
		}
	}
	if err := s.child.signal(killSignal); err != nil {
		return err
	}
	<-s.done
	return errors.New("it did not shut down and was killed; its next start will recover")
}

// cleanUp lets go of everything but the data; it works on a server that never
// came to life, too.
func (s *Server) cleanUp() error {
	var errs []error
	if s.socketDir != "" {
		errs = append(errs, os.RemoveAll(s.socketDir))
	}
	if s.scratch {
		errs = append(errs, removeScratch(s.dir))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
