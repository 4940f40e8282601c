package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"serversync/events"
	"serversync/ingest"
	"serversync/internal/httpserver"
)

// publisher is what the webhook endpoint puts its events on the stream with.
type publisher interface {
	Publish(ctx context.Context, e *events.Event) (events.Ack, error)
}

// endpoint is the webhook endpoint as it is in production, on a port of the
// loopback interface.
type endpoint struct {
	addr string
	stop context.CancelFunc
	done chan error
}

func startEndpoint(ctx context.Context, p publisher) (*endpoint, error) {
	registry := prometheus.NewRegistry()
	server, err := httpserver.New(httpserver.Config{Addr: "127.0.0.1:0", Registry: registry, Log: logger()})
	if err != nil {
		return nil, fmt.Errorf("set up HTTP: %w", err)
	}
	hook, err := ingest.NewWebhook(ingest.WebhookConfig{Tokens: []string{webhookToken}}, p, registry, logger(), time.Now)
	if err != nil {
		return nil, fmt.Errorf("set up the webhook: %w", err)
	}
	hook.Register(server.Echo())
	return serve(ctx, server)
}

// serve runs a server until it is closed.
func serve(ctx context.Context, server *httpserver.Server) (*endpoint, error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &endpoint{stop: stop, done: make(chan error, 1)}
	go func() { e.done <- server.Run(ctx) }()
	select {
	case err := <-e.done:
		stop()
		return nil, err
	case <-server.Ready():
	}
	e.addr = server.Addr().String()
	return e, nil
}

func (e *endpoint) close() error {
	e.stop()
	return <-e.done
}
