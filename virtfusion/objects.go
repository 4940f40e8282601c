package virtfusion

import (
	"encoding/json"
	"time"
)

// User is what serversync keeps of a VirtFusion user. Nil says nothing.
type User struct {
	ID int64
	// ExtRelationID is the user's id in the billing panel (SkyPANEL's users.id).
	ExtRelationID *int64
	// SelfService other than 0 says that VirtFusion bills the user itself.
	SelfService *int64
	Name        *string
	Suspended   *bool
}

// Package is a server plan. Nil says nothing.
type Package struct {
	ID               int64
	Name             *string
	Enabled          *bool
	MemoryMB         *int64
	PrimaryStorageGB *int64
	// TrafficGB is a month's allowance; 0 means unlimited.
	TrafficGB *int64
	CPUCores  *int64
}

// Page is one page of GET /servers. Pages shift while servers come and go: a
// server can be missed or seen twice, and Total and LastPage can change from
// one page to the next.
type Page struct {
	// Servers are the rows in VirtFusion's order. A row that is no server, or
	// has no id, is there with ID 0, so that the rows can be counted.
	Servers []Server
	// Number is the page that VirtFusion says this is, from 1; 0 when it does
	// not say. LastPage, PerPage and Total likewise.
	Number   int64
	LastPage int64
	PerPage  int64
	Total    int64
	// HasNext says that another page follows.
	HasNext bool
	// ObservedAt is when VirtFusion said so: see [Observation].
	ObservedAt time.Time
}

// Observation is a server as VirtFusion described it at a moment.
//
// ObservedAt is the time taken just before the request was sent (the attempt
// that was answered), so it is never later than the state that it dates. It is
// on VirtFusion's clock, as webhooks are: shifted by the difference between the
// answer's Date header and our clock, when that exceeds two seconds. (Date
// counts whole seconds, so a smaller difference may not be real.)
type Observation struct {
	Server     Server
	ObservedAt time.Time
}

// UserServers are the servers of one user at a moment, in the form of
// GET /servers/user/{id}: without Created, Updated, PackageID and SelfService.
type UserServers struct {
	// Servers are the rows in VirtFusion's order. A row that is no server, or
	// has no id, is there with ID 0.
	Servers []Server
	// ObservedAt is when VirtFusion said so: see [Observation].
	ObservedAt time.Time
}

type wireUser struct {
	ID            number `json:"id"`
	ExtRelationID number `json:"extRelationId"`
	SelfService   level  `json:"selfService"`
	Name          text   `json:"name"`
	Suspended     flag   `json:"suspended"`
}

func (w *wireUser) user() User {
	return User{
		ID:            w.ID.id(),
		ExtRelationID: w.ExtRelationID.idPointer(),
		SelfService:   w.SelfService.pointer(),
		Name:          w.Name.pointer(),
		Suspended:     w.Suspended.pointer(),
	}
}

type wirePackage struct {
	ID             number `json:"id"`
	Name           text   `json:"name"`
	Enabled        flag   `json:"enabled"`
	Memory         number `json:"memory"`
	PrimaryStorage number `json:"primaryStorage"`
	Traffic        number `json:"traffic"`
	CPUCores       number `json:"cpuCores"`
}

func (w *wirePackage) plan() Package {
	return Package{
		ID:               w.ID.id(),
		Name:             w.Name.pointer(),
		Enabled:          w.Enabled.pointer(),
		MemoryMB:         w.Memory.pointer(),
		PrimaryStorageGB: w.PrimaryStorage.pointer(),
		TrafficGB:        w.Traffic.pointer(),
		CPUCores:         w.CPUCores.pointer(),
	}
}

// wirePage is a Laravel page; NextPageURL is null on the last one.
type wirePage struct {
	CurrentPage number           `json:"current_page"`
	LastPage    number           `json:"last_page"`
	PerPage     number           `json:"per_page"`
	Total       number           `json:"total"`
	NextPageURL text             `json:"next_page_url"`
	Data        list[wireServer] `json:"data"`
}

func (w *wirePage) page() Page {
	return Page{
		Servers:  servers(w.Data.items),
		Number:   w.CurrentPage.value,
		LastPage: w.LastPage.value,
		PerPage:  w.PerPage.value,
		Total:    w.Total.value,
		HasNext:  w.NextPageURL.value != "" || w.CurrentPage.value < w.LastPage.value,
	}
}

// servers turns rows into servers; the result is never nil.
func servers(rows []wireServer) []Server {
	found := make([]Server, len(rows))
	for i := range rows {
		found[i] = rows[i].server()
	}
	return found
}

// envelope is {"data": …} around one value.
type envelope struct {
	Data json.RawMessage `json:"data"`
}

// rows is {"data": […]}.
type rows[T any] struct {
	Data list[T] `json:"data"`
}
