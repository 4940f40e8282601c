package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"serversync/events"
)

// rawBatch is how many messages are committed together.
const rawBatch = 256

// finished are messages that have only to be published.
func finished(n *numbers, count int) ([]*nats.Msg, error) {
	created := born()
	all := make([]*nats.Msg, count)
	for i := range all {
		var err error
		if all[i], err = message(heard(events.KindCreated, "server.create", server(n.next(), created), time.Now())); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// atomicBatches publishes atomic batches to a broker that syncs every write.
func (b *bench) atomicBatches(ctx context.Context, m *measured, k *broker, n *numbers) error {
	messages, err := finished(n, b.amount(20*rawBatch, rawBatch))
	if err != nil {
		return err
	}
	started := time.Now()
	for at := 0; at < len(messages); at += rawBatch {
		batch, err := jetstreamext.NewBatchPublisher(k.js)
		if err != nil {
			return fmt.Errorf("begin a batch: %w", err)
		}
		for _, msg := range messages[at : at+rawBatch-1] {
			if err := batch.AddMsg(msg); err != nil {
				return fmt.Errorf("add to a batch: %w", err)
			}
		}
		if _, err := batch.CommitMsg(ctx, messages[at+rawBatch-1]); err != nil {
			return fmt.Errorf("commit a batch: %w", err)
		}
	}
	m.ceiling("JetStream, atomic batches of 256", "/s", perSecond(len(messages), time.Since(started)))
	return k.purge(ctx)
}

// grouped publishes groups asynchronously, and syncs the store after each.
func (b *bench) grouped(ctx context.Context, m *measured, k *broker, n *numbers) error {
	if k.Sync() == nil {
		return nil // not to be had here
	}
	messages, err := finished(n, b.amount(80*rawBatch, rawBatch))
	if err != nil {
		return err
	}
	started := time.Now()
	for at := 0; at < len(messages); at += rawBatch {
		futures := make([]jetstream.PubAckFuture, rawBatch)
		for i, msg := range messages[at : at+rawBatch] {
			if futures[i], err = k.js.PublishMsgAsync(msg); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return fmt.Errorf("publish: %w", err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := k.Sync()(); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err())
	}
	m.ceiling("JetStream, grouped by 256", "/s", perSecond(len(messages), time.Since(started)))
	return k.purge(ctx)
}
