package reconciler

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
)

// past is what is to be taken back of one server.
type past struct {
	words string      // what it was: "run …"
	runID string      // of the run; empty: it is one server's change
	rows  []pastRow   // billing rows that it made or changed, in that order
	wish  *wishChange // nil: it changed no wish
	own   []db.Override
	word  db.Override // who takes it back, and when
	left  []string    // what cannot be taken back, whatever the rows say
}

// pastRow is what was done to one billing row.
type pastRow struct {
	id                 int64
	at                 time.Time // the first time
	created, withdrawn bool
	// before and after are the fields that changed: as they were first, and last.
	before, after map[string]json.RawMessage
	charged       db.ChargedRow // since then
}

// wishChange is what was done to the operators' wishes.
type wishChange struct{ before, after []db.Override }

// readPast reads what is to be taken back of the works' servers.
func (ev *evidence) readPast(ctx context.Context, tx bun.Tx, works []work) error {
	var ids []int64
	var order *db.UndoOrder
	for i := range works {
		if w := &works[i]; w.undo != nil {
			ids, order = append(ids, w.serverID), w.undo // all of a call are of one order
		}
	}
	if order == nil {
		return nil
	}
	lines, err := db.PastLines(ctx, tx, ids, *order)
	if err != nil {
		return err
	}
	overrides, err := db.OverridesByServer(ctx, tx, ids)
	if err != nil {
		return err
	}
	ev.past = make(map[int64]*past, len(ids))
	for i := range works {
		w := &works[i]
		p := &past{words: order.Words(), runID: order.RunID, word: w.word}
		own := slices.DeleteFunc(slices.Clone(overrides), func(o db.Override) bool { return o.VirtfusionID != w.serverID })
		p.own = (&db.WishChange{}).Apply(own, db.Override{})
		ev.past[w.serverID] = p
	}
	for i := range lines {
		if err := ev.past[lines[i].ServerID].add(&lines[i]); err != nil {
			return err
		}
	}
	return ev.readPastCharges(ctx, tx)
}

// add takes in one history line.
func (p *past) add(l *db.PastLine) (err error) {
	if l.Kind == "wish" {
		if p.wish == nil {
			p.wish = &wishChange{}
			if p.wish.before, err = db.WishesIn(l.Before); err != nil {
				return err
			}
		}
		p.wish.after, err = db.WishesIn(l.After)
		return err
	}
	if l.BillingID == nil {
		return nil
	}
	at := slices.IndexFunc(p.rows, func(r pastRow) bool { return r.id == *l.BillingID })
	if at < 0 {
		p.rows = append(p.rows, pastRow{id: *l.BillingID, at: l.At, before: map[string]json.RawMessage{}, after: map[string]json.RawMessage{}})
		at = len(p.rows) - 1
	}
	r := &p.rows[at]
	switch LineKind(l.Kind) { //nolint:exhaustive // other lines are not read
	case LineCreated:
		r.created = true
		return nil
	case LineWithdrawn:
		r.withdrawn = true
		return nil
	}
	before, after := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := cmp.Or(json.Unmarshal(l.Before, &before), json.Unmarshal(l.After, &after)); err != nil {
		return fmt.Errorf("read the history of billing row %d: %w", r.id, err)
	}
	for field, value := range before {
		if _, known := r.before[field]; !known {
			r.before[field] = value
		}
	}
	maps.Copy(r.after, after)
	return nil
}

// readPastCharges adds what SkyPANEL took since.
func (ev *evidence) readPastCharges(ctx context.Context, tx bun.Tx) error {
	var ids []int64
	var since []time.Time
	for _, p := range ev.past {
		for i := range p.rows {
			ids, since = append(ids, p.rows[i].id), append(since, p.rows[i].at)
		}
	}
	charged, err := db.ChargedSince(ctx, tx, ids, since)
	if err != nil {
		return err
	}
	for _, p := range ev.past {
		for i := range p.rows {
			p.rows[i].charged = charged[p.rows[i].id]
		}
	}
	return nil
}

// undoing is the input of an undo: with the operators' wishes as they are
// afterwards, which it returns too. What was made stays away by the wish undone,
// what was changed stays as it was by the wish keep, what was switched on stays off
// by the wish that it be so; else the next decision would do it again. What
// operators themselves wished by the change is as it was before.
func undoing(in Input) (Input, []db.Override) {
	p := *in.undo
	in.undo = &p
	if in.Policy.ObserveOnly {
		p.left, p.rows, p.wish = []string{"nothing is taken back while OBSERVE_ONLY is set"}, nil, nil
		return in, p.own
	}
	wishes := p.own
	switch {
	case p.wish == nil || sameKinds(p.own, p.wish.before):
	case sameKinds(p.own, p.wish.after):
		wishes = nil
		for _, o := range p.wish.before {
			o.VirtfusionID, o.SetBy, o.SetAt = p.word.VirtfusionID, p.word.SetBy, p.word.SetAt
			wishes = append(wishes, o)
		}
	default:
		p.left = append(p.left, "what operators want of it was changed again since: it stays as it is")
	}
	by := func(wishes []db.Override) Input {
		in.Wishes = wishesOf(slices.Clone(wishes))[p.word.VirtfusionID]
		return in
	}
	plain := by(wishes)
	plain.undo = nil
	now := Decide(plain).State // as it is without the undo
	set := func(kind string) {
		word := p.word
		word.Reason = p.words + " was undone"
		if kind != db.WishBillingOff {
			word.UserID = now.UserID
		}
		wishes = (&db.WishChange{Set: kind}).Apply(wishes, word)
	}
	if now.Status == StatusGone {
		return by(wishes), wishes
	}
	made := func(r pastRow) bool { return r.created && now.UserID != nil && stands(in.Rows, r.id, *now.UserID) }
	yetToCome := in.Known != nil && in.Known.Status == StatusSettling && p.runID != "" && in.Known.RunID == p.runID
	if yetToCome || slices.ContainsFunc(p.rows, made) {
		set(db.WishUndone)
	}
	if d := Decide(by(wishes)); p.wish == nil {
		if d.restored.terms {
			set(db.WishKeep)
		}
		if d.restored.off {
			set(db.WishBillingOff)
		}
	}
	return by(wishes), wishes
}

// stands reports that a row is there for a user and was not closed.
func stands(rows []Row, id, userID int64) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.ID == id && r.UserID == userID && (r.Enabled || closedOf(&r) == ClosedNot) })
}

// sameKinds compares wishes by what they want, not by whose they are.
func sameKinds(a, b []db.Override) bool {
	return slices.EqualFunc(a, b, func(a, b db.Override) bool {
		return a.Kind == b.Kind && (a.PackageID == nil) == (b.PackageID == nil) && (a.PackageID == nil || *a.PackageID == *b.PackageID)
	})
}

// restore takes back what is to be taken back, as far as the decision of what is
// so now leaves room for it. Nobody is made to pay who, by what is known now,
// should not.
func (d *decider) restore() {
	p := d.in.undo
	if p == nil || d.state.ID == 0 {
		return
	}
	d.out.Left = append(d.out.Left, p.left...)
	for i := range p.rows {
		was := &p.rows[i]
		at := slices.IndexFunc(d.rows, func(r Row) bool { return r.ID == was.id })
		var row *Row
		if at >= 0 {
			row = &d.rows[at]
		}
		switch {
		case was.created:
			d.unmake(row, was)
		case was.withdrawn:
			if slices.ContainsFunc(d.rows, func(r Row) bool { return !r.Ours && r.Enabled }) {
				d.left("billing row %d was withdrawn, since SkyPANEL's own bills the server: it does not come back", was.id)
			}
		case row == nil:
			d.left("billing row %d is not there any more, or names another server", was.id)
		case d.touches(row.ID): // by what is so now, or by the wishes as they are again
			d.complete(row, was)
		default:
			d.putBack(row, was)
		}
		if row != nil && !was.created && was.charged.Charges > 0 {
			d.refund(row)
		}
	}
}

// unmake takes back a row that was made.
func (d *decider) unmake(row *Row, was *pastRow) {
	switch {
	case row == nil: // it is deleted
	case closedOf(row) == ClosedWithdrawn && !row.Enabled:
		if was.charged.Charges > 0 {
			d.left("%s", refundWords(row, was))
		}
	case d.touches(row.ID):
	default: // of a server that is gone, in doubt, or another's by now
		d.withdraw(row, d.in.undo.words+" is undone")
		if s := &d.state; s.BillingID != nil && *s.BillingID == row.ID {
			s.BillingOn, s.BillingID = false, nil
		}
	}
}

// touches reports that the decision changes a row already.
func (d *decider) touches(rowID int64) bool {
	return slices.ContainsFunc(d.out.Changes, func(c RowChange) bool { return c.RowID == rowID }) ||
		slices.ContainsFunc(d.out.Withdraw, func(w RowWithdrawal) bool { return w.RowID == rowID })
}

func (d *decider) left(format string, args ...any) {
	d.out.Left = append(d.out.Left, fmt.Sprintf(format, args...))
}

// refund lists what a person has to look at: charges made since.
func (d *decider) refund(r *Row) {
	for i := range d.in.undo.rows {
		was := &d.in.undo.rows[i]
		if was.id != r.ID || was.charged.Charges == 0 {
			continue
		}
		words := refundWords(r, was)
		d.left("%s", words)
		if d.touches(r.ID) {
			d.line(Line{Kind: LineRefundDue, RowID: r.ID, Reason: words})
		}
	}
}

func refundWords(r *Row, was *pastRow) string {
	return fmt.Sprintf("billing row %d was charged %d times since %s, $%s in all: see what of it user %d gets back",
		r.ID, was.charged.Charges, clock(was.at), was.charged.Amount.StringFixed(2), r.UserID)
}

// facts are the fields of a billing row in a history line. Those that can be null
// there are told apart from missing ones by the line.
type facts struct {
	Enabled      *bool            `json:"billing_enabled"`
	LastBilledAt *time.Time       `json:"last_billed_at"`
	UUID         *string          `json:"server_uuid"`
	PackageID    *int64           `json:"package_id"`
	PackageName  *string          `json:"package_name"`
	MonthlyPrice *decimal.Decimal `json:"monthly_price"`
	HourlyRate   *decimal.Decimal `json:"hourly_rate"`
	Hours        *int64           `json:"hours_in_month"`
}

func factsOf(fields map[string]json.RawMessage) (facts, error) {
	var f facts
	whole, err := json.Marshal(fields)
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(whole, &f)
}

// putBack gives a row the values that it had, where they are as they were left.
func (d *decider) putBack(row *Row, was *pastRow) {
	before, err := factsOf(was.before)
	after, errAfter := factsOf(was.after)
	if err = cmp.Or(err, errAfter); err != nil {
		d.left("billing row %d: its history cannot be read (%v)", row.ID, err)
		return
	}
	c := RowChange{RowID: row.ID, Closed: closedOf(row)}
	changes := d.putTermsBack(row, &c, &before, &after)
	if _, filled := was.after["server_uuid"]; filled && before.UUID == nil && after.UUID != nil && row.UUID == *after.UUID {
		c.ClearUUID, d.out.restored.terms = true, true
		changes = append(changes, change{"server_uuid", row.UUID, nil})
	}
	if after.Enabled != nil {
		changes = append(changes, d.putSwitchBack(row, &c, &before, &after)...)
	}
	if len(changes) == 0 {
		return
	}
	d.out.Changes = append(d.out.Changes, c)
	from, to := sides(changes)
	d.line(Line{Kind: LineChanged, RowID: row.ID, Reason: d.in.undo.words + " is undone", Before: from, After: to})
}

// complete adds what is to be put back to the change of a row that there is
// already: package and price, where they are to stay as they were, and until when
// the row was billed, where it is off again as it was before.
func (d *decider) complete(row *Row, was *pastRow) {
	at := slices.IndexFunc(d.out.Changes, func(c RowChange) bool { return c.RowID == row.ID })
	before, err := factsOf(was.before)
	after, errAfter := factsOf(was.after)
	offAgain := false
	if at >= 0 && err == nil && errAfter == nil {
		c := &d.out.Changes[at]
		var changes []change
		if d.in.Wishes.Keep && c.Terms == nil {
			changes = d.putTermsBack(row, c, &before, &after)
		}
		offAgain = c.Enable != nil && !*c.Enable && before.Enabled != nil && !*before.Enabled
		if offAgain {
			changes = append(changes, rewind(row, c, &before, &after)...)
		}
		if len(changes) > 0 {
			from, to := sides(changes)
			d.line(Line{Kind: LineChanged, RowID: row.ID, Reason: d.in.undo.words + " is undone", Before: from, After: to})
		}
	}
	if d.in.undo.wish == nil && !offAgain {
		d.left("billing row %d was decided anew, by what is so now", row.ID)
	}
}

// rewind gives a row that is off again the time until which it was billed before,
// unless it was charged meanwhile.
func rewind(row *Row, c *RowChange, before, after *facts) []change {
	if after.LastBilledAt == nil || !equalTime(row.LastBilledAt, after.LastBilledAt) {
		return nil
	}
	c.Rewind, c.RewindTo = true, before.LastBilledAt
	return []change{{"last_billed_at", row.LastBilledAt, before.LastBilledAt}}
}

// putTermsBack restores package and price.
func (d *decider) putTermsBack(row *Row, c *RowChange, before, after *facts) []change {
	switch {
	case termsAre(row, before): // they were not changed, or are as they were already
		return nil
	case !termsAre(row, after):
		d.left("billing row %d got another package or price since: it keeps that", row.ID)
		return nil
	}
	t := terms{
		packageID: orElse(before.PackageID, row.PackageID), packageName: orElse(before.PackageName, row.PackageName),
		monthlyPrice: orElse(before.MonthlyPrice, row.MonthlyPrice), hourlyRate: orElse(before.HourlyRate, row.HourlyRate), hours: orElse(before.Hours, row.Hours),
	}
	c.Terms, d.out.restored.terms = &t, true
	return termsDiff(row, t)
}

// termsAre reports that a row has the package and price of a history line, as far
// as that says.
func termsAre(r *Row, f *facts) bool {
	return orElse(f.PackageID, r.PackageID) == r.PackageID && orElse(f.PackageName, r.PackageName) == r.PackageName && orElse(f.Hours, r.Hours) == r.Hours &&
		orElse(f.MonthlyPrice, r.MonthlyPrice).Equal(r.MonthlyPrice) && orElse(f.HourlyRate, r.HourlyRate).Equal(r.HourlyRate)
}

func orElse[T any](said *T, otherwise T) T {
	if said == nil {
		return otherwise
	}
	return *said
}

// putSwitchBack restores whether a row is on. One that is on again is billed from
// now on, not for the gap.
func (d *decider) putSwitchBack(row *Row, c *RowChange, before, after *facts) []change {
	s := &d.state
	switch {
	case row.Enabled != *after.Enabled || *before.Enabled == *after.Enabled:
		return nil // it is as it was already, or was never changed
	case row.Enabled:
		c.Enable, c.Closed = new(false), ClosedNot
		reason := ReasonOperator
		if d.in.undo.wish != nil { // an operator had it switched on against somebody's word, and that stands again
			c.Vetoed, reason = row.Ours, ReasonDisabled
		} else {
			d.out.restored.off = row.Ours
		}
		if s.BillingID != nil && *s.BillingID == row.ID {
			s.BillingOn, s.Reason = false, reason
		}
		return append([]change{{"billing_enabled", true, false}}, rewind(row, c, before, after)...)
	}
	then := *row // as it will be
	if c.Terms != nil {
		then.PackageID = c.Terms.packageID
	}
	if why := d.mayNotBill(&then); why != "" {
		d.left("billing row %d stays off: %s", row.ID, why)
		return nil
	}
	resume := d.unpaid()
	c.Enable, c.Resume, c.Closed = new(true), &resume, ClosedNot
	s.BillingOn, s.BillingID, s.Reason = true, &row.ID, ReasonNone
	return []change{{"billing_enabled", false, true}, {"last_billed_at", row.LastBilledAt, resume}}
}

// mayNotBill says why a row must not be switched on; empty: it may.
func (d *decider) mayNotBill(row *Row) string {
	s := &d.state
	user, known := d.in.Users.ByID[row.UserID]
	switch {
	case s.Status == StatusGone:
		return "the server is gone"
	case s.Status == StatusConflict:
		return "evidence about the server disagrees"
	case s.UserID == nil || *s.UserID != row.UserID || !known:
		return fmt.Sprintf("the server does not belong to user %d any more", row.UserID)
	case d.in.Wishes.off() || d.in.Wishes.Undone:
		return "an operator wants it off"
	}
	if t := d.keptTerms(row, &user); !t.on {
		if row.Ours || t.reason != ReasonSelfService && t.reason != ReasonUnpriced {
			return "it would not be billed today (" + string(t.reason) + ")"
		}
	}
	for i := range d.rows {
		r := &d.rows[i]
		on := r.Enabled
		for j := range d.out.Changes {
			if c := &d.out.Changes[j]; c.RowID == r.ID && c.Enable != nil {
				on = *c.Enable
			}
		}
		if withdrawn := slices.ContainsFunc(d.out.Withdraw, func(w RowWithdrawal) bool { return w.RowID == r.ID }); r.ID != row.ID && on && !withdrawn {
			return fmt.Sprintf("billing row %d bills the server", r.ID)
		}
	}
	return ""
}

// decideUndo decides a server anew with a change taken back; the operators'
// wishes are to be those afterwards.
func decideUndo(in Input) (Decision, []db.Override) {
	in, wishes := undoing(in)
	return Decide(in), wishes
}

// turnWishes writes the wishes of servers of which something was taken back, and
// ends those of earlier undoes that hold no longer.
func turnWishes(ctx context.Context, tx bun.Tx, decisions []decided, ev *evidence, now time.Time) error {
	var turns []db.WishTurn
	var lapsed []int64
	byRun := make(map[string][]db.WishTurn)
	for i := range decisions {
		d := &decisions[i]
		switch p := ev.past[d.serverID]; {
		case p != nil && ev.known[d.serverID] != nil:
			row := toInventory(&d.State, ev.known[d.serverID])
			byRun[d.RunID] = append(byRun[d.RunID], db.WishTurn{Server: &row, Was: p.own, Is: d.wishes, Why: p.word.SetBy + " undid " + p.words})
		case len(d.Lapsed) > 0:
			lapsed = append(lapsed, d.serverID)
		}
	}
	for runID, turns := range byRun { // there is one
		if err := db.TurnWishes(ctx, tx, turns, now, runID); err != nil {
			return err
		}
	}
	if len(lapsed) == 0 {
		return nil
	}
	overrides, err := db.OverridesByServer(ctx, tx, lapsed)
	if err != nil {
		return err
	}
	for i := range decisions {
		d := &decisions[i]
		if len(d.Lapsed) == 0 || ev.past[d.serverID] != nil {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(overrides), func(o db.Override) bool { return o.VirtfusionID != d.serverID })
		row := toInventory(&d.State, ev.known[d.serverID])
		change := db.WishChange{Drop: d.Lapsed}
		turns = append(turns, db.WishTurn{
			Server: &row, Was: (&db.WishChange{}).Apply(own, db.Override{}), Is: change.Apply(own, db.Override{}),
			Why: "what was undone concerned another owner, or a server that is gone: it is decided as ever",
		})
	}
	return db.TurnWishes(ctx, tx, turns, now, "")
}

// undoWorks are the works of an undo.
func undoWorks(ids []int64, order *db.UndoOrder, by, runID string, now time.Time) []work {
	works := worksFor(ids, nil)
	for i := range works {
		w := &works[i]
		w.undo, w.runID, w.origin = order, runID, originRun
		w.word = db.NewWish(by, "", now)
		w.word.VirtfusionID = w.serverID
	}
	return works
}

// Undo takes back what a run, or one server's last change, did to servers, on
// behalf of a run whose items of these servers it completes; by is who wants it.
// Rows that were made are withdrawn, rows that were changed get their former
// values where they are as they were left, and what cannot be taken back is said
// in the items. Again, it changes nothing. Each batch of servers is one
// transaction.
func (r *Reconciler) Undo(ctx context.Context, runID string, order db.UndoOrder, ids []int64, by string) error {
	for batch := range slices.Chunk(undoWorks(ids, &order, by, runID, micro(r.now())), events.BatchSize) {
		if _, err := r.redecide(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// PreviewUndo says what [Reconciler.Undo] would do, and writes nothing.
func (r *Reconciler) PreviewUndo(ctx context.Context, order db.UndoOrder, ids []int64) ([]db.RunEffect, error) {
	effects := make([]db.RunEffect, 0, len(ids))
	for batch := range slices.Chunk(undoWorks(ids, &order, "", "", micro(r.now())), previewBatch) {
		var foreseen []db.RunEffect
		err := r.insist(ctx, 0, func() (err error) {
			foreseen, err = r.foreseeUndo(ctx, batch)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("preview taking back %s: %w", order.Words(), err)
		}
		effects = append(effects, foreseen...)
	}
	return effects, nil
}

func (r *Reconciler) foreseeUndo(ctx context.Context, works []work) (effects []db.RunEffect, err error) {
	defer caught(&err)
	snapshot := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	err = r.db.RunInTx(ctx, snapshot, func(ctx context.Context, tx bun.Tx) error {
		ev, err := r.read(ctx, tx, works)
		if err != nil {
			return err
		}
		now := micro(r.now())
		effects = make([]db.RunEffect, 0, len(works))
		for i := range works {
			in := ev.input(&works[i], now)
			if in.Known == nil {
				continue
			}
			in, _ = undoing(in)
			effect := lookAhead(in).RunEffect
			effect.Left = strings.Join(Decide(in).Left, "; ")
			effects = append(effects, effect)
		}
		return nil
	})
	return effects, err
}
