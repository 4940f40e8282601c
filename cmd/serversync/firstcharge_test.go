package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"serversync/db"
	"serversync/ingest"
	"serversync/reconciler"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// till is a company whose first charges are taken.
type till struct {
	*fleetWorld

	charges *ingest.Charges
}

func newTill(t testing.TB) *till {
	t.Helper()
	w := newFleetWorld(t, fleetOptions{charge: reconciler.ChargeDeduct, timeout: 2 * time.Second})
	return &till{w, w.newCharges(w.reconciler)}
}

func (w *fleetWorld) newCharges(books *reconciler.Reconciler) *ingest.Charges {
	return ingest.NewCharges(ingest.ChargesConfig{
		DB: w.db, Books: books, Client: func(context.Context) (*virtfusion.Client, error) { return w.client, nil },
		Now: w.clock, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
	})
}

// otherReconciler is a reconciler over the same books with another policy.
func (w *fleetWorld) otherReconciler(p reconciler.Policy) *reconciler.Reconciler {
	return reconciler.New(reconciler.Config{DB: w.db, Policy: p, Now: w.clock, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
}

// bill has servers of Beatriz's found and recorded, each with its first charge.
func (w *till) bill(n int) []int64 {
	w.Helper()
	ids := w.create(n, accountBeatriz, packageLarge)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	return ids
}

// take takes what is due. What stands in the way of all is no failure here.
func (w *till) take() {
	w.Helper()
	if err := w.charges.Take(w.Context()); err != nil {
		w.Logf("take: %v", err)
	}
	w.agree()
}

// spoil spoils the credit calls.
func (w *till) spoil(kinds ...virtfusionsim.Fault) {
	var faults []virtfusionsim.APIFault
	for _, kind := range kinds {
		faults = append(faults, virtfusionsim.APIFault{Kind: kind, Op: virtfusionsim.OpCredit})
	}
	w.panel.SetAPIFaults(faults...)
}

// tokens is what VirtFusion took in all.
func (w *till) tokens() (sum int64) {
	for _, c := range w.panel.Credits() {
		sum -= c.Tokens
	}
	return sum
}

func (w *till) wantTokens(want int64) {
	w.Helper()
	if got := w.tokens(); got != want {
		w.Errorf("VirtFusion took %d tokens, want %d", got, want)
	}
}

// states are those of all charges, by their servers.
func (w *till) states() string {
	w.Helper()
	return w.value(`SELECT string_agg(state, ' ' ORDER BY virtfusion_id, id) FROM serversync.charges`)
}

func (w *till) wantStates(want string) {
	w.Helper()
	if got := w.states(); got != want {
		w.Errorf("the charges are %s, want %s", got, want)
	}
}

// agree holds what VirtFusion took against the books; nothing else is in the
// ledger.
func (w *till) agree() {
	w.Helper()
	w.creditBooks().agree()
	w.want("0", `SELECT count(*) FROM transactions l WHERE NOT EXISTS (SELECT FROM serversync.charges c WHERE c.ledger_id = l.id)`)
}

func (w *till) creditBooks() creditBooks { return creditBooks{w, w.Context(), w.db, w.panel} }

// resolve says of every charge that is unclear what VirtFusion's records say.
func (w *till) resolve() {
	w.Helper()
	w.creditBooks().resolve(w.reconciler)
}

func TestFirstChargeIsTakenOnce(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	ids := w.create(2, accountBeatriz, packageLarge)
	w.create(1, accountChen, packageCustom) // it has no price
	w.pass(time.Second)
	dry := w.finish(w.start(true))
	if p := dry.Preview; p == nil || p.FirstCharges != 2 || p.FirstChargeAmount.String() != "0.08" || !p.Collected {
		t.Errorf("the preview is %+v", p)
	}
	w.want("0", `SELECT count(*) FROM serversync.charges`)
	run := w.sweep()
	w.wantState(&run, db.RunSucceeded)
	w.wantStates("due due")
	w.want("true", `SELECT reason LIKE '%the first hour of 0.04 is taken from the user''s credit in VirtFusion%' FROM serversync.history WHERE kind = 'billing_created' AND virtfusion_id = $1`, ids[0])
	w.agree()
	w.take()
	w.wantStates("taken taken")
	w.wantTokens(8)
	for _, c := range w.panel.Credits() {
		if c.ExtRelationID != userBeatriz || !strings.HasPrefix(c.Reference2, "serversync-") {
			t.Errorf("%+v", c)
		}
	}
	w.want("VirtFusion Server "+strconv.FormatInt(ids[0], 10)+" - First hour", `SELECT min(description) FROM transactions`)
	w.want("2", `SELECT count(*) FROM serversync.history WHERE kind = 'charge_taken' AND reason LIKE 'the first hour was charged: 4 tokens%'`)
	// Neither another look, nor another sweep, nor everything heard once more.
	w.pass(time.Hour)
	w.take()
	run = w.sweep()
	w.wantState(&run, db.RunSucceeded)
	if _, err := w.reconciler.Redecide(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	w.take()
	w.wantTokens(8)
	w.wantStates("taken taken")
	w.want("0", `SELECT count(*) FROM serversync.servers WHERE status = 'native'`)
}

// TestWhatVirtFusionAnswers: whatever it does with the call, it takes the credit
// once or not at all, and what nobody knows is left for a person.
func TestWhatVirtFusionAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault virtfusionsim.Fault
		state db.ChargeState
		took  int64
		after string // when a person has looked, or an hour has passed
	}{
		{virtfusionsim.FaultDoneThenHanging, db.ChargeUnclear, 4, "taken"},
		{virtfusionsim.FaultDoneThenGatewayTimeout, db.ChargeUnclear, 4, "taken"},
		{virtfusionsim.FaultDoneThenBadGateway, db.ChargeUnclear, 4, "taken"},
		{virtfusionsim.FaultDoneThenClosed, db.ChargeUnclear, 4, "taken"},
		{virtfusionsim.FaultHanging, db.ChargeUnclear, 0, "failed"},
		{virtfusionsim.FaultServerError, db.ChargeUnclear, 0, "failed"},
		{virtfusionsim.FaultBadGateway, db.ChargeUnclear, 0, "failed"},
		{virtfusionsim.FaultHTML, db.ChargeUnclear, 0, "failed"},
		{virtfusionsim.FaultHTMLAsJSON, db.ChargeUnclear, 0, "failed"},
		{virtfusionsim.FaultNotFound, db.ChargeFailed, 0, "failed"},
		{virtfusionsim.FaultUnprocessable, db.ChargeFailed, 0, "failed"},
		{virtfusionsim.FaultUnauthorized, db.ChargeDue, 0, "taken"},
		{virtfusionsim.FaultForbidden, db.ChargeDue, 0, "taken"},
		{virtfusionsim.FaultTooManyRequests, db.ChargeDue, 0, "taken"},
		{virtfusionsim.FaultNotFoundPage, db.ChargeDue, 0, "taken"},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			w := newTill(t)
			w.bill(1)
			w.spoil(c.fault)
			w.take()
			w.wantStates(string(c.state))
			w.wantTokens(c.took)
			w.want("true", `SELECT reason <> '' AND attempts = 1 FROM serversync.charges`)
			w.want("true", `SELECT billing_enabled FROM virtfusion_hourly_billing`)
			w.spoil()
			w.take() // not at once
			w.wantStates(string(c.state))
			w.wantTokens(c.took)
			if c.state == db.ChargeUnclear { // and never again by itself
				w.pass(48 * time.Hour)
				w.take()
				w.wantStates("unclear")
				w.wantTokens(c.took)
				w.resolve()
			}
			w.pass(time.Hour)
			w.take()
			w.wantStates(c.after)
			if c.after == "taken" {
				w.wantTokens(4)
			} else {
				w.wantTokens(0)
			}
		})
	}
}

// TestNothingIsTakenInHandWhileVirtFusionIsAway: one call may be left open, not
// one for each charge.
func TestNothingIsTakenInHandWhileVirtFusionIsAway(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	w.bill(3)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServiceUnavailable})
	w.take()
	w.wantStates("due due due")
	w.panel.SetAPIFaults()
	if err := w.charges.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantStates("taken taken taken")
	w.bill(3)
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultServiceUnavailable})
	w.take()
	w.take()
	w.want("due due taken taken taken unclear", `SELECT string_agg(state, ' ' ORDER BY state) FROM serversync.charges`)
}

// TestProcessesThatDieWithAChargeInHand: between the commit and the call, and
// between the call and its record.
func TestProcessesThatDieWithAChargeInHand(t *testing.T) {
	t.Parallel()
	for name, called := range map[string]bool{"before the call": false, "after the call": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTill(t)
			w.bill(1)
			c, found, err := w.reconciler.NextCharge(t.Context())
			if err != nil || !found {
				t.Fatal(found, err)
			}
			if called {
				if _, err := w.client.RemoveCredit(t.Context(), c.UserID, virtfusion.Credit{Tokens: c.Tokens, Reference1: c.TransactionID, Reference2: c.Reference}); err != nil {
					t.Fatal(err)
				}
			}
			w.take() // another process
			w.wantStates("taking")
			if _, err := w.reconciler.ResolveCharge(t.Context(), c.ID, false, "", "ada"); err == nil {
				t.Error("a charge was resolved that is in hand")
			}
			w.pass(3 * time.Minute)
			w.take()
			w.wantStates("unclear")
			w.want("1", `SELECT count(*) FROM serversync.history WHERE kind = 'charge_unclear'`)
			took := w.tokens()
			w.pass(48 * time.Hour)
			w.take()
			w.wantTokens(took)
			if called { // it was only slow
				if err := w.reconciler.EndCharge(t.Context(), c, db.ChargeEnd{State: db.ChargeTaken, CreditID: "17"}); err != nil {
					t.Fatal(err)
				}
				if err := w.reconciler.EndCharge(t.Context(), c, db.ChargeEnd{State: db.ChargeTaken, CreditID: "17"}); err != nil {
					t.Errorf("said twice: %v", err)
				}
				w.want("17", `SELECT virtfusion_credit_id FROM transactions`)
				w.wantStates("taken")
			}
			w.resolve()
			w.wantTokens(took)
			if _, err := w.reconciler.ResolveCharge(t.Context(), c.ID, false, "", "ada"); err == nil {
				t.Error("a charge was resolved twice")
			}
			w.agree()
		})
	}
}

// nativeTooLate has SkyPANEL's own row of a server turn up beside ours.
func (w *till) nativeTooLate(id int64) {
	w.Helper()
	w.exec(`INSERT INTO virtfusion_hourly_billing (user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, last_billed_at)
		SELECT user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, last_billed_at
		FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1 ORDER BY id LIMIT 1`, id)
	if _, err := w.reconciler.Redecide(w.Context(), []int64{id}); err != nil {
		w.Fatal(err)
	}
}

// TestRowsThatAreTakenBack: SkyPANEL's own row turns up late, at every moment of
// a first charge.
func TestRowsThatAreTakenBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		moment             string
		state, after, hour string
		rows, refunds      string
		took               int64
	}{
		{"due", "due", "cancelled", "null", "1", "0", 0},
		{"taking", "taking", "taken", "completed", "2", "1", 4},
		{"unclear", "unclear", "unclear", "pending", "2", "1", 4},
		{"taken", "taken", "taken", "completed", "2", "1", 4},
		{"failed", "failed", "failed", "null", "1", "0", 0},
	} {
		t.Run(c.moment, func(t *testing.T) {
			t.Parallel()
			w := newTill(t)
			id := w.bill(1)[0]
			var inHand db.FirstCharge
			switch c.moment {
			case "taking":
				inHand, _, _ = w.reconciler.NextCharge(t.Context())
			case "unclear":
				w.spoil(virtfusionsim.FaultDoneThenClosed)
				w.take()
			case "failed":
				w.spoil(virtfusionsim.FaultNotFound)
				w.take()
			case "taken":
				w.take()
			}
			w.spoil()
			w.wantStates(c.state)
			w.pass(time.Minute)
			w.nativeTooLate(id)
			w.want(c.rows, `SELECT count(*) FROM virtfusion_hourly_billing`)
			w.want("1", `SELECT count(*) FROM virtfusion_hourly_billing WHERE billing_enabled AND reference_1 IS NULL`)
			w.want(c.refunds, `SELECT count(*) FROM serversync.history WHERE kind = 'refund_due'`)
			if c.moment == "taking" {
				w.wantStates("taking")
				if _, err := w.client.RemoveCredit(t.Context(), inHand.UserID, virtfusion.Credit{Tokens: inHand.Tokens, Reference1: inHand.TransactionID, Reference2: inHand.Reference}); err != nil {
					t.Fatal(err)
				}
				if err := w.reconciler.EndCharge(t.Context(), inHand, db.ChargeEnd{State: db.ChargeTaken}); err != nil {
					t.Fatal(err)
				}
			}
			if voided, err := w.reconciler.VoidOrphanedCharges(t.Context()); err != nil || voided != 0 {
				t.Errorf("%d charges voided, %v", voided, err)
			}
			w.take()
			w.wantStates(c.after)
			w.wantTokens(c.took)
			w.want(c.hour, `SELECT status FROM virtfusion_hourly_transactions`)
		})
	}
}

// TestUndoOfFirstCharges: a run is taken back whose charges are at every stage.
func TestUndoOfFirstCharges(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	ids := w.create(3, accountBeatriz, packageLarge)
	run := w.sweep()
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultDoneThenClosed, Op: virtfusionsim.OpCredit, Skip: 1})
	w.exec(`UPDATE serversync.charges SET due_at = due_at + interval '1 minute' * CASE virtfusion_id WHEN $1 THEN -2 WHEN $2 THEN -1 ELSE 1 END`, ids[0], ids[1])
	w.take()
	w.wantStates("taken unclear due")
	undo := func() {
		t.Helper()
		effects, err := w.reconciler.PreviewUndo(t.Context(), db.UndoOrder{RunID: run.ID}, ids)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"charged 1 times", "charged 1 times", ""} {
			if left := effects[i].Left; !strings.Contains(left, want) || want == "" && left != "" {
				t.Errorf("server %d leaves %q, want %q", ids[i], left, want)
			}
		}
		if err := w.reconciler.Undo(t.Context(), "undo", db.UndoOrder{RunID: run.ID}, ids, "ada"); err != nil {
			t.Fatal(err)
		}
		w.wantStates("taken unclear cancelled")
		w.want("2", `SELECT count(*) FROM virtfusion_hourly_billing WHERE NOT billing_enabled`)
		w.agree()
	}
	undo()
	w.want("2", `SELECT count(*) FROM serversync.history WHERE kind = 'refund_due'`)
	undo()
	w.panel.SetAPIFaults()
	w.pass(time.Hour)
	w.take()
	w.resolve()
	w.wantStates("taken taken cancelled")
	w.wantTokens(8)
}

// TestAWishTakesBackAChargedRow: the only row of a server, charged within its
// first hour.
func TestAWishTakesBackAChargedRow(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	id := w.bill(1)[0]
	w.take()
	w.exec(`INSERT INTO serversync.overrides (virtfusion_id, kind, reason, set_by) VALUES ($1, 'undone', 'no', 'ada')`, id)
	if _, err := w.reconciler.Redecide(t.Context(), []int64{id}); err != nil {
		t.Fatal(err)
	}
	w.want("false", `SELECT billing_enabled FROM virtfusion_hourly_billing`)
	w.want("1", `SELECT count(*) FROM serversync.history WHERE kind = 'refund_due'`)
	w.agree()
}

// TestWhatIsNotOwedIsNotTaken: by the time when its turn comes.
func TestWhatIsNotOwedIsNotTaken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ statement, state, reason string }{
		"switched off":          {`UPDATE virtfusion_hourly_billing SET billing_enabled = false`, "cancelled", "its billing row was switched off first"},
		"paid otherwise":        {`UPDATE virtfusion_hourly_transactions SET status = 'completed'`, "cancelled", "its hourly transaction was completed by somebody else"},
		"deleted":               {`DELETE FROM virtfusion_hourly_billing`, "cancelled", "its billing row is gone"},
		"passed on by SkyPANEL": {fmt.Sprintf(`UPDATE virtfusion_hourly_billing SET user_id = %d`, userChen), "cancelled", "its billing row bills somebody else"},
		"no ledger":             {`ALTER TABLE transactions RENAME TO away`, "due", ""},
		"a ledger without room": {`ALTER TABLE transactions DROP COLUMN virtfusion_credit_id`, "due", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTill(t)
			w.bill(1)
			w.exec(c.statement)
			err := w.charges.Take(t.Context())
			if (err != nil) != (c.state == "due") || err != nil && !strings.Contains(err.Error(), "no credit is taken") {
				t.Errorf("take: %v", err)
			}
			w.wantTokens(0)
			w.want(c.state+"|"+c.reason, `SELECT state || '|' || reason FROM serversync.charges`)
		})
	}
}

// TestTheOperatorTakesNothing: OBSERVE_ONLY, and another policy by now.
func TestTheOperatorTakesNothing(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	w.bill(1)
	for _, p := range []reconciler.Policy{
		{InitialCharge: reconciler.ChargeDeduct, ObserveOnly: true}, {InitialCharge: reconciler.ChargeRecord}, {InitialCharge: reconciler.ChargeNone},
	} {
		if err := w.newCharges(w.otherReconciler(p)).Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantStates("due")
	}
	w.wantTokens(0)
	if c, err := w.reconciler.ResolveCharge(t.Context(), 1, false, "", "ada"); err != nil || c.State != db.ChargeCancelled {
		t.Errorf("%+v, %v", c, err)
	}
	w.take()
	w.wantTokens(0)
	if _, err := w.reconciler.ResolveCharge(t.Context(), 99, false, "", "ada"); err == nil {
		t.Error("a charge was resolved that there is not")
	}
}

// TestNoHourIsTakenBeforeItBegins: after a move within the hour that was charged
// already the new owner's first hour lies ahead.
func TestNoHourIsTakenBeforeItBegins(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	ids := w.bill(2)
	w.take()
	w.wantTokens(8)
	w.pass(10 * time.Minute)
	move := func(id, to int64) {
		t.Helper()
		if _, err := w.panel.Move(id, to); err != nil {
			t.Fatal(err)
		}
	}
	move(ids[0], accountChen)
	move(ids[1], accountChen)
	w.sweep()
	w.take()
	w.wantStates("taken due taken due")
	w.pass(10 * time.Minute)
	move(ids[1], accountBeatriz)
	w.sweep()
	w.take()
	w.wantStates("taken due taken cancelled")
	w.wantTokens(8)
	w.pass(time.Hour)
	w.take()
	w.want("0", `SELECT count(*) FROM serversync.charges WHERE state = 'due'`)
	w.want(fmt.Sprintf("%d:2 %d:1", userBeatriz, userChen), `SELECT string_agg(user_id || ':' || n, ' ' ORDER BY user_id) FROM (
		SELECT user_id, count(*) AS n FROM serversync.charges WHERE state = 'taken' AND id <= 4 GROUP BY 1) AS t`)
}

// TestTheHourOfAServerThatIsGoneIsTaken: it has begun.
func TestTheHourOfAServerThatIsGoneIsTaken(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	ids := w.bill(2)
	if err := w.panel.DestroySilently(ids[0]); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.sweep()
	w.want("false", `SELECT billing_enabled FROM virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, ids[0])
	w.take()
	w.wantStates("taken taken")
}

func TestTwoProcessesTakeSideBySide(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	w.bill(60)
	var g errgroup.Group
	for range 2 {
		charges := w.newCharges(w.otherReconciler(reconciler.Policy{InitialCharge: reconciler.ChargeDeduct}))
		for range 2 { // and each of them twice
			g.Go(func() error {
				return w.newCharges(w.otherReconciler(reconciler.Policy{InitialCharge: reconciler.ChargeDeduct})).Take(t.Context())
			})
		}
		g.Go(func() error { return charges.Take(t.Context()) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.agree()
	w.wantTokens(240)
	w.want("60", `SELECT count(*) FROM serversync.charges WHERE state = 'taken' AND attempts = 1`)
}

// TestShutdownLeavesNothingOpen: a call in hand is finished, and what became of it
// is written.
func TestShutdownLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	w.bill(3)
	ctx, cancel := context.WithCancel(t.Context())
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultNone, Op: virtfusionsim.OpCredit, Before: cancel})
	if err := w.charges.Run(ctx); err != nil {
		t.Fatal(err)
	}
	w.want("due due taken", `SELECT string_agg(state, ' ' ORDER BY state) FROM serversync.charges`)
	w.agree()
}

// TestNoChargeIsEverTakenTwice has VirtFusion fail in every way, processes die with
// charges in hand, SkyPANEL's own rows turn up and people look, in any order.
func TestNoChargeIsEverTakenTwice(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	faults := slices.DeleteFunc(virtfusionsim.Faults(), func(f virtfusionsim.Fault) bool {
		return !slices.Contains(f.Operations(), virtfusionsim.OpCredit) || strings.Contains(string(f), "hanging") // those take their time
	})
	billed := w.bill(1)
	const seed = 11
	random := rand.New(rand.NewPCG(seed, 2026))
	for range 25 {
		for range 1 + random.IntN(12) {
			switch random.IntN(10) {
			case 0, 1:
				billed = append(billed, w.bill(1+random.IntN(3))...)
			case 2, 3, 4:
				w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: faults[random.IntN(len(faults))], Op: virtfusionsim.OpCredit, Chance: 0.6})
				w.take()
				w.panel.SetAPIFaults()
			case 5: // a process dies
				if c, found, err := w.reconciler.NextCharge(t.Context()); err == nil && found && random.IntN(2) == 0 {
					_, _ = w.client.RemoveCredit(t.Context(), c.UserID, virtfusion.Credit{Tokens: c.Tokens, Reference1: c.TransactionID, Reference2: c.Reference})
				}
			case 6:
				w.nativeTooLate(billed[len(billed)-1-random.IntN(min(len(billed), 3))])
			case 7:
				w.resolve()
			default:
				w.pass(time.Duration(1+random.IntN(90)) * time.Minute)
				w.take()
			}
			w.agree()
		}
		w.pass(2 * time.Hour)
		w.take()
		w.pass(2 * time.Hour)
		w.take()
		w.want("0", `SELECT count(*) FROM serversync.charges WHERE state IN ('due', 'taking')`)
		w.resolve()
		if t.Failed() {
			t.FailNow()
		}
	}
	w.want(strconv.FormatInt(w.tokens(), 10), `SELECT coalesce(sum(tokens), 0) FROM serversync.charges WHERE state = 'taken'`)
	ended := w.value(`SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM serversync.charges GROUP BY 1) AS s`)
	for _, state := range []string{"cancelled", "failed", "taken"} {
		if !strings.Contains(ended, state) {
			t.Errorf("that proved little: %s", ended)
		}
	}
}
