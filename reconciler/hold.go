package reconciler

import (
	"context"
	"slices"

	"serversync/events"
)

// held reports that the server waits for a person's approval of a run, so that
// nothing of its billing may change. What ends the waiting is the approved run
// itself, a newer observation by a run that is within its cap, and the server's
// end, which stops billing at once whoever tells it.
func (d *decider) held() bool {
	s := &d.state
	return s.AwaitingRun != "" && !d.in.Authorized && !d.cleared && (s.GoneAt == nil || !d.fresh)
}

// hold leaves the books as they stand, and says what is waited for.
func (d *decider) hold() {
	s, known := &d.state, d.in.Known
	d.asTheBooksStand()
	switch {
	case s.BillingOn, s.Status == StatusSettling:
		s.Reason = ReasonNone
	case s.Reason == ReasonNone && known != nil && known.BillingOn:
		s.Reason = ReasonDisabled // nor did we switch it off
	}
	s.Note = "waits for approval of run " + s.AwaitingRun + ": serversync sweep --approve " + s.AwaitingRun
}

// undouble takes back a row of ours beside SkyPANEL's own: that its customer pays
// twice waits for nobody.
func (d *decider) undouble() {
	for i := range d.rows {
		r := &d.rows[i]
		if native := d.twin(r); native != nil && r.Enabled {
			d.withdrawFor(r, native)
			if d.state.BillingID = &native.ID; !native.Enabled {
				d.state.BillingOn = false
			}
		}
	}
}

// decideHold has a server wait for approval of a run. What is known already
// stays as it is; a server never heard of is noted, so that people see it.
func decideHold(in Input) Decision {
	d := decider{in: &in}
	if in.Known != nil {
		d.state, d.begun = *in.Known, true
	} else {
		d.observe()
	}
	if d.begun {
		s := &d.state
		d.rows = relevant(in.Rows, s)
		s.AwaitingRun = in.RunID
		d.hold()
	}
	return d.conclude()
}

// Hold has servers wait for a person's approval of a run: their billing stays
// as it is until an observation of that run arrives, [Reconciler.RedecideFor]
// decides them, or they are gone. news are the run's observations of some of
// them, in whichever order: a server that the inventory does not know is noted
// with them, of a known one nothing else changes. A server that is neither known
// nor in news is passed over. Each batch of servers is one transaction; a second
// call changes nothing.
func (r *Reconciler) Hold(ctx context.Context, runID string, ids []int64, news []events.Event) error {
	works := worksFor(ids, news)
	for i := range works {
		w := &works[i]
		w.hold, w.runID, w.origin = true, runID, originRun
		for j := range w.news {
			w.news[j].RunID = runID
		}
	}
	for batch := range slices.Chunk(works, events.BatchSize) {
		if _, err := r.redecide(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}
