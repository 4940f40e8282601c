package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"serversync/db/skypanelsim"
	"serversync/events"
	"serversync/virtfusion/virtfusionsim"
)

// simulation is how lively a simulated VirtFusion is.
type simulation struct {
	rate float64 // things that happen a second
	size int     // servers it starts with, and stays near
	seed uint64
	// hour is how long an hour of SkyPANEL's billing lasts; 0: an hour. Of the demo.
	hour time.Duration
}

// simulationFlags are shared by demo and simulate.
func simulationFlags() []cli.Flag {
	return []cli.Flag{
		&cli.FloatFlag{Name: "rate", Value: 1, Usage: "what happens in VirtFusion, a second", Sources: cli.EnvVars("SIMULATE_RATE")},
		&cli.IntFlag{Name: "size", Value: 12, Usage: "servers that the fleet starts with, and stays near", Sources: cli.EnvVars("SIMULATE_SIZE")},
		&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "the same seed gives the same story", Sources: cli.EnvVars("SIMULATE_SEED")},
	}
}

func readSimulation(cmd *cli.Command) (simulation, error) {
	s := simulation{rate: cmd.Float("rate"), size: cmd.Int("size"), seed: cmd.Uint64("seed")}
	if !(s.rate > 0) || s.rate > 10_000 || s.size < 1 || s.size > 1_000_000 {
		return s, &usageError{errors.New("--rate must be above 0 and at most 10000, --size from 1 to 1000000")}
	}
	return s, nil
}

// hourFlag is the demo's.
func hourFlag() cli.Flag {
	return &cli.DurationFlag{
		Name: "hour", Value: 10 * time.Second, Usage: "how long an hour lasts that SkyPANEL bills (0: an hour)", Sources: cli.EnvVars("SIMULATE_HOUR"),
	}
}

// readHour reads it into a simulation.
func readHour(cmd *cli.Command, s *simulation) error {
	s.hour = cmd.Duration("hour")
	if s.hour != 0 && (s.hour < time.Second || s.hour > time.Hour) {
		return &usageError{errors.New("--hour must be from 1s to 1h, or 0: SkyPANEL bills real hours")}
	}
	return nil
}

// demoSettings are serve's, with the demo's defaults.
func demoSettings() []setting {
	all := settings()
	for i := range all {
		switch all[i].env {
		case "LISTEN_ADDR":
			all[i].fallback = "127.0.0.1:8080"
		case "SETTLE_DELAY":
			all[i].fallback = "1s"
		case "LOG_FORMAT":
			all[i].fallback = "console"
		}
	}
	return all
}

func demoCommand() *cli.Command {
	all := demoSettings()
	return &cli.Command{
		Name:  "demo",
		Usage: "run the service with a simulated VirtFusion and SkyPANEL",
		Description: "Starts from nothing each time, in DATA_DIR/demo: an embedded PostgreSQL with a small SkyPANEL,\n" +
			"an embedded NATS, a simulated VirtFusion with a living fleet, and the service.",
		Flags: append(append(flags(all), simulationFlags()...), hourFlag()),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := readConfig(cmd, all)
			if err != nil {
				return err
			}
			c.demo = true
			sim, err := readSimulation(cmd)
			if err != nil {
				return err
			}
			if err := readHour(cmd, &sim); err != nil {
				return err
			}
			return demo(ctx, &c, sim, cmd.Root().Writer, newLogger(&c, cmd.Root().ErrWriter))
		},
	}
}

// demo runs the service in a world of its own, which begins anew each time.
func demo(ctx context.Context, c *config, sim simulation, out io.Writer, log zerolog.Logger) (err error) {
	release, err := freshWorld(c)
	if err != nil {
		return err
	}
	c.policy.Hour = sim.hour
	defer func() { err = errors.Join(err, release()) }()
	if len(c.webhookTokens) == 0 {
		c.webhookTokens = []string{rand.Text()}
	}
	if c.sessionSecret == "" {
		c.sessionSecret = rand.Text()
	}
	printf(out, "serversync demo: starting PostgreSQL, NATS, a simulated VirtFusion and the service …\n")
	s, err := open(ctx, c, log)
	if err != nil {
		return err
	}
	if err := s.refuseOccupied(ctx); err != nil {
		return errors.Join(err, s.close(ctx))
	}
	s.connected = make(chan struct{})
	var links *signIns
	if s.api != nil {
		links = &signIns{db: s.stores.db, secret: c.sessionSecret, base: func() string { return localURL(s.http.Addr()) }, out: out, now: time.Now}
		links.register(s.http.Echo())
	}
	s.extra = append(s.extra, func(ctx context.Context) error { return s.live(ctx, sim, links, out) })
	return errors.Join(s.run(ctx), s.close(ctx))
}

// freshWorld empties DATA_DIR/demo, which nothing but a demo ever writes, and
// keeps other demos out of it.
func freshWorld(c *config) (release func() error, err error) {
	if err := makeDataDir(c.dataDir); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(c.dataDir, "demo.lock"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the demo's directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("another demo runs in %s: stop it, or set DATA_DIR and LISTEN_ADDR to others", c.dataDir)
	}
	c.adminTokenDir = c.dataDir
	c.dataDir = filepath.Join(c.dataDir, "demo")
	if err := os.RemoveAll(c.dataDir); err != nil {
		return nil, errors.Join(fmt.Errorf("empty the demo's directory: %w", err), lock.Unlock())
	}
	return lock.Unlock, nil
}

// refuseOccupied keeps the demo's invented servers out of anybody's books, and
// its reconciler away from anybody's events: external stores must be empty.
// Nothing has been written yet.
func (s *service) refuseOccupied(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if s.config.databaseURL != "" {
		var used bool
		err := s.stores.db.NewRaw(`SELECT to_regclass('public.users') IS NOT NULL OR to_regnamespace('serversync') IS NOT NULL`).Scan(ctx, &used)
		if err != nil {
			return fmt.Errorf("look into the database of DATABASE_URL: %w", err)
		}
		if used {
			return &usageError{errors.New("the database of DATABASE_URL is somebody's: give the demo an empty one, or unset DATABASE_URL")}
		}
	}
	if s.config.natsURL != "" {
		switch _, err := s.js.Stream(ctx, events.StreamName); {
		case err == nil:
			return &usageError{fmt.Errorf("the broker of NATS_URL has a stream %s already: give the demo another broker, or unset NATS_URL", events.StreamName)}
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("look at the broker of NATS_URL: %w", err)
		}
	}
	return nil
}

// live lets the demo's world live until ctx ends.
func (s *service) live(ctx context.Context, sim simulation, links *signIns, out io.Writer) error {
	for _, ready := range []<-chan struct{}{s.migrated, s.http.Ready()} {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
	}
	world := skypanelsim.NewWorld()
	if err := skypanelsim.Seed(ctx, s.stores.db, world); err != nil {
		return err
	}

	log := s.log.With().Str("part", "simulation").Logger()
	panel := newPanel(virtfusionsim.Config{
		WebhookURL: localURL(s.http.Addr()) + "/webhooks/virtfusion", WebhookToken: s.config.webhookTokens[0],
		Seed: sim.seed, Logger: &log,
	}, world)
	fleet, err := virtfusionsim.NewFleet(panel, virtfusionsim.FleetConfig{
		Seed: sim.seed, Rate: sim.rate, Size: sim.size, Announce: true,
		OnStep: func(step virtfusionsim.Step) {
			log.Info().Int64("server", step.Server.ID).Msg("VirtFusion: " + step.Line)
		},
	})
	if err != nil {
		return err
	}
	held := &orders{keep: sim.size, destroy: panel.Destroy}
	shop, err := skypanelsim.NewShop(s.stores.db, world, orderAt(panel), skypanelsim.ShopConfig{
		Seed: sim.seed, Rate: sim.rate / 10, PayUpfront: true, Hour: sim.hour,
		OnOrder: func(r skypanelsim.Receipt, err error) {
			if err = errors.Join(err, r.InsertErr); err != nil {
				log.Warn().Err(err).Msg("SkyPANEL: an order failed")
				return
			}
			log.Info().Int64("server", r.Server.ID).Msgf("SkyPANEL: %s ordered %s; its own billing row is %d", r.Customer.FullName, r.Package.Name, r.BillingID)
			for _, old := range held.add(r) {
				log.Info().Int64("server", old.Server.ID).Msgf("SkyPANEL: %s cancelled server %d", old.Customer.FullName, old.Server.ID)
			}
		},
	})
	if err != nil {
		return err
	}
	api, serveAPI, err := listenAPI(ctx, "127.0.0.1:0", panel)
	if err != nil {
		return err
	}
	if err := skypanelsim.Connect(ctx, s.stores.db, api, virtfusionsim.DefaultToken); err != nil {
		return err
	}
	if err := exhibit(ctx, s.stores.db, world, panel, sim.hour); err != nil {
		return err
	}
	s.introduce(world, links, sim.hour, out)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(s.connected)
		s.hear(ctx, len(panel.Servers()))
		return nil
	})
	g.Go(func() error { return serveAPI(ctx) })
	g.Go(func() error { return panel.Run(ctx) })
	g.Go(func() error { return fleet.Run(ctx) })
	g.Go(func() error { return shop.Run(ctx) })
	bills := newBillWatch(s.stores.db, sim.hour, log)
	g.Go(func() error { return bills.job(panel).Run(ctx) })
	err = g.Wait()
	printf(out, "%s", bills.summary())
	return err
}

// hear waits until serversync has heard of so many servers by webhook. The first
// sweep would take them for the drift of a whole fleet, and ask a person.
func (s *service) hear(ctx context.Context, servers int) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var known int
		if err := s.stores.db.NewRaw(`SELECT count(*) FROM serversync.servers`).Scan(ctx, &known); err != nil || known >= servers {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// newPanel is a simulated VirtFusion with the world's users and packages.
func newPanel(c virtfusionsim.Config, world skypanelsim.World) *virtfusionsim.Panel {
	panel := virtfusionsim.New(c)
	for _, a := range world.Accounts {
		user := virtfusionsim.User{ID: a.ID, Name: a.Name}
		if a.ExtRelationID != 0 {
			user.ExtRelationID = a.ExtRelationID
		}
		panel.AddUser(user)
	}
	for _, p := range world.Packages {
		panel.AddPackage(virtfusionsim.Package{
			ID: p.ID, Name: p.Name,
			MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores,
		})
	}
	return panel
}

// guest is the customer as whom the demo lets people look: Beatriz.
const guest = 2

// exhibit adds what everybody who looks is to find, whatever the fleet does: it
// leaves these servers alone. Beatriz has servers that were made outside
// SkyPANEL, one of them of a package without a price, and one that she ordered;
// and one server is of somebody whom SkyPANEL does not know.
func exhibit(ctx context.Context, database *bun.DB, world skypanelsim.World, panel *virtfusionsim.Panel, hour time.Duration) error {
	const beatriz, nobody = 7, 12 // VirtFusion's ids
	const small, large, custom = 3, 5, 7
	for _, args := range []virtfusionsim.CreateArgs{
		{OwnerID: beatriz, PackageID: large, Name: "shop", Hostname: "shop.barros.example"},
		{OwnerID: beatriz, PackageID: small, Name: "blog", Hostname: "blog.barros.example"},
		{OwnerID: beatriz, PackageID: custom, Name: "render", Hostname: "render.barros.example"},
		{OwnerID: nobody, PackageID: small, Name: "stray", Hostname: "stray.example"},
	} {
		args.Built, args.ByHand = true, true
		if _, err := panel.CreateServer(args); err != nil {
			return fmt.Errorf("make the server %s: %w", args.Name, err)
		}
	}
	for _, u := range world.Users {
		if u.ID != guest {
			continue
		}
		r, err := skypanelsim.Order(ctx, database, u, world.ForSale()[0], orderAt(panel), nil)
		if err = errors.Join(err, r.InsertErr); err == nil {
			_, err = skypanelsim.PayUpfrontFor(ctx, database, r, hour)
		}
		if err != nil {
			return fmt.Errorf("order for %s: %w", u.FullName, err)
		}
	}
	return nil
}

// orderAt is how SkyPANEL creates a server at VirtFusion.
func orderAt(panel *virtfusionsim.Panel) skypanelsim.CreateFunc {
	return func(_ context.Context, ownerID, packageID int64) (skypanelsim.Server, error) {
		server, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: ownerID, PackageID: packageID})
		if err != nil {
			return skypanelsim.Server{}, err
		}
		return skypanelsim.Server{ID: server.ID, UUID: server.UUID, Created: server.Created}, nil
	}
}

// orders are the servers that customers ordered and hold, the oldest first. For
// one goroutine.
type orders struct {
	keep    int // as many are held; beyond, the oldest is cancelled
	destroy func(serverID int64) (virtfusionsim.Server, error)
	held    []skypanelsim.Receipt
}

// add adds an order and returns those that are cancelled for it, so that a demo
// that is left running does not grow for ever.
func (o *orders) add(r skypanelsim.Receipt) (cancelled []skypanelsim.Receipt) {
	o.held = append(o.held, r)
	for len(o.held) > o.keep {
		old := o.held[0]
		o.held = o.held[1:]
		if _, err := o.destroy(old.Server.ID); err == nil { // else somebody was faster
			cancelled = append(cancelled, old)
		}
	}
	return cancelled
}

// introduce says where to look.
func (s *service) introduce(world skypanelsim.World, links *signIns, hour time.Duration, out io.Writer) {
	base := localURL(s.http.Addr())
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-11s "+format+"\n", append([]any{what}, args...)...)
	}
	fmt.Fprintf(&b, "\nserversync demo is running. Stop it with Ctrl-C.\n\n")
	if links != nil {
		line("page", "%s/", base)
		for i, v := range visitors(world) {
			line([]string{"sign in as", ""}[min(i, 1)], "%-15s %s   (%s)", v.name, links.link(v), v.page)
		}
		line("", "Each link works once; the next is printed below. A browser is one of them at a time:")
		line("", "open the other in a private window.")
		b.WriteString("\n")
	}
	more := ""
	if base != "http://127.0.0.1:8080" {
		more += " --url " + base
	}
	if s.config.adminTokenDir != "./data" {
		more += " --data-dir " + s.config.adminTokenDir
	}
	what := "commands"
	for _, command := range []string{"status", "sweep", "explain 1"} {
		line(what, "%s %s%s", os.Args[0], command, more)
		what = ""
	}
	if s.stores.postgres != nil {
		line("the books", "psql \"%s\" -c 'SELECT virtfusion_id, name, user_id, status, billing, billing_reason, note FROM serversync.servers ORDER BY 1'",
			s.stores.postgres.DSN(databaseName))
	}
	token := "ADMIN_TOKEN"
	if s.config.adminToken == "" {
		token = "the token in " + filepath.Join(s.config.adminTokenDir, adminTokenFile)
	}
	line("interface", "%s/openapi.yaml   (the admin's routes take %s)", base, token)
	line("health", "%s/readyz", base)
	line("metrics", "%s/metrics", base)
	line("webhooks", "%s/webhooks/virtfusion   (Authorization: Bearer <base64 of %s>)", base, s.config.webhookTokens[0])
	if hour > 0 {
		line("time", "is real, but SkyPANEL bills in fast motion: an hour of its billing lasts %s, a month of 730 hours %s.", hour, 730*hour)
		line("", "What an hour costs is real too. --hour 0 has it bill real hours.")
	}
	fmt.Fprintf(&b, "\nEach line below is something that happened in VirtFusion or SkyPANEL, or what serversync made of it.\n\n")
	printf(out, "%s", b.String())
}

// localURL is how this machine reaches a server that listens on an address.
func localURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
