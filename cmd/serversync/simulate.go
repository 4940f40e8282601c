package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

func simulateCommand() *cli.Command {
	return &cli.Command{
		Name:  "simulate",
		Usage: "run a simulated VirtFusion alone: its API, a living fleet, and webhooks",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "listen-addr", Value: "127.0.0.1:8090", Usage: "address of the simulated API", Sources: cli.EnvVars("SIMULATE_LISTEN_ADDR")},
			&cli.StringFlag{Name: "api-token", Value: virtfusionsim.DefaultToken, Usage: "what callers of the API must bear", Sources: cli.EnvVars("SIMULATE_API_TOKEN")},
			&cli.StringFlag{Name: "webhook-url", Usage: "where webhooks go (empty: nowhere)", Sources: cli.EnvVars("SIMULATE_WEBHOOK_URL")},
			&cli.StringFlag{Name: "webhook-token", Usage: "token of the webhooks, in plain", Sources: cli.EnvVars("SIMULATE_WEBHOOK_TOKEN")},
			&cli.BoolFlag{Name: "announce", Value: true, Usage: "report the first servers by webhook too", Sources: cli.EnvVars("SIMULATE_ANNOUNCE")},
		}, simulationFlags()...),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			sim, err := readSimulation(cmd)
			if err != nil {
				return err
			}
			if err := checkAddr(cmd.String("listen-addr")); err != nil {
				return &usageError{fmt.Errorf("--listen-addr: %w", err)}
			}
			log := newLogger(&config{logLevel: zerolog.InfoLevel}, cmd.Root().ErrWriter)
			return simulate(ctx, sim, cmd.String("listen-addr"), cmd.Bool("announce"), virtfusionsim.Config{
				Token: cmd.String("api-token"), WebhookURL: cmd.String("webhook-url"), WebhookToken: cmd.String("webhook-token"),
				Seed: sim.seed, Logger: &log,
			}, log)
		},
	}
}

// simulate runs a simulated VirtFusion until ctx ends.
func simulate(ctx context.Context, sim simulation, addr string, announce bool, c virtfusionsim.Config, log zerolog.Logger) error {
	panel := newPanel(c, skypanelsim.NewWorld())
	fleet, err := virtfusionsim.NewFleet(panel, virtfusionsim.FleetConfig{
		Seed: sim.seed, Rate: sim.rate, Size: sim.size, Announce: announce,
		OnStep: func(step virtfusionsim.Step) { log.Info().Int64("server", step.Server.ID).Msg(step.Line) },
	})
	if err != nil {
		return err
	}
	api, serveAPI, err := listenAPI(ctx, addr, panel)
	if err != nil {
		return err
	}
	log.Info().Str("api", api+"/api/v1").Str("webhooks", c.WebhookURL).Msg("a simulated VirtFusion is running")

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveAPI(ctx) })
	g.Go(func() error { return panel.Run(ctx) })
	g.Go(func() error { return fleet.Run(ctx) })
	return g.Wait()
}

// listenAPI listens for a panel's API and returns its URL, and what serves it
// until its context ends.
func listenAPI(ctx context.Context, addr string, panel *virtfusionsim.Panel) (url string, serve func(context.Context) error, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("listen for the simulated API (choose another address): %w", err)
	}
	server := &http.Server{Handler: panel.Handler(), ReadHeaderTimeout: 5 * time.Second}
	return localURL(listener.Addr()), func(ctx context.Context) error {
		stopped := context.AfterFunc(ctx, func() {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
			defer cancel()
			_ = server.Shutdown(stop) // Serve returns in any case
		})
		defer stopped()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the simulated API: %w", err)
		}
		return nil
	}, nil
}
