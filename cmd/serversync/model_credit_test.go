package main_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"serversync/db"
	"serversync/ingest"
	"serversync/reconciler"
	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// creditBooks are the books of first charges, and VirtFusion's own of the credit
// that it took.
type creditBooks struct {
	rapid.TB

	ctx   context.Context //nolint:containedctx // of the test, whose books these are
	db    *bun.DB
	panel *virtfusionsim.Panel
}

// agree holds what VirtFusion took against the charges, these against the hourly
// transactions, and those against SkyPANEL's ledger.
func (b creditBooks) agree() {
	b.Helper()
	taken := make(map[string]int64)
	for _, c := range b.panel.Credits() {
		if taken[c.Reference2] != 0 {
			b.Errorf("VirtFusion took credit twice for %s", c.Reference2)
		}
		taken[c.Reference2] = -c.Tokens
	}
	rows, err := b.db.DB.QueryContext(b.ctx, `
		SELECT c.id, c.state, c.tokens, c.reference, c.ledger_id, c.ended_at IS NULL,
			coalesce(concat_ws(' ', t.status, t.amount_charged::numeric(10,2), coalesce(t.transaction_id::text, '-')), ''),
			coalesce(concat_ws(' ', l.status, (-l.amount)::numeric(10,2), l.id), '')
		FROM serversync.charges c
		LEFT JOIN virtfusion_hourly_transactions t ON t.id = c.transaction_id
		LEFT JOIN transactions l ON l.id = c.ledger_id AND l.user_id = c.user_id AND l.type = 'debit' AND l.payment_method = 'virtfusion_tokens'
		ORDER BY c.id`)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c db.FirstCharge
		var open bool
		var hour, ledger string
		if err := rows.Scan(&c.ID, &c.State, &c.Tokens, &c.Reference, &c.LedgerID, &open, &hour, &ledger); err != nil {
			b.Fatal(err)
		}
		if waits := c.State == db.ChargeDue || c.State == db.ChargeTaking || c.State == db.ChargeUnclear; open != waits {
			b.Errorf("charge %d is %s, and open: %v", c.ID, c.State, open)
		}
		b.agreeOn(&c, hour, ledger, taken[c.Reference])
		delete(taken, c.Reference)
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	for reference, tokens := range taken {
		b.Errorf("VirtFusion took %d tokens for %q, which no charge names", tokens, reference)
	}
}

// agreeOn holds one charge against its hourly transaction and its line in the
// ledger, as "status amount id", and against what VirtFusion took for it.
func (b creditBooks) agreeOn(c *db.FirstCharge, hour, ledger string, took int64) {
	b.Helper()
	line := func(status string) string {
		id := "-"
		if c.LedgerID != nil {
			id = strconv.FormatInt(*c.LedgerID, 10)
		}
		return fmt.Sprintf("%s %.2f %s", status, float64(c.Tokens)/100, id)
	}
	var wantHour, wantLedger string
	var wantTook int64
	switch c.State {
	case db.ChargeTaken:
		wantHour, wantLedger, wantTook = line("completed"), line("completed"), c.Tokens
	case db.ChargeFailed:
		wantHour, wantLedger = line("failed"), line("failed")
	case db.ChargeCancelled:
		wantHour = line("failed")
	case db.ChargeTaking, db.ChargeUnclear: // nobody knows what VirtFusion took
		wantHour, wantTook = line("pending"), took
	case db.ChargeDue:
		wantHour = line("pending")
	}
	removed := hour == "-" && (c.State == db.ChargeCancelled || c.State == db.ChargeFailed) // with its row
	if hour != wantHour && !removed || ledger != wantLedger || took != wantTook {
		b.Errorf("charge %d is %s: the hourly transaction is %q, want %q; the ledger says %q, want %q; VirtFusion took %d tokens, want %d",
			c.ID, c.State, hour, wantHour, ledger, wantLedger, took, wantTook)
	}
}

// resolve says of every charge that is unclear what VirtFusion's records say.
func (b creditBooks) resolve(books *reconciler.Reconciler) {
	b.Helper()
	open, err := db.ListCharges(b.ctx, b.db, db.ChargeUnclear, 0, 10_000)
	if err != nil {
		b.Fatal(err)
	}
	credits := b.panel.Credits()
	for _, c := range open {
		taken := slices.ContainsFunc(credits, func(r virtfusionsim.Credit) bool {
			return r.Reference1 == c.TransactionID && r.Reference2 == c.Reference
		})
		if _, err := books.ResolveCharge(b.ctx, c.ID, taken, "", "ada"); err != nil {
			b.Errorf("resolve charge %d: %v", c.ID, err)
		}
	}
	b.agree()
}

// newTill makes what takes the credit of first charges.
func (m *model) newTill() *ingest.Charges {
	return ingest.NewCharges(ingest.ChargesConfig{
		DB: m.db, Books: m.workers[0].Reconciler, Client: func(context.Context) (*virtfusion.Client, error) { return m.client, nil },
		Now: m.clock, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
	})
}

// creditFaults are what may become of a credit call. The most frequent is that
// all is well, the next that VirtFusion does it and its answer does not come.
func creditFaults() []virtfusionsim.Fault {
	return []virtfusionsim.Fault{
		virtfusionsim.FaultNone, virtfusionsim.FaultNone, virtfusionsim.FaultNone, virtfusionsim.FaultNone,
		virtfusionsim.FaultDoneThenGatewayTimeout, virtfusionsim.FaultDoneThenGatewayTimeout, virtfusionsim.FaultDoneThenBadGateway,
		virtfusionsim.FaultServerError, virtfusionsim.FaultNotFound, virtfusionsim.FaultUnprocessable,
		virtfusionsim.FaultUnauthorized, virtfusionsim.FaultTooManyRequests, virtfusionsim.FaultNotFoundPage,
	}
}

// takeCredit takes the credit of first charges that are due, while VirtFusion
// answers a call of them so, and holds what was taken against the books.
func (m *model) takeCredit(fault virtfusionsim.Fault) {
	m.Helper()
	if m.policy.InitialCharge != reconciler.ChargeDeduct {
		return
	}
	rows, before := m.rows(), m.panel.Credits()
	m.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: fault, Op: virtfusionsim.OpCredit})
	if err := m.till.Take(m.ctx); err != nil && fault == virtfusionsim.FaultNone {
		m.Fatalf("take the credit of first charges: %v", err)
	}
	m.panel.SetAPIFaults()
	took := m.panel.Credits()[len(before):]
	m.bed.figures.credits.Add(int64(len(took)))
	m.note("credit of first charges is taken, VirtFusion: %s; %d times", fault, len(took))
	for i := range took {
		m.checkCredit(&took[i], rows)
	}
	creditBooks{m, m.ctx, m.db, m.panel}.agree()
	if m.Failed() {
		m.FailNow()
	}
}

// checkCredit wants the credit that was taken to be owed: the row is there, bills
// the user whose credit it was, was not withdrawn or switched off first, and was
// not closed before its first hour began.
func (m *model) checkCredit(c *virtfusionsim.Credit, rows map[int64]*modelRow) {
	m.Helper()
	var row, server int64
	var start time.Time
	if err := m.db.DB.QueryRowContext(m.ctx, `
		SELECT c.billing_id, c.virtfusion_id, t.billing_period_start FROM serversync.charges c JOIN virtfusion_hourly_transactions t ON t.id = c.transaction_id
		WHERE c.reference = $1`, c.Reference2).Scan(&row, &server, &start); err != nil {
		m.Fatalf("VirtFusion took %d tokens of user %d for %q, of which the books do not know: %v", -c.Tokens, c.ExtRelationID, c.Reference2, err)
	}
	r := rows[row]
	switch {
	case r == nil:
		m.Fatalf("credit was taken for row %d, which was not there%s", row, m.story(server))
	case c.ExtRelationID != r.UserID:
		m.Fatalf("credit of user %d was taken for row %d, which bills user %d%s", c.ExtRelationID, row, r.UserID, m.story(server))
	case !r.Enabled && r.Closed != "destroyed" && r.Closed != "moved":
		m.Fatalf("credit was taken for row %d, which was off (%q)%s", row, r.Closed, m.story(server))
	}
	if closed := m.text(`SELECT count(*)::text FROM serversync.history WHERE billing_id = $1 AND kind = 'billing_closed' AND at < $2`, row, start); closed != "0" {
		m.Fatalf("credit was taken for row %d, which was closed before its first hour began%s", row, m.story(server))
	}
}

// settleCharges takes what is due while VirtFusion answers so, lets a person look
// at what is unclear, and time pass until all credit that is owed was taken. It
// reports whether there was anything to do.
func (m *model) settleCharges(answer virtfusionsim.Fault) bool {
	m.Helper()
	open := func() string {
		return m.text(`SELECT count(*)::text FROM serversync.charges WHERE state IN ('due', 'taking', 'unclear')`)
	}
	if m.policy.InitialCharge != reconciler.ChargeDeduct || open() == "0" {
		return false
	}
	for range 3 {
		m.takeCredit(answer)
		answer = virtfusionsim.FaultNone
		creditBooks{m, m.ctx, m.db, m.panel}.resolve(m.workers[0].Reconciler)
		if open() == "0" {
			return true
		}
		m.pass(time.Hour) // the longest that one is put off
	}
	m.Fatalf("%s first charges are still open: %s", open(), m.text(`SELECT string_agg(to_jsonb(c)::text, E'\n') FROM serversync.charges c WHERE ended_at IS NULL`))
	return true
}
