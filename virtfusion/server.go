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
	wire := new(wireServer)
	if err := decodeLeniently(data, wire); err != nil {
		return Server{}, fmt.Errorf("decode VirtFusion server: %w", err)
	}
	return wire.server(), nil
}

// wireServer is the union of the three forms. Only these fields are decoded.
type wireServer struct {
	ID               number        `json:"id"`
	UUID             text          `json:"uuid"`
	OwnerID          number        `json:"ownerId"`
	Owner            wireOwner     `json:"owner"`
	Name             text          `json:"name"`
	Hostname         text          `json:"hostname"`
	State            text          `json:"state"`
	CommissionStatus number        `json:"commissionStatus"`
	Commissioned     number        `json:"commissioned"`
	Suspended        flag          `json:"suspended"`
	Protected        flag          `json:"protected"`
	Rebuild          flag          `json:"rebuild"`
	BuildFailed      flag          `json:"buildFailed"`
	SelfService      level         `json:"selfService"`
	PackageID        number        `json:"packageId"`
	Settings         wireSettings  `json:"settings"`
	Resources        wireResources `json:"resources"`
	CPU              wireCPU       `json:"cpu"`
	Network          wireNetwork   `json:"network"`
	HypervisorID     number        `json:"hypervisorId"`
	Hypervisor       wireHost      `json:"hypervisor"`
	Created          timestamp     `json:"created"`
	Updated          timestamp     `json:"updated"`
	Built            timestamp     `json:"built"`
}

type wireSettings struct {
	Resources wireResources `json:"resources"`
}

type wireResources struct {
	Memory   number `json:"memory"`
	Storage  number `json:"storage"`
	Traffic  number `json:"traffic"`
	CPUCores number `json:"cpuCores"`
}

type wireCPU struct {
	Cores number `json:"cores"`
}

type wireHost struct {
	ID      number `json:"id"`
	Name    text   `json:"name"`
	GroupID number `json:"groupId"`
}

// wireOwner is an object, or the owner's id alone (simple form).
type wireOwner struct {
	id      number
	details wireOwnerDetails
	known   bool // it was an object
}

type wireOwnerDetails struct {
	ID            number `json:"id"`
	ExtRelationID number `json:"extRelationId"`
	Admin         flag   `json:"admin"`
	Suspended     flag   `json:"suspended"`
}

// UnmarshalJSON implements [json.Unmarshaler]; it never fails.
func (o *wireOwner) UnmarshalJSON(data []byte) error {
	*o = wireOwner{}
	if !isObject(data) {
		return o.id.UnmarshalJSON(data)
	}
	o.known = decodeLeniently(data, &o.details) == nil
	o.id = o.details.ID
	return nil
}

// server turns the wire's form into ours. The result's pointers point into w,
// so that a server costs one allocation and not one a field.
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
		IPAddresses:       w.Network.addresses(),
		HypervisorID:      first(w.HypervisorID.idPointer(), w.Hypervisor.ID.idPointer()),
		HypervisorName:    w.Hypervisor.Name.filled(),
		HypervisorGroupID: w.Hypervisor.GroupID.idPointer(),
		Created:           w.Created.pointer(),
		Updated:           w.Updated.pointer(),
		Built:             w.Built.pointer(),
	}
	w.Network = wireNetwork{} // not kept alive by the pointers
	if w.Owner.known {
		s.Owner = &Owner{
			ExtRelationID: w.Owner.details.ExtRelationID.idPointer(),
			Admin:         w.Owner.details.Admin.pointer(),
			Suspended:     w.Owner.details.Suspended.pointer(),
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
