package virtfusionsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Stats counts webhooks.
type Stats struct {
	// Emitted webhooks are those that the panel sent on their way.
	Emitted int
	// Queued ones wait for Run or Drain.
	Queued int
	// Accepted ones were answered with a 2xx, Refused ones with anything else;
	// Failed ones got no answer. VirtFusion tries none of them again.
	Accepted int
	Refused  int
	Failed   int
	// Lost, Late, Repeated and Reordered ones met that fault; Held ones wait
	// for their release.
	Lost      int
	Late      int
	Repeated  int
	Reordered int
	Held      int
	// LastStatus is that of the last answer, 0 before the first.
	LastStatus int
	// LastError is why the last failed delivery got no answer.
	LastError string
}

// Stats returns the counts so far.
func (p *Panel) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats
	stats.Queued = len(p.queue)
	stats.Lost, stats.Late = p.post.lost, p.post.delayed
	stats.Repeated, stats.Reordered = p.post.repeated, p.post.reordered
	stats.Held = len(p.post.late) + len(p.post.window)
	return stats
}

// Deliveries returns what waits for Run or Drain, in order.
func (p *Panel) Deliveries() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Delivery(nil), p.queue...)
}

// Run delivers webhooks in order, one at a time, until ctx ends; then it
// finishes the one in hand, delivers what is queued, for at most
// [Config.Timeout], and returns nil, or an error that says how many were left.
func (p *Panel) Run(ctx context.Context) error {
	for {
		_ = p.drain(ctx, context.WithoutCancel(ctx)) // fails only when ctx has ended
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.Timeout)
			defer cancel()
			return p.drain(last, last)
		case <-p.wake:
		}
	}
}

// Drain delivers what is queued, in order, and returns when nothing is left, or
// with an error when ctx ends before. A refused delivery is no error: see
// Stats.
func (p *Panel) Drain(ctx context.Context) error { return p.drain(ctx, ctx) }

// drain delivers until the queue is empty or stop ends; send bounds the
// deliveries themselves.
func (p *Panel) drain(stop, send context.Context) error {
	p.delivering.Lock()
	defer p.delivering.Unlock()
	for {
		if err := stop.Err(); err != nil {
			if left := p.Stats().Queued; left > 0 {
				return fmt.Errorf("%d webhooks not delivered: %w", left, err)
			}
			return nil
		}
		delivery, ok := p.next()
		if !ok {
			return nil
		}
		status, err := p.send(send, delivery)
		p.count(delivery, status, err)
	}
}

// next takes the first delivery off the queue.
func (p *Panel) next() (Delivery, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return Delivery{}, false
	}
	delivery := p.queue[0]
	p.queue[0] = Delivery{} // let go of its body
	p.queue = p.queue[1:]
	return delivery, true
}

// send makes the one attempt at a delivery and returns the answer's status.
func (p *Panel) send(ctx context.Context, delivery Delivery) (int, error) {
	if p.config.WebhookURL == "" {
		return 0, errors.New("no WebhookURL")
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.WebhookURL, bytes.NewReader(delivery.Body))
	if err != nil {
		return 0, fmt.Errorf("build delivery: %w", err)
	}
	request.Header = delivery.Header.Clone()
	response, err := p.client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("deliver webhook: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16)); err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	return response.StatusCode, nil
}

// count records what became of a delivery.
func (p *Panel) count(delivery Delivery, status int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.stats.Failed++
		p.stats.LastError = err.Error()
	case status >= 200 && status < 300:
		p.stats.Accepted++
		p.stats.LastStatus = status
		return
	default:
		p.stats.Refused++
		p.stats.LastStatus = status
	}
	p.log.Warn().Err(err).Int("status", status).Str("event", delivery.Event).
		Int64("server", delivery.ServerID).Time("created", delivery.Created.Round(time.Microsecond)).
		Msg("webhook was not accepted; VirtFusion does not try again")
}
