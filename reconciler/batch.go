package reconciler

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/events"
)

// work is one server to decide: with news, or again from what is stored.
type work struct {
	serverID int64
	news     []Observation
	// origin says who looks at a server without news, for its history.
	origin string
	// runID is the run on whose behalf it is decided, or, with hold, for whose
	// approval the server is to wait. Empty: none.
	runID string
	hold  bool
	// undo takes a change back; nil: none.
	undo *db.UndoOrder
	// word is on whose word it is taken back.
	word db.Override
}

// decided is a decision that has been committed.
type decided struct {
	Decision
	serverID int64
	origin   string
	runs     []string // whose items it completes
	// wishes are those of the operators after an undo.
	wishes []db.Override
}

// group makes the work of a batch: one item per server, sorted by id, which is
// the order in which servers are locked.
func group(batch []events.Event) []work {
	byServer := make(map[int64][]Observation, len(batch))
	for i := range batch {
		id := batch[i].Server.ID
		byServer[id] = append(byServer[id], observationOf(&batch[i]))
	}
	works := make([]work, 0, len(byServer))
	for id, news := range byServer {
		works = append(works, work{serverID: id, news: news})
	}
	slices.SortFunc(works, func(a, b work) int {
		if a.serverID < b.serverID {
			return -1
		}
		return 1 // ids are distinct
	})
	return works
}

// evidence is all that a batch's decisions rest on, read in one go.
type evidence struct {
	known  map[int64]*State
	rows   map[int64][]Row // by VirtFusion server id
	wishes map[int64]Wishes
	traces map[int64]db.NativeTrace
	stored map[int64]*db.BillingMatch
	users  *Users
	prices map[int64]Price
	policy Policy
	past   map[int64]*past // what is to be taken back, by server
}

// decideAll decides and applies a batch in one transaction. The servers of the
// works must be locked already.
func (r *Reconciler) decideAll(ctx context.Context, tx bun.Tx, works []work) ([]decided, error) {
	ev, err := r.read(ctx, tx, works)
	if err != nil {
		return nil, err
	}
	now := micro(r.now())
	decisions := make([]decided, len(works))
	for i, w := range works {
		in := ev.input(&w, now)
		in.RunID, in.Authorized = w.runID, w.runID != ""
		decide := Decide
		var wishes []db.Override
		if in.undo != nil {
			decide = func(in Input) (d Decision) {
				d, wishes = decideUndo(in)
				return d
			}
		} else if w.hold {
			decide = decideHold
		} else if runID := harmless(w.news); runID != "" {
			decide = func(in Input) Decision { return decideHarmless(in, runID) }
		}
		decisions[i] = decided{serverID: w.serverID, origin: w.origin, runs: runsOf(&w), Decision: decide(in)}
		decisions[i].wishes = wishes
	}
	if err := apply(ctx, tx, decisions, ev, now); err != nil {
		return nil, err
	}
	if err := turnWishes(ctx, tx, decisions, ev, now); err != nil {
		return nil, err
	}
	r.notifyOwners(ctx, tx, works, decisions, ev, now)
	return decisions, nil
}

// input is what one of a batch's decisions depends on.
func (ev *evidence) input(w *work, now time.Time) Input {
	return Input{
		Now: now, News: w.news, Known: ev.known[w.serverID], Rows: ev.rows[w.serverID],
		Users: ev.users, Prices: ev.prices, Policy: ev.policy,
		undo:   ev.past[w.serverID],
		Wishes: ev.wishes[w.serverID], Trace: ev.traces[w.serverID].Words, SoldTo: ev.traces[w.serverID].UserIDs,
	}
}

// read gathers the evidence in a constant number of statements.
func (r *Reconciler) read(ctx context.Context, tx bun.Tx, works []work) (*evidence, error) {
	ids := make([]int64, len(works))
	for i, w := range works {
		ids[i] = w.serverID
	}
	stored, err := db.ServersByID(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	ev := &evidence{
		known: make(map[int64]*State, len(stored)), rows: make(map[int64][]Row, len(works)),
		stored: make(map[int64]*db.BillingMatch, len(works)), prices: make(map[int64]Price),
	}
	for i := range stored {
		s := fromInventory(&stored[i])
		ev.known[s.ID] = &s
	}

	keys := collectKeys(works, ev.known)
	if err := ev.readPast(ctx, tx, works); err != nil {
		return nil, err
	}
	if err := ev.readRows(ctx, tx, keys); err != nil {
		return nil, err
	}
	if err := ev.readUsers(ctx, tx, keys); err != nil {
		return nil, err
	}
	if err := ev.readWishes(ctx, tx, ids); err != nil {
		return nil, err
	}
	if err := ev.readCharges(ctx, tx); err != nil {
		return nil, err
	}
	if err := ev.readTraces(ctx, tx, keys.serverIDs); err != nil {
		return nil, err
	}
	prices, err := db.ReadPrices(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, p := range prices {
		ev.prices[p.VirtfusionPackageID] = Price{PackageID: p.VirtfusionPackageID, Name: p.Name, Monthly: cents(p.Price)}
	}
	settings, err := db.ReadPolicy(ctx, tx)
	if err != nil {
		return nil, err
	}
	ev.policy = r.policy
	ev.policy.HourlyMode, ev.policy.HoursPerMonth = settings.HourlyMode, settings.HoursPerMonth
	return ev, nil
}

// keys are what a batch's evidence is looked up by.
type keys struct {
	serverIDs []int64
	uuids     []string
	byUUID    map[string][]int64 // the servers that carry a UUID, now or before
	owners    []int64            // VirtFusion user ids
	users     []int64            // SkyPANEL user ids
}

func collectKeys(works []work, known map[int64]*State) keys {
	k := keys{byUUID: make(map[string][]int64, len(works))}
	owners, users := make(map[int64]bool), make(map[int64]bool)
	addUUID := func(uuid string, id int64) {
		if uuid == "" || uuid == db.DeletedServerUUID {
			return
		}
		if !slices.Contains(k.byUUID[uuid], id) {
			k.byUUID[uuid] = append(k.byUUID[uuid], id)
		}
	}
	for _, w := range works {
		k.serverIDs = fitting(k.serverIDs, w.serverID)
		if s := known[w.serverID]; s != nil {
			addUUID(s.UUID, s.ID)
			owners[s.OwnerID] = true
			if s.OwnerExt != nil {
				users[*s.OwnerExt] = true
			}
		}
		for i := range w.news {
			s := &w.news[i].Server
			if s.UUID != nil {
				addUUID(*s.UUID, s.ID)
			}
			if s.Owner != nil {
				owners[s.Owner.ID] = true
				if s.Owner.ExtRelationID != nil {
					users[*s.Owner.ExtRelationID] = true
				}
			}
		}
	}
	for uuid := range k.byUUID {
		k.uuids = append(k.uuids, uuid)
	}
	for id := range owners {
		k.owners = fitting(k.owners, id)
	}
	for id := range users {
		k.users = fitting(k.users, id)
	}
	return k
}

// fitting appends an id that SkyPANEL's integer columns could hold; another
// one matches nothing there.
func fitting(ids []int64, id int64) []int64 {
	if id <= 0 || id > math.MaxInt32 {
		return ids
	}
	return append(ids, id)
}

// readRows finds the billing rows of the batch's servers.
func (ev *evidence) readRows(ctx context.Context, tx bun.Tx, k keys) error {
	matches, err := db.BillingByServer(ctx, tx, k.serverIDs, k.uuids)
	if err != nil {
		return err
	}
	wanted := make(map[int64]bool, len(k.serverIDs))
	for _, id := range k.serverIDs {
		wanted[id] = true
	}
	for i := range matches {
		m := &matches[i]
		ev.stored[m.ID] = m
		row := fromBilling(m)
		servers := k.byUUID[row.UUID]
		if wanted[row.ServerID] && !slices.Contains(servers, row.ServerID) {
			servers = append(slices.Clone(servers), row.ServerID)
		}
		for _, id := range servers {
			ev.rows[id] = append(ev.rows[id], row)
		}
	}
	return nil
}

// readCharges looks for charges where a row of ours may have to be withdrawn:
// where it is not its server's only row, or is taken back. Elsewhere nobody
// asks.
func (ev *evidence) readCharges(ctx context.Context, tx bun.Tx) error {
	var billingIDs []int64
	var chargeIDs []*int64
	for server, rows := range ev.rows {
		if len(rows) < 2 && ev.past[server] == nil && !ev.wishes[server].Undone {
			continue
		}
		for i := range rows {
			if !rows[i].Ours {
				continue
			}
			var charge *int64
			if record := ev.stored[rows[i].ID].Record; record != nil {
				charge = record.ChargeID
			}
			billingIDs, chargeIDs = append(billingIDs, rows[i].ID), append(chargeIDs, charge)
		}
	}
	if len(billingIDs) == 0 {
		return nil
	}
	charged, err := db.ChargedBeside(ctx, tx, billingIDs, chargeIDs)
	if err != nil {
		return err
	}
	for _, rows := range ev.rows {
		for i := range rows {
			rows[i].Charged = charged[rows[i].ID]
		}
	}
	return nil
}

// readWishes reads what operators want of the batch's servers.
func (ev *evidence) readWishes(ctx context.Context, tx bun.Tx, ids []int64) error {
	overrides, err := db.OverridesByServer(ctx, tx, ids)
	if err != nil {
		return err
	}
	ev.wishes = wishesOf(overrides)
	return nil
}

// readTraces looks for orders of servers that no billing row names: elsewhere
// nobody asks.
func (ev *evidence) readTraces(ctx context.Context, tx bun.Tx, ids []int64) error {
	var bare []int64
	for _, id := range ids {
		if len(ev.rows[id]) == 0 {
			bare = append(bare, id)
		}
	}
	var err error
	ev.traces, err = db.NativeTraces(ctx, tx, bare)
	return err
}

func (ev *evidence) readUsers(ctx context.Context, tx bun.Tx, k keys) error {
	payers := make(map[int64]bool)
	for _, m := range ev.stored {
		payers[m.UserID] = true
	}
	users, err := db.UsersByLink(ctx, tx, k.owners, slices.AppendSeq(k.users, maps.Keys(payers)))
	if err != nil {
		return err
	}
	// In one order, or a note that names two of them would change with PostgreSQL's plan.
	slices.SortFunc(users, func(a, b db.User) int { return cmp.Compare(a.ID, b.ID) })
	ev.users = &Users{ByVirtfusionID: make(map[int64][]User), ByID: make(map[int64]User)}
	for _, u := range users {
		user := User{ID: u.ID, VirtfusionID: u.VirtfusionID, Active: u.IsActive != nil && *u.IsActive}
		ev.users.ByID[u.ID] = user
		if u.VirtfusionID != nil {
			ev.users.ByVirtfusionID[*u.VirtfusionID] = append(ev.users.ByVirtfusionID[*u.VirtfusionID], user)
		}
	}
	return nil
}

// apply writes a batch's decisions, a constant number of statements for all.
func apply(ctx context.Context, tx bun.Tx, decisions []decided, ev *evidence, now time.Time) error {
	var (
		creates     []db.NewBilling
		changes     []db.BillingChange
		withdrawals []db.Withdrawal
		saves       []db.Server
		touches     []db.Server
		lines       []db.History
		completions []db.Completion
	)
	for i := range decisions {
		d := &decisions[i]
		if d.Create != nil {
			creates = append(creates, toBilling(d.Create, &d.State, d.RunID, now))
		}
		for _, runID := range d.runs {
			completions = append(completions, db.Completion{RunID: runID, ServerID: d.serverID, Outcome: string(d.Outcome), Error: strings.Join(d.Left, "; ")})
		}
		ours := make(map[int64]bool)
		for _, row := range ev.rows[d.State.ID] {
			ours[row.ID] = row.Ours
		}
		for j := range d.Changes {
			c := &d.Changes[j]
			changes = append(changes, toChange(c, ev.stored[c.RowID], ours[c.RowID], d.State.ID, now))
		}
		for _, w := range d.Withdraw {
			was := ev.stored[w.RowID]
			withdrawals = append(withdrawals, db.Withdrawal{Was: was.HourlyBilling, Record: toWithdrawn(was, d.State.ID, now), Now: now, Delete: w.Delete})
		}
	}
	made, err := db.InsertBilling(ctx, tx, creates)
	if err != nil {
		return err
	}
	for i := range decisions {
		d := &decisions[i]
		if id, ok := made[d.State.ID]; ok && d.Create != nil {
			d.State.BillingID = &id
		}
		switch {
		case d.Save:
			saves = append(saves, toInventory(&d.State, ev.known[d.State.ID]))
		case d.Touch:
			touches = append(touches, toInventory(&d.State, ev.known[d.State.ID]))
		}
		for j := range d.Lines {
			lines = append(lines, toHistory(&d.Lines[j], d, now))
		}
	}
	if err := db.ChangeBilling(ctx, tx, changes); err != nil {
		return err
	}
	if err := db.WithdrawBilling(ctx, tx, withdrawals); err != nil {
		return err
	}
	if err := db.UpsertServers(ctx, tx, saves); err != nil {
		return err
	}
	if err := db.TouchServers(ctx, tx, touches); err != nil {
		return err
	}
	if err := db.InsertHistory(ctx, tx, lines); err != nil {
		return err
	}
	return db.CompleteItems(ctx, tx, completions)
}
