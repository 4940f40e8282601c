package virtfusionsim

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// post is the way of the webhooks from the panel to the wire, and the one place
// where the faults of deliveries bite. While it has none, it hands on what it
// takes. The panel's mu guards it.
type post struct {
	// fates draws what the chances say, orders how a shuffle comes out: two
	// generators, so that neither changes the other's sequence, nor the panel's
	// UUIDs.
	fates, orders *rand.Rand

	faults DeliveryFaults
	// script holds the fates of the next webhooks; the faults' chances come
	// after it.
	script  []Fate
	holding bool
	// late ones wait for later webhooks or for their release.
	late []parcel
	// window gathers what will be shuffled, up to size; size 0: none is open.
	window []Delivery
	size   int

	// lastNumber is the last hookEventId that a repeat was given.
	lastNumber int64

	lost, delayed, repeated, reordered int
}

// parcel is a delivery that waits for so many later webhooks, or, below 0, for
// its release.
type parcel struct {
	delivery Delivery
	after    int
}

// newPost returns a post without faults.
func newPost(seed uint64) post {
	return post{fates: seeded(seed, forFates), orders: seeded(seed, forOrders), lastNumber: 50_000}
}

// take accepts a webhook and returns what arrives now, in order.
func (o *post) take(delivery Delivery) []Delivery {
	due := o.due()
	return append(o.place(delivery, o.fate()), due...)
}

// fate is the next webhook's.
func (o *post) fate() Fate {
	if len(o.script) > 0 {
		fate := o.script[0]
		o.script = o.script[1:]
		return fate
	}
	return o.faults.draw(o.fates)
}

// due counts one more webhook and returns the late ones that waited for it.
func (o *post) due() []Delivery {
	if o.holding {
		return nil
	}
	var due []Delivery
	waiting := o.late
	o.late = nil
	for _, late := range waiting {
		if late.after--; late.after == 0 {
			due = append(due, late.delivery)
		} else {
			o.late = append(o.late, late)
		}
	}
	return due
}

// place does to a webhook what its fate says and returns what arrives now.
func (o *post) place(delivery Delivery, fate Fate) []Delivery {
	if fate.Lost {
		o.lost++
		return nil
	}
	if o.size == 0 && fate.Window > 1 {
		o.size = fate.Window
	}
	if fate.After != 0 {
		o.delayed++
	}
	arriving := o.pass(delivery, fate.After)
	for i, repeat := range fate.Repeats {
		again := delivery
		if repeat.Renumbered {
			o.lastNumber++
			again = again.renumbered(o.lastNumber)
		}
		again.Repeat = i + 1
		o.repeated++
		arriving = append(arriving, o.pass(again, repeat.After)...)
	}
	return arriving
}

// pass holds a delivery back, or puts it into the open window, or lets it
// through; it returns what arrives now.
func (o *post) pass(delivery Delivery, after int) []Delivery {
	switch {
	case o.holding:
		o.late = append(o.late, parcel{delivery, UntilReleased})
		return nil
	case after != 0:
		o.late = append(o.late, parcel{delivery, after})
		return nil
	case o.size == 0:
		return []Delivery{delivery}
	}
	o.window = append(o.window, delivery)
	if len(o.window) < o.size {
		return nil
	}
	arriving := o.window
	o.window, o.size = nil, 0
	o.shuffle(arriving)
	return arriving
}

// held returns what waits, in the order in which it was emitted.
func (o *post) held() []Delivery {
	held := slices.Clone(o.window)
	for _, waiting := range o.late {
		held = append(held, waiting.delivery)
	}
	slices.SortStableFunc(held, inEmission)
	return held
}

// release lets go of what waits, and ends a hold and an open window.
func (o *post) release(shuffled bool) []Delivery {
	released := o.held()
	o.forget()
	o.holding = false
	if shuffled {
		o.shuffle(released)
	}
	return released
}

// discard loses what waits and returns how many that were.
func (o *post) discard() int {
	n := len(o.held())
	o.forget()
	o.lost += n
	return n
}

func (o *post) forget() { o.late, o.window, o.size = nil, nil, 0 }

// shuffle changes the order, and never leaves two or more as they were emitted.
func (o *post) shuffle(deliveries []Delivery) {
	o.reordered += len(deliveries)
	o.orders.Shuffle(len(deliveries), func(i, j int) { deliveries[i], deliveries[j] = deliveries[j], deliveries[i] })
	if slices.IsSortedFunc(deliveries, inEmission) {
		slices.Reverse(deliveries)
	}
}

func inEmission(a, b Delivery) int {
	return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Repeat, b.Repeat))
}
