package skypanelsim

// World is the company of the demo, as both systems know it. The two number
// their users and packages independently, in ranges that overlap on purpose:
// whoever confuses one id with the other finds somebody, and the wrong one.
type World struct {
	Users    []User    // SkyPANEL's, by id; the first is the admin
	Accounts []Account // VirtFusion's users, by id
	Packages []Package // by VirtFusion's id
}

// User is a row of SkyPANEL's users.
type User struct {
	// ID is users.id.
	ID int64
	// VirtFusionID is users.virtfusion_id; 0: null.
	VirtFusionID int64
	Email        string
	Username     string
	FullName     string
	Admin        bool
	// Inactive: users.is_active is false. Inactive users order nothing, and
	// SkyPANEL bills them nothing.
	Inactive bool
}

// Account is a user of VirtFusion.
type Account struct {
	// ID is VirtFusion's.
	ID int64
	// ExtRelationID is what VirtFusion holds to be the user's users.id; 0:
	// none.
	ExtRelationID int64
	Name          string
}

// Package is a server plan, with its price at SkyPANEL.
type Package struct {
	// ID is VirtFusion's: package_pricing.virtfusion_package_id.
	ID int64
	// PricingID is package_pricing.id; 0: SkyPANEL has no price for the
	// package, and does not sell it.
	PricingID int64
	Name      string
	// Price is in cents a month.
	Price int64
	// Withdrawn: package_pricing.enabled is false. It is sold no longer, but
	// SkyPANEL goes on billing those who have it.
	Withdrawn bool

	MemoryMB  int64
	StorageGB int64
	TrafficGB int64
	CPUCores  int64
}

// NewWorld returns the demo's company: always the same one.
//
// Twelve customers and an admin; one customer is inactive; Joana is not linked
// (virtfusion_id is null), yet VirtFusion knows who she is; Kofi is linked, and
// VirtFusion does not know who he is; and VirtFusion has one account that
// nobody in SkyPANEL belongs to. Of six packages one has no price, one is
// withdrawn, and one is so cheap that SkyPANEL rounds its hour to nothing.
func NewWorld() World {
	return World{
		Users: []User{
			{ID: 1, Email: "admin@skypanel.example", Username: "admin", FullName: "Ada Admin", Admin: true},
			{ID: 2, VirtFusionID: 7, Email: "beatriz@customer.example", Username: "beatriz", FullName: "Beatriz Barros"},
			{ID: 3, VirtFusionID: 5, Email: "chen@customer.example", Username: "chen", FullName: "Chen Cai"},
			{ID: 4, VirtFusionID: 9, Email: "dimitri@customer.example", Username: "dimitri", FullName: "Dimitri Dukas"},
			{ID: 5, VirtFusionID: 3, Email: "emeka@customer.example", Username: "emeka", FullName: "Emeka Eze"},
			{ID: 6, VirtFusionID: 2, Email: "fatima@customer.example", Username: "fatima", FullName: "Fatima Farouk"},
			{ID: 7, VirtFusionID: 11, Email: "greta@customer.example", Username: "greta", FullName: "Greta Gruber"},
			{ID: 8, VirtFusionID: 4, Email: "hiroshi@customer.example", Username: "hiroshi", FullName: "Hiroshi Hara"},
			{ID: 9, VirtFusionID: 13, Email: "ines@customer.example", Username: "ines", FullName: "Ines Ibarra", Inactive: true},
			{ID: 10, Email: "joana@customer.example", Username: "joana", FullName: "Joana Jardim"},
			{ID: 11, VirtFusionID: 14, Email: "kofi@customer.example", Username: "kofi", FullName: "Kofi Kuffour"},
			{ID: 12, VirtFusionID: 8, Email: "liv@customer.example", Username: "liv", FullName: "Liv Larsen"},
			{ID: 13, VirtFusionID: 10, Email: "marek@customer.example", Username: "marek", FullName: "Marek Maly"},
		},
		Accounts: []Account{
			{ID: 2, ExtRelationID: 6, Name: "Fatima Farouk"},
			{ID: 3, ExtRelationID: 5, Name: "Emeka Eze"},
			{ID: 4, ExtRelationID: 8, Name: "Hiroshi Hara"},
			{ID: 5, ExtRelationID: 3, Name: "Chen Cai"},
			{ID: 6, ExtRelationID: 10, Name: "Joana Jardim"},
			{ID: 7, ExtRelationID: 2, Name: "Beatriz Barros"},
			{ID: 8, ExtRelationID: 12, Name: "Liv Larsen"},
			{ID: 9, ExtRelationID: 4, Name: "Dimitri Dukas"},
			{ID: 10, ExtRelationID: 13, Name: "Marek Maly"},
			{ID: 11, ExtRelationID: 7, Name: "Greta Gruber"},
			{ID: 12, Name: "Nobody Known"},
			{ID: 13, ExtRelationID: 9, Name: "Ines Ibarra"},
			{ID: 14, Name: "Kofi Kuffour"},
		},
		Packages: []Package{
			{ID: 2, PricingID: 4, Name: "Pico", Price: 250, MemoryMB: 512, StorageGB: 10, TrafficGB: 500, CPUCores: 1},
			{ID: 3, PricingID: 1, Name: "Small", Price: 500, MemoryMB: 1024, StorageGB: 25, TrafficGB: 1000, CPUCores: 1},
			{ID: 4, PricingID: 5, Name: "Medium", Price: 1100, MemoryMB: 4096, StorageGB: 80, TrafficGB: 3000, CPUCores: 2},
			{ID: 5, PricingID: 2, Name: "Large", Price: 2400, MemoryMB: 8192, StorageGB: 160, TrafficGB: 5000, CPUCores: 4},
			{ID: 6, PricingID: 3, Name: "Classic", Price: 1495, Withdrawn: true, MemoryMB: 2048, StorageGB: 50, TrafficGB: 2000, CPUCores: 2},
			{ID: 7, Name: "Custom", MemoryMB: 16384, StorageGB: 400, TrafficGB: 10000, CPUCores: 8},
		},
	}
}

// Buyers are the users who can order through SkyPANEL: active customers who
// are linked to an account of VirtFusion.
func (w World) Buyers() []User {
	var buyers []User
	for _, u := range w.Users {
		if !u.Admin && !u.Inactive && u.VirtFusionID != 0 {
			buyers = append(buyers, u)
		}
	}
	return buyers
}

// ForSale are the packages that SkyPANEL sells.
func (w World) ForSale() []Package {
	var sold []Package
	for _, p := range w.Packages {
		if p.PricingID != 0 && !p.Withdrawn {
			sold = append(sold, p)
		}
	}
	return sold
}
