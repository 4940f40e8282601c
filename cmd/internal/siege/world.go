package siege

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"serversync/db/skypanelsim"
	"serversync/virtfusion/virtfusionsim"
)

const (
	// senders deliver webhooks at the same time.
	senders = 8

	// APIToken is the simulated VirtFusion's.
	APIToken = virtfusionsim.DefaultToken
)

// Accepted is a webhook that was answered 202.
type Accepted struct {
	ID       string // the answer's
	ServerID int64
	Event    string
	Created  time.Time // VirtFusion's time of the event
	Name     string    // of the server then; empty: not said
}

// WorldConfig is what a world is made of.
type WorldConfig struct {
	Seed uint64
	// Token is the webhooks'.
	Token string
	// Targets are the addresses at which webhooks are taken. Each is delivered to
	// one of them, in turn, and to the next where that one does not answer 202.
	Targets []string
	// Timeout bounds one attempt.
	Timeout time.Duration
	// Pace is the time between two steps of the fleet.
	Pace time.Duration
}

// World is a simulated VirtFusion whose webhooks go to the service.
type World struct {
	// Panel is the simulated VirtFusion.
	Panel *virtfusionsim.Panel

	config WorldConfig
	client *http.Client
	fleet  *virtfusionsim.Fleet
	api    *http.Server
	url    string

	mu       sync.Mutex
	sent     int
	refused  map[int]int // attempts by status; 0: no answer
	accepted []Accepted
	latest   time.Time                   // when the latest sent of them was sent
	last     time.Time                   // when one was answered 202 last, or the fleet began to live
	gap      time.Duration               // the longest time without one, while it lived
	outbox   chan virtfusionsim.Delivery // while the fleet lives
}

// NewWorld fills the books with customers and prices and makes a fleet for
// them. The database must have SkyPANEL's tables.
func NewWorld(ctx context.Context, database *bun.DB, c WorldConfig) (*World, error) {
	company := skypanelsim.NewWorld()
	if err := skypanelsim.Seed(ctx, database, company); err != nil {
		return nil, err
	}
	w := &World{
		config: c, refused: map[int]int{},
		client: &http.Client{Timeout: c.Timeout, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
	}
	w.Panel = virtfusionsim.New(virtfusionsim.Config{
		Seed: c.Seed, WebhookToken: c.Token,
		Hook: func(d virtfusionsim.Delivery) {
			if w.outbox != nil {
				w.outbox <- d
			}
		},
	})
	for _, a := range company.Accounts {
		w.Panel.AddUser(virtfusionsim.User{ID: a.ID, Name: a.Name, ExtRelationID: a.ExtRelationID})
	}
	for _, p := range company.Packages {
		w.Panel.AddPackage(virtfusionsim.Package{
			ID: p.ID, Name: p.Name, MemoryMB: p.MemoryMB, StorageGB: p.StorageGB, TrafficGB: p.TrafficGB, CPUCores: p.CPUCores,
		})
	}
	var err error
	if w.fleet, err = virtfusionsim.NewFleet(w.Panel, virtfusionsim.FleetConfig{Seed: c.Seed, Size: 60}); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the simulated API: %w", err)
	}
	w.api = &http.Server{Handler: w.Panel.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = w.api.Serve(listener) }() // until Close
	w.url = "http://" + listener.Addr().String()
	return w, nil
}

// APIURL is where the simulated VirtFusion answers.
func (w *World) APIURL() string { return w.url }

// Close ends the simulated API.
func (w *World) Close() error {
	w.client.CloseIdleConnections()
	return w.api.Close()
}

// Live lets the fleet live and delivers its webhooks until ctx ends; those in
// hand are finished. Once at a time.
func (w *World) Live(ctx context.Context) error {
	w.mu.Lock()
	w.last, w.gap = time.Now(), 0
	w.mu.Unlock()
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
	ticker := time.NewTicker(w.config.Pace)
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

// deliver sends a webhook, as VirtFusion does, to one target after the other
// until one takes it, and writes down what was answered.
func (w *World) deliver(ctx context.Context, d virtfusionsim.Delivery) {
	w.mu.Lock()
	w.sent++
	first := w.sent
	w.mu.Unlock()
	sentAt := time.Now()
	for i := range w.config.Targets {
		target := w.config.Targets[(first+i)%len(w.config.Targets)]
		id, status := w.Post(context.WithoutCancel(ctx), target, d)
		w.mu.Lock()
		if status != http.StatusAccepted {
			w.refused[status]++
			w.mu.Unlock()
			continue
		}
		w.gap, w.last = max(w.gap, time.Since(w.last)), time.Now()
		if id != "" {
			if sentAt.After(w.latest) {
				w.latest = sentAt
			}
			w.accepted = append(w.accepted, Accepted{ID: id, ServerID: d.ServerID, Event: d.Event, Created: d.Created, Name: nameIn(d.Body)})
		}
		w.mu.Unlock()
		return
	}
}

// Post sends a webhook once. id is empty for one that was not accepted, or
// ignored; status is 0 where there was no answer.
func (w *World) Post(ctx context.Context, target string, d virtfusionsim.Delivery) (id string, status int) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+target+"/webhooks/virtfusion", bytes.NewReader(d.Body))
	if err != nil {
		return "", 0
	}
	request.Header = d.Header.Clone()
	response, err := w.client.Do(request)
	if err != nil {
		return "", 0
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		ID      string `json:"id"`
		Ignored bool   `json:"ignored"`
	}
	if response.StatusCode == http.StatusAccepted && json.NewDecoder(response.Body).Decode(&answer) != nil {
		return "", 0 // cut off: nobody knows
	}
	if answer.Ignored {
		return "", response.StatusCode
	}
	return answer.ID, response.StatusCode
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

// AcceptedSince reports that a webhook which was sent after some time was
// answered 202.
func (w *World) AcceptedSince(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest.After(since)
}

// Accepted are the webhooks that were answered 202.
func (w *World) Accepted() []Accepted {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.accepted)
}

// Refused is how many attempts had an answer other than 202; status 0: none.
func (w *World) Refused(status int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused[status]
}

// Gap is the longest time without a webhook that was answered 202 since the fleet
// last began to live.
func (w *World) Gap() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gap
}

// Counts are the webhooks that were sent, and those that were answered 202.
func (w *World) Counts() (sent, answered int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, len(w.accepted)
}
