package virtfusion

import "time"

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
// one page to the next. Nothing is put right here: whoever reads on compares
// Number with the page that was asked for, Total and LastPage with those of the
// page before, and the rows with PerPage, unless it is the last page.
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

// readUser reads a user in valid JSON.
func readUser(data []byte) User {
	var wire struct {
		ID            number `json:"id"`
		ExtRelationID number `json:"extRelationId"`
		SelfService   level  `json:"selfService"`
		Name          text   `json:"name"`
		Suspended     flag   `json:"suspended"`
	}
	_ = decodeLeniently(data, &wire) // it is valid
	return User{
		ID:            wire.ID.id(),
		ExtRelationID: wire.ExtRelationID.idPointer(),
		SelfService:   wire.SelfService.pointer(),
		Name:          wire.Name.pointer(),
		Suspended:     wire.Suspended.pointer(),
	}
}

// readPackage reads a package in valid JSON; what is no object is one without
// id.
func readPackage(data []byte) Package {
	var wire struct {
		ID             number `json:"id"`
		Name           text   `json:"name"`
		Enabled        flag   `json:"enabled"`
		Memory         number `json:"memory"`
		PrimaryStorage number `json:"primaryStorage"`
		Traffic        number `json:"traffic"`
		CPUCores       number `json:"cpuCores"`
	}
	_ = decodeLeniently(data, &wire) // it is valid
	return Package{
		ID:               wire.ID.id(),
		Name:             wire.Name.pointer(),
		Enabled:          wire.Enabled.pointer(),
		MemoryMB:         wire.Memory.pointer(),
		PrimaryStorageGB: wire.PrimaryStorage.pointer(),
		TrafficGB:        wire.Traffic.pointer(),
		CPUCores:         wire.CPUCores.pointer(),
	}
}

// readPackages reads packages; known tells whether they are a list, which is
// then not nil.
func readPackages(data []byte) (found []Package, known bool) {
	return readList(data, func(into *Package, row []byte) { *into = readPackage(row) })
}

// readPage reads a Laravel page, in which next_page_url is null on the last
// one; known tells whether it has a list of servers.
func readPage(body []byte) (page Page, known bool) {
	var (
		number, last, perPage, total number
		next                         text
	)
	f := fieldsOf(body)
	for f.next() {
		switch string(f.key()) {
		case "current_page":
			number.read(f.value)
		case "last_page":
			last.read(f.value)
		case "per_page":
			perPage.read(f.value)
		case "total":
			total.read(f.value)
		case "next_page_url":
			next.read(f.value)
		case "data":
			page.Servers, known = readServers(f.value)
		}
	}
	page.Number, page.LastPage, page.PerPage, page.Total = number.value, last.value, perPage.value, total.value
	page.HasNext = next.value != "" || page.Number < page.LastPage
	return page, known
}

// readServers reads rows; known tells whether they are a list, which is then
// not nil.
func readServers(data []byte) (found []Server, known bool) {
	return readList(data, func(into *Server, row []byte) { *into = readServer(row) })
}
