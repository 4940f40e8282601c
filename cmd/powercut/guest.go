//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/ingest"
	"serversync/internal/httpserver"
)

// What a machine does. taskServe is the service itself: see scripts/powercut-vm.sh.
const (
	taskServe = "serve"
	taskList  = "list"  // serves what is on the stream at /events
	taskLate  = "late"  // control: the ingest, synced all the time, but the answer does not wait
	taskNever = "never" // control: the ingest without any sync
)

const (
	webhookToken = "a-token-for-powercut"
	guestAddr    = ":8080"
	guestStore   = "/disk/data/nats" // the service's
)

// beGuest is what this program does in the machine.
func beGuest(ctx context.Context, task string) (err error) {
	log := zerolog.New(zerolog.ConsoleWriter{Out: consoleWriter{}, NoColor: true}).Level(zerolog.WarnLevel)
	broker, err := events.StartBroker(guestStore, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Stop()) }()
	nc, err := broker.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	switch task {
	case taskList:
		return serveList(ctx, js)
	case taskLate, taskNever:
		if _, err := events.EnsureStream(ctx, js, events.StreamOptions{MaxBytes: broker.Room()}); err != nil {
			return err
		}
		if task == taskLate {
			go syncAlways(ctx, broker.Sync())
		}
		return serveUnsynced(ctx, nc)
	default:
		return fmt.Errorf("a machine cannot do %q", task)
	}
}

// consoleWriter writes to the machine's console.
type consoleWriter struct{}

func (consoleWriter) Write(p []byte) (int, error) {
	fmt.Print(string(p))
	return len(p), nil
}

// serveUnsynced is the role ingest, but for the one option that is to be proved.
func serveUnsynced(ctx context.Context, nc *nats.Conn) error {
	publisher, err := events.NewPublisher(nc) //nolint:contextcheck // it has its own time; and no events.WithSync
	if err != nil {
		return err
	}
	defer publisher.Close()
	registry := prometheus.NewRegistry()
	server, err := httpserver.New(httpserver.Config{Addr: guestAddr, Roles: []string{"ingest"}, Registry: registry, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	webhook, err := ingest.NewWebhook(ingest.WebhookConfig{Tokens: []string{webhookToken}}, publisher, registry, zerolog.Nop(), time.Now)
	if err != nil {
		return err
	}
	webhook.Register(server.Echo())
	return server.Run(ctx)
}

func syncAlways(ctx context.Context, sync func() error) {
	for ctx.Err() == nil {
		if err := sync(); err != nil {
			fmt.Println("sync:", err)
			return
		}
	}
}

// serveList serves the stream as it is: for each event a line with its id and
// its server's.
func serveList(ctx context.Context, js jetstream.JetStream) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		out := bufio.NewWriter(w)
		if err := list(r.Context(), js, out); err != nil {
			fmt.Fprintln(out, "error:", err)
		} else {
			fmt.Fprintln(out, "end")
		}
		_ = out.Flush() // whoever asks sees that the end is missing
	})
	server := &http.Server{Addr: guestAddr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.ListenAndServe()
}

func list(ctx context.Context, js jetstream.JetStream, out io.Writer) error {
	stream, err := js.Stream(ctx, events.StreamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the stream: %w", err)
	}
	state := stream.CachedInfo().State
	for sequence := max(1, state.FirstSeq); sequence <= state.LastSeq; sequence++ {
		m, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // if it was answered, it will be missed
		}
		if err != nil {
			return fmt.Errorf("read message %d: %w", sequence, err)
		}
		e, err := events.Decode(m.Data)
		if err != nil {
			return fmt.Errorf("read message %d: %w", sequence, err)
		}
		// The id is a hash of the content.
		said := e.ID
		if err := e.Seal(); err != nil || e.ID != said || m.Header.Get(jetstream.MsgIDHeader) != said {
			return fmt.Errorf("message %d is not what was published: %w", sequence, errors.Join(err, errors.New(said+" became "+e.ID)))
		}
		fmt.Fprintln(out, e.ID, e.Server.ID)
	}
	return nil
}
