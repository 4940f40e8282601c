package reconciler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"serversync/db"
	"serversync/events"
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

// twin is SkyPANEL's own row for the user whom a row of ours bills; nil: there is
// none. One that was closed because the server moved is of an earlier time.
func (d *decider) twin(r *Row) *Row {
	for i := range d.rows {
		n := &d.rows[i]
		if r.Ours && !n.Ours && n.UserID == r.UserID && agrees(n, &d.state) && (n.Enabled || closedOf(n) != ClosedMoved) {
			return n
		}
	}
	return nil
}

func (d *decider) withdrawFor(r, native *Row) {
	d.withdraw(r, fmt.Sprintf("SkyPANEL's own billing row %d has turned up", native.ID))
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

// native leaves SkyPANEL's own row alone, fills in its missing UUID, and takes
// back a row of ours beside it.
func (d *decider) native(rows matched, own owner) {
	s := &d.state
	row := &rows.native[len(rows.native)-1]
	if on := switchedOn(rows.native); len(on) > 0 {
		row = &on[0]
	}
	s.Status, s.BillingID, s.BillingOn, s.Reason = StatusNative, &row.ID, row.Enabled, ReasonNone
	s.Note = "SkyPANEL made its billing row"
	if own.user == nil {
		s.UserID = &row.UserID
	}
	c := RowChange{RowID: row.ID, Closed: closedOf(row)}
	changed := d.obeyOn(row, &c)
	switch wishes := &d.in.Wishes; {
	case s.BillingOn && wishes.BillingOn:
		s.Note = "SkyPANEL made its billing row; an operator wants it billed"
	case s.BillingOn:
	case wishes.off():
		s.Reason, s.Note = ReasonOperator, "SkyPANEL made its billing row; an operator wants it off"
	case closedOf(row) == ClosedDestroyed:
		s.Reason = ReasonDestroyed
		s.Note = "its billing row was switched off when the server was reported gone; switch it on again if it is to be billed"
	default:
		s.Reason = ReasonDisabled
		s.Note = "SkyPANEL made its billing row and switched it off: check whether that was meant"
	}
	if row.UUID == "" && s.UUID != "" && row.ServerID == s.ID && !d.in.Wishes.Keep {
		c.UUID, changed = &s.UUID, true
		before, after := sides([]change{{"server_uuid", nil, s.UUID}})
		d.line(Line{Kind: LineChanged, RowID: row.ID, Reason: "SkyPANEL's row had no UUID: filled in", Before: before, After: after})
	}
	if changed { // one change for a row: two would not find it as it was read
		d.out.Changes = append(d.out.Changes, c)
	}
	for i := range rows.ours {
		d.withdrawFor(&rows.ours[i], row)
	}
}

// obeyOn switches one of SkyPANEL's own rows as an operator wishes, and back
// when they wish it no longer: without their word it is not ours to switch. It
// reports whether the row, or our memory of it, changes.
func (d *decider) obeyOn(row *Row, c *RowChange) bool {
	wishes, s := &d.in.Wishes, &d.state
	why := "an operator's word: " + wishes.Words
	lifted := closedOf(row) == ClosedOperator && !wishes.off()
	switch {
	case wishes.off() && row.Enabled:
		c.Enable, s.BillingOn, c.Closed = new(false), false, ClosedOperator
	case wishes.BillingOn && !wishes.off() && !row.Enabled:
		c.Enable, s.BillingOn, c.Resume, c.Closed = new(true), true, new(d.unpaid()), ClosedNot
	case lifted && !row.Enabled:
		c.Enable, s.BillingOn, c.Resume, c.Closed = new(true), true, new(d.unpaid()), ClosedNot
		why = "an operator no longer wants it off"
	case lifted: // somebody else switched it on: whoever switches it off now means it
		c.Enable, c.Closed = new(true), ClosedNot
		why = "an operator no longer wants it off, and it is on already"
	default:
		return false
	}
	changes := []change{{"billing_enabled", row.Enabled, s.BillingOn}}
	if c.Resume != nil {
		changes = append(changes, change{"last_billed_at", row.LastBilledAt, *c.Resume})
	}
	before, after := sides(changes)
	d.line(Line{Kind: LineChanged, RowID: row.ID, Reason: why, Before: before, After: after})
	return true
}

// lapse ends the wishes of undoes that hold no longer, by the owner for whom they
// held: what was taken back was another's, or another server's.
func (d *decider) lapse(over func(holder *int64) bool) {
	w := &d.in.Wishes // a copy of this decision's own
	if w.Undone && over(w.UndoneFor) {
		w.Undone = false
		d.out.Lapsed = append(d.out.Lapsed, db.WishUndone)
	}
	if w.Keep && over(w.KeepFor) {
		w.Keep = false
		d.out.Lapsed = append(d.out.Lapsed, db.WishKeep)
	}
}

// soldTo reports that SkyPANEL has traces of having sold the server to its
// owner. What it sold to the one before is no order of theirs.
func (d *decider) soldTo(u *User) bool {
	return d.in.Trace != "" && (len(d.in.SoldTo) == 0 || slices.Contains(d.in.SoldTo, u.ID))
}

// soldBySkyPANEL marks a server without a row as SkyPANEL's own: it has traces
// of an order there, and its row was never written, or lost.
func (d *decider) soldBySkyPANEL() {
	s := &d.state
	s.Status, s.BillingOn, s.BillingID = StatusNative, false, nil
	s.Reason, s.Note = ReasonDisabled, "SkyPANEL sold it ("+d.in.Trace+") but has no billing row for it: add the row there, or have it billed by an operator's word"
	if !d.in.Policy.HourlyMode {
		s.Reason, s.Note = ReasonMonthlyMode, "SkyPANEL sold it ("+d.in.Trace+") and bills it by the month"
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

// external makes our billing row, or keeps it true.
func (d *decider) external(rows matched, u *User) {
	s := &d.state
	if len(rows.ours) == 0 {
		switch {
		case d.soldTo(u) && len(d.rows) == 0 && !d.in.Wishes.BillingOn:
			d.soldBySkyPANEL()
		case d.in.Wishes.Ignore || d.in.Wishes.Undone:
			s.Status, s.BillingOn, s.Reason, s.BillingID = StatusExternal, false, ReasonOperator, nil
			s.Note = "an operator's word: " + d.in.Wishes.Words
		case !s.Confirmed:
			d.settle("its creation failed: nothing is billed until VirtFusion shows it working")
		case s.SettleUntil != nil && d.in.Now.Before(*s.SettleUntil):
			d.settle("new: SkyPANEL's own billing row may still come, until " + clock(*s.SettleUntil))
		default:
			d.create(u)
		}
		return
	}
	// The enabled one, or the newest that was not withdrawn, is the one that
	// counts.
	keepAt := 0
	for i := range rows.ours {
		if rows.ours[i].Enabled {
			keepAt = i
			break
		}
		if closedOf(&rows.ours[i]) != ClosedWithdrawn {
			keepAt = i
		}
	}
	for i := range rows.ours {
		if i != keepAt && rows.ours[i].Enabled {
			d.withdraw(&rows.ours[i], fmt.Sprintf("it doubles our billing row %d", rows.ours[keepAt].ID))
		}
	}
	switch kept := &rows.ours[keepAt]; {
	case d.in.Wishes.Undone:
		d.withdraw(kept, "an operator's word: "+d.in.Wishes.Words)
		s.Status, s.BillingOn, s.Reason, s.BillingID = StatusExternal, false, ReasonOperator, &kept.ID
		if d.deletes(kept.ID) {
			s.BillingID = nil
		}
		s.Note = "an operator's word: " + d.in.Wishes.Words
	default:
		d.maintain(kept, u)
	}
}

// deletes reports that a row is to be deleted.
func (d *decider) deletes(rowID int64) bool {
	return slices.ContainsFunc(d.out.Withdraw, func(w RowWithdrawal) bool { return w.RowID == rowID && w.Delete })
}

// create makes a billing row of ours.
func (d *decider) create(u *User) {
	s := &d.state
	t := termsFor(s, u, d.in)
	start := d.unpaid()
	if d.in.Policy.StartAtCreation && d.firstDecision() && s.CreatedAt != nil && s.CreatedAt.Before(start) {
		start = *s.CreatedAt
	}
	last, charge := firstHour(t, d.in.Policy, start)
	d.out.Create = &NewRow{
		UserID: u.ID, PackageID: t.packageID, PackageName: t.packageName,
		MonthlyPrice: t.monthlyPrice, HourlyRate: t.hourlyRate, Hours: t.hours, Enabled: t.on,
		ServerCreatedAt: s.CreatedAt, LastBilledAt: last, Charge: charge,
	}
	s.Status, s.BillingID = StatusExternal, nil // the id is known once the row is made
	s.BillingOn, s.Reason = t.on, t.reason
	s.Note = externalNote(t)
	d.line(Line{
		Kind:   LineCreated,
		Reason: "made outside SkyPANEL: " + createdWords(d.out.Create, t),
		After:  object(rowFacts(d.out.Create)),
	})
}

// unpaid is from when the server may be billed: now, or the end of the hour
// that was charged already, be it to the owner before. No hour is charged
// twice.
func (d *decider) unpaid() time.Time {
	t := d.in.Now
	for i := range d.rows {
		switch r := &d.rows[i]; {
		case r.LastBilledAt != nil:
			t = later(t, *r.LastBilledAt)
		case r.ServerCreatedAt != nil && !r.Ours:
			t = later(t, r.ServerCreatedAt.Add(d.in.Policy.hour())) // SkyPANEL takes the first hour with the order
		}
	}
	return t
}

// firstDecision reports that nobody was ever billed for the server, as far as
// is known: only then may billing reach back to its creation, or an hour could
// be charged twice, or to somebody who did not own it yet.
func (d *decider) firstDecision() bool {
	known := d.in.Known
	return len(d.rows) == 0 && (known == nil || known.Status == StatusSettling && known.OwnerID == d.state.OwnerID)
}

// maintain keeps a row of ours true: price, package, UUID and switch.
func (d *decider) maintain(r *Row, u *User) {
	s := &d.state
	t := termsFor(s, u, d.in)
	if d.in.Wishes.Keep {
		t = d.keptTerms(r, u)
	}
	wasOn := r.Enabled
	if t.on && !wasOn && !d.in.Wishes.BillingOn && (r.Record == nil || r.Record.Enabled) {
		// We left it on, or cannot know that we did not: somebody else
		// switched it off, and their word stands until an operator's.
		t.on, t.reason = false, ReasonDisabled
	}

	c := RowChange{RowID: r.ID, Closed: closedOf(r)}
	var changes []change
	if t.on != wasOn {
		c.Enable = &t.on
		changes = append(changes, change{"billing_enabled", wasOn, t.on})
		if t.on {
			resume := d.unpaid()
			c.Resume = &resume
			c.Closed = ClosedNot
			changes = append(changes, change{"last_billed_at", r.LastBilledAt, resume})
		}
	}
	if t.on && wasOn && r.Record != nil && !r.Record.Enabled {
		// Somebody else switched it on, and rightly: from now on it is as if we
		// had, or SkyPANEL switching it off later would look like our doing.
		c.Enable, c.Resume, c.Closed = &t.on, new(d.unpaid()), ClosedNot
		changes = append(changes, change{"last_billed_at", r.LastBilledAt, d.unpaid()})
	}
	if s.UUID != "" && r.UUID == "" && !d.in.Wishes.Keep {
		c.UUID = &s.UUID
		changes = append(changes, change{"server_uuid", nil, s.UUID})
	}
	if priceChanges := termsDiff(r, t); len(priceChanges) > 0 {
		c.Terms = &t
		changes = append(changes, priceChanges...)
	}

	s.Status, s.BillingID = StatusExternal, &r.ID
	s.BillingOn, s.Reason = t.on, t.reason
	s.Note = externalNote(t)
	if len(changes) == 0 {
		return
	}
	d.out.Changes = append(d.out.Changes, c)
	before, after := sides(changes)
	d.line(Line{Kind: LineChanged, RowID: r.ID, Reason: changedWords(r, t, d.unpaid()), Before: before, After: after})
}

// keptTerms are those of a row whose package and price stay as they are: whether
// it is billed is decided as ever.
func (d *decider) keptTerms(r *Row, u *User) terms {
	in := *d.in
	in.Wishes.PackageID = &r.PackageID
	t := termsFor(&d.state, u, &in)
	t.packageID, t.packageName, t.monthlyPrice, t.hourlyRate, t.hours = r.PackageID, r.PackageName, r.MonthlyPrice, r.HourlyRate, r.Hours
	return t
}

// endOthers ends billing under users who no longer own the server. A row of ours
// that doubles SkyPANEL's own for the same user is taken back, however late that
// one came.
func (d *decider) endOthers(strangers []Row, own owner) {
	for i := range d.rows {
		r := &d.rows[i]
		if native := d.twin(r); native != nil && (own.user == nil && !own.unknown || own.user != nil && own.user.ID != r.UserID) {
			d.withdrawFor(r, native)
		}
	}
	for i := range strangers {
		if d.twin(&strangers[i]) == nil {
			d.closeMoved(&strangers[i], own)
		}
	}
}

// closeMoved ends billing under a user who no longer owns the server.
func (d *decider) closeMoved(r *Row, own owner) {
	to := "an owner who is nobody in SkyPANEL"
	if own.user != nil {
		to = fmt.Sprintf("SkyPANEL user %d", own.user.ID)
	}
	d.closeRow(r, ClosedMoved, fmt.Sprintf("the server moved from SkyPANEL user %d to %s", r.UserID, to))
}

func (d *decider) closeRow(r *Row, closed Closed, why string) {
	// After a move within an hour that was charged already, the first hour of
	// our row lies ahead. It ends before it has begun: nobody owes it.
	void := r.Ours && r.LastBilledAt != nil && r.LastBilledAt.Add(-d.in.Policy.hour()).After(d.in.Now)
	if void {
		why += "; its first charge, for an hour that has not begun, is void"
	}
	d.out.Changes = append(d.out.Changes, RowChange{RowID: r.ID, Enable: new(false), Closed: closed, Void: void})
	before, after := sides([]change{{"billing_enabled", true, false}})
	d.line(Line{Kind: LineClosed, RowID: r.ID, Reason: why, Before: before, After: after})
}

// withdraw takes back a row of ours. It is deleted, with its pending charge,
// only while nothing was charged: its first hour is not over, its values are
// as we left them, and it has no charge but ours, whose credit nobody takes.
// Otherwise it is switched off and listed for a refund.
func (d *decider) withdraw(r *Row, why string) {
	if r.Record != nil && r.Record.Closed == ClosedWithdrawn && !r.Enabled {
		return // withdrawn before
	}
	untouched := !r.Charged &&
		r.LastBilledAt != nil && (d.in.Now.Before(*r.LastBilledAt) || d.in.undo != nil && !r.Enabled) &&
		r.Record != nil && r.Record.LastBilledAt != nil &&
		r.Record.LastBilledAt.Equal(*r.LastBilledAt) && r.Record.MonthlyPrice.Equal(r.MonthlyPrice) &&
		r.Record.PackageID == r.PackageID &&
		r.Record.Enabled == r.Enabled
	d.out.Withdraw = append(d.out.Withdraw, RowWithdrawal{RowID: r.ID, Delete: untouched})
	before := object(map[string]any{"user_id": r.UserID, "monthly_price": r.MonthlyPrice, "billing_enabled": r.Enabled, "last_billed_at": r.LastBilledAt})
	if untouched {
		d.line(Line{Kind: LineWithdrawn, RowID: r.ID, Reason: why + ": our row, which nobody has charged, is deleted", Before: before})
		return
	}
	fate := ": our row is switched off, its pending charge is void"
	if r.Charged {
		fate = ": our row, which was charged or may have been, is switched off; what nobody has collected or is collecting of it is void"
	}
	d.line(Line{
		Kind: LineWithdrawn, RowID: r.ID, Reason: why + fate, Before: before,
		After: object(map[string]any{"billing_enabled": false}),
	})
	if !r.Charged && !r.Enabled && r.Record != nil && !r.Record.Enabled {
		return // it was off, and nothing was ever charged
	}
	if d.in.undo != nil { // what was charged is known exactly
		d.refund(r)
		return
	}
	d.line(Line{Kind: LineRefundDue, RowID: r.ID, Reason: fmt.Sprintf("billing row %d may have been charged beside SkyPANEL's own: check its charges and refund user %d", r.ID, r.UserID)})
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

// resumes reports that a row's billing is to go on.
func (d *decider) resumes(rowID int64) bool {
	return slices.ContainsFunc(d.out.Changes, func(c RowChange) bool { return c.RowID == rowID && c.Resume != nil })
}
