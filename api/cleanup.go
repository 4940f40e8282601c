package api

import (
	"context"
	"slices"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	// maxFindings bounds what one call looks at, for each rule.
	maxFindings = 1000
	// redecideAtOnce is how many servers are decided in one transaction.
	redecideAtOnce = 200
)

// cleanup answers POST /api/admin/cleanup.
func (a *API) cleanup(c echo.Context) error {
	if err := readOptions(c, "dryRun"); err != nil {
		return err
	}
	dryRun, err := dryRunParam(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	found, more, err := db.FindCleanup(ctx, a.db, maxFindings)
	if err != nil {
		return fault(err)
	}
	result := Cleanup{DryRun: dryRun, Truncated: more, Findings: toFindings(found)}
	if !dryRun && len(found) > 0 {
		if err := a.clean(ctx, found, &result); err != nil {
			return fault(err)
		}
		a.log.Info().Str("by", caller(c).name).Int("findings", len(found)).Int("changed", result.Changed).Int("voided", result.Voided).
			Msg("cleaned up duplicate and orphaned records")
	}
	return succeed(c, result)
}

// clean has the servers of the findings decided again and orphaned charges
// voided, and then looks which findings are still there: what a finding says
// would be done is a forecast, this is the truth.
func (a *API) clean(ctx context.Context, found []db.CleanupFinding, result *Cleanup) error {
	for ids := range slices.Chunk(mendable(found), redecideAtOnce) {
		changed, err := a.books.Redecide(ctx, ids)
		if err != nil {
			return err
		}
		result.Changed += changed
	}
	var err error
	if result.Voided, err = a.books.VoidOrphanedCharges(ctx); err != nil {
		return err
	}
	left, _, err := db.FindCleanup(ctx, a.db, maxFindings)
	if err != nil {
		return err
	}
	for i := range result.Findings {
		f := &result.Findings[i]
		f.Done = new(!slices.ContainsFunc(left, func(l db.CleanupFinding) bool {
			return string(l.Rule) == f.Rule && l.ServerID == f.ServerID
		}))
	}
	return nil
}

// mendable are the servers that deciding again may mend.
func mendable(found []db.CleanupFinding) []int64 {
	var ids []int64
	for i := range found {
		switch f := &found[i]; actionFor(f) {
		case actionWithdraw, actionSwitchOff:
			ids = append(ids, f.ServerID)
		case actionVoid, actionAsk, actionReview:
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
