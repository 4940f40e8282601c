package skypanelsim

import (
	"context"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
	"github.com/uptrace/bun"

	"serversync/db"
)

// PayUpfront charges the customer for what an order pays in advance, and
// returns the charge: the first hour, rounded up, so that the job goes on an
// hour after the server's creation; in monthly mode the month. It leaves a
// line in transactions, "Server #7 - …", in either mode, and also where the
// billing row is missing because its insert failed: a trace of an order that
// SkyPANEL has no other record of. Whether SkyPANEL enters it before its billing row
// or after is not known: here it is after.
func PayUpfront(ctx context.Context, database *bun.DB, receipt Receipt) (Charge, error) {
	return payUpfront(ctx, database, receipt, time.Hour)
}

// PayUpfrontFor is [PayUpfront] where an hour may last less: see [JobConfig]; 0: an
// hour. Then it notes in the row until when it is paid, which SkyPANEL leaves to
// its job: who reads an empty last_billed_at takes the first hour for a whole one.
func PayUpfrontFor(ctx context.Context, database *bun.DB, receipt Receipt, hour time.Duration) (Charge, error) {
	if hour <= 0 {
		return PayUpfront(ctx, database, receipt)
	}
	c, err := payUpfront(ctx, database, receipt, hour)
	if err != nil || c.BillingID == 0 {
		return c, err
	}
	if _, err := database.NewRaw(`
		UPDATE public.virtfusion_hourly_billing SET last_billed_at = ? WHERE id = ? AND last_billed_at IS NULL`,
		c.End.Format(skypanelTime), c.BillingID).Exec(ctx); err != nil {
		return c, fmt.Errorf("note until when row %d is paid: %w", c.BillingID, err)
	}
	return c, nil
}

func payUpfront(ctx context.Context, database *bun.DB, receipt Receipt, hour time.Duration) (Charge, error) {
	policy, err := db.ReadPolicy(ctx, database)
	if err != nil {
		return Charge{}, err
	}
	start := receipt.Server.Created.UTC()
	c := Charge{
		BillingID: receipt.BillingID, UserID: receipt.Customer.ID, ServerID: receipt.Server.ID,
		Start: start, End: start.AddDate(0, 1, 0), Status: StatusCompleted,
	}
	tokens, what := receipt.Package.Price, "first month"
	if policy.HourlyMode {
		c.End = start.Add(hour)
		tokens, what = FirstTokens(dollars(receipt.Package.Price), policy.HoursPerMonth), "first hour"
	}
	c.Cents = decimal.NewFromInt(tokens)
	c.LedgerID, err = insertLedger(ctx, database.DB, ledgerLine{
		userID: c.UserID, tokens: tokens, status: StatusCompleted, at: start,
		description: fmt.Sprintf("Server #%d - %s, %s", c.ServerID, receipt.Package.Name, what),
	})
	if err != nil {
		return c, err
	}
	if c.BillingID == 0 {
		return c, nil
	}
	return c, insertHour(ctx, database.DB, c.ServerID, start, &c)
}
