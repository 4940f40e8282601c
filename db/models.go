package db

import (
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"
)

// Money columns are decimals throughout: numeric in PostgreSQL,
// decimal.Decimal here, never floating point.

// User is SkyPANEL's users, as far as we read it.
type User struct {
	bun.BaseModel `bun:"table:public.users,alias:u"`

	ID int64 `bun:"id,pk,autoincrement"`
	// VirtfusionID is the user's id in VirtFusion. Nullable and not unique.
	VirtfusionID *int64 `bun:"virtfusion_id"`
	Email        string `bun:"email"`
	Username     string `bun:"username"`
	Password     string `bun:"password"`
	FullName     string `bun:"full_name"`
	Role         string `bun:"role"` // 'client', 'admin'
	IsActive     *bool  `bun:"is_active"`
}

// PackagePricing is SkyPANEL's package_pricing.
type PackagePricing struct {
	bun.BaseModel `bun:"table:public.package_pricing,alias:p"`

	ID                  int64  `bun:"id,pk,autoincrement"`
	VirtfusionPackageID int64  `bun:"virtfusion_package_id"`
	Name                string `bun:"name"`
	Price               int64  `bun:"price"` // cents a month
	Enabled             bool   `bun:"enabled"`
}

// CronSettings is SkyPANEL's virtfusion_cron_settings; the row with the
// highest id counts.
type CronSettings struct {
	bun.BaseModel `bun:"table:public.virtfusion_cron_settings,alias:c"`

	ID                   int64 `bun:"id,pk,autoincrement"`
	Enabled              bool  `bun:"enabled"`
	HoursPerMonth        int64 `bun:"hours_per_month"`
	HourlyBillingEnabled bool  `bun:"hourly_billing_enabled"`
}

// Setting is one row of SkyPANEL's settings.
type Setting struct {
	bun.BaseModel `bun:"table:public.settings,alias:s"`

	ID    int64  `bun:"id,pk,autoincrement"`
	Key   string `bun:"key"`
	Value string `bun:"value"`
}

// HourlyBilling is SkyPANEL's virtfusion_hourly_billing: one row bills one
// server to one user by the hour.
type HourlyBilling struct {
	bun.BaseModel `bun:"table:public.virtfusion_hourly_billing,alias:b"`

	ID                 int64           `bun:"id,pk,autoincrement"`
	UserID             int64           `bun:"user_id"`
	ServerID           int64           `bun:"server_id"`
	VirtfusionServerID int64           `bun:"virtfusion_server_id"`
	ServerUUID         *string         `bun:"server_uuid"`
	PackageID          int64           `bun:"package_id"`
	PackageName        string          `bun:"package_name"`
	MonthlyPrice       decimal.Decimal `bun:"monthly_price,type:numeric(10,4)"` // dollars
	HourlyRate         decimal.Decimal `bun:"hourly_rate,type:numeric(10,6)"`   // dollars
	HoursInMonth       *int64          `bun:"hours_in_month"`
	BillingEnabled     *bool           `bun:"billing_enabled"`
	ServerCreatedAt    *time.Time      `bun:"server_created_at,type:timestamp"`
	LastBilledAt       *time.Time      `bun:"last_billed_at,type:timestamp"`
	Reference1         *string         `bun:"reference_1"` // external_server_<VirtFusion id>; ours to add
}

// HourlyTransaction is SkyPANEL's virtfusion_hourly_transactions: one charge
// of a billing row.
type HourlyTransaction struct {
	bun.BaseModel `bun:"table:public.virtfusion_hourly_transactions,alias:t"`

	ID                 int64           `bun:"id,pk,autoincrement"`
	BillingID          int64           `bun:"billing_id"`
	UserID             int64           `bun:"user_id"`
	ServerID           int64           `bun:"server_id"`
	TransactionID      *int64          `bun:"transaction_id"`
	HoursBilled        decimal.Decimal `bun:"hours_billed,type:numeric(4,2)"`
	AmountCharged      decimal.Decimal `bun:"amount_charged,type:numeric(10,4)"`
	BillingPeriodStart *time.Time      `bun:"billing_period_start,type:timestamp"`
	BillingPeriodEnd   *time.Time      `bun:"billing_period_end,type:timestamp"`
	Status             string          `bun:"status"` // 'pending', 'completed', 'failed'
	ServerUUID         *string         `bun:"server_uuid"`
	TransactionType    *string         `bun:"transaction_type"`
	Reference1         *string         `bun:"reference_1"` // external_server_<VirtFusion id>
	Reference2         *string         `bun:"reference_2"` // the server's UUID
}

// Server is serversync.servers: what we know of one VirtFusion server.
type Server struct {
	bun.BaseModel `bun:"table:serversync.servers,alias:s"`

	VirtfusionID       int64      `bun:"virtfusion_id,pk"`
	UUID               string     `bun:"uuid"`
	OwnerID            int64      `bun:"owner_id"` // VirtFusion user id, 0 = unknown
	OwnerExtRelationID *int64     `bun:"owner_ext_relation_id"`
	UserID             *int64     `bun:"user_id"` // SkyPANEL users.id, nil = nobody
	Name               string     `bun:"name"`
	Hostname           string     `bun:"hostname"`
	State              string     `bun:"state"`
	CommissionStatus   *int64     `bun:"commission_status"`
	Suspended          bool       `bun:"suspended"`
	Protected          bool       `bun:"protected"`
	BuildFailed        bool       `bun:"build_failed"`
	SelfService        int64      `bun:"self_service"`
	PackageID          *int64     `bun:"package_id"`
	MemoryMB           *int64     `bun:"memory_mb"`
	StorageGB          *int64     `bun:"storage_gb"`
	TrafficGB          *int64     `bun:"traffic_gb"`
	CPUCores           *int64     `bun:"cpu_cores"`
	IPAddresses        []string   `bun:"ip_addresses,array"`
	HypervisorID       *int64     `bun:"hypervisor_id"`
	HypervisorName     string     `bun:"hypervisor_name"`
	HypervisorGroupID  *int64     `bun:"hypervisor_group_id"`
	CreatedAt          *time.Time `bun:"created_at"` // VirtFusion's
	UpdatedAt          *time.Time `bun:"updated_at"`
	BuiltAt            *time.Time `bun:"built_at"`

	Status          string     `bun:"status"`
	Billing         string     `bun:"billing"`
	BillingReason   string     `bun:"billing_reason,nullzero"`
	BillingID       *int64     `bun:"billing_id"`
	Note            string     `bun:"note"`
	Ask             string     `bun:"ask"` // what only VirtFusion can settle
	Confirmed       bool       `bun:"confirmed"`
	SettleUntil     *time.Time `bun:"settle_until"`
	GoneAt          *time.Time `bun:"gone_at"`
	PulledAt        *time.Time `bun:"pulled_at"` // when VirtFusion, asked, last showed it
	ObservedAt      time.Time  `bun:"observed_at"`
	ObservedSource  string     `bun:"observed_source"`
	ObservedEventID string     `bun:"observed_event_id"`
	FirstSeenAt     time.Time  `bun:"first_seen_at"`
	LastSeenAt      time.Time  `bun:"last_seen_at"`
	// AwaitingRun is the run whose changes of the server wait for approval;
	// empty: none. See also [KeepAwaiting].
	AwaitingRun string `bun:"awaiting_run"`
	// RunID is the run that found it, while it settles.
	RunID string `bun:"run_id,nullzero"`
}

// BillingRecord is serversync.billing_rows: our own memory of a billing row
// that we made, or of one of SkyPANEL's that we switched off.
type BillingRecord struct {
	bun.BaseModel `bun:"table:serversync.billing_rows,alias:r"`

	BillingID    int64           `bun:"billing_id,pk"`
	VirtfusionID int64           `bun:"virtfusion_id"`
	MadeBy       string          `bun:"made_by"` // 'serversync', 'skypanel'
	UserID       int64           `bun:"user_id"`
	Enabled      bool            `bun:"enabled"`
	PackageID    int64           `bun:"package_id"`
	MonthlyPrice decimal.Decimal `bun:"monthly_price,type:numeric(10,4)"`
	LastBilledAt *time.Time      `bun:"last_billed_at,type:timestamp"`
	ChargeID     *int64          `bun:"charge_id"`
	ClosedReason string          `bun:"closed_reason,nullzero"` // 'destroyed', 'moved', 'withdrawn', 'operator'
	RunID        string          `bun:"run_id,nullzero"`
	CreatedAt    time.Time       `bun:"created_at"`
	UpdatedAt    time.Time       `bun:"updated_at"`
}

// History is serversync.history: one change, with its before, after and why.
type History struct {
	bun.BaseModel `bun:"table:serversync.history,alias:h"`

	ID           int64     `bun:"id,pk,autoincrement"`
	At           time.Time `bun:"at"`
	VirtfusionID int64     `bun:"virtfusion_id"`
	UserID       *int64    `bun:"user_id"`
	BillingID    *int64    `bun:"billing_id"`
	Kind         string    `bun:"kind"`
	Reason       string    `bun:"reason"`
	Before       []byte    `bun:"before,type:jsonb"` // JSON object or nil
	After        []byte    `bun:"after,type:jsonb"`
	Source       string    `bun:"source"`
	EventID      string    `bun:"event_id"`
	RunID        string    `bun:"run_id,nullzero"`
}
