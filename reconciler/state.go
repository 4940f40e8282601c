package reconciler

import "time"

// Status says what a server is to the books.
type Status string

// The statuses. Settling, unlinked and conflict have no billing row of ours.
const (
	StatusSettling Status = "settling" // no billing row yet; SkyPANEL's own may still come
	StatusExternal Status = "external" // we made the billing row
	StatusNative   Status = "native"   // SkyPANEL made it
	StatusUnlinked Status = "unlinked" // its owner is nobody in SkyPANEL
	StatusConflict Status = "conflict" // evidence disagrees; a person must look
	StatusGone     Status = "gone"     // VirtFusion says that it no longer exists
)

// Reason says why billing is off.
type Reason string

// The reasons.
const (
	ReasonNone          Reason = ""
	ReasonUnpriced      Reason = "unpriced"             // SkyPANEL has no price for its package
	ReasonMonthlyMode   Reason = "monthly_mode"         // SkyPANEL bills by the month: a missing row proves nothing
	ReasonSelfService   Reason = "self_service"         // VirtFusion bills it itself
	ReasonOwnerInactive Reason = "owner_inactive"       // the customer is switched off in SkyPANEL
	ReasonDestroyed     Reason = "destroyed"            // the server is gone
	ReasonOperator      Reason = "operator"             // an operator's word
	ReasonDisabled      Reason = "disabled_by_skypanel" // SkyPANEL, not we, switched the row off
)

// State is what we know of one server: VirtFusion's account of it, and what
// we made of that.
type State struct {
	ID                int64 // VirtFusion server id
	UUID              string
	OwnerID           int64  // VirtFusion user id, 0 = unknown
	OwnerExt          *int64 // the owner's extRelationId: supposedly SkyPANEL's users.id
	Name              string
	Hostname          string
	State             string
	CommissionStatus  *int64
	Suspended         bool
	Protected         bool
	BuildFailed       bool
	SelfService       int64
	PackageID         *int64
	MemoryMB          *int64
	StorageGB         *int64
	TrafficGB         *int64
	CPUCores          *int64
	IPAddresses       []string // primary first
	HypervisorID      *int64
	HypervisorName    string
	HypervisorGroupID *int64
	CreatedAt         *time.Time // VirtFusion's own times
	UpdatedAt         *time.Time
	BuiltAt           *time.Time

	UserID    *int64 // SkyPANEL users.id of the owner
	Status    Status
	BillingOn bool
	Reason    Reason // why billing is off
	BillingID *int64 // the billing row that counts
	Note      string // the status in words
	// Confirmed: seen other than through a failed operation. Nothing is billed
	// on the word of a failed creation.
	Confirmed   bool
	SettleUntil *time.Time
	// Ask says what only VirtFusion can settle; empty: nothing.
	Ask    string
	GoneAt *time.Time
	// AwaitingRun is the run whose changes of the server a person has to approve
	// first; empty: none. Until then nothing of its billing changes.
	AwaitingRun string
	// RunID is the run whose observation found it, while it settles: its billing
	// row will belong to that run.
	RunID string

	// PulledAt is when VirtFusion, asked, last showed it, on VirtFusion's clock.
	PulledAt        *time.Time
	ObservedAt      time.Time // of the newest observation, on VirtFusion's clock
	ObservedSource  string
	ObservedEventID string
	FirstSeenAt     time.Time // on our clock
	LastSeenAt      time.Time // when VirtFusion last showed it to us, on our clock
}
