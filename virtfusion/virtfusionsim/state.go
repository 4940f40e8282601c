package virtfusionsim

import (
	"slices"
	"time"
)

// User is a VirtFusion user.
type User struct {
	ID int64
	// ExtRelationID is the user's id in the billing panel (SkyPANEL's
	// users.id); 0: none, which the wire shows as null.
	ExtRelationID int64
	Name          string
	Admin         bool
	Suspended     bool
	// SelfService: 0 none, else VirtFusion bills the user itself.
	SelfService int64
}

// Package is a server plan.
type Package struct {
	ID        int64
	Name      string
	Disabled  bool
	MemoryMB  int64
	StorageGB int64
	TrafficGB int64
	CPUCores  int64
}

// Hypervisor is a host.
type Hypervisor struct {
	ID      int64
	Name    string
	GroupID int64
}

// Server is a server as the panel knows it.
type Server struct {
	ID       int64
	UUID     string
	OwnerID  int64
	Name     string
	Hostname string
	// State is queued, running, failed, …
	State string
	// CommissionStatus is 0 before the first build and 3 after it.
	CommissionStatus int64
	Suspended        bool
	Protected        bool
	Rebuild          bool
	BuildFailed      bool
	SelfService      int64
	PackageID        int64
	MemoryMB         int64
	StorageGB        int64
	TrafficGB        int64
	CPUCores         int64
	IPv4             []string
	// IPv6 is a subnet without its length, which is 64.
	IPv6         string
	HypervisorID int64
	Created      time.Time
	Updated      time.Time
	// Built is zero before the first build.
	Built time.Time
}

// copy returns a copy that shares nothing with s.
func (s *Server) copy() Server {
	c := *s
	c.IPv4 = slices.Clone(s.IPv4)
	return c
}

// Credit is a credit call that the API has carried out.
type Credit struct {
	ID            int64
	ExtRelationID int64
	// Tokens is negative for credit that was removed.
	Tokens     int64
	Reference1 int64
	Reference2 string
}
