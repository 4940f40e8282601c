package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"serversync/events"
	"serversync/reconciler"
)

// newReconciler is the reconciler as it is in production, but that a new server
// does not wait for a row of SkyPANEL's own.
func newReconciler(k *books, s *broker, live announcer) *reconciler.Reconciler {
	return reconciler.New(reconciler.Config{
		DB: k.DB, Consumer: s.consumer, DeadLetters: events.NewDeadLetters(s.js, events.WithSync(s.Sync())),
		Policy: reconciler.Policy{InitialCharge: reconciler.ChargeRecord}, Now: time.Now, Log: logger(),
		Metrics: prometheus.NewRegistry(), Live: live,
	})
}

// announcer is told what the reconciler has committed.
type announcer interface{ Announce(a events.Announcement) }

// lookEvery is how often is looked whether the reconciler is done.
const lookEvery = 2 * time.Millisecond

// drain runs a reconciler until it has acknowledged everything that is on the
// stream, and returns how long that took.
func drain(ctx context.Context, k *books, s *broker) (time.Duration, error) {
	r := newReconciler(k, s, events.NewLive(s.nc, logger()))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	started := time.Now()
	go func() { done <- r.Run(ctx) }()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		left, err := s.queue(ctx)
		if err != nil {
			return 0, err
		}
		if left == 0 {
			break
		}
		select {
		case <-ticker.C:
		case err := <-done:
			return 0, fmt.Errorf("the reconciler ended before its time: %w", err)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	took := time.Since(started)
	stop()
	return took, <-done
}

// told publishes what webhooks would tell of servers.
func (k *broker) told(ctx context.Context, all []*events.Event) error {
	const part = 2000
	for at := 0; at < len(all); at += part {
		if err := k.publisher.PublishAll(ctx, all[at:min(at+part, len(all))]); err != nil {
			return err
		}
	}
	return nil
}

// history is what is told of some servers, one thing after the other.
type history struct {
	servers []int64
	created time.Time
}

// span is the servers from a number on.
func span(from, count int) *history {
	h := &history{created: born()}
	for i := range count {
		h.servers = append(h.servers, int64(from+i))
	}
	return h
}

// births are the webhooks of their creation.
func (h *history) births() []*events.Event {
	return h.each(func(n int64) *events.Event {
		return heard(events.KindCreated, "server.create", server(n, h.created), h.created.Add(time.Second))
	})
}

// changes are webhooks of another name, state and address.
func (h *history) changes() []*events.Event {
	return h.each(func(n int64) *events.Event {
		return heard(events.KindUpdated, "server.build", h.changed(n), h.created.Add(2*time.Minute))
	})
}

func (h *history) changed(n int64) events.Server {
	s := server(n, h.created)
	*s.Name += "-renamed"
	*s.State = "stopped"
	s.IPAddresses = append(s.IPAddresses, "198.51.100.7")
	s.UpdatedAt = new(h.created.Add(time.Minute))
	return s
}

// repetitions are webhooks that show later what changes have shown.
func (h *history) repetitions() []*events.Event {
	return h.each(func(n int64) *events.Event {
		return heard(events.KindUpdated, "server.build", h.changed(n), h.created.Add(3*time.Minute))
	})
}

// moves are webhooks of another package, which costs another price.
func (h *history) moves() []*events.Event {
	return h.each(func(n int64) *events.Event {
		s := h.changed(n)
		plan := packages()[(n+1)%int64(len(packages()))]
		s.PackageID, s.MemoryMB, s.StorageGB, s.TrafficGB, s.CPUCores = &plan.ID, &plan.MemoryMB, &plan.StorageGB, &plan.TrafficGB, &plan.CPUCores
		s.UpdatedAt = new(h.created.Add(4 * time.Minute))
		return heard(events.KindUpdated, "server.build", s, h.created.Add(5*time.Minute))
	})
}

func (h *history) each(event func(n int64) *events.Event) []*events.Event {
	all := make([]*events.Event, len(h.servers))
	for i, n := range h.servers {
		all[i] = event(n)
	}
	return all
}

// step is one thing that is told of all servers, and the name of its figures.
type step struct {
	name string
	told []*events.Event
}

// reconcile measures the way from the stream into the books.
func (b *bench) reconcile(ctx context.Context) (err error) {
	count := b.amount(6_000, 600)
	m := b.results.section("reconcile", "Events reconciled",
		fmt.Sprintf("%d events lie on the stream; the clock runs from the start of the reconciler until all are committed and acknowledged. "+
			"*new*: servers nobody knew, each of which gets its inventory row, its billing row, its first charge, our record of the row and two lines of history. "+
			"*update*: another name, state and address. *package*: another package, thus another price. *unchanged*: seen again as it was.", count),
		fmt.Sprintf("*raw SQL* writes exactly the same rows into the same tables, with the same indexes and triggers, on one connection: what the reconciler has written is read, and written into another database, %d events a transaction, one statement a table with arrays through `unnest`; nothing is read, decided or acknowledged. "+
			"*seed* is the algorithm of the first draft: one event, one transaction, of a look for the billing row, the billing row, and its first charge; it has no inventory and no history, and gets its events from memory.", rawRows))
	s, err := b.startBroker(ctx, "nats-reconcile")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	err = b.each(ctx, "reconcile", func(round int) error { return b.reconcileOnce(ctx, m, s, round, count) })
	if err != nil {
		return err
	}
	m.compare("reconcile_new_vs_raw_sql", "new", "new, raw SQL", atLeast(0.5), "What is left of PostgreSQL's own speed at the same writes, when every event is read from the stream, decided and acknowledged.")
	m.compare("reconcile_new_vs_seed", "new", "new, seed", atLeast(10), "How many times as many new servers are taken in as by the first draft's algorithm.")
	m.compare("reconcile_unchanged_vs_new", "unchanged", "new", atLeast(3), "What a server in step costs less than a new one.")
	m.compare("reconcile_update_vs_raw_sql", "update", "update, raw SQL", target{}, "As reconcile_new_vs_raw_sql, for changes.")
	m.compare("reconcile_package_vs_raw_sql", "package", "package, raw SQL", target{}, "As reconcile_new_vs_raw_sql, for changes of the price.")
	m.compare("reconcile_unchanged_vs_raw_sql", "unchanged", "unchanged, raw SQL", target{}, "As reconcile_new_vs_raw_sql, for what is in step.")
	return nil
}

func (b *bench) reconcileOnce(ctx context.Context, m *measured, s *broker, round, count int) (err error) {
	ours, err := b.books(ctx, templateName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.drop(ctx)) }()
	raw, err := b.books(ctx, templateName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.drop(ctx)) }()
	before, err := ours.snapshot(ctx)
	if err != nil {
		return err
	}
	h := span(round*count, count)
	seed := func() error { return b.seedRound(ctx, m, h) }
	if round%2 == 1 { // else after the others
		if err := seed(); err != nil {
			return err
		}
	}
	for _, x := range []step{{"new", h.births()}, {"update", h.changes()}, {"unchanged", h.repetitions()}, {"package", h.moves()}} {
		if err := b.reconcileStep(ctx, m, s, ours, x); err != nil {
			return err
		}
		after, err := ours.snapshot(ctx)
		if err != nil {
			return err
		}
		writes, err := after.since(before, (count+rawRows-1)/rawRows)
		if err != nil {
			return err
		}
		before = after
		if err := raw.settle(ctx); err != nil {
			return err
		}
		took, byTable, err := raw.write(ctx, writes)
		if err != nil {
			return err
		}
		m.ceiling(x.name+", raw SQL", "events/s", perSecond(count, took))
		for _, table := range slices.Sorted(maps.Keys(byTable)) {
			m.ceiling(fmt.Sprintf("%s, raw SQL, in %s", x.name, table), "µs/event", float64(byTable[table].Microseconds())/float64(count))
		}
		if err := raw.sameAs(ctx, ours); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	if round%2 == 0 {
		return seed()
	}
	return nil
}

// reconcileStep has the reconciler take in what is told.
func (b *bench) reconcileStep(ctx context.Context, m *measured, s *broker, ours *books, x step) error {
	if err := s.told(ctx, x.told); err != nil {
		return err
	}
	if err := ours.settle(ctx); err != nil {
		return err
	}
	return b.profiled("reconcile_"+x.name, func() error {
		took, err := drain(ctx, ours, s)
		if err != nil {
			return err
		}
		m.note(x.name, "events/s", perSecond(len(x.told), took))
		return s.purge(ctx)
	})
}
