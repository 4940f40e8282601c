//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/uptrace/bun"

	"serversync/cmd/internal/siege"
	"serversync/db"
	"serversync/db/pgserver"
)

const (
	databaseName = "postgres"
	webhookToken = "a-token-of-the-rehearsal"
	adminToken   = "the-admin-token-of-the-rehearsal"

	answerTimeout = 10 * time.Second // of one webhook
	readyTimeout  = time.Minute
	stopTimeout   = 15 * time.Second // the service promises ten
	pace          = 20 * time.Millisecond
)

type config struct {
	older, newer string // programs
	skypanel     string // file
	phase        time.Duration
	seed         uint64
	out          io.Writer
}

// report is what came out.
type report struct {
	sent, accepted, refused, unanswered int
	gap                                 time.Duration // the longest without a 202
	servers, rows                       int
	migrated                            string // what the newer version's migrate said last
	lost, doubled                       []string
	checked                             bool
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "migrate: %s\n", r.migrated)
	fmt.Fprintf(out, "%d webhooks, %d answered 202; attempts answered 503: %d, not at all: %d; longest time without a 202: %s\n",
		r.sent, r.accepted, r.refused, r.unanswered, r.gap.Round(10*time.Millisecond))
	fmt.Fprintf(out, "%d servers in the books, %d billing rows of ours; lost %d, doubled %d\n", r.servers, r.rows, len(r.lost), len(r.doubled))
	for _, line := range slices.Concat(r.lost, r.doubled) {
		fmt.Fprintln(out, "  "+line)
	}
}

var errFound = errors.New("what was answered 202 is not in the books exactly once: see above")

// rehearsal is everything that runs.
type rehearsal struct {
	config
	report   report
	dir      string
	client   *http.Client
	nats     *server.Server
	conn     *nats.Conn
	postgres *pgserver.Server
	database *bun.DB
	world    *siege.World
	old, new *service
}

// service is one process, with all roles.
type service struct {
	siege.Process
	addr string
}

// run rehearses, and checks the books. The report is valid as far as it got when
// there is an error.
func run(ctx context.Context, c config) (_ *report, err error) {
	r := &rehearsal{config: c, client: &http.Client{Timeout: answerTimeout}}
	defer func() { err = errors.Join(err, r.cleanUp(context.WithoutCancel(ctx), err)) }()
	if err := r.prepare(ctx); err != nil {
		return &r.report, err
	}
	live, stop := context.WithCancel(ctx)
	lived := make(chan error, 1)
	go func() { lived <- r.world.Live(live) }()
	err = r.play(ctx)
	stop()
	if err := errors.Join(err, <-lived); err != nil {
		return &r.report, err
	}
	return &r.report, r.check(ctx)
}

func (r *rehearsal) prepare(ctx context.Context) (err error) {
	if r.dir, err = os.MkdirTemp("", "upgrade-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(r.dir, 0o711); err != nil { //nolint:gosec // G302: PostgreSQL's account has to pass, not to look
		return fmt.Errorf("let PostgreSQL pass: %w", err)
	}
	if err := r.startBroker(); err != nil {
		return err
	}
	if r.postgres, err = pgserver.Start(ctx, pgserver.Config{Dir: filepath.Join(r.dir, "postgres")}); err != nil {
		return err
	}
	if r.database, err = db.Open(r.postgres.DSN(databaseName)); err != nil {
		return err
	}
	tables, err := os.ReadFile(r.skypanel) // not the schema: that is the older version's to make
	if err != nil {
		return fmt.Errorf("read SkyPANEL's tables: %w", err)
	}
	if _, err := r.database.ExecContext(ctx, string(tables)); err != nil {
		return fmt.Errorf("make SkyPANEL's tables: %w", err)
	}
	return r.prepareServices(ctx)
}

func (r *rehearsal) startBroker() (err error) {
	r.nats, err = server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(r.dir, "nats"), SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return fmt.Errorf("set up the broker: %w", err)
	}
	r.nats.Start()
	if !r.nats.ReadyForConnections(readyTimeout) {
		return errors.New("the broker is not ready")
	}
	r.conn, err = nats.Connect(r.nats.ClientURL())
	return err
}

func (r *rehearsal) prepareServices(ctx context.Context) (err error) {
	var addrs [2]string
	for i := range addrs {
		if addrs[i], err = siege.FreeAddress(ctx); err != nil {
			return err
		}
	}
	r.world, err = siege.NewWorld(ctx, r.database, siege.WorldConfig{Seed: r.seed, Token: webhookToken, Targets: addrs[:], Timeout: answerTimeout, Pace: pace})
	if err != nil {
		return err
	}
	if r.old, err = r.service("older", r.older, addrs[0]); err != nil {
		return err
	}
	r.new, err = r.service("newer", r.newer, addrs[1])
	return err
}

// service is a process of a version. It does not sweep by itself, which would
// mend what was lost.
func (r *rehearsal) service(name, binary, addr string) (*service, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, fmt.Errorf("find the %s version: %w", name, err)
	}
	return &service{addr: addr, Process: siege.Process{
		Binary: binary, Args: []string{"serve"}, Dir: r.dir, Name: name,
		Env: append(siege.Inherited(),
			"HOME="+r.dir, "LISTEN_ADDR="+addr, "DATA_DIR="+filepath.Join(r.dir, name),
			"NATS_URL="+r.nats.ClientURL(), "DATABASE_URL="+r.postgres.DSN(databaseName), "WEBHOOK_TOKENS="+webhookToken, "ADMIN_TOKEN="+adminToken,
			"VIRTFUSION_API_URL="+r.world.APIURL(), "VIRTFUSION_API_TOKEN="+siege.APIToken, "VIRTFUSION_RPS=50",
			"SETTLE_DELAY=1s", "SWEEP_INTERVAL=0", "SWEEP_MAX_CHANGES=100%", "LOG_FORMAT=json", "LOG_LEVEL=info"),
	}}, nil
}

// play goes forth, back, and forth again.
func (r *rehearsal) play(ctx context.Context) error {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"the older version alone", func(ctx context.Context) error { return r.start(ctx, r.old) }},
		{"the newer version's migrations under the older one", r.migrate},
		{"both side by side", func(ctx context.Context) error { return r.start(ctx, r.new) }},
		{"the newer version alone", func(ctx context.Context) error { return r.stop(ctx, r.old) }},
		{"back: both side by side", func(ctx context.Context) error { return r.start(ctx, r.old) }},
		{"back: the older version alone, on the newer schema", func(ctx context.Context) error { return r.stop(ctx, r.new) }},
		{"forth again: both side by side", func(ctx context.Context) error { return r.start(ctx, r.new) }},
		{"forth again: the newer version alone", func(ctx context.Context) error { return r.stop(ctx, r.old) }},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		took := time.Since(began)
		siege.Pause(ctx, r.phase)
		if !r.world.AcceptedSince(began.Add(took)) {
			return fmt.Errorf("%s: no webhook was answered 202 for %s", step.what, r.phase)
		}
		sent, accepted := r.world.Counts()
		fmt.Fprintf(r.out, "%-55s after %4.1f s; so far %d webhooks, %d answered 202\n", step.what, took.Seconds(), sent, accepted)
	}
	return nil
}

// start starts a process and waits until it can do its work.
func (r *rehearsal) start(ctx context.Context, s *service) error {
	s.StartIfDead(ctx)
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		status, body := siege.Ask(ctx, r.client, "http://"+s.addr+"/readyz")
		switch {
		case status == http.StatusOK:
			return nil
		case ctx.Err() != nil || !s.Running():
			return fmt.Errorf("the %s version is not ready: %d %s; its log ends:\n%s", s.Name, status, body, s.LogTail())
		}
		siege.Pause(ctx, 20*time.Millisecond)
	}
}

// stop asks a process to end, as a supervisor does.
func (r *rehearsal) stop(ctx context.Context, s *service) error {
	s.Signal(syscall.SIGTERM)
	return s.Await(ctx, stopTimeout)
}

// migrate runs the newer version's migrations.
func (r *rehearsal) migrate(ctx context.Context) error {
	said, err := r.command(ctx, "migrate")
	lines := strings.Split(strings.TrimSpace(said), "\n")
	r.report.migrated = lines[len(lines)-1]
	return err
}

func (r *rehearsal) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, r.new.Binary, args...) //nolint:gosec // G204: the program that we were told to rehearse
	cmd.Dir, cmd.Env = r.dir, append(slices.Clone(r.new.Env), "SERVERSYNC_URL=http://"+r.new.addr)
	said, err := cmd.CombinedOutput()
	if err != nil {
		return string(said), fmt.Errorf("serversync %s: %w: %s", strings.Join(args, " "), err, said)
	}
	return string(said), nil
}

// check leaves everybody in peace until the books are in step, and then compares
// them, and the stream, with what was answered.
func (r *rehearsal) check(ctx context.Context) error {
	accepted := r.world.Accepted()
	r.report.sent, r.report.accepted = r.world.Counts()
	r.report.refused, r.report.unanswered, r.report.gap = r.world.Refused(http.StatusServiceUnavailable), r.world.Refused(0), r.world.Gap()
	r.report.lost = siege.Drained(ctx, r.database, accepted)
	if _, err := r.command(ctx, "sweep"); err != nil {
		return err
	}
	var err error
	if r.report.servers, r.report.rows, err = siege.Count(ctx, r.database); err != nil {
		return err
	}
	if r.report.doubled, err = siege.Doubled(ctx, r.database); err != nil {
		return err
	}
	js, err := jetstream.New(r.conn)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	unstored, err := siege.Stored(ctx, js, accepted)
	if err != nil {
		return err
	}
	r.report.lost = append(r.report.lost, unstored...)
	r.report.checked = true
	if len(r.report.lost)+len(r.report.doubled) > 0 {
		return errFound
	}
	return nil
}

// cleanUp ends everything. What failed leaves its logs.
func (r *rehearsal) cleanUp(ctx context.Context, failed error) error {
	var errs []error
	for _, s := range []*service{r.old, r.new} {
		if s != nil {
			s.Kill()
		}
	}
	if r.world != nil {
		errs = append(errs, r.world.Close())
	}
	if r.conn != nil {
		r.conn.Close()
	}
	if r.nats != nil {
		r.nats.Shutdown()
		r.nats.WaitForShutdown()
	}
	if r.database != nil {
		errs = append(errs, r.database.Close())
	}
	if r.postgres != nil {
		errs = append(errs, r.postgres.Stop(ctx))
	}
	if failed != nil {
		fmt.Fprintf(r.out, "logs are kept in %s\n", r.dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}
