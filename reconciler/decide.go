package reconciler

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// Decide says what is to be done about one server, and why. It is pure: the
// same input always gives the same decision, and nothing is read or written.
func Decide(in Input) Decision {
	d := decider{in: &in}
	d.observe()
	d.judge()
	return d.conclude()
}

// decider carries one decision through its steps.
type decider struct {
	in *Input
	// state is what we know from now on.
	state State
	// fresh: the observation is newer than what was known, so that it may be
	// acted upon.
	fresh bool
	// rows are the billing rows that name the server as it is now.
	rows []Row

	out Decision
}

// observe lays the observation over what is known, if it is newer.
func (d *decider) observe() {
	o, known := d.in.Observation, d.in.Known
	if known != nil {
		d.state = *known
	}
	if o == nil {
		return
	}
	base := State{ID: o.Server.ID, Status: StatusSettling, FirstSeenAt: micro(o.FirstReceivedAt)}
	if known != nil {
		base = *known
	}
	merged := merge(base, &o.Server)
	switch compareWithKnown(o, known, &merged) {
	case older:
		d.settleAfterCreation(o)
	case undecided:
		d.out.Ask = "two observations disagree and neither is newer"
		if o.Gone {
			d.out.Ask = "VirtFusion reported its end, but showed it later"
		}
	case same:
		d.fresh = true
		d.settleAfterCreation(o)
	case newer:
		d.fresh = true
		d.take(o, merged)
		if o.Disagree {
			d.out.Ask = "two observations disagree and neither is newer"
		}
	}
}

// take makes a newer observation what is known.
func (d *decider) take(o *Observation, merged State) {
	known := d.in.Known
	merged.ObservedAt = micro(o.ObservedAt)
	merged.ObservedSource = string(o.Source)
	merged.ObservedEventID = o.EventID
	switch {
	case o.Gone:
		merged.GoneAt = utc(&o.ObservedAt)
	default:
		merged.LastSeenAt = later(merged.LastSeenAt, micro(o.FirstReceivedAt))
		merged.GoneAt = nil
	}
	if merged.LastSeenAt.IsZero() {
		merged.LastSeenAt = merged.FirstSeenAt
	}
	merged.Confirmed = known != nil && known.Confirmed || !o.Failed
	d.state = merged
	if !o.Gone {
		d.settleAfterCreation(o)
		d.settleByAge()
	}

	if known == nil {
		_, after := sides(observedDiff(&State{}, &merged))
		d.line(Line{Kind: LineObserved, Reason: "first seen in VirtFusion, by " + string(o.Source), After: after})
		return
	}
	if changes := observedDiff(known, &merged); len(changes) > 0 {
		before, after := sides(changes)
		d.line(Line{Kind: LineObserved, Reason: observedWords(changes, o), Before: before, After: after})
	}
}

// settleAfterCreation gives SkyPANEL time to insert its own row: it calls
// VirtFusion first, so that the news of a creation reaches us before the row.
func (d *decider) settleAfterCreation(o *Observation) {
	if o.Creation {
		d.settleUntil(micro(o.FirstReceivedAt).Add(d.in.Policy.SettleDelay))
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
		d.out.Ask = "a billing row belongs to another user than the owner we know"
		d.standAsIs(own)
		return
	}
	for i := range rows.strangers {
		d.closeMoved(&rows.strangers[i], own)
	}
	s.UserID = nil
	if own.user != nil {
		s.UserID = &own.user.ID
	}
	switch {
	case len(rows.native) > 0:
		d.native(rows, own)
	case own.user == nil && own.unknown:
		d.wait(own.note)
	case own.user == nil:
		d.unlinked(rows, own)
	default:
		d.external(rows, own.user)
	}
}

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
	s.Status, s.BillingOn, s.Reason = StatusGone, false, ReasonDestroyed
	s.SettleUntil = nil
	s.Note = "VirtFusion says that the server is gone"
	for i := range d.rows {
		r := &d.rows[i]
		if !agrees(r, s) {
			s.Note = fmt.Sprintf("gone; billing row %d names its id or UUID but not both: it was left as it is", r.ID)
			continue
		}
		if s.BillingID == nil {
			s.BillingID = &r.ID
		}
		if r.Enabled {
			d.closeRow(r, ClosedDestroyed, "the server is gone: billing is switched off, the row and its charges stay as history")
		}
	}
}

// conflict changes nothing in the books and says what was seen.
func (d *decider) conflict(note string) {
	s := &d.state
	s.Status, s.Note, s.Reason = StatusConflict, note, ReasonNone
	s.BillingOn = false
	for i := range d.rows {
		if r := &d.rows[i]; r.Enabled && r.ServerID == s.ID {
			s.BillingOn = true // as the books stand
			s.BillingID = &r.ID
		}
	}
}

// standAsIs keeps the stored judgement until VirtFusion has been asked.
func (d *decider) standAsIs(own owner) {
	if d.in.Known == nil || d.state.Status == StatusSettling {
		d.settle(cmp.Or(own.note, d.out.Ask))
		again := d.in.Now.Add(max(d.in.Policy.SettleDelay, askAgain))
		d.state.SettleUntil = &again
	}
}

// askAgain is the least time between two looks at a settling server that
// cannot be decided without VirtFusion's word.
const askAgain = time.Minute

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
	if !row.Enabled {
		s.Reason = ReasonDisabled
		s.Note = "SkyPANEL made its billing row and switched it off: check whether that was meant"
		if row.Record != nil && row.Record.Closed == ClosedDestroyed {
			s.Reason = ReasonDestroyed
			s.Note = "its billing row was switched off when the server was reported gone; switch it on again if it is to be billed"
		}
	}
	if row.UUID == "" && s.UUID != "" && row.ServerID == s.ID {
		d.out.Changes = append(d.out.Changes, RowChange{RowID: row.ID, UUID: &s.UUID, Closed: closedOf(row)})
		before, after := sides([]change{{"server_uuid", nil, s.UUID}})
		d.line(Line{Kind: LineChanged, RowID: row.ID, Reason: "SkyPANEL's row had no UUID: filled in", Before: before, After: after})
	}
	for i := range rows.ours {
		d.withdraw(&rows.ours[i], fmt.Sprintf("SkyPANEL's own billing row %d has turned up", row.ID))
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

// wait is settling without an end: only news of the server can go on.
func (d *decider) wait(note string) {
	d.settle(note)
	d.state.SettleUntil = nil
}

// settle waits for the settling time to pass, and says for what.
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
		case !s.Confirmed:
			d.wait("its creation failed: nothing is billed until VirtFusion shows it working")
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
	d.maintain(&rows.ours[keepAt], u)
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
		t = later(t, deref(d.rows[i].LastBilledAt))
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
	wasOn := r.Enabled
	if t.on && !wasOn && (r.Record == nil || r.Record.Enabled) {
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
	if s.UUID != "" && r.UUID == "" {
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

// closeMoved ends billing under a user who no longer owns the server.
func (d *decider) closeMoved(r *Row, own owner) {
	to := "an owner who is nobody in SkyPANEL"
	if own.user != nil {
		to = fmt.Sprintf("SkyPANEL user %d", own.user.ID)
	}
	d.closeRow(r, ClosedMoved, fmt.Sprintf("the server moved from SkyPANEL user %d to %s", r.UserID, to))
}

func (d *decider) closeRow(r *Row, closed Closed, why string) {
	off := false
	d.out.Changes = append(d.out.Changes, RowChange{RowID: r.ID, Enable: &off, Closed: closed})
	before, after := sides([]change{{"billing_enabled", true, false}})
	d.line(Line{Kind: LineClosed, RowID: r.ID, Reason: why, Before: before, After: after})
}

// withdraw takes back a row of ours. It is deleted, with its pending charge,
// only while nothing was charged: its first hour is not over, its values are
// as we left them, and it has no charge but ours. Otherwise it is switched off
// and listed for a refund.
func (d *decider) withdraw(r *Row, why string) {
	if r.Record != nil && r.Record.Closed == ClosedWithdrawn && !r.Enabled {
		return // withdrawn before
	}
	untouched := !r.Charged &&
		r.LastBilledAt != nil && d.in.Now.Before(*r.LastBilledAt) &&
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
	d.line(Line{
		Kind: LineWithdrawn, RowID: r.ID, Reason: why + ": our row is switched off, its pending charge is void", Before: before,
		After: object(map[string]any{"billing_enabled": false}),
	})
	if !r.Charged && !r.Enabled && r.Record != nil && !r.Record.Enabled {
		return // it was off, and nothing was ever charged
	}
	d.line(Line{Kind: LineRefundDue, RowID: r.ID, Reason: fmt.Sprintf("billing row %d may have been charged beside SkyPANEL's own: check its charges and refund user %d", r.ID, r.UserID)})
}

func (d *decider) line(l Line) { d.out.Lines = append(d.out.Lines, l) }

// conclude compares the new state with the stored one.
func (d *decider) conclude() Decision {
	s, known := &d.state, d.in.Known
	if known == nil {
		known = &State{}
	}
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
	d.out.State = *s
	return d.out
}
