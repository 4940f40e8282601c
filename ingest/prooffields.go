package ingest

import (
	"fmt"
	"strings"
	"time"

	"serversync/db"
	"serversync/events"
)

// differences says in what a server differs from what VirtFusion said of it. There
// is at least one: what the comparison in SQL saw and no field shows is unsettled.
func differences(e *events.Event, of *db.Known) []db.Mismatch {
	about := db.Mismatch{ServerID: e.Server.ID, UserID: of.UserID}
	if e.Kind == events.KindDestroyed {
		about.Field, about.Ours, about.Theirs = "existence", of.Status, "not found"
		return []db.Mismatch{about}
	}
	if of.Status == "unknown" || of.Status == "gone" {
		about.Field, about.Ours, about.Theirs = "existence", of.Status, "exists"
		return []db.Mismatch{about}
	}
	theirs := listedOf(&e.Server)
	d := diff{about: about}
	differ(&d, "uuid", theirs.UUID, of.UUID)
	differ(&d, "owner", theirs.OwnerID, of.OwnerID)
	if theirs.OwnerExt != nil || theirs.OwnerWhole && of.OwnerExt != nil {
		d.add("owner_ext_relation_id", theirs.OwnerExt, of.OwnerExt)
	}
	differ(&d, "name", theirs.Name, of.Name)
	differ(&d, "hostname", theirs.Hostname, of.Hostname)
	differ(&d, "state", theirs.State, of.State)
	differ(&d, "suspended", theirs.Suspended, of.Suspended)
	differ(&d, "protected", theirs.Protected, of.Protected)
	differ(&d, "build_failed", theirs.BuildFailed, of.BuildFailed)
	differ(&d, "self_service", theirs.SelfService, of.SelfService)
	differ(&d, "commission_status", theirs.CommissionStatus, of.CommissionStatus)
	differ(&d, "package_id", theirs.PackageID, of.PackageID)
	differ(&d, "memory_mb", theirs.MemoryMB, of.MemoryMB)
	differ(&d, "storage_gb", theirs.StorageGB, of.StorageGB)
	differ(&d, "traffic_gb", theirs.TrafficGB, of.TrafficGB)
	differ(&d, "cpu_cores", theirs.CPUCores, of.CPUCores)
	differ(&d, "hypervisor_id", theirs.HypervisorID, of.HypervisorID)
	if theirs.IPAddresses != nil {
		d.add("ip_addresses", new(strings.Join(theirs.IPAddresses, " ")), new(strings.Join(of.IPAddresses, " ")))
	}
	if theirs.UpdatedAt != nil {
		d.add("updated", moment(theirs.UpdatedAt), moment(of.UpdatedAt))
	}
	if len(d.all) == 0 {
		about.Field, about.Ours, about.Theirs = "unsettled", of.Ask, "answers"
		d.all = append(d.all, about)
	}
	return d.all
}

type diff struct {
	about db.Mismatch
	all   []db.Mismatch
}

// differ adds a field of which VirtFusion says something else.
func differ[T any](d *diff, field string, theirs, ours *T) {
	if theirs != nil {
		d.add(field, theirs, ours)
	}
}

// add adds a field whose values differ in words.
func (d *diff) add(field string, theirs, ours any) {
	m := d.about
	m.Field, m.Ours, m.Theirs = field, inWords(ours), inWords(theirs)
	if m.Ours != m.Theirs {
		d.all = append(d.all, m)
	}
}

// inWords is what a pointer points to; none: nothing.
func inWords(v any) string {
	switch v := v.(type) {
	case *string:
		return text(v)
	case *int64:
		return text(v)
	case *bool:
		return text(v)
	}
	return fmt.Sprint(v)
}

func text[T any](v *T) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(*v)
}

func moment(t *time.Time) *string {
	if t == nil {
		return nil
	}
	return new(t.UTC().Format(time.RFC3339Nano))
}
