//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"serversync/db"
	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

const (
	// senders deliver webhooks at the same time.
	senders = 8
	// stepEvery is the pace of the fleet.
	stepEvery = 4 * time.Millisecond

	apiToken = virtfusionsim.DefaultToken
)

// accepted is a webhook that was answered 202.
type accepted struct {
	id       string // the answer's
	serverID int64
	event    string
	created  time.Time // VirtFusion's time of the event
	name     string    // of the server then; empty: not said
}

// world is a simulated VirtFusion whose webhooks go to the service.
type world struct {
	panel   *virtfusionsim.Panel
	fleet   *virtfusionsim.Fleet
	service *service
	api     *http.Server

	mu       sync.Mutex
	sent     int
	accepted []accepted
	latest   time.Time                   // when the latest sent of them was sent
	outbox   chan virtfusionsim.Delivery // of the round
}

// newWorld fills the books with customers and prices and makes a fleet for
// them.
func newWorld(ctx context.Context, s *service, seed uint64) (*world, error) {
	company := skypanelsim.NewWorld()
	database, err := db.Open(s.dsn())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(skypanelsim.Seed(ctx, database, company), database.Close()); err != nil {
		return nil, err
	}
	w := &world{service: s}
	w.panel = virtfusionsim.New(virtfusionsim.Config{
		Seed: seed, WebhookToken: webhookToken,
		Hook: func(d virtfusionsim.Delivery) {
			if w.outbox != nil {
				w.outbox <- d
			}
		},
	})
	for _, a := range company.Accounts {
		w.panel.AddUser(virtfusionsim.User{ID: a.ID, Name: a.Name, ExtRelationID: a.ExtRelationID})
	}
	for _, p := range company.Packages {
		w.panel.AddPackage(virtfusionsim.Package{
			ID: p.ID, Name: p.Name, MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores,
		})
	}
	if w.fleet, err = virtfusionsim.NewFleet(w.panel, virtfusionsim.FleetConfig{Seed: seed, Size: 60}); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the simulated API: %w", err)
	}
	w.api = &http.Server{Handler: w.panel.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = w.api.Serve(listener) }() // until close
	s.apiURL = "http://" + listener.Addr().String()
	return w, nil
}

func (w *world) close() error { return w.api.Close() }

// live lets the fleet live and delivers its webhooks until ctx ends; those in
// hand are finished.
func (w *world) live(ctx context.Context) error {
	w.outbox = make(chan virtfusionsim.Delivery, senders)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for d := range w.outbox {
				w.deliver(ctx, d)
			}
		})
	}
	var err error
	ticker := time.NewTicker(stepEvery)
	defer ticker.Stop()
	for err == nil && ctx.Err() == nil {
		_, err = w.fleet.Step()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	close(w.outbox)
	wg.Wait()
	w.outbox = nil
	return err
}

// deliver sends a webhook once, as VirtFusion does, and writes down what was
// answered.
func (w *world) deliver(ctx context.Context, d virtfusionsim.Delivery) {
	w.mu.Lock()
	w.sent++
	w.mu.Unlock()
	sentAt := time.Now()
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://"+w.service.addr+"/webhooks/virtfusion", bytes.NewReader(d.Body))
	if err != nil {
		return
	}
	request.Header = d.Header
	response, err := w.service.client.Do(request)
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		ID      string `json:"id"`
		Ignored bool   `json:"ignored"`
	}
	if response.StatusCode != http.StatusAccepted || json.NewDecoder(response.Body).Decode(&answer) != nil || answer.Ignored {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if sentAt.After(w.latest) {
		w.latest = sentAt
	}
	w.accepted = append(w.accepted, accepted{id: answer.ID, serverID: d.ServerID, event: d.Event, created: d.Created, name: nameIn(d.Body)})
}

// nameIn is the server's name in a webhook.
func nameIn(body []byte) string {
	var b struct {
		Data struct {
			Server struct {
				Name string `json:"name"`
			} `json:"server"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &b) != nil {
		return ""
	}
	return b.Data.Server.Name
}

// acceptedSince reports that a webhook which was sent after some time was
// answered 202.
func (w *world) acceptedSince(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest.After(since)
}

func (w *world) counts() (sent, answered int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, len(w.accepted)
}
