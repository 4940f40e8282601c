package reconciler

import (
	"fmt"
	"slices"

	"serversync/db"
)

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
