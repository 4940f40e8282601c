package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"serversync/db"
	"serversync/events"
	"serversync/ingest"
)

// replay measures the replay of one customer's events.
func (b *bench) replay(ctx context.Context) (err error) {
	const servers = 100
	each := b.amount(60, 3) // events of each server
	m := b.results.section("replay", "Replays",
		fmt.Sprintf("One customer's %d events, of %d servers, read from the stream, published again as a run, reconciled, and followed by a pull of the customer's servers: from the start of the run to its end.", servers*each, servers))
	s, err := b.startBroker(ctx, "nats-replay")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return b.each(ctx, "replay", func(int) error { return b.replayOnce(ctx, m, s, servers, each) })
}

func (b *bench) replayOnce(ctx context.Context, m *measured, s *broker, servers, each int) (err error) {
	f, err := b.newFleet(ctx, s, servers, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	told, err := f.past(each)
	if err != nil {
		return err
	}
	if err := s.told(ctx, told); err != nil {
		return err
	}
	if err := f.reconciled(ctx); err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f.runs.RunSyncs(work) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	return b.profiled("replay", func() error {
		started := time.Now()
		id, err := f.runs.StartReplay(ctx, ingest.ReplayOrder{UserID: firstUser, By: "bench"})
		if err != nil {
			return err
		}
		for {
			run, err := db.ReadRun(ctx, f.books.DB, id)
			if err != nil {
				return err
			}
			switch run.State {
			case db.RunRunning:
				pause(ctx, lookEvery)
			case db.RunSucceeded:
				m.note("replayed", "events/s", perSecond(len(told), time.Since(started)))
				return nil
			default:
				return fmt.Errorf("the replay is %s: %s", run.State, run.Note)
			}
		}
	})
}

// past is what was told of the fleet's servers before they were as they are now.
func (f *fleet) past(each int) ([]*events.Event, error) {
	var told []*events.Event
	now := f.panel.Servers()
	for i := range each {
		for j := range now {
			s := &now[j]
			at := s.Updated.Add(-time.Duration(each-i) * time.Minute)
			told = append(told, heard(events.KindUpdated, "server.build", events.Server{
				ID: s.ID, UUID: &s.UUID, Owner: &events.Owner{ID: s.OwnerID, ExtRelationID: new(int64(firstUser)), Whole: true},
				Name: new(fmt.Sprintf("%s-%d", s.Name, i)), State: &s.State, PackageID: &s.PackageID, UpdatedAt: &at,
			}, at))
		}
	}
	if len(told) == 0 {
		return nil, errors.New("the fleet has no servers")
	}
	return told, nil
}

// reconciled waits until nothing is left to reconcile.
func (f *fleet) reconciled(ctx context.Context) error {
	for ctx.Err() == nil {
		left, err := f.broker.queue(ctx)
		if err != nil || left == 0 {
			return err
		}
		pause(ctx, lookEvery)
	}
	return ctx.Err()
}
