//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"serversync/cmd/internal/siege"
	"serversync/db"
	"serversync/events"
)

// errFound says that the report has findings.
var errFound = errors.New("what was answered 202 is not in the books exactly once: see above")

// check leaves the service in peace until the books are in step, and then
// compares them, and the stream, with what was answered.
func (c *chaos) check(ctx context.Context) error {
	database, err := db.Open(c.service.dsn())
	if err != nil {
		return err
	}
	defer func() { _ = database.Close() }()
	calm := time.Now()
	c.report.lost = siege.Drained(ctx, database, c.world.Accepted())
	c.report.inStep = time.Since(calm)
	if c.report.servers, c.report.rows, err = siege.Count(ctx, database); err != nil {
		return err
	}
	if c.report.doubled, err = siege.Doubled(ctx, database); err != nil {
		return err
	}
	c.service.Signal(syscall.SIGTERM)
	if err := c.service.Await(ctx, 15*time.Second); err != nil {
		return err
	}
	unstored, err := c.stream(ctx)
	if err != nil {
		return err
	}
	c.report.lost = append(c.report.lost, unstored...)
	c.report.checked = true
	if len(c.report.lost)+len(c.report.doubled) > 0 {
		return errFound
	}
	return nil
}

// stream opens the event store of the service, which has ended, and says what
// it should hold and does not.
func (c *chaos) stream(ctx context.Context) (lines []string, err error) {
	broker, err := events.StartBroker(filepath.Join(c.data, "nats"), zerolog.Nop())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, broker.Stop()) }()
	nc, err := broker.Connect()
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return siege.Stored(ctx, js, c.world.Accepted())
}
