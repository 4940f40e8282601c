package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// growth measures the same events on inventories of different sizes.
func (b *bench) growth(ctx context.Context) (err error) {
	sizes := []int{1_000, 100_000, 1_000_000}
	if b.quick {
		sizes = []int{200, 500, 1_000}
	}
	count := b.amount(4_000, 100)
	m := b.results.section("growth", "Growth",
		fmt.Sprintf("As with *Events reconciled*, with that many servers in the books already, each with its billing row, first charge, record and a line of history: %d new servers, then changes of %d servers at random among those that were there. "+
			"The books were filled by SQL beforehand, with triggers off and the indexes made afterwards. The two smaller ones are filled afresh for each round, the largest grows by the new servers.", count, min(count, sizes[0])))
	s, err := b.startBroker(ctx, "nats-growth")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	full := make([]*books, len(sizes))
	for i, size := range sizes {
		started := time.Now()
		k, err := b.books(ctx, templateName)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.drop(ctx)) }()
		if err := k.fill(ctx, size); err != nil {
			return err
		}
		full[i] = k
		b.tell("growth: %s servers are in the books, after %.0f s", number(float64(size)), time.Since(started).Seconds())
	}
	next := 2 * sizes[len(sizes)-1] // new servers have numbers of their own
	err = b.each(ctx, "growth", func(round int) error {
		var turns []func() error
		for i, size := range sizes {
			turns = append(turns, func() error {
				next += count
				return b.growthOnce(ctx, m, s, full[i], i == len(sizes)-1, next, size, count)
			})
		}
		return inTurn(round, turns...)
	})
	if err != nil {
		return err
	}
	at := func(what string, i int) string {
		return fmt.Sprintf("%s, at %s servers", what, number(float64(sizes[i])))
	}
	m.compare("reconcile_1m_vs_1k_rows", at("new", 2), at("new", 0), atLeast(0.8), "What of the speed with new servers is left at a million servers.")
	m.compare("reconcile_100k_vs_1k_rows", at("new", 1), at("new", 0), target{}, "The same at a hundred thousand.")
	m.compare("reconcile_update_1m_vs_1k_rows", at("update", 2), at("update", 0), target{}, "What of the speed with changes, anywhere in the inventory, is left at a million servers.")
	return nil
}

func (b *bench) growthOnce(ctx context.Context, m *measured, s *broker, full *books, keep bool, next, size, count int) (err error) {
	k := full
	if !keep {
		if err := full.disconnect(); err != nil {
			return err
		}
		if k, err = b.books(ctx, full.name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.drop(ctx)) }()
	}
	// What is in memory after a copy and what is not shall not matter.
	warm := span(next-count/2, count/8)
	if err := s.told(ctx, warm.births()); err != nil {
		return err
	}
	if _, err := drain(ctx, k, s); err != nil {
		return err
	}
	known := &history{created: born()}
	for _, n := range rand.Perm(size)[:min(count, size)] { //nolint:gosec // G404: any servers will do
		known.servers = append(known.servers, int64(n))
	}
	for _, x := range []step{{"new", span(next, count/2).births()}, {"update", known.changes()}} {
		if err := s.told(ctx, x.told); err != nil {
			return err
		}
		if err := k.settle(ctx); err != nil {
			return err
		}
		err := b.profiled(fmt.Sprintf("growth_%s_%d", x.name, size), func() error {
			took, err := drain(ctx, k, s)
			if err == nil {
				m.note(fmt.Sprintf("%s, at %s servers", x.name, number(float64(size))), "events/s", perSecond(len(x.told), took))
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := s.purge(ctx); err != nil {
			return err
		}
	}
	return nil
}
