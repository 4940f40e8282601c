package reconciler

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
	"serversync/internal/skypanel"
)

// previewBatch is how many servers one transaction previews.
const previewBatch = 1000

// Preview says what deciding servers would do, without writing or locking
// anything: those of ids, from what is stored where news has no observation of
// them, and those of news. Its answers are in the order of the servers' ids; a
// server that is neither known nor in news has none.
//
// It shows what would be done if nothing stood in the way: whether the process
// only observes, or the server waits for approval, does not count. Of a server
// that would begin to settle, it shows the row to come. A server that cannot be
// decided has no effect, and says why.
//
// While the database is away it waits, until ctx ends.
func (r *Reconciler) Preview(ctx context.Context, ids []int64, news []events.Event) ([]db.RunEffect, error) {
	works := worksFor(ids, news)
	effects := make([]db.RunEffect, 0, len(works))
	for batch := range slices.Chunk(works, previewBatch) {
		outlooks, err := r.preview(ctx, batch)
		if err != nil {
			return nil, err
		}
		for i := range outlooks {
			effects = append(effects, outlooks[i].RunEffect)
		}
	}
	return effects, nil
}

// outlook is what deciding one server would do.
type outlook struct {
	db.RunEffect
	// urgent: billing ends because the server is gone or an operator wishes it, or
	// a row of ours that doubles another is taken back. That waits for nobody.
	urgent bool
	// waits: for a person's approval, so that nothing else is done.
	waits bool
}

// preview is one transaction of [Reconciler.Preview]; where something in it is
// refused it goes on by halves.
func (r *Reconciler) preview(ctx context.Context, works []work) ([]outlook, error) {
	var outlooks []outlook
	err := r.insist(ctx, 0, func() (err error) {
		outlooks, err = r.foresee(ctx, works)
		return err
	})
	switch {
	case err == nil:
		return outlooks, nil
	case classify(err) != classFault:
		return nil, fmt.Errorf("preview %d servers: %w", len(works), err)
	case len(works) == 1:
		r.log.Error().Err(err).Int64("server", works[0].serverID).Msg("a server cannot be previewed; the others go on. Report it with this line")
		return []outlook{{RunEffect: db.RunEffect{
			ServerID: works[0].serverID, Effect: db.EffectNone, Billing: billingOff, Changes: true,
			Why: "it cannot be decided: " + oneLine(err.Error()),
		}}}, nil
	}
	half := len(works) / 2
	first, err := r.preview(ctx, works[:half])
	if err != nil {
		return nil, err
	}
	second, err := r.preview(ctx, works[half:])
	return append(first, second...), err
}

func (r *Reconciler) foresee(ctx context.Context, works []work) (outlooks []outlook, err error) {
	defer caught(&err)
	snapshot := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	err = r.db.RunInTx(ctx, snapshot, func(ctx context.Context, tx bun.Tx) error {
		ev, err := r.read(ctx, tx, works)
		if err != nil {
			return err
		}
		now := micro(r.now())
		outlooks = make([]outlook, 0, len(works))
		for i := range works {
			in := ev.input(&works[i], now)
			if in.Known == nil && len(in.News) == 0 {
				continue
			}
			outlooks = append(outlooks, lookAhead(in))
		}
		return nil
	})
	return outlooks, err
}

// lookAhead decides one server as if nothing stood in the way, and says what
// that would do. It is pure, as [Decide] is.
func lookAhead(in Input) outlook {
	in.Authorized = true
	d := Decide(in)
	writes := writesAnything(&d)
	if in.Policy.ObserveOnly {
		in.Policy.ObserveOnly = false
		d = Decide(in)
	}
	doubt := ""
	if d.Ask == askStranger {
		// VirtFusion is asked next, and most likely says that all is as we know:
		// that answer comes by itself, and would be counted by nobody.
		in.News = append(slices.Clone(in.News), confirmation(in.Known, in.Now))
		doubt = ifConfirmed
		d = Decide(in)
	}
	if s := &d.State; !onItsWay(in.Known) && in.Now.Before(deref(s.SettleUntil)) && settles(s) && s.UserID != nil {
		in.Now = *s.SettleUntil
		d = Decide(in)
	}
	o := outlook{RunEffect: effectOf(&d, &in)}
	gone, wished := d.State.Status == StatusGone, d.State.Reason == ReasonOperator
	o.urgent = len(d.Withdraw) > 0 || o.Effect == db.EffectEnd && (gone || wished)
	o.waits = in.Known != nil && in.Known.AwaitingRun != ""
	o.Changes = writes
	o.Why = doubt + o.Why
	return o
}

// ifConfirmed begins the words of an effect that hangs on VirtFusion's answer.
const ifConfirmed = "if VirtFusion confirms its owner: "

// confirmation is an answer of VirtFusion's that says nothing new.
func confirmation(known *State, now time.Time) Observation {
	at := now
	if !at.After(known.ObservedAt) {
		at = known.ObservedAt.Add(time.Microsecond)
	}
	return Observation{Source: events.SourceRefetch, ObservedAt: at, ReceivedAt: now, Server: events.Server{ID: known.ID}}
}

// onItsWay reports that the settler will decide the server by itself: its row
// comes with or without whatever is previewed.
func onItsWay(known *State) bool {
	return known != nil && known.AwaitingRun == "" && settles(known)
}

// settles reports that nothing but time stands between a server and its row.
func settles(s *State) bool {
	return s.Status == StatusSettling && s.Confirmed && s.OwnerID != 0 && s.Ask == ""
}

// writesAnything reports that a decision writes more than the time of the last
// observation.
func writesAnything(d *Decision) bool {
	return d.Save || d.Create != nil || len(d.Changes)+len(d.Withdraw)+len(d.Lines)+len(d.Lapsed) > 0
}

// effectOf sums up a decision.
func effectOf(d *Decision, in *Input) db.RunEffect {
	s := &d.State
	e := db.RunEffect{
		ServerID: s.ID, Name: s.Name, UserID: s.UserID, Effect: effect(d, in),
		Billing: billingOff, Reason: string(s.Reason), Why: why(d),
	}
	if s.BillingOn {
		e.Billing = billingOn
	}
	for _, row := range relevant(in.Rows, s) {
		if row.Hours <= 0 {
			row.Hours = in.Policy.HoursPerMonth
		}
		e.ListBefore, e.EffectiveBefore = in.plus(e.ListBefore, e.EffectiveBefore, &row)
		after := afterwards(row, d)
		e.ListAfter, e.EffectiveAfter = in.plus(e.ListAfter, e.EffectiveAfter, &after)
	}
	if n := d.Create; n != nil {
		made := n.row()
		e.ListAfter, e.EffectiveAfter = in.plus(e.ListAfter, e.EffectiveAfter, &made)
		if n.Charge != nil {
			e.FirstCharge, e.Collected = n.Charge.Amount, n.Charge.Tokens > 0
		}
		if e.BackBilled = backBilled(n, in); e.BackBilled.IsPositive() {
			e.Why += fmt.Sprintf("; SkyPANEL charges %s at once for the time before", money(e.BackBilled))
		}
	}
	if e.Effect != db.EffectNone {
		e.Shares = sharesOf(d, in)
	}
	return e
}

// backBilled is what SkyPANEL's next job charges at once of a new row whose billing
// begins in the past: each hour that has begun since, in advance.
func backBilled(n *NewRow, in *Input) decimal.Decimal {
	if !n.Enabled || n.Hours <= 0 || !n.LastBilledAt.Before(in.Now) {
		return decimal.Zero
	}
	first := skypanel.FirstTokens(n.MonthlyPrice, n.Hours)
	if n.Charge != nil && n.Charge.Tokens > 0 { // it is the first
		first = skypanel.HourlyTokens(n.MonthlyPrice, n.Hours)
	}
	more := int64(in.Now.Sub(n.LastBilledAt) / in.Policy.hour())
	return cents(first + more*skypanel.HourlyTokens(n.MonthlyPrice, n.Hours))
}

// sharesOf are a decision's effects by customer, in the order of their ids. Rows of
// customers for whom nothing changes are in none.
func sharesOf(d *Decision, in *Input) []db.RunShare {
	byUser := make(map[int64]*db.RunShare)
	of := func(userID int64) *db.RunShare {
		if byUser[userID] == nil {
			byUser[userID] = &db.RunShare{UserID: userID}
		}
		return byUser[userID]
	}
	for _, row := range relevant(in.Rows, &d.State) {
		if row.Hours <= 0 {
			row.Hours = in.Policy.HoursPerMonth
		}
		share, after := of(row.UserID), afterwards(row, d)
		share.ListBefore, share.EffectiveBefore = in.plus(share.ListBefore, share.EffectiveBefore, &row)
		share.ListAfter, share.EffectiveAfter = in.plus(share.ListAfter, share.EffectiveAfter, &after)
	}
	for i := range in.Rows {
		row := &in.Rows[i]
		count(&of(row.UserID).Rows, row, d, in)
	}
	if n := d.Create; n != nil {
		share, made := of(n.UserID), n.row()
		share.Rows.Created++
		share.ListAfter, share.EffectiveAfter = in.plus(share.ListAfter, share.EffectiveAfter, &made)
		share.BackBilled = backBilled(n, in)
		if n.Charge != nil {
			share.FirstCharge, share.Collected = n.Charge.Amount, n.Charge.Tokens > 0
		}
	}
	shares := make([]db.RunShare, 0, len(byUser))
	for _, userID := range slices.Sorted(maps.Keys(byUser)) {
		if s := byUser[userID]; s.Rows != (db.RowChanges{}) || !s.ListAfter.Equal(s.ListBefore) || !s.EffectiveAfter.Equal(s.EffectiveBefore) {
			shares = append(shares, *s)
		}
	}
	return shares
}

// count adds what a decision does to a row, if that bills otherwise.
func count(rows *db.RowChanges, was *Row, d *Decision, in *Input) {
	if was.Enabled && slices.ContainsFunc(d.Withdraw, func(w RowWithdrawal) bool { return w.RowID == was.ID }) {
		rows.Withdrawn++
		return
	}
	at := slices.IndexFunc(d.Changes, func(c RowChange) bool { return c.RowID == was.ID })
	if at < 0 {
		return
	}
	c, after := &d.Changes[at], afterwards(*was, d)
	switch off := was.Enabled && !after.Enabled; {
	case off && moves(d, c, in):
		rows.Moved++
	case off && (closes(d, c) || d.State.Reason == ReasonOperator):
		rows.Ended++
	case off:
		rows.Disabled++
	case !was.Enabled && after.Enabled:
		rows.Enabled++
	case c.Terms != nil && !sameTerms(was, &after):
		rows.Changed++
	}
}

// moves reports that a change closes a row because the server is another owner's.
func moves(d *Decision, c *RowChange, in *Input) bool {
	return closes(d, c) && c.Closed == ClosedMoved && (d.Create != nil || d.State.UserID != nil || ownerChanged(in.Known, &d.State))
}

// plus adds what a row costs a month, if it is on: by the list, and what SkyPANEL
// charges of it.
func (in *Input) plus(list, effective decimal.Decimal, r *Row) (newList, newEffective decimal.Decimal) {
	if !r.Enabled {
		return list, effective
	}
	list = list.Add(r.MonthlyPrice)
	if in.collects(r) {
		effective = effective.Add(skypanel.EffectiveMonthly(r.MonthlyPrice, r.Hours))
	}
	return list, effective
}

// collects reports that SkyPANEL's job finds a row that is on: it joins on active
// users, and on packages that have a price.
func (in *Input) collects(r *Row) bool {
	_, priced := in.Prices[r.PackageID]
	return priced && in.Users.ByID[r.UserID].Active
}

// row is the row that a new one will be, as far as it costs something.
func (n *NewRow) row() Row {
	return Row{UserID: n.UserID, PackageID: n.PackageID, Enabled: n.Enabled, MonthlyPrice: n.MonthlyPrice, Hours: n.Hours}
}

// afterwards is a row as a decision leaves it.
func afterwards(r Row, d *Decision) Row {
	for i := range d.Changes {
		c := &d.Changes[i]
		if c.RowID != r.ID {
			continue
		}
		if c.Enable != nil {
			r.Enabled = *c.Enable
		}
		if c.Terms != nil {
			r.MonthlyPrice, r.PackageID, r.Hours = c.Terms.monthlyPrice, c.Terms.packageID, c.Terms.hours
		}
	}
	for _, w := range d.Withdraw {
		if w.RowID == r.ID {
			r.Enabled = false
		}
	}
	return r
}

// effect is what a decision does to the books, in one word: the weightiest, where
// it does several things.
func effect(d *Decision, in *Input) string {
	var rows db.RowChanges
	for i := range in.Rows {
		count(&rows, &in.Rows[i], d, in)
	}
	switch {
	case rows.Moved > 0:
		return db.EffectMove
	case d.Create != nil:
		return db.EffectCreate
	case rows.Ended+rows.Withdrawn > 0:
		return db.EffectEnd
	case rows.Enabled+rows.Disabled+rows.Changed > 0:
		return db.EffectChange
	default:
		return db.EffectNone
	}
}

// closes reports that a change ends a row's billing for good; why it was closed
// earlier says nothing of that.
func closes(d *Decision, c *RowChange) bool {
	return slices.ContainsFunc(d.Lines, func(l Line) bool { return l.Kind == LineClosed && l.RowID == c.RowID })
}

// ownerChanged reports that VirtFusion's owner is another. A row that is closed
// though he is not has lost its user's link: billing ends.
func ownerChanged(known, s *State) bool {
	return known == nil || known.OwnerID != s.OwnerID
}

// sameTerms reports that two states of a row bill the same. Its package's name
// and the rate that nobody uses are no matter of billing.
func sameTerms(a, b *Row) bool {
	return a.PackageID == b.PackageID && a.MonthlyPrice.Equal(b.MonthlyPrice) && a.Hours == b.Hours
}

// why are a decision's words: the first line about billing, else the note.
func why(d *Decision) string {
	i := slices.IndexFunc(d.Lines, func(l Line) bool { return l.Kind != LineObserved && l.Kind != LineDecided })
	if i >= 0 {
		return d.Lines[i].Reason
	}
	return d.State.Note
}
