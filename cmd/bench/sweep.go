package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"serversync/db"
	"serversync/events"
	"serversync/ingest"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// fleet is a simulated VirtFusion without webhooks, with everything that sweeps
// it.
type fleet struct {
	books  *books
	broker *broker
	panel  *virtfusionsim.Panel
	meter  *wireMeter
	client *virtfusion.Client
	runs   *ingest.Runs
	ahead  atomic.Int64 // of the clock, nanoseconds

	stop context.CancelFunc
	done chan error
}

// maxPerPage is as many as a page of VirtFusion has.
const maxPerPage = virtfusion.MaxPerPage

// newFleet makes a fleet of servers of the first so many customers.
func (b *bench) newFleet(ctx context.Context, s *broker, servers, owners int) (*fleet, error) {
	k, err := b.books(ctx, templateName)
	if err != nil {
		return nil, err
	}
	f := &fleet{books: k, broker: s, done: make(chan error, 1)}
	fail := func(err error) (*fleet, error) { return nil, errors.Join(err, k.drop(ctx)) }
	f.panel = virtfusionsim.New(virtfusionsim.Config{Clock: f.clock, Seed: 7})
	world := company()
	for _, a := range world.Accounts {
		f.panel.AddUser(virtfusionsim.User{ID: a.ID, ExtRelationID: a.ExtRelationID, Name: a.Name})
	}
	for _, p := range world.Packages {
		f.panel.AddPackage(virtfusionsim.Package{ID: p.ID, Name: p.Name, MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores})
	}
	f.panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 1, Name: "host1", GroupID: 1})
	created := f.clock().Add(-24 * time.Hour)
	for i := range servers {
		if _, err := f.panel.CreateServer(virtfusionsim.CreateArgs{
			OwnerID: world.Accounts[i%owners].ID, PackageID: world.Packages[i%len(world.Packages)].ID,
			Name: fmt.Sprintf("srv%d", i), Built: true, Silent: true, Created: created,
		}); err != nil {
			return fail(err)
		}
	}
	f.meter = &wireMeter{panel: f.panel.Handler()}
	f.client, err = virtfusion.New(virtfusion.Config{
		BaseURL: "http://cp.example", Token: virtfusionsim.DefaultToken, Budget: virtfusion.NewBudget(1e9), Clock: f.clock, Transport: f.meter,
	})
	if err != nil {
		return fail(err)
	}
	limit, err := ingest.ParseMaxChanges("100%")
	if err != nil {
		return fail(err)
	}
	live := events.NewLive(s.nc, logger())
	r := newReconciler(k, s, live)
	f.runs = ingest.NewRuns(ingest.RunsConfig{
		DB: k.DB, Client: func(context.Context) (*virtfusion.Client, error) { return f.client, nil },
		Publisher: s.publisher, Past: events.NewReplayer(s.js, s.publisher), Books: r, Interval: 15 * time.Minute, MaxChanges: limit,
		Live: live, Now: f.clock, Log: logger(), Metrics: prometheus.NewRegistry(),
	})
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	go func() { f.done <- r.Run(work) }()
	return f, nil
}

func (f *fleet) close(ctx context.Context) error {
	f.stop()
	return errors.Join(<-f.done, f.broker.purge(context.WithoutCancel(ctx)), f.books.drop(ctx))
}

func (f *fleet) clock() time.Time { return time.Now().UTC().Add(time.Duration(f.ahead.Load())) }

// sweep does one, to its end.
func (f *fleet) sweep(ctx context.Context) (*db.Run, error) {
	f.ahead.Add(int64(time.Minute)) // what was seen before is older
	id, _, err := db.StartRun(ctx, f.books.DB, db.NewSweep(false, "bench", f.clock()))
	if err != nil {
		return nil, err
	}
	if err := f.runs.Due(ctx); err != nil {
		return nil, err
	}
	run, err := db.ReadRun(ctx, f.books.DB, id)
	if err != nil {
		return nil, err
	}
	if run.State != db.RunSucceeded {
		return nil, fmt.Errorf("the sweep is %s: %s", run.State, run.Note)
	}
	return &run, nil
}

// sweeps measures sweeps of fleets in step, and of fleets nobody knows.
func (b *bench) sweeps(ctx context.Context) (err error) {
	sizes := []int{1_000, 10_000, 100_000}
	if b.quick {
		sizes = []int{100, 200}
	}
	largest := len(sizes) - 1
	m := b.results.section("sweep", "Sweeps",
		"Of a simulated VirtFusion in the same process, whose answers cost their time too. *in step*: all servers are in the books as they are; the time that is not spent waiting for VirtFusion's answers, by server, and the most memory that was in use beyond what was before (the simulator's garbage is in it). "+
			"*new*: nobody knew any of them; from the start of the sweep until the last billing row is committed, waiting included. The largest fleet was swept once when it was new.")
	s, err := b.startBroker(ctx, "nats-sweep")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for i, size := range sizes {
		if i == largest {
			b.tell("sweep of %s new servers", number(float64(size)))
			err = b.sweepNew(ctx, m, s, size)
		} else {
			err = b.each(ctx, fmt.Sprintf("sweep of %s new servers", number(float64(size))), func(int) error { return b.sweepNew(ctx, m, s, size) })
		}
		if err != nil {
			return err
		}
		if err := b.sweepsInStep(ctx, m, s, size); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) sweepNew(ctx context.Context, m *measured, s *broker, size int) (err error) {
	f, err := b.newFleet(ctx, s, size, customers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	return b.profiled(fmt.Sprintf("sweep_new_%d", size), func() error {
		started := time.Now()
		if _, err := f.sweep(ctx); err != nil {
			return err
		}
		m.note(fmt.Sprintf("new, %s servers", number(float64(size))), "servers/s", perSecond(size, time.Since(started)))
		return f.complete(ctx, size)
	})
}

// complete fails unless all servers are billed.
func (f *fleet) complete(ctx context.Context, size int) error {
	rows, err := f.books.count(ctx, "public.virtfusion_hourly_billing")
	if err == nil && rows != int64(size) {
		err = fmt.Errorf("%d servers have %d billing rows", size, rows)
	}
	return err
}

func (b *bench) sweepsInStep(ctx context.Context, m *measured, s *broker, size int) (err error) {
	f, err := b.newFleet(ctx, s, size, customers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	if err := f.record(ctx); err != nil {
		return err
	}
	if _, err := f.sweep(ctx); err != nil { // warms up
		return err
	}
	name := fmt.Sprintf("in step, %s servers", number(float64(size)))
	return b.each(ctx, "sweep of servers "+name, func(int) error {
		idle := heapInUse()
		f.meter.reset(idle)
		return b.profiled(fmt.Sprintf("sweep_insync_%d", size), func() error {
			started := time.Now()
			run, err := f.sweep(ctx)
			if err != nil {
				return err
			}
			own := time.Since(started) - time.Duration(f.meter.waited.Load())
			if run.Progress.Drift != 0 || run.Progress.Listed != int64(size) {
				return fmt.Errorf("the fleet is not in step: %s, %+v", run.Note, run.Progress)
			}
			m.note(name, "µs/server", float64(own.Microseconds())/float64(size))
			m.note(name+", memory", "MiB", float64(f.meter.peak.Load()-int64(idle))/(1<<20)) //nolint:gosec // G115: memory is small
			return nil
		})
	})
}

// record puts the fleet into the books as it is.
func (f *fleet) record(ctx context.Context) error {
	for page := 1; ; page++ {
		list, err := f.client.ListServers(ctx, page, maxPerPage, true)
		if err != nil {
			return err
		}
		servers := make([]db.Server, len(list.Servers))
		for i := range list.Servers {
			s := &list.Servers[i]
			servers[i] = db.Server{
				VirtfusionID: s.ID, UUID: *s.UUID, OwnerID: *s.OwnerID, OwnerExtRelationID: s.Owner.ExtRelationID,
				Name: *s.Name, State: *s.State, CommissionStatus: s.CommissionStatus, PackageID: s.PackageID,
				MemoryMB: s.MemoryMB, StorageGB: s.StorageGB, TrafficGB: s.TrafficGB, CPUCores: s.CPUCores, IPAddresses: s.IPAddresses,
				HypervisorID: s.HypervisorID, HypervisorName: *s.HypervisorName, HypervisorGroupID: s.HypervisorGroupID,
				CreatedAt: s.Created, UpdatedAt: s.Updated, BuiltAt: s.Built,
				Status: "external", Billing: "on", Confirmed: true, ObservedAt: f.clock(), ObservedSource: "sweep", ObservedEventID: "x",
				FirstSeenAt: f.clock(), LastSeenAt: f.clock(),
			}
		}
		if err := db.UpsertServers(ctx, f.books.DB, servers); err != nil {
			return err
		}
		if !list.HasNext {
			break
		}
	}
	return f.books.exec(ctx,
		`UPDATE serversync.servers s SET user_id = u.id FROM users u WHERE u.virtfusion_id = s.owner_id`,
		`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name,
			monthly_price, hourly_rate, hours_in_month, billing_enabled, server_created_at, last_billed_at, reference_1)
		SELECT s.user_id, s.virtfusion_id, s.virtfusion_id, s.uuid, s.package_id, p.name, p.price / 100.0, round(p.price / 73000.0, 6), 730, true,
			s.created_at, s.created_at + interval '1 day', 'external_server_' || s.virtfusion_id
		FROM serversync.servers s JOIN package_pricing p ON p.virtfusion_package_id = s.package_id`,
		`INSERT INTO serversync.billing_rows (billing_id, virtfusion_id, made_by, user_id, enabled, package_id, monthly_price, last_billed_at, created_at, updated_at)
		SELECT id, virtfusion_server_id, 'serversync', user_id, true, package_id, monthly_price, last_billed_at, '2026-01-01', '2026-01-01' FROM virtfusion_hourly_billing`,
		`UPDATE serversync.servers s SET billing_id = b.id, note = 'made outside SkyPANEL, billed ' || round(b.monthly_price, 2) || ' a month' ||
			CASE WHEN round(b.monthly_price / 7.3) * 7.3 <> b.monthly_price THEN ', ' || round(round(b.monthly_price / 7.3) * 7.3, 2) || ' as charged' ELSE '' END, settle_until = s.created_at
		FROM virtfusion_hourly_billing b WHERE b.virtfusion_server_id = s.virtfusion_id`,
		`VACUUM ANALYZE`)
}

// wireMeter is the way to the simulated VirtFusion, without a network. It
// measures how long is waited for answers, and the memory in use.
type wireMeter struct {
	panel  http.Handler
	waited atomic.Int64 // nanoseconds
	calls  atomic.Int64
	peak   atomic.Int64 // bytes
}

func (w *wireMeter) reset(idle uint64) {
	w.waited.Store(0)
	w.peak.Store(int64(idle)) //nolint:gosec // G115: memory is small
}

// RoundTrip implements [http.RoundTripper].
func (w *wireMeter) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.calls.Add(1)%5 == 0 {
		w.peak.Store(max(w.peak.Load(), inUse()))
	}
	started := time.Now()
	answer := httptest.NewRecorder()
	w.panel.ServeHTTP(answer, r)
	w.waited.Add(int64(time.Since(started)))
	return answer.Result(), nil
}
