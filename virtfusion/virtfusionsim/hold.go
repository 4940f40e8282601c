package virtfusionsim

import (
	"context"
	"errors"
	"slices"
)

// ErrNoJournal says that the panel keeps no journal: see [Config].
var ErrNoJournal = errors.New("the panel keeps no journal")

// SetDeliveryFaults sets the chances of what happens to each webhook from now
// on; the zero value ends them. What is held already stays held.
func (p *Panel) SetDeliveryFaults(faults DeliveryFaults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.post.faults = faults
}

// Script fixes the fates of the next webhooks, one each, whatever the chances
// say; fates that were scripted before come first.
func (p *Panel) Script(fates ...Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.post.script = append(p.post.script, fates...)
}

// Hold holds back every webhook from now on, and every one that is late, until
// Release, ReleaseShuffled or Flush.
func (p *Panel) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.post.holding = true
}

// Held returns what is held back, for whatever reason, in the order in which it
// was emitted.
func (p *Panel) Held() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.post.held()
}

// Release ends a Hold and lets go of everything that is held back, in the order
// in which it was emitted: to the Hook before it returns, or onto the queue. It
// returns how many those were.
func (p *Panel) Release() int { return p.release(false) }

// ReleaseShuffled is Release in another order, drawn from the seed.
func (p *Panel) ReleaseShuffled() int { return p.release(true) }

func (p *Panel) release(shuffled bool) int {
	return p.arrive(func() []Delivery { return p.post.release(shuffled) })
}

// Discard loses everything that is held back and returns how many those were. A
// Hold goes on.
func (p *Panel) Discard() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.post.discard()
}

// Flush delivers everything that is held back or queued, as Release and Drain
// do. What was lost stays lost.
func (p *Panel) Flush(ctx context.Context) error {
	p.Release()
	return p.Drain(ctx)
}

// Deliver delivers exactly these, in this order and past all faults: to the
// Hook before it returns, or onto the queue.
func (p *Panel) Deliver(deliveries ...Delivery) {
	p.arrive(func() []Delivery { return deliveries })
}

// Journal returns every webhook that was ever emitted, in order, lost ones too;
// none unless [Config] asks for a journal.
func (p *Panel) Journal() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.journal)
}

// Redeliver delivers everything that was ever emitted once more, in order and
// past all faults, lost webhooks too. Without a journal it fails with
// [ErrNoJournal].
func (p *Panel) Redeliver(ctx context.Context) error {
	if !p.config.Journal {
		return ErrNoJournal
	}
	p.Deliver(p.Journal()...)
	return p.Drain(ctx)
}

// arrive hands what take returns, which runs under mu, to the Hook or onto the
// queue, and returns how many those are.
func (p *Panel) arrive(take func() []Delivery) int {
	p.emitting.Lock()
	defer p.emitting.Unlock()
	p.mu.Lock()
	arriving := take()
	p.enqueue(arriving)
	p.mu.Unlock()
	p.hook(arriving)
	return len(arriving)
}

// enqueue puts what arrives onto the queue, unless a Hook gets it; the caller
// holds mu.
func (p *Panel) enqueue(arriving []Delivery) {
	if p.config.Hook != nil || p.config.WebhookURL == "" || len(arriving) == 0 {
		return
	}
	p.queue = append(p.queue, arriving...)
	select {
	case p.wake <- struct{}{}:
	default: // Run has a reason to look already
	}
}

// hook hands what arrives to the Hook, if there is one; the caller holds
// emitting, and not mu.
func (p *Panel) hook(arriving []Delivery) {
	if p.config.Hook == nil {
		return
	}
	for _, delivery := range arriving {
		p.config.Hook(delivery)
	}
}
