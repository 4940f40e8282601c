package reconciler

import (
	"time"

	"serversync/events"
)

// observe lays the news over what is known, one by one in the order of their
// times: what is older than what is known by then changes nothing.
func (d *decider) observe() {
	if d.in.Known != nil {
		d.state, d.begun = *d.in.Known, true
	}
	news := inOrder(d.in.News)
	for i := range news {
		d.hear(&news[i])
	}
	if len(news) == 0 || !d.begun {
		return
	}
	known := d.in.Known
	if known == nil {
		_, after := sides(observedDiff(&State{}, &d.state))
		d.line(Line{Kind: LineObserved, Reason: "first seen in VirtFusion, by " + string(d.out.By.Source), After: after})
		return
	}
	changes := observedDiff(known, &d.state)
	if len(changes) > 1 || len(changes) == 1 && changes[0].field != "updated_at" { // alone, it tells nobody anything
		before, after := sides(changes)
		d.line(Line{Kind: LineObserved, Reason: observedWords(changes, d.out.By), Before: before, After: after})
	}
}

// hear takes one observation, if it is newer than what is known by now.
func (d *decider) hear(o *Observation) {
	base := State{ID: o.Server.ID, Status: StatusSettling, FirstSeenAt: d.firstArrival()}
	var known *State
	if d.begun {
		base = d.state
		known = &base
	}
	merged := merge(base, &o.Server)
	if d.out.By == nil {
		d.out.By = o
	}
	switch compareWithKnown(o, known, &merged) {
	case older:
	case undecided:
		d.question(o)
	case same:
		d.fresh = true
		d.out.By = o
		d.foundBy(o)
		d.answered(o, base.ObservedAt) // that it is gone, as was known, ends a question too
	case newer:
		d.fresh = true
		d.out.By = o
		d.take(o, merged)
		d.foundBy(o)
		d.answered(o, base.ObservedAt)
	}
	if known := d.in.Known; known != nil && o.RunID != "" && o.RunID == known.AwaitingRun {
		d.cleared = true // approved, though something newer was heard meanwhile
	}
	d.settleAfterCreation(o)
	// The newest "updated" ever heard stays, also that of an observation which
	// counts for nothing else: a repetition of it must not count later.
	if u := utc(o.Server.UpdatedAt); u != nil && d.begun && o.Source != events.SourceRefetch {
		d.state.UpdatedAt = new(later(deref(base.UpdatedAt), later(deref(d.state.UpdatedAt), *u)))
	}
}

// question notes what VirtFusion is to be asked, unless it was asked since the
// observation, or at its very time, and has said what is so.
func (d *decider) question(o *Observation) {
	pulled := d.state.PulledAt
	switch {
	case d.state.Ask != "": // one question is enough, and the first one stands
	case pulled != nil && (o.ObservedAt.Before(*pulled) || o.ObservedAt.Equal(*pulled) && !o.Source.Pulled()):
	case o.Gone:
		d.state.Ask = "VirtFusion reported its end, but showed it later"
	default:
		d.state.Ask = "two observations disagree and neither is newer"
	}
}

// answered ends a question: VirtFusion, asked after all that was known before,
// has said what is so.
func (d *decider) answered(o *Observation, before time.Time) {
	if o.Source.Pulled() && o.ObservedAt.After(before) {
		d.state.Ask = ""
		d.state.PulledAt = new(later(deref(d.state.PulledAt), o.ObservedAt))
	}
}

// firstArrival is when the first of the news reached us.
func (d *decider) firstArrival() time.Time {
	first := d.in.News[0].ReceivedAt
	for i := range d.in.News {
		if d.in.News[i].ReceivedAt.Before(first) {
			first = d.in.News[i].ReceivedAt
		}
	}
	return first
}

// take makes a newer observation what is known.
func (d *decider) take(o *Observation, merged State) {
	merged.Confirmed = d.begun && d.state.Confirmed || !o.Failed
	// One that counts by its "updated" may have been observed before another
	// that counted less: the time never goes back, or that one would count again.
	merged.ObservedAt = later(merged.ObservedAt, o.ObservedAt)
	merged.ObservedSource, merged.ObservedEventID = string(o.Source), o.EventID
	if o.Gone {
		merged.GoneAt, merged.Status = &o.ObservedAt, StatusGone
	} else {
		if merged.GoneAt != nil {
			merged.GoneAt, merged.Status = nil, StatusSettling
		}
		merged.LastSeenAt = later(merged.LastSeenAt, o.ReceivedAt)
	}
	if merged.LastSeenAt.IsZero() {
		merged.LastSeenAt = merged.FirstSeenAt
	}
	d.state, d.begun = merged, true
	if !o.Gone {
		d.settleByAge()
	}
}

// settleAfterCreation gives SkyPANEL time to insert its own row: it calls
// VirtFusion first, so that the news of a creation reaches us before the row.
// The time runs from the arrival of the news; where others of the server came
// first, from those, so that a creation told twice settles once.
func (d *decider) settleAfterCreation(o *Observation) {
	if o.Creation {
		d.settleUntil(d.state.FirstSeenAt.Add(d.in.Policy.SettleDelay))
	}
}

// settleByAge applies to servers whose creation nobody announced: VirtFusion's
// own creation time counts, or the first sight where it is not known.
func (d *decider) settleByAge() {
	if d.state.SettleUntil != nil {
		return
	}
	born := d.state.FirstSeenAt
	if c := d.state.CreatedAt; c != nil && c.Before(born) { // a creation after the first sight is a clock that is wrong
		born = *c
	}
	d.settleUntil(born.Add(d.in.Policy.SettleDelay))
}

// settleUntil moves the end of settling, never forward in haste.
func (d *decider) settleUntil(t time.Time) {
	if d.state.SettleUntil == nil || t.After(*d.state.SettleUntil) {
		d.state.SettleUntil = &t
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
