package reconciler

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"serversync/db"
)

// fromInventory reads a stored row.
func fromInventory(s *db.Server) State {
	return State{
		ID: s.VirtfusionID, UUID: s.UUID, OwnerID: s.OwnerID, OwnerExt: s.OwnerExtRelationID,
		Name: s.Name, Hostname: s.Hostname, State: s.State, CommissionStatus: s.CommissionStatus,
		Suspended: s.Suspended, Protected: s.Protected, BuildFailed: s.BuildFailed, SelfService: s.SelfService,
		PackageID: s.PackageID, MemoryMB: s.MemoryMB, StorageGB: s.StorageGB, TrafficGB: s.TrafficGB, CPUCores: s.CPUCores,
		IPAddresses:  s.IPAddresses,
		HypervisorID: s.HypervisorID, HypervisorName: s.HypervisorName, HypervisorGroupID: s.HypervisorGroupID,
		CreatedAt: utc(s.CreatedAt), UpdatedAt: utc(s.UpdatedAt), BuiltAt: utc(s.BuiltAt),

		UserID: s.UserID, Status: Status(s.Status), BillingOn: s.Billing == billingOn, Reason: Reason(s.BillingReason),
		BillingID: s.BillingID, Note: s.Note, Ask: s.Ask, Confirmed: s.Confirmed, SettleUntil: utc(s.SettleUntil), GoneAt: utc(s.GoneAt),
		PulledAt: utc(s.PulledAt), ObservedAt: micro(s.ObservedAt), ObservedSource: s.ObservedSource, ObservedEventID: s.ObservedEventID,
		FirstSeenAt: micro(s.FirstSeenAt), LastSeenAt: micro(s.LastSeenAt),
		AwaitingRun: s.AwaitingRun, RunID: s.RunID,
	}
}

// The values of serversync.servers.billing.
const (
	billingOn  = "on"
	billingOff = "off"
)

// toInventory is the row to store in place of what is known, nil for a server
// never heard of. Where a decision leaves the waiting for approval as it was, it
// leaves the column alone: a newer run may take the older one's place meanwhile.
func toInventory(s, known *State) db.Server {
	awaiting := s.AwaitingRun
	if known != nil && known.AwaitingRun == awaiting {
		awaiting = db.KeepAwaiting
	}
	billing := billingOff
	if s.BillingOn {
		billing = billingOn
	}
	return db.Server{
		VirtfusionID: s.ID, UUID: s.UUID, OwnerID: s.OwnerID, OwnerExtRelationID: s.OwnerExt,
		Name: s.Name, Hostname: s.Hostname, State: s.State, CommissionStatus: s.CommissionStatus,
		Suspended: s.Suspended, Protected: s.Protected, BuildFailed: s.BuildFailed, SelfService: s.SelfService,
		PackageID: s.PackageID, MemoryMB: s.MemoryMB, StorageGB: s.StorageGB, TrafficGB: s.TrafficGB, CPUCores: s.CPUCores,
		IPAddresses:  s.IPAddresses,
		HypervisorID: s.HypervisorID, HypervisorName: s.HypervisorName, HypervisorGroupID: s.HypervisorGroupID,
		CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, BuiltAt: s.BuiltAt,

		UserID: s.UserID, Status: string(s.Status), Billing: billing, BillingReason: string(s.Reason),
		BillingID: s.BillingID, Note: s.Note, Ask: s.Ask, Confirmed: s.Confirmed, SettleUntil: s.SettleUntil, GoneAt: s.GoneAt,
		PulledAt: s.PulledAt, ObservedAt: s.ObservedAt, ObservedSource: s.ObservedSource, ObservedEventID: s.ObservedEventID,
		FirstSeenAt: s.FirstSeenAt, LastSeenAt: s.LastSeenAt,
		AwaitingRun: awaiting, RunID: s.RunID,
	}
}

// reference marks the rows and charges that we make, in SkyPANEL's own
// tables: external_server_<VirtFusion id>.
func reference(serverID int64) string { return "external_server_" + strconv.FormatInt(serverID, 10) }

// The values of serversync.billing_rows.made_by.
const (
	madeByUs       = "serversync"
	madeBySkyPANEL = "skypanel"
)

// fromBilling reads a billing row. It is ours by our own record, or, where
// that was lost, by its reference.
func fromBilling(b *db.BillingMatch) Row {
	r := Row{
		ID: b.ID, UserID: b.UserID, ServerID: b.VirtfusionServerID,
		PackageID: b.PackageID, PackageName: b.PackageName, MonthlyPrice: b.MonthlyPrice, HourlyRate: b.HourlyRate,
		Enabled:      b.BillingEnabled != nil && *b.BillingEnabled,
		LastBilledAt: utc(b.LastBilledAt), ServerCreatedAt: utc(b.ServerCreatedAt),
		Ours: b.Reference1 != nil && strings.HasPrefix(*b.Reference1, "external_server_"),
	}
	if b.ServerUUID != nil {
		r.UUID = *b.ServerUUID
	}
	if b.HoursInMonth != nil {
		r.Hours = *b.HoursInMonth
	}
	if b.Record != nil {
		r.Ours = b.Record.MadeBy == madeByUs
		r.Record = &RowRecord{
			Enabled: b.Record.Enabled, PackageID: b.Record.PackageID, MonthlyPrice: b.Record.MonthlyPrice,
			LastBilledAt: utc(b.Record.LastBilledAt), Closed: Closed(b.Record.ClosedReason),
		}
	}
	return r
}

// toBilling is the row to make.
func toBilling(n *NewRow, s *State, runID string, now time.Time) db.NewBilling {
	ref := reference(s.ID)
	row := db.NewBilling{
		HourlyBilling: db.HourlyBilling{
			UserID: n.UserID, ServerID: s.ID, VirtfusionServerID: s.ID,
			PackageID: n.PackageID, PackageName: n.PackageName, MonthlyPrice: n.MonthlyPrice, HourlyRate: n.HourlyRate,
			HoursInMonth: &n.Hours, BillingEnabled: &n.Enabled,
			ServerCreatedAt: n.ServerCreatedAt, LastBilledAt: &n.LastBilledAt, Reference1: &ref,
		},
		RunID: runID, Now: now,
	}
	if s.UUID != "" {
		row.ServerUUID = &s.UUID
	}
	if n.Charge != nil {
		row.Charge = &db.HourlyTransaction{AmountCharged: n.Charge.Amount, BillingPeriodStart: &n.Charge.Start, BillingPeriodEnd: &n.Charge.End}
		row.Tokens, row.OwnerID = n.Charge.Tokens, s.OwnerID
	}
	return row
}

// toRecord is our memory of a billing row as it will be.
func toRecord(was *db.BillingMatch, ours bool, serverID int64, now time.Time) db.BillingRecord {
	record := db.BillingRecord{
		BillingID: was.ID, VirtfusionID: serverID, MadeBy: madeBySkyPANEL, UserID: was.UserID,
		Enabled: was.BillingEnabled != nil && *was.BillingEnabled, PackageID: was.PackageID, MonthlyPrice: was.MonthlyPrice,
		CreatedAt: now, UpdatedAt: now,
	}
	if ours {
		record.MadeBy = madeByUs
	}
	// The switch is remembered as we left it, not as we found it: a row that
	// SkyPANEL switched off must not look like our doing after a new price.
	switch {
	case was.Record != nil:
		record.Enabled = was.Record.Enabled
		record.ChargeID, record.RunID, record.CreatedAt = was.Record.ChargeID, was.Record.RunID, was.Record.CreatedAt
	case ours:
		record.Enabled = true // as we make them; that it is off is somebody else's work
	}
	return record
}

// toWithdrawn is our memory of a billing row of ours that is taken back. One
// that somebody else had switched off stays theirs to switch on, also once
// SkyPANEL's own row is gone again.
func toWithdrawn(was *db.BillingMatch, serverID int64, now time.Time) db.BillingRecord {
	record := toRecord(was, true, serverID, now)
	if was.BillingEnabled != nil && *was.BillingEnabled {
		record.Enabled = false
	}
	record.ClosedReason = string(ClosedWithdrawn)
	return record
}

// toChange is the change of a billing row to write.
func toChange(c *RowChange, was *db.BillingMatch, ours bool, serverID int64, now time.Time) db.BillingChange {
	change := db.BillingChange{
		Was: was.HourlyBilling, Now: now,
		Enable: c.Enable, UUID: c.UUID, ResumeAt: c.Resume,
		Record: toRecord(was, ours, serverID, now),
	}
	if t := c.Terms; t != nil {
		change.PackageID, change.PackageName = &t.packageID, &t.packageName
		change.MonthlyPrice, change.HourlyRate, change.Hours = &t.monthlyPrice, &t.hourlyRate, &t.hours
		change.Record.PackageID, change.Record.MonthlyPrice = t.packageID, t.monthlyPrice
	}
	if c.Enable != nil {
		change.Record.Enabled = *c.Enable
	}
	if c.Vetoed {
		change.Record.Enabled = true // as we would have it
	}
	change.Record.ClosedReason = string(c.Closed)
	change.VoidAhead, change.Rewind, change.RewindTo, change.ClearUUID = c.Void, c.Rewind, c.RewindTo, c.ClearUUID
	return change
}

// toHistory is a history line to write.
func toHistory(l *Line, d *decided, now time.Time) db.History {
	h := db.History{
		At: now, VirtfusionID: d.State.ID, UserID: d.State.UserID, BillingID: d.State.BillingID,
		Kind: string(l.Kind), Reason: l.Reason, Before: l.Before, After: l.After,
	}
	if l.RowID != 0 {
		h.BillingID = &l.RowID
	}
	h.RunID = d.RunID
	if d.By != nil {
		h.Source, h.EventID = string(d.By.Source), d.By.EventID
		if l.Kind == LineObserved { // in the run that observed it, or in none
			h.RunID = d.By.RunID
		}
	}
	h.Source = cmp.Or(h.Source, d.origin, originSettler)
	return h
}

// Who decides a server without news, as the history says it.
const (
	originSettler = "settler"
	originBooks   = "books"
	originRun     = "run" // on behalf of a run
)
