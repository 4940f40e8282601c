package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// ChargeState says how far a first charge is.
type ChargeState string

// The states of a first charge.
const (
	ChargeDue       ChargeState = "due"       // its credit is to be taken
	ChargeTaking    ChargeState = "taking"    // …is being taken right now, or was when a process died
	ChargeTaken     ChargeState = "taken"     // …was taken, and is entered in SkyPANEL's ledger
	ChargeFailed    ChargeState = "failed"    // VirtFusion refused: nothing was taken
	ChargeUnclear   ChargeState = "unclear"   // nobody knows; a person has to look
	ChargeCancelled ChargeState = "cancelled" // it was not owed after all: nothing was taken
)

// ChargeStates are all of them.
func ChargeStates() []ChargeState {
	return []ChargeState{ChargeDue, ChargeTaking, ChargeTaken, ChargeFailed, ChargeUnclear, ChargeCancelled}
}

// openStates are those in which something is yet to happen.
var openStates = []ChargeState{ChargeDue, ChargeTaking, ChargeUnclear}

// inHand is whether credit may have been taken for hourly transaction t, though
// that does not say so; openCharge, whether something is yet to become of it.
const (
	inHand     = `EXISTS (SELECT FROM serversync.charges c WHERE c.transaction_id = t.id AND c.state IN ('taking', 'unclear'))`
	openCharge = `EXISTS (SELECT FROM serversync.charges c WHERE c.transaction_id = t.id AND c.state IN ('due', 'taking', 'unclear'))`
)

var (
	// ErrNoCharge means that there is no first charge of an id.
	ErrNoCharge = errors.New("no such first charge")
	// ErrChargeState means that a first charge is in a state in which the wish
	// makes no sense, or that another attempt is at it by now.
	ErrChargeState = errors.New("the first charge is in another state")
)

// FirstCharge is serversync.charges: credit to be taken from a VirtFusion user
// for the first hour of a billing row of ours.
type FirstCharge struct {
	ID            int64
	TransactionID int64 // of virtfusion_hourly_transactions
	BillingID     int64
	ServerID      int64 // VirtFusion's
	UserID        int64 // SkyPANEL's users.id, by which VirtFusion knows the user as extRelationId
	OwnerID       int64 // VirtFusion's id of the user
	Tokens        int64 // whole ones, each a cent; > 0
	// Reference names the charge in VirtFusion's records; no other charge of any
	// installation has it, nor one that gets the same TransactionID once more after
	// a restore.
	Reference string
	State     ChargeState
	Reason    string // in words
	Attempts  int64
	CreatedAt time.Time
	DueAt     time.Time // not taken before
	TakingAt  *time.Time
	EndedAt   *time.Time // nil: open
	CreditID  string     // VirtFusion's; empty: it named none
	LedgerID  *int64     // of transactions
}

const chargeColumns = `c.id, c.transaction_id, c.billing_id, c.virtfusion_id, c.user_id, c.owner_id, c.tokens, c.reference,
	c.state, c.reason, c.attempts, c.created_at, c.due_at, c.taking_at, c.ended_at, coalesce(c.credit_id, ''), c.ledger_id`

func scanCharge(rows *sql.Rows) (FirstCharge, error) { return scanChargeAnd(rows) }

func scanChargeAnd(rows *sql.Rows, more ...any) (FirstCharge, error) {
	var c FirstCharge
	err := rows.Scan(append([]any{
		&c.ID, &c.TransactionID, &c.BillingID, &c.ServerID, &c.UserID, &c.OwnerID, &c.Tokens, &c.Reference,
		&c.State, &c.Reason, &c.Attempts, &c.CreatedAt, &c.DueAt, &c.TakingAt, &c.EndedAt, &c.CreditID, &c.LedgerID,
	}, more...)...)
	return c, err
}

// cancelCharges cancels first charges that are due, so that no credit is taken
// for them. One that somebody is about to take is waited for, and left alone when
// it is being taken then.
//
// They are those of one of the billing rows or of one of the hourly transactions
// whose hour has not begun.
func cancelCharges(ctx context.Context, idb bun.IDB, billingIDs, ahead []int64, why string, now time.Time) error {
	_, err := nativeOf(idb).ExecContext(ctx, `
		UPDATE serversync.charges SET state = 'cancelled', reason = $3, ended_at = $4
		WHERE state = 'due' AND (billing_id = ANY ($1::int[]) OR transaction_id = ANY ($2::int[]) AND due_at > $4)`, billingIDs, ahead, why, now)
	return wrap(err, "cancel first charges")
}

// ClaimCharge takes the next first charge that is due into hand, which others
// pass over: its state is [ChargeTaking] once the caller's transaction is
// committed, and only then may its credit be taken. One that is not owed any more
// is cancelled, with its hourly transaction, and returned as such. found: there
// was one.
func ClaimCharge(ctx context.Context, tx bun.Tx, now time.Time) (c FirstCharge, found bool, err error) {
	ids, err := queryAll(ctx, tx, scanID, `
		SELECT id FROM serversync.charges WHERE state = 'due' AND due_at <= $1
		ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED`, now)
	if err != nil || len(ids) == 0 {
		return c, false, wrap(err, "look for a first charge that is due")
	}
	var obstacle string
	claimed, err := queryAll(ctx, tx, func(rows *sql.Rows) (FirstCharge, error) { return scanChargeAnd(rows, &obstacle) }, `
		SELECT `+chargeColumns+`, CASE
			WHEN b.id IS NULL THEN 'its billing row is gone'
			WHEN t.id IS NULL THEN 'its hourly transaction is gone'
			WHEN t.status IS DISTINCT FROM 'pending' OR t.transaction_id IS NOT NULL THEN format('its hourly transaction was %s by somebody else', coalesce(t.status, 'changed'))
			WHEN b.user_id <> c.user_id THEN 'its billing row bills somebody else'
			WHEN b.billing_enabled IS NOT TRUE AND coalesce(r.closed_reason, '') NOT IN ('destroyed', 'moved') THEN 'its billing row was switched off first'
			ELSE '' END
		FROM serversync.charges c
		LEFT JOIN public.virtfusion_hourly_transactions t ON t.id = c.transaction_id
		LEFT JOIN public.virtfusion_hourly_billing b ON b.id = c.billing_id
		LEFT JOIN serversync.billing_rows r ON r.billing_id = c.billing_id
		WHERE c.id = $1`, ids[0])
	if err != nil {
		return c, false, wrap(err, "look at the first charge that is due")
	}
	c = claimed[0]
	if obstacle != "" {
		c.State, c.Reason = ChargeCancelled, obstacle
		if err := endCharge(ctx, tx, &c, now); err != nil {
			return c, true, err
		}
		return c, true, tellCharge(ctx, tx, &c, ChargeDue, SourceCharges, now)
	}
	c.State, c.Reason, c.TakingAt = ChargeTaking, "", &now
	c.Attempts++
	_, err = nativeOf(tx).ExecContext(ctx, `
		UPDATE serversync.charges SET state = 'taking', reason = '', attempts = $2, taking_at = $3 WHERE id = $1`, c.ID, c.Attempts, now)
	return c, true, wrap(err, "take a first charge in hand")
}

// Word is on whose word the inventory has a server as it is.
type Word struct {
	Pulled      bool // VirtFusion's, asked: no webhook has changed anything since
	Shown       bool // VirtFusion, asked, has shown it once, however it was then
	SelfService bool // it is known that VirtFusion bills it itself
}

// WordOn reads on whose word the inventory has a server; one that it does not have is
// on nobody's.
func WordOn(ctx context.Context, idb bun.IDB, serverID int64) (Word, error) {
	words, err := queryAll(ctx, idb, func(rows *sql.Rows) (w Word, err error) {
		err = rows.Scan(&w.Pulled, &w.Shown, &w.SelfService)
		return w, err
	}, `
		SELECT pulled_at IS NOT NULL AND pulled_at >= observed_at AND observed_source <> 'webhook', pulled_at IS NOT NULL, coalesce(self_service, 0) <> 0
		FROM serversync.servers WHERE virtfusion_id = $1`, serverID)
	if err != nil || len(words) == 0 {
		return Word{}, wrap(err, fmt.Sprintf("look who says what of server %d", serverID))
	}
	return words[0], nil
}

// LedgerObstacles names what keeps us from entering a charge in SkyPANEL's money
// ledger, `transactions`: no credit may be taken then.
func LedgerObstacles(ctx context.Context, idb bun.IDB) ([]string, error) {
	obstacles, err := queryAll(ctx, idb, func(rows *sql.Rows) (string, error) {
		var s string
		err := rows.Scan(&s)
		return s, err
	}, `
		WITH ledger AS (SELECT to_regclass('public.transactions') AS id)
		SELECT 'there is no table transactions' FROM ledger WHERE id IS NULL
		UNION ALL
		SELECT 'transactions has no column ' || k.name FROM ledger, unnest(ARRAY['id', 'user_id', 'amount', 'type', 'description', 'status',
			'payment_method', 'virtfusion_credit_id', 'created_at']) AS k (name)
		WHERE ledger.id IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = ledger.id AND a.attname = k.name AND NOT a.attisdropped)
		UNION ALL
		SELECT p.name || ' on transactions is not granted' FROM ledger, (VALUES ('SELECT'), ('INSERT')) AS p (name)
		WHERE ledger.id IS NOT NULL AND NOT has_table_privilege(ledger.id, p.name)
		UNION ALL
		SELECT 'USAGE on the sequence ' || s.name || ' is not granted' FROM ledger,
			LATERAL (SELECT CASE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = ledger.id AND a.attname = 'id' AND NOT a.attisdropped)
				THEN pg_get_serial_sequence('public.transactions', 'id') END) AS s (name)
		WHERE s.name IS NOT NULL AND NOT has_sequence_privilege(s.name, 'USAGE')`)
	return obstacles, wrap(err, "look whether a charge can be entered in SkyPANEL's ledger")
}

// ChargeEnd is what became of a first charge.
type ChargeEnd struct {
	ID int64
	// From are the states in which this can become of it.
	From []ChargeState
	// Attempt is that by which it became so; 0: whichever.
	Attempt int64
	State   ChargeState
	Reason  string // in words
	// CreditID is VirtFusion's record of what was taken; empty: not known.
	CreditID string
	DueAt    time.Time // of [ChargeDue]: not tried again before
	Now      time.Time
	Source   string // of the history line: who found out
}

// EndCharge writes what became of a first charge, to be committed as one: its
// state, its hourly transaction, the line of SkyPANEL's ledger, and the history.
// When that was written before, it does nothing. It returns [ErrNoCharge] or
// [ErrChargeState].
func EndCharge(ctx context.Context, tx bun.Tx, end ChargeEnd) (FirstCharge, error) {
	found, err := queryAll(ctx, tx, scanCharge, `SELECT `+chargeColumns+` FROM serversync.charges c WHERE id = $1 FOR UPDATE`, end.ID)
	if err != nil {
		return FirstCharge{}, wrap(err, fmt.Sprintf("look at first charge %d", end.ID))
	}
	if len(found) == 0 {
		return FirstCharge{}, ErrNoCharge
	}
	c := found[0]
	same := end.Attempt == 0 || end.Attempt == c.Attempts
	if same && end.Attempt != 0 && c.State == end.State {
		return c, nil // it was written, and only the word of it was lost
	}
	if !same || !slices.Contains(end.From, c.State) {
		return c, fmt.Errorf("first charge %d is %s, attempt %d: %w", c.ID, c.State, c.Attempts, ErrChargeState)
	}
	was := c.State
	c.State, c.Reason, c.CreditID = end.State, end.Reason, end.CreditID
	if c.State == ChargeDue {
		c.DueAt = end.DueAt
	}
	if err := endCharge(ctx, tx, &c, end.Now); err != nil {
		return c, err
	}
	if c.State == ChargeDue {
		return c, nil // it is tried again: nothing has changed yet
	}
	return c, tellCharge(ctx, tx, &c, was, end.Source, end.Now)
}

// SourceCharges is the source of history lines about what became of a charge when
// its credit was to be taken.
const SourceCharges = "charges"

// tellCharge tells the history what became of a first charge.
func tellCharge(ctx context.Context, tx bun.Tx, c *FirstCharge, was ChargeState, source string, now time.Time) error {
	line, err := chargeLine(c, was, source, now)
	if err != nil {
		return err
	}
	return InsertHistory(ctx, tx, []History{line})
}

// endCharge writes a first charge as it is from now on.
func endCharge(ctx context.Context, tx bun.Tx, c *FirstCharge, now time.Time) error {
	if c.State == ChargeTaken || c.State == ChargeFailed {
		if err := enterCharge(ctx, tx, c, now); err != nil {
			return err
		}
	}
	if hour := hourStatus(c.State); hour != "" {
		if _, err := nativeOf(tx).ExecContext(ctx, `
			UPDATE public.virtfusion_hourly_transactions SET status = $2, transaction_id = $3
			WHERE id = $1 AND transaction_id IS NULL AND ($3::int IS NOT NULL OR status = 'pending')`, c.TransactionID, hour, c.LedgerID); err != nil {
			return fmt.Errorf("note in hourly transaction %d what became of it: %w", c.TransactionID, err)
		}
	}
	if !slices.Contains(openStates, c.State) {
		c.EndedAt = &now
	}
	_, err := nativeOf(tx).ExecContext(ctx, `
		UPDATE serversync.charges SET state = $2, reason = $3, due_at = $4, ended_at = $5, credit_id = $6, ledger_id = $7 WHERE id = $1`,
		c.ID, string(c.State), c.Reason, c.DueAt, c.EndedAt, nullIfEmpty(c.CreditID), c.LedgerID)
	return wrap(err, fmt.Sprintf("note what became of first charge %d", c.ID))
}

// hourStatus is what the hourly transaction says; empty: nothing new.
func hourStatus(state ChargeState) string {
	switch state {
	case ChargeTaken:
		return "completed"
	case ChargeFailed, ChargeCancelled:
		return "failed"
	case ChargeDue, ChargeTaking, ChargeUnclear:
	}
	return ""
}

// enterCharge enters a charge in SkyPANEL's ledger as its job does, one that
// failed too. The description must not begin as that of an order does, see
// [NativeTraces].
func enterCharge(ctx context.Context, tx bun.Tx, c *FirstCharge, now time.Time) error {
	ids, err := queryAll(ctx, tx, scanID, `
		INSERT INTO public.transactions (user_id, amount, type, description, status, payment_method, virtfusion_credit_id, created_at)
		SELECT id, (-$2::bigint / 100.0)::real, 'debit', $3, $4, 'virtfusion_tokens', $5, $6::timestamp FROM public.users WHERE id = $1
		RETURNING id`,
		c.UserID, c.Tokens, fmt.Sprintf("VirtFusion Server %d - First hour", c.ServerID), hourStatus(c.State), nullIfEmpty(c.CreditID), timestamp(&now))
	if err != nil {
		return fmt.Errorf("enter first charge %d in SkyPANEL's ledger: %w", c.ID, err)
	}
	if len(ids) == 0 {
		c.Reason = strings.TrimPrefix(c.Reason+"; SkyPANEL has deleted the user: nothing was entered in its ledger", "; ")
		return nil
	}
	c.LedgerID = &ids[0]
	return nil
}

// chargeLine is the history's line of it.
func chargeLine(c *FirstCharge, was ChargeState, source string, now time.Time) (History, error) {
	h := History{
		At: now, VirtfusionID: c.ServerID, UserID: &c.UserID, BillingID: &c.BillingID, Source: source,
		Kind: "charge_" + string(c.State), Reason: chargeWords(c),
	}
	facts := func(state ChargeState) map[string]any {
		return map[string]any{"charge": c.TransactionID, "state": state}
	}
	var err error
	if h.Before, err = json.Marshal(facts(was)); err != nil {
		return h, err
	}
	after := facts(c.State)
	if c.LedgerID != nil {
		after["transaction_id"] = *c.LedgerID
	}
	if c.CreditID != "" {
		after["credit_id"] = c.CreditID
	}
	h.After, err = json.Marshal(after)
	return h, err
}

func chargeWords(c *FirstCharge) string {
	tokens := fmt.Sprintf("%d tokens", c.Tokens)
	if c.Tokens == 1 {
		tokens = "1 token"
	}
	var words string
	switch c.State {
	case ChargeTaken:
		words = "the first hour was charged: " + tokens + " of the user's credit in VirtFusion"
	case ChargeFailed:
		words = "the first hour was not charged: no credit was taken"
	case ChargeUnclear:
		words = "nobody knows whether " + tokens + " of the user's credit were taken for the first hour; a person has to look in VirtFusion for the reference " + c.Reference
	case ChargeCancelled:
		words = "the first hour is not charged"
	case ChargeDue, ChargeTaking:
	}
	if c.Reason != "" {
		words += ": " + c.Reason
	}
	return words
}

// AgeCharges gives up first charges that have been in hand since before a time:
// whoever was taking their credit is gone, and nobody knows what became of it. It
// returns them, and writes the history.
func AgeCharges(ctx context.Context, tx bun.Tx, before, now time.Time) ([]FirstCharge, error) {
	aged, err := queryAll(ctx, tx, scanCharge, `
		UPDATE serversync.charges c SET state = 'unclear', reason = 'the process that was taking it ended before it could say what became of it'
		WHERE c.id IN (SELECT id FROM serversync.charges WHERE state = 'taking' AND taking_at < $1 ORDER BY id FOR UPDATE SKIP LOCKED)
		RETURNING `+chargeColumns, before)
	if err != nil {
		return nil, fmt.Errorf("look for first charges whose taker is gone: %w", err)
	}
	lines := make([]History, 0, len(aged))
	for i := range aged {
		line, err := chargeLine(&aged[i], ChargeTaking, SourceCharges, now)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return aged, InsertHistory(ctx, tx, lines)
}

// ListCharges returns up to limit first charges, newest first, of one state or,
// where that is empty, of all, with ids below the cursor; 0 begins at the newest.
func ListCharges(ctx context.Context, idb bun.IDB, state ChargeState, cursor int64, limit int) ([]FirstCharge, error) {
	charges, err := queryAll(ctx, idb, scanCharge, `
		SELECT `+chargeColumns+` FROM serversync.charges c
		WHERE ($1 = '' OR state = $1) AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, string(state), cursor, limit)
	return charges, wrap(err, "list first charges")
}

// CountOpenCharges counts the first charges of which something is yet to become,
// by state. All of these states are in the answer.
func CountOpenCharges(ctx context.Context, idb bun.IDB) (map[ChargeState]int64, error) {
	type count struct {
		state ChargeState
		n     int64
	}
	counts, err := queryAll(ctx, idb, func(rows *sql.Rows) (count, error) {
		var c count
		err := rows.Scan(&c.state, &c.n)
		return c, err
	}, `SELECT state, count(*) FROM serversync.charges WHERE state IN ('due', 'taking', 'unclear') GROUP BY state`)
	if err != nil {
		return nil, fmt.Errorf("count first charges: %w", err)
	}
	all := make(map[ChargeState]int64, len(openStates))
	for _, s := range openStates {
		all[s] = 0
	}
	for _, c := range counts {
		all[c.state] = c.n
	}
	return all, nil
}

// LedgerRemedy says what to do about what [LedgerObstacles] names.
func LedgerRemedy(obstacles []string) string {
	return strings.Join(obstacles, ", ") + ": as the table's owner, GRANT SELECT, INSERT ON public.transactions and USAGE on its sequence to our role; until then no credit is taken"
}
