package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"serversync/events"
)

// clock notes when servers were committed: the reconciler announces them after
// the commit of their batch.
type clock struct {
	next announcer // as in production

	mu sync.Mutex
	at map[int64]time.Time
}

// Announce implements the reconciler's announcer.
func (c *clock) Announce(a events.Announcement) {
	now := time.Now()
	if a.Server != nil {
		c.mu.Lock()
		if _, known := c.at[a.Server.ID]; !known {
			c.at[a.Server.ID] = now
		}
		c.mu.Unlock()
	}
	c.next.Announce(a)
}

// committed is when so many servers from a number on were committed; false: not
// all of them are yet.
func (c *clock) committed(first int64, count int) ([]time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]time.Time, count)
	for i := range all {
		at, ok := c.at[first+int64(i)]
		if !ok {
			return nil, false
		}
		all[i] = at
	}
	return all, true
}

// endToEnd measures the time from a webhook until the books have it.
func (b *bench) endToEnd(ctx context.Context) (err error) {
	rates := []int{100, 1_000, 3_000}
	m := b.results.section("end_to_end", "From webhook to books",
		"Webhooks of new servers, posted at a fixed rate by 128 connections, whatever was answered meanwhile; the reconciler runs in the same process, as in production. "+
			"A latency runs from the time at which a webhook was due (not from when it was sent: a queue at the client counts) until the transaction with its billing row is committed; *answered* until the 202.")
	k, err := b.books(ctx, templateName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.drop(ctx)) }()
	s, err := b.startBroker(ctx, "nats-end-to-end")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	e, err := startEndpoint(ctx, s.publisher)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	c := &clock{next: events.NewLive(s.nc, logger()), at: make(map[int64]time.Time)}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- newReconciler(k, s, c).Run(work) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	model, err := newRequest()
	if err != nil {
		return err
	}
	if err := k.settle(ctx); err != nil {
		return err
	}
	next := int64(0)
	once := func(rate int) error {
		count := int(float64(rate) * b.lasting(4*time.Second).Seconds())
		from := next
		next += int64(count)
		return b.profiled(fmt.Sprintf("end_to_end_%d", rate), func() error { return b.latencies(ctx, m, e, s, c, model, from, rate, count) })
	}
	err = b.each(ctx, "end_to_end", func(round int) error {
		return inTurn(round,
			func() error { return once(rates[0]) }, func() error { return once(rates[1]) }, func() error { return once(rates[2]) })
	})
	if err != nil {
		return err
	}
	rows, err := k.count(ctx, "public.virtfusion_hourly_billing")
	if err == nil && rows != next {
		err = fmt.Errorf("%d servers have %d billing rows", next, rows)
	}
	m.hold("end_to_end_1000_p99_ms", "at 1,000/s, p99", atMost(100), "How long the slowest hundredth takes from the webhook to the committed row at 1,000 a second, in milliseconds.")
	m.hold("end_to_end_3000_p99_ms", "at 3,000/s, p99", target{}, "The same at 3,000 a second.")
	return err
}

// latencies is one round at one rate.
func (b *bench) latencies(ctx context.Context, m *measured, e *endpoint, s *broker, c *clock, model *request, from int64, rate, count int) error {
	due, answers, err := openLoop(ctx, e.addr, model, from, rate, count)
	if err != nil {
		return err
	}
	commits, all := c.committed(firstServer+from, count)
	for limit := time.Now().Add(time.Minute); !all; commits, all = c.committed(firstServer+from, count) {
		if time.Now().After(limit) || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), errors.New("what was answered is not in the books after a minute"))
		}
		pause(ctx, 5*time.Millisecond)
	}
	for limit := time.Now().Add(time.Minute); ; pause(ctx, 5*time.Millisecond) {
		left, err := s.queue(ctx)
		if err != nil || left == 0 {
			if err != nil {
				return err
			}
			break
		}
		if time.Now().After(limit) {
			return errors.New("what is in the books is not acknowledged after a minute")
		}
	}
	answered, booked := make([]time.Duration, count), make([]time.Duration, count)
	for i := range due {
		answered[i], booked[i] = answers[i].Sub(due[i]), commits[i].Sub(due[i])
	}
	sortDurations(answered)
	sortDurations(booked)
	at := fmt.Sprintf("at %s/s", number(float64(rate)))
	m.note(at+", p50", "ms", milliseconds(percentile(booked, 50)))
	m.note(at+", p99", "ms", milliseconds(percentile(booked, 99)))
	m.note(at+", answered, p50", "ms", milliseconds(percentile(answered, 50)))
	m.note(at+", answered, p99", "ms", milliseconds(percentile(answered, 99)))
	return s.purge(ctx)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// openLoop posts webhooks when they are due, whether or not those before are
// answered, and returns when each was due and when it was answered.
func openLoop(ctx context.Context, addr string, model *request, from int64, rate, count int) (due, answers []time.Time, err error) {
	const connections = 128
	clients, err := dialMany(ctx, addr, model, connections)
	defer func() { closeAll(clients) }()
	if err != nil {
		return nil, nil, err
	}
	due, answers = make([]time.Time, count), make([]time.Time, count)
	queue := make(chan int, count)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for w, client := range clients {
		wg.Go(func() {
			for i := range queue {
				if _, err := client.post(from+int64(i), due[i]); err != nil {
					errs[w] = err
					return
				}
				answers[i] = time.Now()
			}
		})
	}
	started := time.Now()
	for i := range count {
		due[i] = started.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if wait := time.Until(due[i]); wait > 0 {
			pause(ctx, wait)
		}
		queue <- i
	}
	close(queue)
	wg.Wait()
	return due, answers, cmp.Or(append(errs, ctx.Err())...)
}
