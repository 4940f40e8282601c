package api

import (
	"time"

	"serversync/db"
)

// Run is something that looks at many servers at once, as the API tells it.
// Its counts are of servers. Times are UTC.
type Run struct {
	ID          string `json:"id"`
	Kind        string `json:"kind"`
	State       string `json:"state"`
	Phase       string `json:"phase"` // what it is at
	DryRun      bool   `json:"dryRun"`
	UserID      *int64 `json:"userId"` // SkyPANEL's; null: all users
	RequestedBy string `json:"requestedBy"`

	Expected  int64 `json:"expected"`  // that it has to do with
	Processed int64 `json:"processed"` // of those, with an outcome
	New       int64 `json:"new"`       // a billing row was made
	Updated   int64 `json:"updated"`   // a billing row changed
	Unchanged int64 `json:"unchanged"`
	Failed    int64 `json:"failed"`
	Held      int64 `json:"held"`     // their changes wait for approval
	Settling  int64 `json:"settling"` // of the unchanged: SkyPANEL's own row may still come

	StartedAt time.Time  `json:"startedAt"`
	EndedAt   *time.Time `json:"endedAt"`

	Progress Progress  `json:"progress"`
	Problems []Problem `json:"problems"`
	Preview  *Preview  `json:"preview"` // null: not worked out

	Replay *Replay `json:"replay"` // null: it is no replay
	Undoes *Undoes `json:"undoes"` // null: it is no undo

	ApprovedBy   *string    `json:"approvedBy"`
	ApprovedAt   *time.Time `json:"approvedAt"`
	SupersededBy *string    `json:"supersededBy"`
	Note         string     `json:"note"` // the state, in words
}

// Progress is how far a run has come.
type Progress struct {
	Page           int64   `json:"page"`  // the last one that was read
	Pages          int64   `json:"pages"` // that there are
	Total          int64   `json:"total"` // servers, as VirtFusion counts them
	Listed         int64   `json:"listed"`
	Drift          int64   `json:"drift"`    // servers that differ
	Missing        int64   `json:"missing"`  // servers that the listing left out
	Reviewed       int64   `json:"reviewed"` // servers compared with SkyPANEL's side
	Rescans        int64   `json:"rescans"`  // pages that were read again
	Calls          int64   `json:"calls"`    // of VirtFusion's API
	CallsPerSecond float64 `json:"callsPerSecond"`
	Whole          bool    `json:"whole"` // the listing is over, and left nothing out
}

// Replay is what a replay read of the stream. Times are when an event was stored.
type Replay struct {
	Since  *time.Time `json:"since"`  // null: all that the stream holds
	Until  *time.Time `json:"until"`  // null: the start of the run
	Events int64      `json:"events"` // published again
	Limits *string    `json:"limits"` // what the stream does not hold any more; null: it holds all that was asked for
}

// Problem is something that a run could not see or do.
type Problem struct {
	Code     string `json:"code"`
	Message  string `json:"message"`  // says what to do
	ServerID *int64 `json:"serverId"` // null: it is of no one server
}

// Preview is what a run would do. Amounts are dollars, as strings.
type Preview struct {
	Mark              *string          `json:"mark"`   // names this preview, for an approval; null: made by an older version
	Create            int64            `json:"create"` // billing rows
	Change            int64            `json:"change"`
	Move              int64            `json:"move"`
	End               int64            `json:"end"`
	None              int64            `json:"none"`
	CreateOff         int64            `json:"createOff"` // of those to create, not billed
	Off               map[string]int64 `json:"off"`       // those, by reason
	Customers         int64            `json:"customers"`
	FirstCharges      int64            `json:"firstCharges"` // recorded as pending, collected by nobody unless collected
	FirstChargeAmount string           `json:"firstChargeAmount"`
	Collected         bool             `json:"firstChargesCollected"` // taken from the users' credit
	ListMonthly       string           `json:"listMonthly"`           // what a month costs more, or less, by the list
	EffectiveMonthly  string           `json:"effectiveMonthly"`      // the same in whole tokens
	FirstChargesNote  *string          `json:"firstChargesNote"`      // what becomes of them, in words; null: there are none
	BackBilled        string           `json:"backBilled"`            // what is charged at once for the time before (BILLING_START=creation)
	Rows              RowChanges       `json:"rows"`
	MonthlyCost
	Largest    []Effect         `json:"largest"`
	ByCustomer []CustomerEffect `json:"byCustomer"` // the ten largest; GET /runs/:id/preview has all
	Missing    int64            `json:"missing"`
	Changes    int64            `json:"changes"` // that count towards the limit
	Limit      int64            `json:"limit"`
	Fleet      int64            `json:"fleet"`
	Asks       *string          `json:"asks"`    // why a person has to approve; null: nobody has to
	Differs    *Difference      `json:"differs"` // from the preview that was approved; null: it does not ask again
}

// Effect is what one server's change would do.
type Effect struct {
	ServerID        int64   `json:"serverId"`
	Name            string  `json:"name"`
	UserID          *int64  `json:"userId"`
	Effect          string  `json:"effect"`
	Billing         string  `json:"billing"`
	BillingReason   *string `json:"billingReason"`
	Why             string  `json:"why"`
	ListBefore      string  `json:"listBefore"` // a month
	ListAfter       string  `json:"listAfter"`
	EffectiveBefore string  `json:"effectiveBefore"`
	EffectiveAfter  string  `json:"effectiveAfter"`
	FirstCharge     string  `json:"firstCharge"`
	Collected       bool    `json:"firstChargeCollected"` // it is taken from the user's credit
}

func toRun(r *db.Run, totals db.RunTotals) Run {
	p := &r.Progress
	run := Run{
		ID: r.ID, Kind: r.Kind, State: r.State, Phase: r.Phase, DryRun: r.DryRun, UserID: r.UserID, RequestedBy: r.RequestedBy,
		Expected: totals.Expected, Processed: totals.Processed, New: totals.New, Updated: totals.Updated,
		Unchanged: totals.Unchanged, Failed: totals.Failed, Held: totals.Held, Settling: totals.Settling,
		StartedAt: r.StartedAt.UTC(), EndedAt: utc(r.EndedAt),
		Progress: Progress{
			Page: p.Page, Pages: p.Pages, Total: p.Total, Listed: p.Listed, Drift: p.Drift, Missing: p.Missing, Reviewed: p.Reviewed,
			Rescans: p.Rescans, Calls: p.Calls, CallsPerSecond: p.CallsPerSecond, Whole: p.Scanned && p.Whole,
		},
		Problems:   make([]Problem, 0, len(r.Problems)),
		ApprovedBy: orNull(r.ApprovedBy), ApprovedAt: utc(r.ApprovedAt), SupersededBy: orNull(r.SupersededBy), Note: r.Note,
	}
	for _, p := range r.Problems {
		problem := Problem{Code: p.Code, Message: p.Message}
		if p.ServerID != 0 {
			problem.ServerID = &p.ServerID
		}
		run.Problems = append(run.Problems, problem)
	}
	if r.Preview != nil {
		run.Preview = toPreview(r.Preview)
	}
	run.Undoes = toUndoes(p.Undo)
	if part := p.Replay; part != nil {
		run.Replay = &Replay{Since: utc(part.Since), Until: utc(part.Until), Events: part.Events, Limits: orNull(part.Limits)}
	}
	return run
}
