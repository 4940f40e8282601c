package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"serversync/events"
	"serversync/virtfusion"
)

// serverGetter is VirtFusion, as far as a refetch asks it.
type serverGetter interface {
	GetServer(ctx context.Context, id int64) (virtfusion.Observation, error)
}

// Refetcher asks VirtFusion for single servers and publishes what it says.
type Refetcher struct {
	// client gives the API client of the moment: the token may be rotated.
	client    func(ctx context.Context) (serverGetter, error)
	publisher publisher
	now       func() time.Time
}

// NewRefetcher returns a refetcher. client is asked before each round for the
// API client to use; an error of it says what is not configured.
func NewRefetcher(client func(ctx context.Context) (*virtfusion.Client, error), p publisher, now func() time.Time) *Refetcher {
	get := func(ctx context.Context) (serverGetter, error) { return client(ctx) }
	return &Refetcher{client: get, publisher: p, now: now}
}

// Refetch asks for each server, by VirtFusion id, and publishes the answer as
// an observation; a 404 of VirtFusion's own is an end. It goes on after a
// failure, and returns all of them joined.
func (r *Refetcher) Refetch(ctx context.Context, serverIDs []int64) error {
	client, err := r.client(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for _, id := range serverIDs {
		if err := r.one(ctx, client, id); err != nil {
			failures = append(failures, fmt.Errorf("ask VirtFusion for server %d: %w", id, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failures...)
}

func (r *Refetcher) one(ctx context.Context, client serverGetter, id int64) error {
	seen, err := client.GetServer(ctx, id)
	e := events.Event{
		Kind: events.KindObserved, Source: events.SourceRefetch,
		ObservedAt: plausible(seen.ObservedAt, r.now()), ReceivedAt: r.now().UTC(),
	}
	failed, said := errors.AsType[*virtfusion.Error](err)
	switch {
	case err == nil:
		e.Server = keep(&seen.Server)
		if e.Server.ID != id {
			return fmt.Errorf("it answered with server %d", e.Server.ID)
		}
	case errors.Is(err, virtfusion.ErrNotFound) && said:
		e.Kind, e.Server, e.ObservedAt = events.KindDestroyed, events.Server{ID: id}, plausible(failed.ObservedAt, r.now())
	default:
		return err
	}
	_, err = r.publisher.Publish(ctx, &e)
	return err
}
