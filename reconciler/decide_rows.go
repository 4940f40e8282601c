package reconciler

import (
	"fmt"
	"slices"
)

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

// resumes reports that a row's billing is to go on.
func (d *decider) resumes(rowID int64) bool {
	return slices.ContainsFunc(d.out.Changes, func(c RowChange) bool { return c.RowID == rowID && c.Resume != nil })
}
