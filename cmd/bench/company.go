package main

import (
	"fmt"
	"time"

	"serversync/db/skypanelsim"
	"serversync/events"
)

// The company: so many customers, all linked and active, and prices for all
// packages. The two systems number the customers differently.
const (
	customers    = 1000
	firstUser    = 500_001 // SkyPANEL's users.id
	firstAccount = 100_001 // VirtFusion's
	firstServer  = 100_000_001
)

func packages() []skypanelsim.Package {
	return []skypanelsim.Package{
		{ID: 2, PricingID: 1, Name: "Small", Price: 500, MemoryMB: 1024, StorageGB: 25, TrafficGB: 1000, CPUCores: 1},
		{ID: 3, PricingID: 2, Name: "Medium", Price: 1100, MemoryMB: 4096, StorageGB: 80, TrafficGB: 3000, CPUCores: 2},
		{ID: 4, PricingID: 3, Name: "Large", Price: 2400, MemoryMB: 8192, StorageGB: 160, TrafficGB: 5000, CPUCores: 4},
		{ID: 5, PricingID: 4, Name: "Huge", Price: 4800, MemoryMB: 16384, StorageGB: 320, TrafficGB: 10000, CPUCores: 8},
	}
}

func company() skypanelsim.World {
	w := skypanelsim.World{Packages: packages()}
	for i := range int64(customers) {
		name := fmt.Sprintf("customer%04d", i)
		w.Users = append(w.Users, skypanelsim.User{ID: firstUser + i, VirtFusionID: firstAccount + i, Email: name + "@customer.example", Username: name, FullName: name})
		w.Accounts = append(w.Accounts, skypanelsim.Account{ID: firstAccount + i, ExtRelationID: firstUser + i, Name: name})
	}
	return w
}

// born is when all servers were created.
func born() time.Time { return time.Now().UTC().Truncate(time.Second).Add(-time.Hour) }

// server is what VirtFusion says of its nth server.
func server(n int64, created time.Time) events.Server {
	plan := packages()[n%int64(len(packages()))]
	owner := n % customers
	updated := created
	return events.Server{
		ID: firstServer + n, UUID: new(uuid(n)), Owner: &events.Owner{ID: firstAccount + owner, ExtRelationID: new(firstUser + owner), Whole: true},
		Name: new(fmt.Sprintf("srv-%d", n)), Hostname: new(fmt.Sprintf("srv-%d.customer.example", n)), State: new("running"),
		CommissionStatus: new(int64(3)), Suspended: new(false), Protected: new(false), BuildFailed: new(false), SelfService: new(int64(0)),
		PackageID: &plan.ID, MemoryMB: &plan.MemoryMB, StorageGB: &plan.StorageGB, TrafficGB: &plan.TrafficGB, CPUCores: &plan.CPUCores,
		IPAddresses:  []string{fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255), fmt.Sprintf("2001:db8:%x:%x::1", n>>16, n&0xffff)},
		HypervisorID: new(n%20 + 1), HypervisorName: new(fmt.Sprintf("host%d", n%20+1)), HypervisorGroup: new(int64(1)),
		CreatedAt: &created, UpdatedAt: &updated, BuiltAt: &created,
	}
}

func uuid(n int64) string { return fmt.Sprintf("1b0e9a3c-6a0e-4c0b-9d4f-%012x", n) }

// heard is the event by which a webhook tells of a server.
func heard(kind events.Kind, name string, s events.Server, at time.Time) *events.Event {
	return &events.Event{Kind: kind, Source: events.SourceWebhook, Name: name, ObservedAt: at, ReceivedAt: time.Now(), Server: s}
}
