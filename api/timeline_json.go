package api

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"serversync/db"
)

// Timeline is one server's story as the API tells it. Amounts of money are
// dollars, as strings; times are UTC.
type Timeline struct {
	Server      Server       `json:"server"`
	Overrides   []Override   `json:"overrides"`
	BillingRows []BillingRow `json:"billingRows"`
	History     HistoryPage  `json:"history"`
}

// Server is one server as it is known now.
type Server struct {
	ID                 int64      `json:"id"` // VirtFusion's
	UUID               string     `json:"uuid"`
	Name               string     `json:"name"`
	Hostname           string     `json:"hostname"`
	UserID             *int64     `json:"userId"` // SkyPANEL's
	Owner              int64      `json:"owner"`  // VirtFusion's user id; 0: unknown
	OwnerExtRelationID *int64     `json:"ownerExtRelationId"`
	Status             string     `json:"status"`
	Billing            string     `json:"billing"`
	BillingReason      *string    `json:"billingReason"`
	BillingID          *int64     `json:"billingId"`
	Note               string     `json:"note"`
	Ask                string     `json:"ask"` // what VirtFusion is to be asked
	State              string     `json:"state"`
	Suspended          bool       `json:"suspended"`
	SelfService        bool       `json:"selfService"` // VirtFusion bills it itself
	IPAddresses        []string   `json:"ipAddresses"`
	Package            *Package   `json:"package"`
	Hypervisor         string     `json:"hypervisor"`
	HypervisorID       *int64     `json:"hypervisorId"`
	CreatedAt          *time.Time `json:"createdAt"` // VirtFusion's own times
	UpdatedAt          *time.Time `json:"updatedAt"`
	SettleUntil        *time.Time `json:"settleUntil"`
	GoneAt             *time.Time `json:"goneAt"`
	FirstSeenAt        time.Time  `json:"firstSeenAt"` // on our clock
	LastSeenAt         time.Time  `json:"lastSeenAt"`
	ObservedAt         time.Time  `json:"observedAt"` // on VirtFusion's clock
	ObservedSource     string     `json:"observedSource"`
	ObservedEventID    string     `json:"observedEventId"`
}

// Package is a VirtFusion package and what SkyPANEL asks for it today.
type Package struct {
	ID   int64   `json:"id"`
	Name *string `json:"name"` // null: SkyPANEL does not sell it
	// MonthlyPrice is the list price; null: SkyPANEL has none.
	MonthlyPrice *string `json:"monthlyPrice"`
}

// Override is an operator's wish.
type Override struct {
	Kind      string    `json:"kind"`
	PackageID *int64    `json:"packageId"`
	Reason    string    `json:"reason"`
	SetBy     string    `json:"setBy"`
	SetAt     time.Time `json:"setAt"`
}

// BillingRow is a row of virtfusion_hourly_billing as it stands.
type BillingRow struct {
	ID              int64      `json:"id"`
	MadeBy          string     `json:"madeBy"` // "serversync" or "skypanel"
	ServerID        int64      `json:"serverId"`
	UUID            *string    `json:"uuid"`
	UserID          int64      `json:"userId"`
	UserActive      bool       `json:"userActive"`
	Enabled         bool       `json:"enabled"`
	ClosedReason    *string    `json:"closedReason"` // why we closed it
	PackageID       int64      `json:"packageId"`
	PackageName     string     `json:"packageName"`
	MonthlyPrice    string     `json:"monthlyPrice"`
	HourlyRate      string     `json:"hourlyRate"`
	HoursInMonth    int64      `json:"hoursInMonth"`
	ServerCreatedAt *time.Time `json:"serverCreatedAt"`
	LastBilledAt    *time.Time `json:"lastBilledAt"` // until when it was charged
	NextCharge      NextCharge `json:"nextCharge"`
	Charges         []Charge   `json:"charges"` // the newest, newest first
	ChargesInAll    int64      `json:"chargesInAll"`
}

// NextCharge is what SkyPANEL will charge for a row, and when.
type NextCharge struct {
	At *time.Time `json:"at"` // null: never, see because
	// Because is why nothing is charged; null when something is.
	Because *string `json:"because"`
	// HoursDue are hours that the next run charges at once; 0: none is due yet.
	HoursDue     int64 `json:"hoursDue"`
	Tokens       int64 `json:"tokens"` // of the next run; a token is a cent
	HourlyTokens int64 `json:"hourlyTokens"`
	// EffectiveMonthly is what a month costs in whole tokens.
	EffectiveMonthly string `json:"effectiveMonthly"`
	Words            string `json:"words"`
}

// Charge is a row of virtfusion_hourly_transactions.
type Charge struct {
	ID            int64      `json:"id"`
	Amount        *string    `json:"amount"`
	Hours         *string    `json:"hours"`
	From          *time.Time `json:"from"`
	Until         *time.Time `json:"until"`
	Status        string     `json:"status"`
	TransactionID *int64     `json:"transactionId"`
	CreatedAt     *time.Time `json:"createdAt"`
}

// HistoryPage is a part of a server's history.
type HistoryPage struct {
	Items []HistoryLine `json:"items"`
	// NextCursor asks for the next page; null: this was the last.
	NextCursor *string `json:"nextCursor"`
}

// HistoryLine is one change, with its before, after and why.
type HistoryLine struct {
	ID        int64           `json:"id"`
	At        time.Time       `json:"at"`
	Kind      string          `json:"kind"`
	Reason    string          `json:"reason"`
	Before    json.RawMessage `json:"before"` // an object, or null
	After     json.RawMessage `json:"after"`
	Source    string          `json:"source"`
	EventID   *string         `json:"eventId"`
	RunID     *string         `json:"runId"`
	BillingID *int64          `json:"billingId"`
	UserID    *int64          `json:"userId"`
}

func toTimeline(s *db.Story, now time.Time) Timeline {
	t := Timeline{
		Server: toServer(&s.Server, s.Prices), Overrides: []Override{}, BillingRows: []BillingRow{},
		History: HistoryPage{Items: []HistoryLine{}},
	}
	for _, o := range s.Overrides {
		t.Overrides = append(t.Overrides, Override{Kind: o.Kind, PackageID: o.PackageID, Reason: o.Reason, SetBy: o.SetBy, SetAt: o.SetAt.UTC()})
	}
	for i := range s.Rows {
		t.BillingRows = append(t.BillingRows, toBillingRow(s, &s.Rows[i], now))
	}
	for i := range s.History {
		t.History.Items = append(t.History.Items, toHistoryLine(&s.History[i]))
	}
	if s.More {
		t.History.NextCursor = new(strconv.FormatInt(s.History[len(s.History)-1].ID, 10))
	}
	return t
}

func toServer(s *db.Server, prices map[int64]db.PackagePricing) Server {
	v := Server{
		ID: s.VirtfusionID, UUID: s.UUID, Name: s.Name, Hostname: s.Hostname,
		UserID: s.UserID, Owner: s.OwnerID, OwnerExtRelationID: s.OwnerExtRelationID,
		Status: s.Status, Billing: s.Billing, BillingReason: orNull(s.BillingReason), BillingID: s.BillingID, Note: s.Note, Ask: s.Ask,
		State: s.State, Suspended: s.Suspended, SelfService: s.SelfService != 0, IPAddresses: s.IPAddresses,
		Hypervisor: s.HypervisorName, HypervisorID: s.HypervisorID,
		CreatedAt: utc(s.CreatedAt), UpdatedAt: utc(s.UpdatedAt), SettleUntil: utc(s.SettleUntil), GoneAt: utc(s.GoneAt),
		FirstSeenAt: s.FirstSeenAt.UTC(), LastSeenAt: s.LastSeenAt.UTC(),
		ObservedAt: s.ObservedAt.UTC(), ObservedSource: s.ObservedSource, ObservedEventID: s.ObservedEventID,
	}
	if v.IPAddresses == nil {
		v.IPAddresses = []string{}
	}
	if s.PackageID != nil {
		v.Package = &Package{ID: *s.PackageID}
		if p, ok := prices[*s.PackageID]; ok {
			v.Package.Name, v.Package.MonthlyPrice = &p.Name, new(decimal.New(p.Price, -2).StringFixed(2))
		}
	}
	return v
}

func toBillingRow(s *db.Story, m *db.BillingMatch, now time.Time) BillingRow {
	billed := toBilledRow(s, m)
	v := BillingRow{
		ID: m.ID, MadeBy: "skypanel", ServerID: m.VirtfusionServerID, UUID: m.ServerUUID,
		UserID: m.UserID, UserActive: billed.ownerActive, Enabled: billed.enabled,
		PackageID: m.PackageID, PackageName: m.PackageName,
		MonthlyPrice: m.MonthlyPrice.StringFixed(4), HourlyRate: m.HourlyRate.StringFixed(6), HoursInMonth: billed.hours,
		ServerCreatedAt: utc(m.ServerCreatedAt), LastBilledAt: utc(m.LastBilledAt),
		NextCharge: toNextCharge(&billed, now), Charges: []Charge{},
	}
	if m.Ours() {
		v.MadeBy = "serversync"
	}
	if m.Record != nil {
		v.ClosedReason = orNull(m.Record.ClosedReason)
	}
	for i := range s.Charges {
		if c := &s.Charges[i]; c.BillingID == m.ID {
			v.Charges = append(v.Charges, toCharge(c))
			v.ChargesInAll = c.Siblings
		}
	}
	return v
}

// toBilledRow is the row as SkyPANEL's job sees it.
func toBilledRow(s *db.Story, m *db.BillingMatch) billedRow {
	r := billedRow{
		enabled: m.BillingEnabled != nil && *m.BillingEnabled, monthly: m.MonthlyPrice, hours: s.Job.HoursPerMonth,
		ownerActive: s.Active[m.UserID], lastBilledAt: utc(m.LastBilledAt), createdAt: utc(m.ServerCreatedAt),
		jobOff: !s.Job.Enabled, monthlyMode: !s.Job.HourlyMode,
	}
	if m.HoursInMonth != nil && *m.HoursInMonth > 0 {
		r.hours = *m.HoursInMonth
	}
	if p, ok := s.Prices[m.PackageID]; ok {
		r.list = new(decimal.New(p.Price, -2))
	}
	for i := range s.Charges {
		r.collected = r.collected || s.Charges[i].BillingID == m.ID && s.Charges[i].Collected
	}
	return r
}

func toNextCharge(r *billedRow, now time.Time) NextCharge {
	f := predict(*r, now)
	return NextCharge{
		At: f.at, Because: orNull(string(f.why)), HoursDue: f.hoursDue, Tokens: f.dueTokens, HourlyTokens: f.hourlyTokens,
		EffectiveMonthly: f.monthly.StringFixed(2), Words: f.words(r),
	}
}

func toCharge(c *db.Charge) Charge {
	return Charge{
		ID: c.ID, Amount: amount(c.Amount), Hours: amount(c.Hours), From: utc(c.From), Until: utc(c.Until),
		Status: c.Status, TransactionID: c.TransactionID, CreatedAt: utc(c.CreatedAt),
	}
}

func toHistoryLine(h *db.History) HistoryLine {
	return HistoryLine{
		ID: h.ID, At: h.At.UTC(), Kind: h.Kind, Reason: h.Reason, Before: h.Before, After: h.After,
		Source: h.Source, EventID: orNull(h.EventID), RunID: orNull(h.RunID), BillingID: h.BillingID, UserID: h.UserID,
	}
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func amount(d decimal.NullDecimal) *string {
	if !d.Valid {
		return nil
	}
	return new(d.Decimal.String())
}
