package api

import (
	"time"

	"serversync/db"
	"serversync/internal/skypanel"
)

// Page is a part of a list.
type Page[T any] struct {
	Items []T `json:"items"`
	// NextCursor asks for the next page; null: this was the last.
	NextCursor *string `json:"nextCursor"`
}

// UserServer is a server in a list, as its user may see it. Amounts are dollars,
// as strings; times are UTC.
type UserServer struct {
	ID           int64     `json:"id"` // VirtFusion's
	UUID         string    `json:"uuid"`
	UserID       *int64    `json:"userId"` // SkyPANEL's
	Name         string    `json:"name"`
	Hostname     string    `json:"hostname"`
	State        string    `json:"state"`
	Suspended    bool      `json:"suspended"`
	IPAddresses  []string  `json:"ipAddresses"` // the primary one first
	Resources    Resources `json:"resources"`
	Hypervisor   string    `json:"hypervisor"`
	HypervisorID *int64    `json:"hypervisorId"`
	PackageID    *int64    `json:"packageId"` // VirtFusion's

	Status        string  `json:"status"`
	Billing       string  `json:"billing"`
	BillingReason *string `json:"billingReason"` // why it is off
	BillingID     *int64  `json:"billingId"`     // the row that counts
	// SettleUntil is when a settling server is decided at the latest; null for
	// every other.
	SettleUntil *time.Time `json:"settleUntil"`
	// MonthlyPrice is what that row says, EffectiveMonthly what SkyPANEL charges
	// a month in whole tokens while it is on; null: there is no row.
	MonthlyPrice     *string `json:"monthlyPrice"`
	EffectiveMonthly *string `json:"effectiveMonthly"`

	CreatedAt   *time.Time `json:"createdAt"` // VirtFusion's own times
	UpdatedAt   *time.Time `json:"updatedAt"`
	FirstSeenAt time.Time  `json:"firstSeenAt"` // on our clock
	LastSeenAt  time.Time  `json:"lastSeenAt"`
	GoneAt      *time.Time `json:"goneAt"`
}

// Resources are what VirtFusion gave a server; null: it did not say.
type Resources struct {
	MemoryMB  *int64 `json:"memoryMb"`
	StorageGB *int64 `json:"storageGb"`
	TrafficGB *int64 `json:"trafficGb"`
	CPUCores  *int64 `json:"cpuCores"`
}

// ListedServer is a server in an administrator's list.
type ListedServer struct {
	UserServer
	Owner int64  `json:"owner"` // VirtFusion's user id; 0: unknown
	Note  string `json:"note"`  // the status, in words
	// AwaitingRun is the run whose changes of it wait for approval.
	AwaitingRun *string `json:"awaitingRun"`
}

func toUserServer(l *db.ListedServer) UserServer {
	v := UserServer{
		ID: l.VirtfusionID, UUID: l.UUID, UserID: l.UserID, Name: l.Name, Hostname: l.Hostname,
		State: l.State, Suspended: l.Suspended, IPAddresses: l.IPAddresses,
		Resources:  Resources{MemoryMB: l.MemoryMB, StorageGB: l.StorageGB, TrafficGB: l.TrafficGB, CPUCores: l.CPUCores},
		Hypervisor: l.HypervisorName, HypervisorID: l.HypervisorID, PackageID: l.PackageID,
		Status: l.Status, Billing: l.Billing, BillingReason: orNull(l.BillingReason), BillingID: l.BillingID,
		CreatedAt: utc(l.CreatedAt), UpdatedAt: utc(l.UpdatedAt), GoneAt: utc(l.GoneAt),
		FirstSeenAt: l.FirstSeenAt.UTC(), LastSeenAt: l.LastSeenAt.UTC(),
	}
	if l.Status == "settling" {
		v.SettleUntil = utc(l.SettleUntil)
	}
	if v.IPAddresses == nil {
		v.IPAddresses = []string{}
	}
	if l.Monthly.Valid {
		v.MonthlyPrice = new(dollars(l.Monthly.Decimal))
		v.EffectiveMonthly = new(dollars(skypanel.EffectiveMonthly(l.Monthly.Decimal, l.Hours)))
	}
	return v
}

func toListedServer(l *db.ListedServer) ListedServer {
	return ListedServer{UserServer: toUserServer(l), Owner: l.OwnerID, Note: l.Note, AwaitingRun: orNull(l.AwaitingRun)}
}
