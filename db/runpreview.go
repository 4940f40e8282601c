package db

import "github.com/shopspring/decimal"

// The effects of a finding on the books.
const (
	EffectNone   = "none"
	EffectCreate = "create" // a billing row of ours is made
	EffectChange = "change" // a billing row gets another price, package or switch
	EffectMove   = "move"   // billing passes to another owner
	EffectEnd    = "end"    // billing ends
)

// RunEffect is what one finding of a run would do to the books.
type RunEffect struct {
	ServerID int64  `json:"serverId"`
	Name     string `json:"name"`
	UserID   *int64 `json:"userId"` // SkyPANEL users.id of the owner; nil: nobody
	Effect   string `json:"effect"`
	// Billing and Reason as the inventory will have them.
	Billing string `json:"billing"`
	Reason  string `json:"billingReason,omitempty"`
	Why     string `json:"why"` // in words
	// What the server's rows that are switched on cost a month, in dollars:
	// before and after, by the list and as SkyPANEL rounds it.
	ListBefore      decimal.Decimal `json:"listBefore"`
	ListAfter       decimal.Decimal `json:"listAfter"`
	EffectiveBefore decimal.Decimal `json:"effectiveBefore"`
	EffectiveAfter  decimal.Decimal `json:"effectiveAfter"`
	// FirstCharge is the first charge that would be recorded as pending; 0: none.
	// Collected: it would be taken from the user's credit.
	FirstCharge decimal.Decimal `json:"firstCharge"`
	Collected   bool            `json:"collected,omitempty"`
	// Left says what of a change cannot be taken back, and why; of an undo.
	Left string `json:"left,omitempty"`
	// Changes: deciding the server changes something of ours, if only words.
	Changes bool `json:"-"`
}

// RunPreview sums up what a run would do. Amounts are dollars.
type RunPreview struct {
	Create int64 `json:"create"`
	Change int64 `json:"change"`
	Move   int64 `json:"move"`
	End    int64 `json:"end"`
	None   int64 `json:"none"`
	// CreateOff are those of Create whose billing would be off, by reason in Off.
	CreateOff int64            `json:"createOff"`
	Off       map[string]int64 `json:"off,omitempty"`
	// Customers are the different users whom changes of the books concern.
	Customers int64 `json:"customers"`
	// FirstCharges are pending transactions, which nobody collects, unless
	// Collected: then they are taken from the users' credit.
	FirstCharges      int64           `json:"firstCharges"`
	FirstChargeAmount decimal.Decimal `json:"firstChargeAmount"`
	Collected         bool            `json:"collected,omitempty"`
	// What the month costs more (or less) than before, by the list and as
	// SkyPANEL rounds it.
	ListMonthly      decimal.Decimal `json:"listMonthly"`
	EffectiveMonthly decimal.Decimal `json:"effectiveMonthly"`
	// Largest are the ten with the largest change a month.
	Largest []RunEffect `json:"largest"`
	// Missing are those of End that are not in the listing, and have not been
	// asked for yet.
	Missing int64 `json:"missing"`
	// Changes is what counts towards Limit: Create, Change, Move and End. Fleet is how many servers VirtFusion has.
	Changes int64 `json:"changes"`
	Limit   int64 `json:"limit"`
	Fleet   int64 `json:"fleet"`
	// Asks says why a person has to approve; empty: nobody has to.
	Asks string `json:"asks,omitempty"`
}
