package reconciler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"serversync/db"
)

// chargeLost is how long a first charge may be in hand. Whoever takes its credit
// has been told no or yes by then, or has given up.
const chargeLost = 2 * time.Minute

// errNoLedger: what is taken could not be entered in SkyPANEL's ledger.
var errNoLedger = errors.New("SkyPANEL's money ledger cannot be written")

// NextCharge hands out the next first charge whose credit is to be taken; found
// is false when there is none, when the operator wants none taken, and when a
// shutdown was asked for. What it hands out is in hand of the caller, who takes
// the credit at most once and says by [Reconciler.EndCharge] what became of it.
// Those that are not owed any more are cancelled on the way. Nothing is handed out
// that could not be entered in SkyPANEL's ledger afterwards: that is an error.
func (r *Reconciler) NextCharge(ctx context.Context) (c db.FirstCharge, found bool, err error) {
	if r.policy.ObserveOnly || r.policy.InitialCharge != ChargeDeduct {
		return c, false, nil
	}
	for ctx.Err() == nil {
		if c, found, err = r.claimCharge(ctx); err != nil {
			return db.FirstCharge{}, false, err
		}
		if !found || c.State == db.ChargeTaking {
			return c, found, nil
		}
		r.log.Info().Int64("charge", c.ID).Int64("server", c.ServerID).Str("why", c.Reason).Msg("a first charge is not owed any more: no credit is taken")
	}
	return db.FirstCharge{}, false, nil
}

// claimCharge takes the next charge in hand, or off the list. It is committed,
// or not, before a shutdown.
func (r *Reconciler) claimCharge(ctx context.Context) (c db.FirstCharge, found bool, err error) {
	finish, cancel := finishing(ctx)
	defer cancel()
	err = r.db.RunInTx(finish, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		c, found, err = db.ClaimCharge(ctx, tx, micro(r.now()))
		if err != nil || !found || c.State == db.ChargeCancelled {
			return err
		}
		obstacles, err := db.LedgerObstacles(ctx, tx)
		if err == nil && len(obstacles) > 0 {
			err = fmt.Errorf("%w: %s", errNoLedger, db.LedgerRemedy(obstacles))
		}
		return err
	})
	return c, found, err
}

// EndCharge writes what became of a first charge that [Reconciler.NextCharge]
// handed out: the charge, its hourly transaction, SkyPANEL's ledger and the
// history, in one transaction. State, Reason, CreditID and, of one that is due
// again, DueAt of end count. It waits for the database until ctx ends, and the
// attempt in hand a little longer. What cannot be entered is left for a person, as
// unclear. [db.ErrChargeState]: a person was faster.
func (r *Reconciler) EndCharge(ctx context.Context, c db.FirstCharge, end db.ChargeEnd) error {
	end.ID, end.Attempt, end.Source = c.ID, c.Attempts, db.SourceCharges
	// Given up meanwhile, it is known after all.
	end.From = []db.ChargeState{db.ChargeTaking, db.ChargeUnclear}
	err := r.insist(ctx, 0, func() error { return r.endCharge(ctx, end) })
	if err == nil || errors.Is(err, db.ErrChargeState) || classify(err) != classFault || end.State == db.ChargeUnclear {
		return err
	}
	r.log.Error().Err(err).Int64("charge", c.ID).Int64("server", c.ServerID).Str("state", string(end.State)).Str("credit", end.CreditID).
		Msg("what became of a first charge cannot be entered in the books; a person has to look at it")
	words := fmt.Sprintf("it was %s, but that cannot be entered in the books: %s", end.State, oneLine(err.Error()))
	end.State, end.Reason = db.ChargeUnclear, strings.TrimSuffix(words+". "+end.Reason, ". ")
	return r.insist(ctx, 0, func() error { return r.endCharge(ctx, end) })
}

// endCharge is one attempt at it.
func (r *Reconciler) endCharge(ctx context.Context, end db.ChargeEnd) error {
	finish, cancel := finishing(ctx)
	defer cancel()
	end.Now = micro(r.now())
	return r.db.RunInTx(finish, nil, func(ctx context.Context, tx bun.Tx) error {
		_, err := db.EndCharge(ctx, tx, end)
		return err
	})
}

// AgeCharges gives up first charges that have been in hand for too long: their
// process is gone, and a person has to look what became of them. It returns how
// many.
func (r *Reconciler) AgeCharges(ctx context.Context) (int, error) {
	var aged []db.FirstCharge
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) (err error) {
		now := micro(r.now())
		aged, err = db.AgeCharges(ctx, tx, now.Add(-chargeLost), now)
		return err
	})
	if err != nil {
		return 0, err
	}
	for i := range aged {
		r.log.Error().Int64("charge", aged[i].ID).Int64("server", aged[i].ServerID).Str("reference", aged[i].Reference).
			Msg("nobody knows whether the credit of a first charge was taken: look for the reference in VirtFusion, then POST /api/admin/charges/{id}/resolve")
	}
	return len(aged), nil
}

// ResolveCharge writes what a person has found out about a first charge: its
// credit was taken (creditID is VirtFusion's record of it, if known), or was not.
// One that is due is settled by it too: it is not taken then. [db.ErrNoCharge],
// [db.ErrChargeState].
func (r *Reconciler) ResolveCharge(ctx context.Context, id int64, taken bool, creditID, by string) (db.FirstCharge, error) {
	var resolved db.FirstCharge
	resolve := func(from, to db.ChargeState) error {
		return r.insist(ctx, 0, func() error {
			finish, cancel := finishing(ctx)
			defer cancel()
			return r.db.RunInTx(finish, nil, func(ctx context.Context, tx bun.Tx) (err error) {
				resolved, err = db.EndCharge(ctx, tx, db.ChargeEnd{
					ID: id, From: []db.ChargeState{from}, State: to, Reason: "so says " + by, CreditID: creditID, Now: micro(r.now()), Source: "operator",
				})
				return err
			})
		})
	}
	unclear, due := db.ChargeFailed, db.ChargeCancelled
	if taken {
		unclear, due = db.ChargeTaken, db.ChargeTaken
	}
	err := resolve(db.ChargeUnclear, unclear)
	if errors.Is(err, db.ErrChargeState) && resolved.State == db.ChargeDue {
		err = resolve(db.ChargeDue, due)
	}
	return resolved, err
}
