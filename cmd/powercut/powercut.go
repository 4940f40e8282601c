//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// config says how many power cuts.
type config struct {
	vm       string
	accel    string // QEMU's -accel
	rounds   int
	controls int
	seed     uint64
	keep     bool
	out      io.Writer
}

// powercut is one run.
type powercut struct {
	config
	random *rand.Rand
	dir    string // of everything
}

// run cuts the service's power, then that of the controls, and reports. It fails
// when the service lost anything, or the control without sync nothing.
func run(ctx context.Context, cfg config) (err error) {
	p := &powercut{config: cfg, random: rand.New(rand.NewPCG(cfg.seed, 1))} //nolint:gosec // G404: chance that must be repeatable, and guards nothing
	if p.dir, err = os.MkdirTemp("", "powercut-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() {
		if p.keep {
			fmt.Fprintln(p.out, "kept:", p.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(p.dir))
	}()
	fmt.Fprintf(p.out, "seed %d, %d connections\n", p.seed, senders)
	service, err := p.play(ctx, taskServe, p.rounds)
	if err != nil {
		return err
	}
	late, err := p.play(ctx, taskLate, p.controls)
	if err != nil {
		return err
	}
	never, err := p.play(ctx, taskNever, p.controls)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\nservice: %d power cuts, %s\n", p.rounds, service)
	if p.controls > 0 {
		fmt.Fprintf(p.out, "control, answers that do not wait for the sync: %d power cuts, %s\n", p.controls, late)
		fmt.Fprintf(p.out, "control, no sync: %d power cuts, %s\n", p.controls, never)
	}
	switch {
	case service.lost > 0:
		return fmt.Errorf("of what was answered 202, %d were lost", service.lost)
	case p.controls > 0 && never.lost == 0:
		return errors.New("the control without sync lost nothing either: this proves nothing")
	}
	return nil
}

// result is what one round found, or several.
type result struct {
	sent, answered, lost int
	unanswered           int // on the stream though not answered
	refused              int // answered, but not 202
}

func (r *result) add(o result) {
	r.sent += o.sent
	r.answered += o.answered
	r.lost += o.lost
	r.unanswered += o.unanswered
	r.refused += o.refused
}

func (r result) String() string {
	s := fmt.Sprintf("sent %d, answered 202 %d, lost %d, there unanswered %d", r.sent, r.answered, r.lost, r.unanswered)
	if r.refused > 0 {
		s += fmt.Sprintf(", answered otherwise %d", r.refused)
	}
	return s
}

// play cuts the power of a task some times. Every other round begins with an
// empty disk; the one after it goes on with what was left.
func (p *powercut) play(ctx context.Context, task string, rounds int) (result, error) {
	var total result
	var l *load
	image := filepath.Join(p.dir, task+".img")
	for n := range rounds {
		if n%2 == 0 {
			if err := format(ctx, image); err != nil {
				return total, err
			}
			l = newLoad()
		}
		r, err := p.round(ctx, task, n+1, image, l)
		if err != nil {
			return total, fmt.Errorf("%s, round %d: %w", task, n+1, err)
		}
		total.add(r)
	}
	return total, os.RemoveAll(image)
}

// round posts webhooks to a machine, cuts its power amidst them, and looks what
// is on the stream when it is back.
func (p *powercut) round(ctx context.Context, task string, n int, image string, l *load) (r result, err error) {
	sent, answered := int(l.sent), len(l.answered)
	cut, err := p.torment(ctx, task, image, l)
	if err != nil {
		return r, err
	}
	// Sometimes the power fails again, while the service recovers.
	if cut.again = task == taskServe && p.random.IntN(2) == 0; cut.again {
		if err := p.cutAtStart(ctx, task, image); err != nil {
			return r, err
		}
	}
	stored, err := p.stored(ctx, image)
	if err != nil {
		if task == taskServe || ctx.Err() != nil {
			return r, err
		}
		// Of a control that is a way to lose everything.
		fmt.Fprintf(p.out, "%-5s round %2d: after the cut: %v\n", task, n, err)
	}
	for server, id := range l.answered {
		if stored[server] != id {
			r.lost++
		}
	}
	for server := range stored {
		if l.answered[server] == "" {
			r.unanswered++
		}
	}
	r.sent, r.answered = int(l.sent)-sent, len(l.answered)-answered
	for _, count := range l.others {
		r.refused += count
	}
	clear(l.others)
	fmt.Fprintf(p.out, "%-5s round %2d: %s; %s\n", task, n, r, cut)
	// Once lost is lost once, and what was there unanswered is known now.
	for server, id := range l.answered {
		if stored[server] != id {
			delete(l.answered, server)
		}
	}
	maps.Copy(l.answered, stored)
	return r, nil
}

// cutMost bounds the moment of the power cut, from the first answer on.
const cutMost = 12 * time.Second

// cut is what a power cut did.
type cut struct {
	after    time.Duration // since the first answer
	lost, of int           // pages of the disk's cache
	flushes  int
	again    bool // once more, at the next start
}

func (c cut) String() string {
	s := fmt.Sprintf("cut after %s, the disk was flushed %d times and lost %d of %d pages in its cache", c.after.Round(10*time.Millisecond), c.flushes, c.lost, c.of)
	if c.again {
		s += "; cut again as it started"
	}
	return s
}

// torment posts webhooks to a machine and cuts its power.
func (p *powercut) torment(ctx context.Context, task, image string, l *load) (c cut, err error) {
	m, err := boot(ctx, p.dir, p.vm, p.accel, image, task)
	if err != nil {
		return c, err
	}
	if err := m.ready(ctx, "/readyz"); err != nil {
		return c, errors.Join(err, m.end(p.random))
	}
	posting, stop := context.WithCancel(ctx)
	first := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.post(posting, m.url, first) })
	select {
	case <-first:
	case <-time.After(time.Minute):
		err = fmt.Errorf("no webhook was answered 202; the machine's console ends:\n%s", m.consoleTail())
	case <-m.exited:
		err = fmt.Errorf("the machine ended by itself; its console ends:\n%s", m.consoleTail())
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		c.after = p.moment(cutMost)
		pause(ctx, c.after)
	}
	// Only once the machine is dead do the senders stop: until then each takes
	// every answer that comes.
	lost, of, cutErr := m.cut(p.random)
	stop()
	wg.Wait()
	c.lost, c.of, c.flushes = lost, of, m.disk.flushes
	return c, errors.Join(err, cutErr, ctx.Err())
}

// cutAtStart cuts the power while the service starts.
func (p *powercut) cutAtStart(ctx context.Context, task, image string) error {
	m, err := boot(ctx, p.dir, p.vm, p.accel, image, task)
	if err != nil {
		return err
	}
	if err := m.mounted(ctx); err != nil {
		return errors.Join(err, m.end(p.random))
	}
	pause(ctx, p.moment(500*time.Millisecond))
	return m.end(p.random)
}

// stored starts the machine once more and asks it for what is on the stream:
// event ids by server.
func (p *powercut) stored(ctx context.Context, image string) (_ map[int64]string, err error) {
	m, err := boot(ctx, p.dir, p.vm, p.accel, image, taskList)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.end(p.random)) }()
	if err := m.ready(ctx, "/readyz"); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+"/events", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask for the events: %w; the machine's console ends:\n%s", err, m.consoleTail())
	}
	defer func() { _ = response.Body.Close() }()
	found := map[int64]string{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if lines.Text() == "end" {
			return found, nil
		}
		if reason, found := strings.CutPrefix(lines.Text(), "error: "); found {
			return nil, fmt.Errorf("the store cannot be read: %s", reason)
		}
		var id string
		var server int64
		if _, err := fmt.Sscan(lines.Text(), &id, &server); err != nil {
			return nil, fmt.Errorf("understand %q of the machine: %w", lines.Text(), err)
		}
		found[server] = id
	}
	return nil, fmt.Errorf("the list of the events broke off after %d (%w); the machine's console ends:\n%s", len(found), lines.Err(), m.consoleTail())
}

// moment is a random time below most.
func (p *powercut) moment(most time.Duration) time.Duration {
	return time.Duration(p.random.Int64N(int64(most)))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
