package virtfusionsim

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// Defaults of [DeliveryFaults].
const (
	DefaultMaxDelay = 8
	DefaultWindow   = 4
)

// UntilReleased stands in the place of a number of later webhooks: until
// [Panel.Release], [Panel.ReleaseShuffled] or [Panel.Flush].
const UntilReleased = -1

// DeliveryFaults are the chances of what can happen to each webhook, between 0
// (never) and 1 (always). They are drawn from the panel's seed, each by itself:
// a webhook may be late, repeated and reordered at once. The zero value is a
// network without faults.
type DeliveryFaults struct {
	// Lose: it never arrives.
	Lose float64
	// Repeat: it arrives a second time, at once or after up to MaxDelay later
	// ones; every other time under another hookEventId.
	Repeat float64
	// Delay: it arrives only after 1 to MaxDelay later ones.
	Delay float64
	// Reorder: it and those that would arrive next, Window of them, arrive
	// shuffled, once the last one is there.
	Reorder float64
	// MaxDelay is the longest delay, in later webhooks; 0: DefaultMaxDelay.
	MaxDelay int
	// Window is how many are shuffled together; 0: DefaultWindow.
	Window int
}

// Fate is what becomes of one webhook. The zero Fate: it arrives at once, and
// once.
type Fate struct {
	// Lost: it never arrives, nor do its repeats.
	Lost bool
	// After holds it back until so many later webhooks were emitted, or until
	// it is released ([UntilReleased]).
	After int
	// Repeats are the further times that it arrives.
	Repeats []Repeat
	// Window, when above 1 and no other is open, opens a window of so many
	// deliveries, which arrive shuffled once the last of them is there.
	Window int
}

// Repeat is a further arrival of the same webhook, with the same body and
// headers.
type Repeat struct {
	// After is as in [Fate].
	After int
	// Renumbered: body and header have another hookEventId.
	Renumbered bool
}

// draw takes a fate from the chances. It draws the same numbers whatever the
// chances are, so that changing one of them does not change what the others do.
func (f DeliveryFaults) draw(random *rand.Rand) Fate {
	longest := max(1, cmp.Or(f.MaxDelay, DefaultMaxDelay))
	lost, late := random.Float64() < f.Lose, random.Float64() < f.Delay
	repeated, reordered := random.Float64() < f.Repeat, random.Float64() < f.Reorder
	delay := 1 + random.IntN(longest)
	repeat := Repeat{After: random.IntN(longest + 1), Renumbered: random.IntN(2) == 1}

	fate := Fate{Lost: lost}
	if late {
		fate.After = delay
	}
	if repeated {
		fate.Repeats = []Repeat{repeat}
	}
	if reordered {
		fate.Window = cmp.Or(f.Window, DefaultWindow)
	}
	return fate
}

// renumbered returns the delivery under another hookEventId.
func (d Delivery) renumbered(id int64) Delivery {
	for _, form := range []string{`"hookEventId":%d,`, `"hookEventId":"%d",`} {
		d.Body = bytes.Replace(d.Body, fmt.Appendf(nil, form, eventType(d.Event)), fmt.Appendf(nil, form, id), 1)
	}
	d.Header = d.Header.Clone()
	d.Header.Set(headerHookEvent, strconv.FormatInt(id, 10))
	return d
}
