package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"serversync/api"
	"serversync/db"
	"serversync/events"
	"serversync/ingest"
	"serversync/internal/diskspace"
	"serversync/internal/httpserver"
	"serversync/reconciler"
	"serversync/schemas"
	"serversync/virtfusion"
	"serversync/web"
)

func serveCommand() *cli.Command {
	all := settings()
	return &cli.Command{
		Name:  "serve",
		Usage: "run the service",
		Description: "Runs the roles of this process: ingest hears VirtFusion's webhooks, reconcile brings the books in step,\n" +
			"sweep compares the whole fleet with VirtFusion, api answers people and programs.\n" +
			"PostgreSQL and NATS are embedded where DATABASE_URL and NATS_URL are not set.",
		Flags: flags(all),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := readConfig(cmd, all)
			if err != nil {
				return err
			}
			return serve(ctx, &c, newLogger(&c, cmd.Root().ErrWriter))
		},
	}
}

// serve runs the service until ctx ends; it then takes no more work, finishes
// what is in hand, and returns nil.
func serve(ctx context.Context, c *config, log zerolog.Logger) error {
	s, err := open(ctx, c, log)
	if err != nil {
		return err
	}
	return errors.Join(s.run(ctx), s.close(ctx))
}

// service is a process with its stores open.
type service struct {
	config   *config
	log      zerolog.Logger
	registry *prometheus.Registry

	stores    stores
	js        jetstream.JetStream
	publisher *events.Publisher
	announcer *events.Live
	http      *httpserver.Server
	api       *api.API // nil: not a role of this process
	books     lateBooks
	syncs     lateSyncs
	panel     panelClient
	tracing   *tracing // nil: nothing is traced
	// migrated is closed when the database is ready for use.
	migrated chan struct{}
	// connected is closed when SkyPANEL's settings say how to reach VirtFusion,
	// where that is yet to be written: by the demo. Nil: nothing is waited for.
	connected chan struct{}
	// extra runs beside the service: the demo's world.
	extra []func(context.Context) error
}

// open starts what is embedded, connects to what is not (without waiting for
// it), and sets up the HTTP server.
func open(ctx context.Context, c *config, log zerolog.Logger) (_ *service, err error) {
	s := &service{config: c, log: log, registry: prometheus.NewRegistry(), migrated: make(chan struct{})}
	s.panel.budget = virtfusion.NewBudget(c.virtfusionRPS)
	if c.needsDatabase() { // whoever hears webhooks alone asks VirtFusion nothing
		s.panel.metrics = virtfusion.NewMetrics(s.registry)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	if s.tracing, err = startTracing(ctx, c, log); err != nil {
		return nil, err
	}
	if err := s.stores.open(ctx, c, log); err != nil {
		return nil, err
	}
	if s.js, err = jetstream.New(s.stores.nats); err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	counted, traced := events.WithMetrics(events.NewPublisherMetrics(s.registry)), events.WithTracing(s.tracing.tracer())
	if s.publisher, err = events.NewPublisher(s.stores.nats, s.stores.durable(), s.stores.room(), counted, traced); err != nil { //nolint:contextcheck // it outlives ctx: what is in hand at a shutdown is still published
		return nil, err
	}
	s.announcer = events.NewLive(s.stores.nats, log)
	s.registerMetrics()
	s.http, err = httpserver.New(httpserver.Config{
		Addr: c.listenAddr, TrustedProxies: c.trustedProxies, MaxConnections: c.maxConnections,
		Roles: c.roles, KnownRoles: allRoles, Checks: s.checks(),
		Registry: s.registry, OpenAPI: schemas.OpenAPI(), Schemas: schemas.FS(), Log: log,
		DrainTimeout: drainTimeout, Tracer: s.tracing.tracer(),
	})
	if err != nil {
		return nil, fmt.Errorf("set up HTTP: %w", err)
	}
	if c.has(roleIngest) {
		deliveries := log
		if c.demo {
			deliveries = log.Level(max(log.GetLevel(), zerolog.WarnLevel)) // the simulation says what it sends
		}
		webhook, err := ingest.NewWebhook(ingest.WebhookConfig{
			PublishTimeout: publishTimeout,
			Tokens:         c.webhookTokens, AllowUnauthenticated: c.webhookAllowUnauthenticated, AllowCIDRs: c.webhookAllowCIDRs,
		}, s.publisher, s.registry, deliveries, time.Now)
		if err != nil {
			return nil, fmt.Errorf("set up the webhook: %w", err)
		}
		webhook.Register(s.http.Echo())
	}
	if c.has(roleAPI) {
		if err := s.setUpAPI(); err != nil { //nolint:contextcheck // handlers have their requests' contexts
			return nil, err
		}
	}
	return s, nil
}

// setUpAPI sets up the users' and the admin's routes, with the admin token that
// was configured or one that is kept.
func (s *service) setUpAPI() error {
	token := s.config.adminToken
	if token == "" {
		var err error
		if token, err = keepAdminToken(cmp.Or(s.config.adminTokenDir, s.config.dataDir)); err != nil {
			return err
		}
	}
	var err error
	s.api, err = api.New(api.Config{DB: s.stores.db, Books: &s.books, Syncs: &s.syncs, Replays: &s.syncs, Bulks: &s.syncs, Live: s.announcer, Queue: s.queue, Behind: s.behind, DeadLetters: s.dead, Letters: events.NewDeadLetters(s.js, s.stores.durable()), AdminToken: token, SessionSecret: s.config.sessionSecret, PublicOrigins: s.config.publicOrigins, Checks: s.examine, UserChecks: s.examineUser, Now: time.Now, Log: s.log})
	if err != nil {
		return fmt.Errorf("set up the API: %w", err)
	}
	s.api.Register(s.http.Echo())
	if err := web.Register(s.http.Echo(), web.Config{FrameAncestors: s.config.frameAncestors, Quiet: httpserver.OwnLog}); err != nil {
		return fmt.Errorf("set up the pages: %w", err)
	}
	return nil
}

// queue is how many events the reconciler has not acknowledged yet.
func (s *service) queue(ctx context.Context) (int64, error) { return events.QueueDepth(ctx, s.js) }

// applied tells how far the reconciler is on the stream.
func (s *service) applied(ctx context.Context) (last, acknowledged uint64, err error) {
	return events.Applied(ctx, s.js)
}

// behind is how long the oldest of them has waited.
func (s *service) behind(ctx context.Context) (time.Duration, error) {
	return events.QueueAge(ctx, s.js, time.Now())
}

// dead is how many dead letters wait for a person.
func (s *service) dead(ctx context.Context) (int64, error) {
	n, err := events.NewDeadLetters(s.js, s.stores.durable()).Count(ctx)
	return int64(n), err //nolint:gosec // G115: a stream holds less than 2^63 messages
}

// drainTimeout is how long requests in hand may take after a shutdown was
// asked for: the whole shutdown takes less than 10 s.
const drainTimeout = 4 * time.Second

// publishTimeout bounds the wait for the broker's word: a request in hand is
// answered before the drain ends.
const publishTimeout = 3 * time.Second

// troubleShows is how long no event may be confirmed before that shows: a leader
// may move.
const troubleShows = 2 * time.Second

// checks are what /readyz asks.
func (s *service) checks() []httpserver.Check {
	checks := []httpserver.Check{{
		Name: "broker", Roles: []string{roleIngest, roleReconcile},
		Probe: func(ctx context.Context) error {
			if _, err := s.js.Stream(ctx, events.StreamName); err != nil {
				return fmt.Errorf("stream %s: %w", events.StreamName, err)
			}
			// A leader that was cut off goes on telling of its stream for a while.
			if lasts, err := s.publisher.Trouble(); err != nil && lasts > troubleShows {
				return fmt.Errorf("for %s no event was confirmed: %w", lasts.Round(time.Second), err)
			}
			return nil
		},
	}}
	checks = append(checks, httpserver.Check{
		Name: "room", Roles: []string{roleIngest},
		Probe: func(ctx context.Context) error {
			err := s.stores.space.ForNews()
			if err == nil {
				err = events.StreamRoom(ctx, s.js)
			}
			if errors.Is(err, diskspace.ErrShort) || errors.Is(err, events.ErrStreamFull) {
				return httpserver.PublicError{Err: err}
			}
			return nil // that the broker is away is said once
		},
	})
	if s.config.has(roleReconcile) {
		checks = append(checks, httpserver.Check{
			Name: "consumer", Roles: []string{roleReconcile},
			Probe: func(ctx context.Context) error {
				if _, err := s.js.Consumer(ctx, events.StreamName, events.ConsumerName); err != nil {
					return fmt.Errorf("consumer %s: %w", events.ConsumerName, err)
				}
				return nil
			},
		})
	}
	if s.stores.db != nil {
		checks = append(checks, httpserver.Check{
			Name: "database", Roles: []string{roleReconcile, roleAPI, roleSweep},
			Probe: func(ctx context.Context) error {
				if err := db.Writable(ctx, s.stores.db); err != nil {
					return err
				}
				select {
				case <-s.migrated:
					return s.books.unfit()
				default:
					return errors.New("its schema is not up to date yet")
				}
			},
		})
	}
	return checks
}

// run joins all long-running parts: when one dies, the process says why and
// ends.
func (s *service) run(ctx context.Context) error {
	s.warn()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.http.Run(ctx) })
	g.Go(func() error { return s.stores.watch(ctx, s.log) })
	if s.stores.db != nil {
		g.Go(func() error { return s.migrate(ctx) })
	}
	g.Go(func() error { return s.stream(ctx, g) })
	g.Go(func() error { return events.Roam(ctx, s.js, s.publisher, s.log) })
	if s.api != nil {
		g.Go(func() error { return s.migratedThen(ctx, s.api.Run) }) // previews a cleanup each month
		g.Go(func() error { return s.migratedThen(ctx, s.api.SampleLag) })
		g.Go(func() error { return s.migratedThen(ctx, s.api.RunCoverage) })
		g.Go(func() error { return s.migratedThen(ctx, s.api.RunWatchdog) })
		g.Go(func() error { return s.migratedThen(ctx, s.notifier().Run) })
		g.Go(func() error { return s.api.RunLive(ctx) })
	}
	if s.config.pprofAddr != "" {
		g.Go(func() error { return s.profiles(ctx) })
	}
	g.Go(func() error { return s.present(ctx) })
	for _, run := range s.extra {
		g.Go(func() error { return run(ctx) })
	}
	select {
	case <-s.http.Ready():
		s.log.Info().Str("version", thisBuild().Version).Str("commit", thisBuild().Commit).Str("built", thisBuild().Date).Str("address", s.http.Addr().String()).Strs("roles", s.config.roles).Msg("listening")
	case <-ctx.Done():
	}
	err := g.Wait()
	if err == nil {
		s.log.Info().Msg("stopped: everything in hand was finished")
	}
	return err
}

// present answers whoever asks which processes run, until ctx ends.
func (s *service) present(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	stop, err := events.AnswerPings(s.stores.nats, events.Presence{Roles: s.config.roles, Version: thisBuild().Version, Host: host, StartedAt: time.Now().UTC()})
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop()
	return nil
}

// fewFiles is how many files are few: too few for all connections that may be.
const fewFiles = 4096

// warn says what is likely a mistake.
func (s *service) warn() {
	c := s.config
	if c.has(roleIngest) && len(c.webhookTokens) == 0 {
		if c.webhookAllowUnauthenticated {
			s.log.Warn().Msg("webhooks are accepted without a token: anybody who reaches this address can write to the books; set WEBHOOK_TOKENS")
		} else {
			s.log.Warn().Msg("every webhook is refused: set WEBHOOK_TOKENS to the token that VirtFusion sends")
		}
	}
	if files := httpserver.OpenFiles(); files > 0 && files < fewFiles {
		s.log.Warn().Uint64("files", files).Msg("this process may have few files open, and takes fewer connections therefore: raise its hard limit (LimitNOFILE= of systemd, ulimit -Hn)")
	}
	if c.policy.StartAtCreation {
		s.log.Warn().Msg("BILLING_START=creation: a new external server is charged for the whole time since its creation at once")
	}
}

// migrate waits for the database and brings it up to date. While the database
// is away it tries again, and while its schema is older than this program and our
// role may not change it; anything else is for a person.
func (s *service) migrate(ctx context.Context) error {
	create := s.config.databaseURL == "" || s.config.demo
	err := retry(ctx, s.log, "the database", "webhooks are kept, and nothing gets into the books", func() error {
		report, err := db.Migrate(ctx, s.stores.db, db.MigrateOptions{CreateSkyPANEL: create})
		if err != nil {
			if s.older(ctx, err) {
				return fmt.Errorf("its schema is older than this version, and our role may not change it: as its owner, run `serversync migrate` (deploy/grants.sql says who that is): %w", err)
			}
			if db.Classify(err) != db.FaultPassing {
				return backoff.Permanent(err)
			}
			return err
		}
		if len(report.Newer) > 0 {
			s.log.Info().Strs("migrations", report.Newer).Msg("the schema is newer than this version, which goes on with it: an upgrade is under way, or this process was forgotten")
		}
		if !report.Empty() {
			s.log.Info().Strs("migrations", report.Migrations).Strs("columns", report.Columns).Strs("indexes", report.Indexes).
				Msg("the database was brought up to date")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if ctx.Err() == nil {
		close(s.migrated)
	}
	return nil
}

// older reports that a refusal is that of a role which serves and does not
// migrate: it can see what is missing, and somebody else is to do it.
func (s *service) older(ctx context.Context, err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || refused.Code != "42501" { // insufficient_privilege
		return false
	}
	report, err := db.Migrate(ctx, s.stores.db, db.MigrateOptions{DryRun: true})
	return err == nil && !report.Empty()
}

// migratedThen does something once the database is ready.
func (s *service) migratedThen(ctx context.Context, do func(context.Context) error) error {
	select {
	case <-s.migrated:
		return do(ctx)
	case <-ctx.Done():
		return nil
	}
}

// stream waits for the broker, makes the stream, and starts the reconciler
// once the database is ready too.
func (s *service) stream(ctx context.Context, g *errgroup.Group) error {
	var consumer jetstream.Consumer
	err := retry(ctx, s.log, "the broker", "webhooks are answered 503, and VirtFusion does not repeat them: sweep afterwards", func() error {
		var err error
		consumer, err = events.EnsureStream(ctx, s.js, s.stores.streamOptions(s.config))
		if err != nil && !events.Passing(err) && !errors.Is(err, events.ErrNoRoom) {
			return backoff.Permanent(err)
		}
		return err
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	if s.stores.broker == nil {
		g.Go(func() error { return s.keepStream(ctx) })
	}
	if s.stores.db == nil {
		return nil
	}
	select {
	case <-s.migrated:
	case <-ctx.Done():
		return nil
	}
	r := reconciler.New(reconciler.Config{
		DB: s.stores.db, Consumer: consumer, DeadLetters: events.NewDeadLetters(s.js, s.stores.durable()), Policy: s.config.policy,
		Now: time.Now, Log: s.log, Metrics: s.countersOf(roleReconcile), Tracer: s.tracing.tracer(),
		MaxChanges: s.config.maxChanges.Limit, Live: s.announcer, Room: s.stores.space.ForBooks, NotifyUsers: s.config.notifyUsers,
		Refetcher: ingest.NewRefetcher(s.virtfusion, s.publisher, time.Now),
	})
	s.books.reconciler.Store(r)
	s.runs(ctx, g, r)
	s.warnOfNotifications(ctx)
	if !s.config.has(roleReconcile) {
		return nil
	}
	g.Go(func() error { return r.Run(ctx) })
	if s.config.policy.ObserveOnly {
		s.log.Warn().Msg("OBSERVE_ONLY: no billing row is touched; the inventory says what would be done")
	} else {
		g.Go(func() error { return r.RunSettler(ctx) })
	}
	g.Go(func() error { return r.RunBooksPass(ctx) })
	g.Go(func() error { return r.RunAsks(ctx) })
	g.Go(func() error { return r.RunWords(ctx) })
	retention := reconciler.NewRetention(reconciler.RetentionConfig{
		DB: s.stores.db, HistoryMaxAge: s.config.historyMaxAge, RunMaxAge: s.config.runMaxAge,
		Room: s.stores.space.ForNews, Now: time.Now, Log: s.log, Metrics: s.registry,
	})
	g.Go(func() error { return retention.Run(ctx) })
	return nil
}

// An external broker's stream is looked at so often, and is lost when it was not
// there so many times in a row.
const (
	streamCheck = 2 * time.Second
	streamLost  = 3
)

// keepStream makes stream and consumer again when an external broker has lost
// them, with its disk or by somebody's hand: else all webhooks would be refused
// until a restart.
func (s *service) keepStream(ctx context.Context) error {
	ticker := time.NewTicker(streamCheck)
	defer ticker.Stop()
	lost := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		_, err := s.js.Consumer(ctx, events.StreamName, events.ConsumerName)
		if !errors.Is(err, jetstream.ErrStreamNotFound) && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			lost = 0
			continue
		}
		if lost++; lost < streamLost {
			continue
		}
		lost = 0
		if _, err := events.EnsureStream(ctx, s.js, s.stores.streamOptions(s.config)); err != nil {
			s.log.Error().Err(err).Msg("the broker has lost its stream, or its consumer, and it cannot be made again; trying again")
			continue
		}
		s.log.Error().Str("do", "serversync sweep, and find out how the broker lost it").
			Msg("the broker had lost its stream, or its consumer: it was made again. What was on it and not in the books is lost, and found by a sweep")
	}
}

// countersOf is where a part counts: nowhere in a process without its role,
// whose zeros would be believed.
func (s *service) countersOf(role string) prometheus.Registerer {
	if s.config.has(role) {
		return s.registry
	}
	return prometheus.NewRegistry()
}

// runs starts what looks at many servers at once: the sweeps, and the users'
// syncs.
func (s *service) runs(ctx context.Context, g *errgroup.Group, r *reconciler.Reconciler) {
	if !s.config.has(roleSweep) && !s.config.has(roleAPI) {
		return
	}
	runs := ingest.NewRuns(ingest.RunsConfig{
		DB: s.stores.db, Client: s.virtfusion, Publisher: s.publisher, Past: events.NewReplayer(s.js, s.publisher), Books: r,
		Interval: s.config.sweepInterval, MaxChanges: s.config.maxChanges, ObserveOnly: s.config.policy.ObserveOnly,
		Live: s.announcer, Room: s.stores.space.ForBooks, Budget: s.panel.budget.Stats, Stream: s.applied, Now: time.Now, Log: s.log, Metrics: s.registry, Tracer: s.tracing.tracer(),
	})
	if s.config.has(roleAPI) {
		g.Go(func() error { return runs.RunSyncs(ctx) })
		s.syncs.runs.Store(runs)
	}
	if s.config.has(roleSweep) {
		g.Go(func() error { return s.charges(r).Run(ctx) })
		g.Go(func() error {
			if s.connected != nil {
				select {
				case <-s.connected:
				case <-ctx.Done():
					return nil
				}
			}
			return runs.RunSweeps(ctx)
		})
	}
}

// charges takes the credit of first charges, where the operator wants that.
func (s *service) charges(r *reconciler.Reconciler) *ingest.Charges {
	p := s.config.policy
	return ingest.NewCharges(ingest.ChargesConfig{
		DB: s.stores.db, Books: r, Client: s.virtfusion, Idle: p.ObserveOnly || p.InitialCharge != reconciler.ChargeDeduct,
		Now: time.Now, Log: s.log, Metrics: s.registry,
	})
}

// sayAgain is how often something that stays wrong is said.
const sayAgain = 5 * time.Second

// retry does something until it succeeds, fails for good
// ([backoff.Permanent]), or ctx ends, which is no error.
//
// What stands in the way is said at once, and then every sayAgain at most, with
// what it means meanwhile.
func retry(ctx context.Context, log zerolog.Logger, what, meanwhile string, try func() error) error {
	pace := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond), backoff.WithMaxInterval(10*time.Second), backoff.WithMaxElapsedTime(0))
	said := rate.Sometimes{First: 1, Interval: sayAgain}
	err := backoff.RetryNotify(try, backoff.WithContext(pace, ctx), func(err error, wait time.Duration) {
		said.Do(func() {
			log.Warn().Err(err).Dur("retry_in", wait).Str("meanwhile", meanwhile).Str("do", "serversync doctor says what is wrong").
				Msgf("%s is not usable yet; trying again", what)
		})
	})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a shutdown that was asked for is no failure
	}
	return err
}

// close lets go of everything, in the order in which it depends on each other.
// The end of ctx does not cut it short.
func (s *service) close(ctx context.Context) error {
	if s.publisher != nil {
		s.publisher.Close()
	}
	err := s.stores.close(ctx)
	s.tracing.close(ctx, s.log)
	return err
}

// printf writes for people; a terminal that went away is no reason to stop.
func printf(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}
