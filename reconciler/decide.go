package reconciler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Decide says what is to be done about one server, and why. It is pure: the
// same input always gives the same decision, and nothing is read or written.
func Decide(in Input) Decision {
	d := decider{in: &in}
	d.observe()
	d.judge()
	d.restore()
	return d.conclude()
}

// decider carries one decision through its steps.
type decider struct {
	in *Input
	// state is what we know from now on, once begun.
	state State
	begun bool
	// fresh: the news say what is known now, so that it may be acted upon.
	fresh bool
	// cleared: the news come from a run that may change billing.
	cleared bool
	// rows are the billing rows that name the server as it is now.
	rows []Row

	out Decision
}

// judge decides the server's status and what becomes of its billing rows.
func (d *decider) judge() {
	s := &d.state
	if s.ID == 0 {
		return
	}
	d.rows = relevant(d.in.Rows, s)
	if d.held() {
		d.hold()
		d.undouble()
		return
	}
	if d.replaying() {
		d.await()
		return
	}
	s.AwaitingRun = ""
	if s.GoneAt != nil {
		d.gone()
		return
	}
	if s.ID > math.MaxInt32 {
		d.conflict(fmt.Sprintf("server id %d does not fit SkyPANEL's integer columns", s.ID))
		return
	}
	if odd := disagreeing(d.rows, s); odd != nil {
		d.conflict(fmt.Sprintf("billing row %d is for server %d with UUID %s, VirtFusion says %d with UUID %s: correct the row, or switch it off and clear its UUID",
			odd.ID, odd.ServerID, odd.UUID, s.ID, s.UUID))
		return
	}
	own := resolveOwner(s, d.in.Users)
	if own.conflict {
		d.conflict(own.note)
		return
	}
	rows := sortRows(d.rows, own)
	if note := d.doubts(rows, own); note != "" {
		d.conflict(note)
		return
	}
	if len(rows.strangers) > 0 && !d.fresh {
		// Closing somebody's row needs VirtFusion's word of today.
		s.Ask = askStranger
		d.standAsIs(own)
		return
	}
	d.endOthers(rows.strangers, own)
	s.UserID = nil
	if own.user != nil {
		s.UserID = &own.user.ID
		d.lapse(func(holder *int64) bool { return holder != nil && *holder != own.user.ID })
	}
	switch {
	case len(rows.native) > 0:
		d.native(rows, own)
	case own.user == nil && own.unknown:
		d.settle(own.note)
	case own.user == nil:
		d.unlinked(rows, own)
	default:
		d.external(rows, own.user)
	}
}

// askStranger is the question that comes before a row is closed because its
// user does not own the server.
const askStranger = "a billing row belongs to another user than the owner we know"

// doubts says what is wrong with SkyPANEL's own rows that only a person can
// mend; empty when nothing is.
func (d *decider) doubts(rows matched, own owner) string {
	if on := switchedOn(rows.native); len(on) > 1 {
		return fmt.Sprintf("SkyPANEL bills it twice, by rows %d and %d: switch one off", on[0].ID, on[1].ID)
	}
	known := d.in.Known
	moved := known != nil && known.OwnerID != 0 && known.OwnerID != d.state.OwnerID
	if own.user != nil || moved {
		return ""
	}
	for _, r := range rows.strangers {
		if !r.Ours { // a link that was lost is no move: SkyPANEL's row is not ours to close
			return fmt.Sprintf("SkyPANEL's own row %d bills user %d, but %s", r.ID, r.UserID, own.note)
		}
	}
	return ""
}

// gone switches billing off at once; rows and charges stay, as history.
func (d *decider) gone() {
	s := &d.state
	d.lapse(func(*int64) bool { return true })
	s.Status, s.BillingOn, s.Reason = StatusGone, false, ReasonDestroyed
	s.Note = "VirtFusion says that the server is gone"
	for i := range d.rows {
		r := &d.rows[i]
		if !agrees(r, s) {
			s.Note = fmt.Sprintf("gone; billing row %d names its id or UUID but not both: it was left as it is", r.ID)
			continue
		}
		if own := d.twin(r); own != nil {
			d.withdrawFor(r, own)
			continue
		}
		s.BillingID = &r.ID
		if r.Enabled {
			d.closeRow(r, ClosedDestroyed, "the server is gone: billing is switched off, the row and its charges stay as history")
		}
	}
}

// conflict changes nothing in the books and says what was seen.
func (d *decider) conflict(note string) {
	s := &d.state
	s.Status, s.Note, s.Reason = StatusConflict, note, ReasonNone
	d.asTheBooksStand()
}

// asTheBooksStand says whether the server is billed as things are.
func (d *decider) asTheBooksStand() {
	s := &d.state
	s.BillingOn = false
	for i := range d.rows {
		if r := &d.rows[i]; r.Enabled && r.ServerID == s.ID {
			s.BillingOn = true
			s.BillingID = &r.ID
		}
	}
}

// standAsIs keeps the stored judgement until VirtFusion has been asked.
func (d *decider) standAsIs(own owner) {
	switch known := d.in.Known; {
	case known == nil || d.state.Status == StatusSettling:
		d.settle(cmp.Or(own.note, d.state.Ask))
	case known.AwaitingRun != "":
		d.state.Note = d.state.Ask // no person is waited for any more
	}
}

// unlinked has no billing: its owner is nobody in SkyPANEL.
func (d *decider) unlinked(rows matched, own owner) {
	s := &d.state
	s.Status, s.BillingOn, s.Reason, s.BillingID = StatusUnlinked, false, ReasonNone, nil
	s.Note = own.note
	s.UserID = nil
	for i := range rows.ours {
		if r := &rows.ours[i]; r.Enabled {
			d.closeRow(r, ClosedMoved, "its owner is nobody in SkyPANEL any more")
		}
	}
}

// settle waits, and says for what.
func (d *decider) settle(note string) {
	s := &d.state
	s.Status, s.BillingOn, s.Reason, s.BillingID = StatusSettling, false, ReasonNone, nil
	s.Note = note
}

// foundBy notes the run that found a server which settles, for the row to come.
func (d *decider) foundBy(o *Observation) {
	if o.RunID != "" {
		d.state.RunID = o.RunID
	}
}

// attribute says to which run the changes belong.
func (d *decider) attribute() {
	s := &d.state
	var by string
	if d.out.By != nil {
		by = d.out.By.RunID
	}
	d.out.RunID = cmp.Or(d.in.RunID, by, s.RunID)
	if s.Status != StatusSettling {
		s.RunID = ""
	}
}

func (d *decider) line(l Line) { d.out.Lines = append(d.out.Lines, l) }

// conclude compares the new state with the stored one.
func (d *decider) conclude() Decision {
	if d.in.Policy.ObserveOnly {
		d.observeOnly()
	}
	s, known := &d.state, d.in.Known
	if known == nil {
		known = &State{}
	}
	d.attribute()
	switch {
	case d.out.Create != nil:
		d.out.Outcome = OutcomeNew
	case len(d.out.Changes)+len(d.out.Withdraw) > 0:
		d.out.Outcome = OutcomeUpdated
	default:
		d.out.Outcome = OutcomeUnchanged
	}
	if changes := decidedDiff(known, s); len(changes) > 0 {
		before, after := sides(changes)
		if d.in.Known == nil {
			before = nil
		}
		d.line(Line{Kind: LineDecided, Reason: s.Note, Before: before, After: after})
		d.out.Save = true
	}
	d.out.Save = d.out.Save || d.out.Create != nil || silentDiff(known, s) || len(observedDiff(known, s)) > 0
	d.out.Touch = !d.out.Save && touched(known, s)
	if s.Ask != known.Ask {
		d.out.Ask = s.Ask
	}
	d.out.State = *s
	return d.out
}

// observeOnly takes back every change of a billing row, and says what it would
// have been.
func (d *decider) observeOnly() {
	if d.out.Create == nil && len(d.out.Changes)+len(d.out.Withdraw) == 0 {
		return
	}
	s := &d.state
	var would []string
	d.out.Lines = slices.DeleteFunc(d.out.Lines, func(l Line) bool {
		if l.Kind == LineObserved || l.Kind == LineDecided {
			return false
		}
		words := l.Reason
		if l.Kind == LineCreated || d.resumes(l.RowID) { // those tell the time of this look, the note does not
			words = s.Note
		}
		would = append(would, words)
		return true
	})
	if d.out.Create != nil {
		d.settle("")
		s.SettleUntil = nil // it has settled: the settler need not look at it for ever
	}
	s.Note = "observing only; else: " + strings.Join(would, "; ")
	d.asTheBooksStand()
	switch {
	case s.BillingOn:
		s.Reason = ReasonNone
	case s.Reason == ReasonNone && d.in.Known != nil:
		s.Reason = d.in.Known.Reason
	}
	d.out.Create, d.out.Changes, d.out.Withdraw = nil, nil, nil
}
