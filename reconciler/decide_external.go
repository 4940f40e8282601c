package reconciler

import (
	"fmt"
	"slices"
	"time"
)

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
