package virtfusion

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotObject says that the bytes hold some JSON, but no JSON object.
var ErrNotObject = errors.New("not a JSON object")

// errNotJSON says that the bytes hold no JSON at all.
var errNotJSON = errors.New("not JSON")

// Commissioned is the CommissionStatus of a server that has been built.
const Commissioned = 3

// Server is what serversync keeps of a VirtFusion server, whichever form it
// came in: the full one (webhooks, GET /servers/{id}, GET /servers?type=full),
// the simple rows of GET /servers, or that of GET /servers/user/{id}.
//
// A nil pointer says nothing: the form lacks the field, or it was null, or
// unreadable. What was known of it stays true.
type Server struct {
	// ID is VirtFusion's id; 0 when the object has none that is a positive
	// whole number, and then the object describes no server at all.
	ID int64
	// UUID is the server's lasting identity, as VirtFusion wrote it; never empty.
	UUID *string

	// OwnerID is the VirtFusion user who owns the server, from owner.id,
	// ownerId or the simple form's owner.
	OwnerID *int64
	// Owner is nil when the form has no owner object.
	Owner *Owner

	Name     *string
	Hostname *string
	// State is one of an open set: queued, complete, failed, running, stopped, …
	State *string
	// CommissionStatus is 0 before the first build and [Commissioned] after it.
	CommissionStatus *int64

	Suspended   *bool
	Protected   *bool
	Rebuild     *bool
	BuildFailed *bool
	// SelfService other than 0 says that VirtFusion itself bills the server.
	SelfService *int64
	// PackageID is known to newer versions of VirtFusion only.
	PackageID *int64

	MemoryMB  *int64
	StorageGB *int64
	// TrafficGB is a month's allowance; 0 means unlimited.
	TrafficGB *int64
	CPUCores  *int64

	// IPAddresses are those of the enabled interfaces, the primary one first;
	// an IPv6 network without single addresses is listed in CIDR notation. Nil
	// when the form has no network; empty when it has one without addresses.
	// At most 1,024.
	IPAddresses []string

	HypervisorID      *int64
	HypervisorName    *string
	HypervisorGroupID *int64

	Created *time.Time
	// Updated has a precision of one second: two changes within one look the
	// same age.
	Updated *time.Time
	Built   *time.Time
}

// Owner is what a form with an owner object says beyond the owner's id.
type Owner struct {
	// ExtRelationID is the user's id in the billing panel (SkyPANEL's
	// users.id); nil when VirtFusion knows of none.
	ExtRelationID *int64
	Admin         *bool
	Suspended     *bool
}

// PrimaryIP returns the first address, or "" when none is known.
func (s *Server) PrimaryIP() string {
	if len(s.IPAddresses) == 0 {
		return ""
	}
	return s.IPAddresses[0]
}

// DecodeServer reads a server object in any of its forms. It fails only when
// data is not a JSON object ([ErrNotObject], or a syntax error); the caller
// checks that ID is not 0. The result does not refer to data.
func DecodeServer(data []byte) (Server, error) {
	if !isObject(data) {
		return Server{}, fmt.Errorf("decode VirtFusion server: %w", ErrNotObject)
	}
	if err := valid(data); err != nil {
		return Server{}, fmt.Errorf("decode VirtFusion server: %w", err)
	}
	return readServer(data), nil
}

// readServer reads a server in valid JSON; what is no object is one without id.
func readServer(data []byte) Server {
	if !isObject(data) {
		return Server{}
	}
	wire := new(wireServer)
	wire.read(data)
	return wire.server()
}

// server turns the wire's form into ours. The result's pointers point into w,
// so that a server costs one allocation and not one a field. (And a page not
// one for all, or whoever keeps a single name would keep the page.)
func (w *wireServer) server() Server {
	s := Server{
		ID:                w.ID.id(),
		UUID:              w.UUID.filled(),
		OwnerID:           first(w.Owner.id.idPointer(), w.OwnerID.idPointer()),
		Name:              w.Name.pointer(),
		Hostname:          w.Hostname.pointer(),
		State:             w.State.filled(),
		CommissionStatus:  first(w.CommissionStatus.pointer(), w.Commissioned.pointer()),
		Suspended:         w.Suspended.pointer(),
		Protected:         w.Protected.pointer(),
		Rebuild:           w.Rebuild.pointer(),
		BuildFailed:       w.BuildFailed.pointer(),
		SelfService:       w.SelfService.pointer(),
		PackageID:         w.PackageID.idPointer(),
		MemoryMB:          first(w.Settings.Resources.Memory.pointer(), w.Resources.Memory.pointer()),
		StorageGB:         first(w.Settings.Resources.Storage.pointer(), w.Resources.Storage.pointer()),
		TrafficGB:         first(w.Settings.Resources.Traffic.pointer(), w.Resources.Traffic.pointer()),
		CPUCores:          first(w.Settings.Resources.CPUCores.pointer(), w.Resources.CPUCores.pointer(), w.CPU.Cores.pointer()),
		IPAddresses:       w.Network.addresses,
		HypervisorID:      first(w.HypervisorID.idPointer(), w.Hypervisor.ID.idPointer()),
		HypervisorName:    w.Hypervisor.Name.filled(),
		HypervisorGroupID: w.Hypervisor.GroupID.idPointer(),
		Created:           w.Created.pointer(),
		Updated:           w.Updated.pointer(),
		Built:             w.Built.pointer(),
	}
	if w.Owner.known {
		s.Owner = &Owner{
			ExtRelationID: w.Owner.extRelationID.idPointer(),
			Admin:         w.Owner.admin.pointer(),
			Suspended:     w.Owner.suspended.pointer(),
		}
	}
	return s
}

// first returns the first value that is known.
func first[T any](values ...*T) *T {
	for _, value := range values {
		if value != nil {
			return value
		}
	}
	return nil
}
