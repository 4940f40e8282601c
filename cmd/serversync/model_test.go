package main_test

import (
	"flag"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"serversync/virtfusion/virtfusionsim"
)

// modelHistories is how many histories are tried unless -rapid.checks says
// otherwise.
const modelHistories = 60

// TestModel drives random histories of a small company through the webhook
// endpoint, the reconciler and a real PostgreSQL: customers order through
// SkyPANEL in its racy sequence, admins work in VirtFusion directly, prices and
// customers change, SkyPANEL's job bills, webhooks are lost, late, repeated and
// reordered, the API fails, and several reconcilers work at once. Time is the
// model's own. Only the broker is not the real one, but a list that delivers what
// it has been given, cut into batches at will.
//
// Each history ends with what time does by itself: what is on its way arrives, a
// full pass looks at every server, and all that runs goes on until nothing
// changes. Then:
//
//   - The inventory says of each server what VirtFusion says, and the counts by
//     status add up.
//   - One row bills each server that is to be billed (it exists, and has an
//     active owner, a price, hourly mode, and no billing of VirtFusion's), its
//     owner, at its price; and none of ours bills any other. The exceptions are
//     a conflict, which changes nothing, and a server whose row SkyPANEL
//     switched off, or lost after it had sold the server: both are said.
//   - No time of a server is charged twice, but where SkyPANEL's own row came
//     when ours had been charged: then a refund is asked for (checkCharges).
//   - No row of ours is made before its server has settled, nor charged for time
//     before it was made.
//   - From the moment that a move is in the books, the owner before is charged
//     no more, and the next one for nothing before it (checkCharge). For the time
//     between a move and its news nobody can promise that: VirtFusion's webhook
//     may be lost.
//   - Where first charges take the customer's credit: VirtFusion took it once or
//     not at all, also where it did so and its answer never came; nothing was
//     taken for a row that was withdrawn, switched off, or closed before its first
//     hour began; and the ledger says what VirtFusion took.
//   - To deliver all events again, in any order, and then all webhooks, lost ones
//     too, changes nothing.
//
// A long run:
//
//	go test ./cmd/serversync -run TestModel$ -rapid.checks=5000 -rapid.steps=60 -timeout 60m
func TestModel(t *testing.T) {
	t.Parallel()
	bed := newModelBed(t)
	few := true
	flag.Visit(func(f *flag.Flag) { few = few && f.Name != "rapid.checks" })
	var tried atomic.Int64
	var failed atomic.Bool
	rapid.Check(t, func(t *rapid.T) {
		if few && tried.Add(1) > modelHistories && !failed.Load() {
			return
		}
		sound := false
		defer func() { failed.CompareAndSwap(false, !sound) }()
		modelHistory(t, bed)
		sound = true
	})
	t.Log(&bed.figures)
}

func modelHistory(t *rapid.T, bed *modelBed) {
	chance := rapid.SampledFrom([]float64{0, 0.1, 0.3})
	m := newModel(t, t.Context(), bed, modelOptions{
		seed:      rapid.Uint64Range(0, 1<<20).Draw(t, "seed"),
		precision: rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, "precision"),
		skew:      rapid.SampledFrom([]time.Duration{0, 0, 90 * time.Second, -90 * time.Second}).Draw(t, "skew"),
		window:    rapid.SampledFrom([]time.Duration{10 * time.Minute, 0}).Draw(t, "window"),
		charge:    rapid.SampledFrom(modelCharges()).Draw(t, "charge"),
		faults: virtfusionsim.DeliveryFaults{
			Lose: chance.Draw(t, "lose"), Repeat: chance.Draw(t, "repeat"), Delay: chance.Draw(t, "delay"), Reorder: chance.Draw(t, "reorder"),
		},
	})
	defer m.tell()
	defer m.abandon()
	actions := rapid.SampledFrom(modelActions(rapid.IntRange(0, 3).Draw(t, "flips") == 3))
	t.Repeat(map[string]func(*rapid.T){"act": func(t *rapid.T) { m.act(t, actions.Draw(t, "act")) }})

	m.finish()
	m.checkBooks()
	if rapid.Bool().Draw(t, "bill on") {
		m.pass(90 * time.Minute)
		m.tick(nil, 0)
		m.comeToRest()
		m.checkBooks()
	}
	all := make([]int, m.stream.published())
	for i := range all {
		all[i] = i
	}
	m.repeatEverything(rapid.Permutation(all).Draw(t, "order"))
	m.count()
}

// count adds the history's webhooks to the figures.
func (m *model) count() {
	f, s := &m.bed.figures, m.panel.Stats()
	f.histories.Add(1)
	f.emitted.Add(int64(s.Emitted))
	f.lost.Add(int64(s.Lost))
	f.late.Add(int64(s.Late))
	f.repeated.Add(int64(s.Repeated))
	f.reordered.Add(int64(s.Reordered))
}
