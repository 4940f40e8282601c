package reconciler

import (
	"cmp"
	"time"

	"github.com/shopspring/decimal"
)

// InitialCharge says what becomes of the first hour of a new external server.
type InitialCharge string

// The ways of BILLING_INITIAL_CHARGE.
const (
	ChargeRecord InitialCharge = "record" // a pending transaction, which nobody collects
	ChargeDeduct InitialCharge = "deduct" // a transaction whose credit is taken through VirtFusion's API
	ChargeNone   InitialCharge = "none"   // no transaction; SkyPANEL bills from discovery on
)

// Policy is what the operator and SkyPANEL's settings say about billing.
type Policy struct {
	// HourlyMode: SkyPANEL bills by the hour. In monthly mode it makes no
	// billing rows for its own servers, so a missing row proves nothing.
	HourlyMode bool
	// HoursPerMonth divides a monthly price; > 0.
	HoursPerMonth int64
	// BillSelfService: bill servers that VirtFusion bills itself.
	BillSelfService bool
	// StartAtCreation: bill from the server's creation rather than from its
	// discovery.
	StartAtCreation bool
	InitialCharge   InitialCharge
	// ObserveOnly: no billing row is touched.
	ObserveOnly bool
	// SettleDelay is how long a new server may wait for SkyPANEL's own row.
	SettleDelay time.Duration
	// Hour is how long an hour lasts that SkyPANEL bills; 0: an hour. A shorter one
	// is the demo's alone, whose simulated SkyPANEL bills in fast motion.
	Hour time.Duration
}

// hour is how long an hour lasts that SkyPANEL bills.
func (p *Policy) hour() time.Duration { return cmp.Or(p.Hour, time.Hour) }

// Row is a SkyPANEL billing row that carries the server's id or UUID.
type Row struct {
	ID           int64
	UserID       int64
	ServerID     int64 // VirtFusion server id
	UUID         string
	PackageID    int64
	PackageName  string
	MonthlyPrice decimal.Decimal
	HourlyRate   decimal.Decimal
	Hours        int64
	Enabled      bool
	LastBilledAt *time.Time
	// ServerCreatedAt counts while LastBilledAt is null: the server's first
	// hour was paid with the order.
	ServerCreatedAt *time.Time
	// Ours: we made it, by our own record or by its reference.
	Ours bool
	// Record is our memory of a row that we made or switched off; nil where
	// there is none.
	Record *RowRecord
	// Charged: it has charges besides the pending first one that we recorded, or
	// that one's credit was taken, or may have been. Known only where a row of
	// ours may have to be taken back.
	Charged bool
}

// RowRecord is how we last left a billing row.
type RowRecord struct {
	Enabled      bool
	PackageID    int64
	MonthlyPrice decimal.Decimal
	LastBilledAt *time.Time
	Closed       Closed
}

// Closed says why we closed a billing row.
type Closed string

// The reasons for closing a row.
const (
	ClosedNot       Closed = ""
	ClosedDestroyed Closed = "destroyed"
	ClosedMoved     Closed = "moved"
	ClosedWithdrawn Closed = "withdrawn"
	// ClosedOperator: SkyPANEL's own row, switched off by an operator's word
	// until they take it back.
	ClosedOperator Closed = "operator"
)

// Input is all that a decision may depend on.
type Input struct {
	// Now is the time of the decision, UTC, in microseconds.
	Now time.Time
	// News is what was observed, in any order; none when the server is decided
	// again from what is stored.
	News []Observation
	// Known is what is stored; nil for a server never heard of. There are News
	// or there is something Known.
	Known *State
	// Rows are the billing rows that match by VirtFusion id or UUID, of what
	// is stored or of the observation.
	Rows   []Row
	Users  *Users
	Prices map[int64]Price // by VirtFusion package id
	Policy Policy
	// Wishes are the operators'.
	Wishes Wishes
	// Trace is SkyPANEL's trace of having sold the server, in words; looked
	// for only where no billing row matches. Empty: none.
	Trace string
	// SoldTo are the SkyPANEL users to whom it was sold by those traces. Empty:
	// they do not say.
	SoldTo []int64
	// Authorized: decided on behalf of a run that a person approved, or that is
	// within its cap. It ends the waiting for approval.
	Authorized bool
	// RunID is the run on whose behalf it is decided without news; empty: none.
	RunID string
	// undo is what is to be taken back; nil: nothing.
	undo *past
}

// Wishes are what operators want of a server, from serversync.overrides.
type Wishes struct {
	// BillingOn: bill it, though SkyPANEL switched it off or VirtFusion bills
	// it itself.
	BillingOn  bool
	BillingOff bool
	// Ignore: leave it alone; Undone: what was made for it was taken back. In
	// either case no row is made, and one of ours is off.
	Ignore, Undone bool
	// Keep: what was changed of its rows was taken back. Package, price and UUID
	// stay as they are; whether it is billed is decided as ever.
	Keep bool
	// UndoneFor and KeepFor are the owners for whom that holds; nil: anybody.
	UndoneFor, KeepFor *int64
	// PackageID is the VirtFusion package that it is to be billed as; nil: its
	// own.
	PackageID *int64
	Words     string // the operator's reasons
}

// off: SkyPANEL's own row is to be off as well.
func (w *Wishes) off() bool { return w.BillingOff || w.Ignore }

// Outcome says what became of a server's billing.
type Outcome string

// The outcomes.
const (
	OutcomeUnchanged Outcome = "unchanged"
	OutcomeNew       Outcome = "new"     // a billing row was made
	OutcomeUpdated   Outcome = "updated" // a billing row changed
)

// Decision is what is to be done about one server, and why.
type Decision struct {
	// State is what we know from now on.
	State   State
	Outcome Outcome
	// Create is a billing row of ours to make; nil makes none.
	Create   *NewRow
	Changes  []RowChange
	Withdraw []RowWithdrawal
	Lines    []Line
	// By is the observation that the decision rests on: the newest, or the last
	// heard of when none was news; nil without any.
	By *Observation
	// RunID is the run to which the changes belong: that of By, or the one that
	// found the server while it settled; empty: none.
	RunID string
	// Ask says why VirtFusion is to be asked for a fresh look at the server;
	// empty when it need not, or was to be asked before.
	Ask string
	// Save: the state differs from what is stored in more than the time of
	// the last observation.
	Save bool
	// Touch: only the last observation moved.
	Touch bool
	// Left says what could not be taken back, and why; of an undo.
	Left []string
	// Lapsed are the wishes that hold no longer: the server is another's, or gone.
	Lapsed []string
	// restored: what a billing row gets back.
	restored restored
}

// NewRow is a billing row of ours to make.
type NewRow struct {
	UserID          int64
	PackageID       int64
	PackageName     string
	MonthlyPrice    decimal.Decimal
	HourlyRate      decimal.Decimal
	Hours           int64
	Enabled         bool
	ServerCreatedAt *time.Time
	LastBilledAt    time.Time
	Charge          *Charge
}

// Charge is the pending first charge of a new row.
type Charge struct {
	Amount decimal.Decimal // dollars, four decimals
	// Tokens, each a cent, are to be taken for it from the user's credit; 0:
	// nobody collects it.
	Tokens     int64
	Start, End time.Time
}

// RowChange alters one billing row; nil fields stay as they are.
type RowChange struct {
	RowID  int64
	Enable *bool
	UUID   *string
	Terms  *terms     // package and price
	Resume *time.Time // last_billed_at moves forward to it
	Closed Closed     // why it was closed; ClosedNot opens it
	// Rewind sets last_billed_at back to RewindTo, of a row that is switched off
	// again and was not charged meanwhile; ClearUUID takes its UUID out.
	Rewind    bool
	RewindTo  *time.Time
	ClearUUID bool
	// Vetoed: that it is off is SkyPANEL's word, as it was before.
	Vetoed bool
	// Void: its pending first charge is for an hour that has not begun, and
	// will not be owed.
	Void bool
}

// RowWithdrawal takes back a billing row of ours: deleted while nothing was
// charged, else switched off for a refund.
type RowWithdrawal struct {
	RowID  int64
	Delete bool
}

// LineKind says what a history line tells.
type LineKind string

// The kinds of history lines.
const (
	LineObserved  LineKind = "observed"          // VirtFusion's account of the server changed
	LineDecided   LineKind = "decided"           // its status, owner or billing changed
	LineCreated   LineKind = "billing_created"   // a billing row of ours was made
	LineChanged   LineKind = "billing_changed"   // a billing row got another price, package, UUID or switch
	LineClosed    LineKind = "billing_closed"    // a billing row was switched off for good
	LineWithdrawn LineKind = "billing_withdrawn" // a billing row of ours was taken back
	LineRefundDue LineKind = "refund_due"        // …after it had been charged: a person must refund
)

// Line is one line of a server's history.
type Line struct {
	Kind   LineKind
	Reason string
	// RowID is the billing row that the line is about; 0 is the row being
	// created, or none.
	RowID         int64
	Before, After []byte // JSON objects, or nil
}

// restored says what of a row of ours, or of its UUID, an undo puts back: package,
// price or UUID; that it is off.
type restored struct{ terms, off bool }
