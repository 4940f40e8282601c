package events

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

const (
	// roamEvery is how often a connection is looked at; roamAfter how many looks
	// in a row must find it useless.
	roamEvery = 2 * time.Second
	roamAfter = 3
)

// Roam has the connection of a JetStream and its publisher leave a server that
// is there and of no use, until ctx ends: one that is cut off from its cluster
// still answers its clients, but confirms nothing. Where there is no other
// server it does nothing.
func Roam(ctx context.Context, js jetstream.JetStream, p *Publisher, log zerolog.Logger) error {
	nc := js.Conn()
	ticker := time.NewTicker(roamEvery)
	defer ticker.Stop()
	useless := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if !nc.IsConnected() || len(nc.Servers()) < 2 {
			useless = 0
			continue
		}
		err := useful(ctx, js, p)
		if err == nil {
			useless = 0
			continue
		}
		if useless++; useless < roamAfter || ctx.Err() != nil {
			continue
		}
		useless = 0
		log.Warn().Err(err).Str("server", nc.ConnectedServerName()).Msg("this server of the broker confirms nothing; going to another one")
		if err := nc.ForceReconnect(); err != nil {
			log.Error().Err(err).Msg("the connection to the broker cannot be moved")
		}
	}
}

// useful is nil when the stream's leader can be reached, and events are
// confirmed as far as anybody has tried.
func useful(ctx context.Context, js jetstream.JetStream, p *Publisher) error {
	if lasts, err := p.Trouble(); lasts > patience {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, roamEvery)
	defer cancel()
	if _, err := js.Stream(ctx, StreamName); Passing(err) {
		return err
	}
	return nil
}
