package skypanelsim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
)

// ErrRefused says that SkyPANEL does not take the order, and that VirtFusion
// was not asked.
var ErrRefused = errors.New("SkyPANEL refuses the order")

// Server is what SkyPANEL learns from VirtFusion of a server that it ordered.
type Server struct {
	ID      int64 // VirtFusion's
	UUID    string
	Created time.Time
}

// CreateFunc creates a server at VirtFusion, which thereupon sends its
// webhook. Owner and package are VirtFusion's ids.
type CreateFunc func(ctx context.Context, ownerID, packageID int64) (Server, error)

// PauseFunc is the time that SkyPANEL needs from VirtFusion's answer until its
// own row is inserted: it fetches the server meanwhile. In a test it decides
// what happens first.
type PauseFunc func(ctx context.Context) error

// Receipt says what became of an order.
type Receipt struct {
	Customer User
	Package  Package
	Server   Server
	// BillingID is the id of SkyPANEL's own billing row; 0: it has none.
	BillingID int64
	// InsertErr is why the billing row is missing. SkyPANEL swallows this
	// error: the customer has a server that nobody bills.
	InsertErr error
}

// Order is a customer's order through SkyPANEL, in SkyPANEL's sequence:
// VirtFusion creates the server, whose webhook is on its way at once; SkyPANEL
// fetches the server; and only then does it insert its own billing row, without
// looking for one that is there already. A nil pause is none.
//
// In monthly mode SkyPANEL makes no billing row. An unpriced or withdrawn
// package, and a customer who is inactive or not linked, are [ErrRefused].
// After any other error the receipt still says which server was created, if
// one was: SkyPANEL has no row for it.
func Order(ctx context.Context, database *bun.DB, customer User, plan Package, create CreateFunc, pause PauseFunc) (Receipt, error) {
	receipt := Receipt{Customer: customer, Package: plan}
	switch {
	case customer.Inactive || customer.VirtFusionID == 0:
		return receipt, fmt.Errorf("%w: %s is inactive or not linked to VirtFusion", ErrRefused, customer.Email)
	case plan.PricingID == 0 || plan.Withdrawn:
		return receipt, fmt.Errorf("%w: %s is not sold", ErrRefused, plan.Name)
	}
	server, err := create(ctx, customer.VirtFusionID, plan.ID)
	if err != nil {
		return receipt, fmt.Errorf("order %s for %s at VirtFusion: %w", plan.Name, customer.Email, err)
	}
	receipt.Server = server
	if pause != nil {
		if err := pause(ctx); err != nil {
			return receipt, fmt.Errorf("fetch server %d from VirtFusion: %w", server.ID, err)
		}
	}
	receipt.BillingID, receipt.InsertErr = insertBilling(ctx, database, customer, plan, server)
	return receipt, nil
}

// insertBilling inserts SkyPANEL's own row, with SkyPANEL's own columns:
// reference_1 is not among them, and last_billed_at stays null until its job
// bills the row. In monthly mode it inserts nothing.
func insertBilling(ctx context.Context, database *bun.DB, customer User, plan Package, server Server) (int64, error) {
	policy, err := db.ReadPolicy(ctx, database)
	if err != nil {
		return 0, err
	}
	if !policy.HourlyMode {
		return 0, nil
	}
	price := decimal.New(plan.Price, -2) // cents to dollars
	var id int64
	err = database.NewRaw(`
		INSERT INTO public.virtfusion_hourly_billing (
			user_id, server_id, virtfusion_server_id, server_uuid, package_id, package_name,
			monthly_price, hourly_rate, hours_in_month, billing_enabled, server_created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, true, ?)
		RETURNING id`,
		customer.ID, server.ID, server.ID, server.UUID, plan.ID, plan.Name,
		price, price.DivRound(decimal.NewFromInt(policy.HoursPerMonth), 6), policy.HoursPerMonth,
		server.Created.UTC().Format(skypanelTime)).Scan(ctx, &id)
	if err != nil {
		return 0, fmt.Errorf("insert SkyPANEL's billing row for server %d: %w", server.ID, err)
	}
	return id, nil
}

// skypanelTime is how SkyPANEL's timestamps are written: UTC, without a zone.
const skypanelTime = "2006-01-02 15:04:05.000"
