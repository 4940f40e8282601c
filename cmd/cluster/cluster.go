//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/uptrace/bun"

	"serversync/cmd/internal/siege"
	"serversync/db"
	"serversync/db/pgserver"
)

const (
	webhookToken = "a-token-for-the-cluster"
	adminToken   = "an-admin-token-for-the-cluster" //nolint:gosec // G101: it opens a service that lives for minutes, on this machine
	databaseName = "postgres"

	// answerTimeout is how long an answer of a process is waited for.
	answerTimeout = 5 * time.Second
	// recoverTimeout bounds how long everything may take until it works.
	recoverTimeout = 90 * time.Second
	// pace is the time between two steps of the fleet.
	pace = 10 * time.Millisecond
)

// config says how much is made to fail.
type config struct {
	binary, nats string
	rounds       int
	seed         uint64
	only         string // only faults whose name contains this
	keep         bool
	out          io.Writer
	// inTurn makes the faults one after the other rather than at random.
	inTurn bool
}

// report is what was done and found.
type report struct {
	seed     uint64
	rounds   int
	faults   map[string]int
	recovery map[string]time.Duration // the longest, by fault: from the end of its cause until everything works
	gap      map[string]time.Duration // the longest time without a 202, by fault
	kills    map[string]int           // by kind of process
	cuts     int                      // servers cut off
	moves    int                      // leaders that changed
	sent     int
	accepted int // answered 202
	refused  int // attempts answered 503
	silent   int // attempts without an answer
	leads    int // times that the lead of the sweeps was seen with another process
	sweeps   int
	replays  int
	heard    [natsServers]int64 // announcements, by server
	servers  int
	rows     int
	lost     []string
	doubled  []string
	untruths []string // what /readyz, /metrics or the lead should not have said
	inStep   time.Duration
	took     time.Duration
	checked  bool
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\nseed %d: %d rounds in %s\n", r.seed, r.rounds, r.took.Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		fmt.Fprintf(out, "  %-38s %3d   longest time without a 202 %6s, until all worked again %6s\n",
			name, r.faults[name], r.gap[name].Round(10*time.Millisecond), r.recovery[name].Round(10*time.Millisecond))
	}
	fmt.Fprint(out, "processes killed:")
	for _, kind := range slices.Sorted(maps.Keys(r.kills)) {
		fmt.Fprintf(out, " %s %d", kind, r.kills[kind])
	}
	fmt.Fprintf(out, "\nservers cut off %d, leaders moved %d, the lead of the sweeps seen to move %d times, sweeps %d, replays %d\n",
		r.cuts, r.moves, r.leads, r.sweeps, r.replays)
	fmt.Fprintf(out, "webhooks sent %d, answered 202 %d; attempts answered 503 %d, without an answer %d\n", r.sent, r.accepted, r.refused, r.silent)
	if !r.checked {
		fmt.Fprintln(out, "the books were NOT checked")
		return
	}
	fmt.Fprintf(out, "announcements heard by server %v; servers in the books %d, billing rows of ours %d\n", r.heard, r.servers, r.rows)
	fmt.Fprintf(out, "lost %d, doubled %d, untruths %d, books in step %s after the last round\n",
		len(r.lost), len(r.doubled), len(r.untruths), r.inStep.Round(100*time.Millisecond))
	for _, line := range slices.Concat(r.lost, r.doubled, r.untruths) {
		fmt.Fprintln(out, "  "+line)
	}
}

// machines are everything that runs.
type machines struct {
	config
	random   *rand.Rand
	report   report
	dir      string
	client   *http.Client
	broker   *broker
	postgres *pgserver.Server
	database *bun.DB
	world    *siege.World
	services []*service
	notes    sync.Mutex // of report.untruths
	heard    [natsServers]atomic.Int64
}

// service is one process of the program.
type service struct {
	siege.Process
	role string
	addr string
}

// run makes faults and checks the books. The report is valid as far as it got
// when there is an error.
func run(ctx context.Context, cfg config) (_ *report, err error) {
	started := time.Now()
	m := &machines{
		config: cfg,
		random: rand.New(rand.NewPCG(cfg.seed, 1)), //nolint:gosec // G404: faults must be repeatable, and guard nothing
		client: &http.Client{Timeout: answerTimeout},
		report: report{seed: cfg.seed, faults: map[string]int{}, recovery: map[string]time.Duration{}, gap: map[string]time.Duration{}, kills: map[string]int{}},
	}
	defer func() { m.report.took = time.Since(started) }()
	if err = m.prepare(ctx); err == nil {
		err = m.play(ctx)
	}
	return &m.report, errors.Join(err, m.cleanUp(context.WithoutCancel(ctx), err))
}

// prepare starts everything.
func (m *machines) prepare(ctx context.Context) (err error) {
	if m.binary, err = filepath.Abs(m.binary); err != nil {
		return fmt.Errorf("find the binary: %w", err)
	}
	if m.nats, err = filepath.Abs(m.nats); err != nil {
		return fmt.Errorf("find the broker's program: %w", err)
	}
	if m.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(m.dir, 0o711); err != nil { //nolint:gosec // G302: PostgreSQL's account has to pass, not to look
		return fmt.Errorf("let PostgreSQL pass: %w", err)
	}
	if m.broker, err = newBroker(ctx, m.dir, m.nats); err != nil {
		return err
	}
	if err := m.broker.start(ctx); err != nil {
		return err
	}
	if err := m.startPostgreSQL(ctx); err != nil {
		return err
	}
	if m.database, err = db.Open(m.postgres.DSN(databaseName)); err != nil {
		return err
	}
	if _, err := db.Migrate(ctx, m.database, db.MigrateOptions{CreateSkyPANEL: true}); err != nil {
		return err
	}
	if err := m.prepareServices(ctx); err != nil {
		return err
	}
	m.listen()
	_, err = m.recover(ctx, func() bool { return true })
	return err
}

func (m *machines) startPostgreSQL(ctx context.Context) (err error) {
	m.postgres, err = pgserver.Start(ctx, pgserver.Config{Dir: filepath.Join(m.dir, "postgres")})
	return err
}

// prepareServices makes the world and the processes that hear of it.
func (m *machines) prepareServices(ctx context.Context) (err error) {
	var targets []string
	for _, role := range []string{"ingest", "ingest", "reconcile", "reconcile", "api", "api"} {
		s := &service{role: role}
		if s.addr, err = siege.FreeAddress(ctx); err != nil {
			return err
		}
		if role == "ingest" {
			targets = append(targets, s.addr)
		}
		m.services = append(m.services, s)
	}
	m.world, err = siege.NewWorld(ctx, m.database, siege.WorldConfig{
		Seed: m.seed, Token: webhookToken, Targets: targets, Timeout: answerTimeout, Pace: pace,
	})
	if err != nil {
		return err
	}
	for i, s := range m.services {
		roles := s.role
		if s.role == "api" {
			roles = "api,sweep"
		}
		name := fmt.Sprintf("%s-%d", s.role, i%2+1)
		s.Process = siege.Process{
			Binary: m.binary, Args: []string{"serve"}, Dir: m.dir, Name: name,
			Env: append(siege.Inherited(),
				"HOME="+m.dir, "ROLES="+roles, "LISTEN_ADDR="+s.addr, "DATA_DIR="+filepath.Join(m.dir, name),
				"NATS_URL="+m.broker.urls(s.role), "WEBHOOK_TOKENS="+webhookToken, "ADMIN_TOKEN="+adminToken,
				"VIRTFUSION_API_URL="+m.world.APIURL(), "VIRTFUSION_API_TOKEN="+siege.APIToken, "VIRTFUSION_RPS=50",
				"SETTLE_DELAY=1s", "SWEEP_INTERVAL=5s", "SWEEP_MAX_CHANGES=100%", "LOG_FORMAT=json", "LOG_LEVEL=info"),
		}
		if s.role != "ingest" { // which has no database
			s.Env = append(s.Env, "DATABASE_URL="+m.postgres.DSN(databaseName)+"&target_session_attrs=read-write&application_name="+name)
		}
	}
	return nil
}

// listen counts the announcements that come by at each server.
func (m *machines) listen() {
	for i, n := range m.broker.nodes {
		conn, err := nats.Connect(fmt.Sprintf("nats://operator:%s@%s", natsSecret, n.addr),
			nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
		if err != nil {
			m.untrue("%s cannot be listened to: %v", n.Name, err)
			continue
		}
		if _, err := conn.Subscribe("serversync.live.*", func(*nats.Msg) { m.heard[i].Add(1) }); err != nil {
			m.untrue("%s cannot be listened to: %v", n.Name, err)
		}
	}
}

// play makes the faults, then lets everybody finish and checks the books.
func (m *machines) play(ctx context.Context) error {
	faults := slices.DeleteFunc(m.faults(), func(f fault) bool { return !strings.Contains(f.name, m.only) })
	if len(faults) == 0 {
		return fmt.Errorf("no fault is called %q", m.only)
	}
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { m.watchLead(watching) })
	defer wg.Wait()
	defer stop()
	order := m.random.Perm(len(faults))
	for n := range m.rounds {
		f := faults[n%len(faults)]
		if !m.inTurn { // each once, then each again, in an order of chance
			f = faults[order[n%len(order)]]
			if n%len(order) == len(order)-1 {
				order = m.random.Perm(len(faults))
			}
		}
		if err := m.round(ctx, n+1, f); err != nil {
			return fmt.Errorf("round %d, %s: %w", n+1, f.name, err)
		}
		m.report.rounds++
	}
	stop()
	wg.Wait()
	return m.check(ctx)
}

// round sends webhooks, makes a fault among them, and waits until everything
// works again.
func (m *machines) round(ctx context.Context, n int, f fault) error {
	living, rest := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var lifeErr error
	wg.Go(func() { lifeErr = m.world.Live(living) })
	stop := func() error {
		rest()
		wg.Wait()
		return lifeErr
	}
	siege.Pause(ctx, 300*time.Millisecond+m.moment(500))
	m.replay(ctx, m.services[len(m.services)-1-m.random.IntN(2)]) // one of the two api processes is at it meanwhile
	if err := f.strike(ctx); err != nil {
		return errors.Join(err, stop())
	}
	// The cause has just ended. To work is more than to be ready: a webhook of
	// afterwards is answered 202.
	over := time.Now()
	took, err := m.recover(ctx, func() bool { return m.world.AcceptedSince(over) })
	if err != nil {
		return errors.Join(err, stop())
	}
	siege.Pause(ctx, m.moment(500))
	if err := errors.Join(stop(), ctx.Err()); err != nil {
		return err
	}
	gap := m.world.Gap()
	m.report.faults[f.name]++
	m.report.gap[f.name] = max(m.report.gap[f.name], gap)
	m.report.recovery[f.name] = max(m.report.recovery[f.name], took)
	sent, accepted := m.world.Counts()
	fmt.Fprintf(m.out, "round %3d  %-38s without a 202 %6s, works again after %6s   sent %6d, answered 202 %6d\n",
		n, f.name, gap.Round(10*time.Millisecond), took.Round(10*time.Millisecond), sent, accepted)
	return nil
}

// recover starts what does not run, as a supervisor would, until everything is
// ready and does its work, and returns how long that took. It then waits for the
// broker's copies, untimed: a round begins with nothing missing.
func (m *machines) recover(ctx context.Context, works func() bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	began := time.Now()
	for {
		m.startAll(ctx)
		unready := m.unready(ctx)
		if unready == "" && works() {
			break
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("not everything worked within %s: %s", recoverTimeout, unready)
		}
		siege.Pause(ctx, 20*time.Millisecond)
	}
	took := time.Since(began)
	for {
		err := m.broker.whole(ctx)
		if err == nil {
			return took, nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("the broker was not whole within %s: %w", recoverTimeout, err)
		}
		siege.Pause(ctx, 100*time.Millisecond)
	}
}

func (m *machines) startAll(ctx context.Context) {
	for _, n := range m.broker.nodes {
		n.StartIfDead(ctx)
	}
	for _, s := range m.services {
		s.StartIfDead(ctx)
	}
}

// unready is the first process that cannot do its work, and why; empty: all can.
func (m *machines) unready(ctx context.Context) string {
	for _, s := range m.services {
		if status, body := m.readyz(ctx, s, ""); status != http.StatusOK {
			return fmt.Sprintf("%s: %d %s; its log ends:\n%s", s.Name, status, body, s.LogTail())
		}
	}
	return ""
}

// readyz asks a process whether it is ready, for one role or (empty) for all that
// it has.
func (m *machines) readyz(ctx context.Context, s *service, role string) (int, string) {
	url := "http://" + s.addr + "/readyz"
	if role != "" {
		url += "?role=" + role
	}
	status, body := siege.Ask(ctx, m.client, url)
	return status, string(body)
}

// moment is a random time up to so many milliseconds.
func (m *machines) moment(limit int) time.Duration {
	return time.Duration(m.random.IntN(limit)) * time.Millisecond
}

// cleanUp ends what was started and removes the directory, unless it is needed to
// see what went wrong.
func (m *machines) cleanUp(ctx context.Context, cause error) error {
	var errs []error
	for _, s := range m.services {
		s.Kill()
	}
	if m.world != nil {
		m.report.sent, m.report.accepted = m.world.Counts()
		m.report.refused, m.report.silent = m.world.Refused(http.StatusServiceUnavailable), m.world.Refused(0)
		errs = append(errs, m.world.Close())
	}
	if m.database != nil {
		errs = append(errs, m.database.Close())
	}
	if m.postgres != nil {
		errs = append(errs, m.postgres.Stop(ctx))
	}
	if m.broker != nil {
		m.broker.close()
	}
	if m.keep || cause != nil {
		fmt.Fprintf(m.out, "kept: %s (a log of each process)\n", m.dir)
		return errors.Join(errs...)
	}
	if m.dir != "" {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	return errors.Join(errs...)
}
