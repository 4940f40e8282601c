package reconciler

import (
	"encoding/json"
	"slices"
	"time"
)

// change is one field's before and after.
type change struct {
	field         string
	before, after any
}

// observedDiff lists what VirtFusion says differently in b than in a.
func observedDiff(a, b *State) []change {
	var d []change
	d = compare(d, "uuid", a.UUID, b.UUID)
	d = compare(d, "owner_id", a.OwnerID, b.OwnerID)
	d = comparePtr(d, "owner_ext_relation_id", a.OwnerExt, b.OwnerExt)
	d = compare(d, "name", a.Name, b.Name)
	d = compare(d, "hostname", a.Hostname, b.Hostname)
	d = compare(d, "state", a.State, b.State)
	d = comparePtr(d, "commission_status", a.CommissionStatus, b.CommissionStatus)
	d = compare(d, "suspended", a.Suspended, b.Suspended)
	d = compare(d, "protected", a.Protected, b.Protected)
	d = compare(d, "build_failed", a.BuildFailed, b.BuildFailed)
	d = compare(d, "self_service", a.SelfService, b.SelfService)
	d = comparePtr(d, "package_id", a.PackageID, b.PackageID)
	d = comparePtr(d, "memory_mb", a.MemoryMB, b.MemoryMB)
	d = comparePtr(d, "storage_gb", a.StorageGB, b.StorageGB)
	d = comparePtr(d, "traffic_gb", a.TrafficGB, b.TrafficGB)
	d = comparePtr(d, "cpu_cores", a.CPUCores, b.CPUCores)
	if !slices.Equal(a.IPAddresses, b.IPAddresses) {
		d = append(d, change{"ip_addresses", a.IPAddresses, b.IPAddresses})
	}
	d = comparePtr(d, "hypervisor_id", a.HypervisorID, b.HypervisorID)
	d = compare(d, "hypervisor_name", a.HypervisorName, b.HypervisorName)
	d = comparePtr(d, "hypervisor_group_id", a.HypervisorGroupID, b.HypervisorGroupID)
	d = compareTime(d, "created_at", a.CreatedAt, b.CreatedAt)
	d = compareTime(d, "updated_at", a.UpdatedAt, b.UpdatedAt)
	d = compareTime(d, "built_at", a.BuiltAt, b.BuiltAt)
	return d
}

// decidedDiff lists what we make of a server differently in b than in a.
func decidedDiff(a, b *State) []change {
	var d []change
	d = compare(d, "status", a.Status, b.Status)
	d = compare(d, "billing_on", a.BillingOn, b.BillingOn)
	d = compare(d, "billing_reason", a.Reason, b.Reason)
	d = comparePtr(d, "user_id", a.UserID, b.UserID)
	d = compare(d, "awaiting_run", a.AwaitingRun, b.AwaitingRun)
	if b.Status == StatusConflict || b.Status == StatusUnlinked {
		d = compare(d, "note", a.Note, b.Note) // says what was seen, and what to do
	}
	return d
}

// silentDiff reports differences that are kept but leave no line of their own.
func silentDiff(a, b *State) bool {
	return a.Note != b.Note || a.Ask != b.Ask || a.RunID != b.RunID || a.Confirmed != b.Confirmed || len(comparePtr(nil, "", a.BillingID, b.BillingID)) > 0 ||
		!equalTime(a.SettleUntil, b.SettleUntil) || !equalTime(a.GoneAt, b.GoneAt)
}

// touched reports whether only the last observation moved.
func touched(a, b *State) bool {
	return !a.ObservedAt.Equal(b.ObservedAt) || !equalTime(a.PulledAt, b.PulledAt) || a.ObservedEventID != b.ObservedEventID ||
		a.ObservedSource != b.ObservedSource || !a.LastSeenAt.Equal(b.LastSeenAt)
}

func compare[T comparable](d []change, field string, a, b T) []change {
	if a == b {
		return d
	}
	return append(d, change{field, a, b})
}

func comparePtr[T comparable](d []change, field string, a, b *T) []change {
	if a == b || a != nil && b != nil && *a == *b {
		return d
	}
	return append(d, change{field, a, b})
}

func compareTime(d []change, field string, a, b *time.Time) []change {
	if equalTime(a, b) {
		return d
	}
	return append(d, change{field, a, b})
}

func equalTime(a, b *time.Time) bool {
	return a == b || a != nil && b != nil && a.Equal(*b)
}

// sides turns changes into the two JSON objects of a history line.
func sides(changes []change) (before, after []byte) {
	b, a := make(map[string]any, len(changes)), make(map[string]any, len(changes))
	for _, c := range changes {
		b[c.field], a[c.field] = c.before, c.after
	}
	return object(b), object(a)
}

// object encodes a JSON object whose values are plain; there is nothing in it
// that could fail.
func object(v map[string]any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("reconciler: a history line holds what JSON cannot: " + err.Error())
	}
	return data
}
