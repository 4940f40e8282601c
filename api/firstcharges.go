package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultCharges = 50
	maxCharges     = 200
	// maxCreditID bounds what a person says is VirtFusion's record.
	maxCreditID = 64
)

// FirstCharge is the credit to be taken for the first hour of a billing row of
// ours. Times are UTC.
type FirstCharge struct {
	ID            int64  `json:"id"`
	State         string `json:"state"`
	ServerID      int64  `json:"serverId"` // VirtFusion's
	UserID        int64  `json:"userId"`   // SkyPANEL's users.id
	BillingID     int64  `json:"billingId"`
	TransactionID int64  `json:"hourlyTransactionId"` // of virtfusion_hourly_transactions
	Tokens        int64  `json:"tokens"`              // each a cent
	// Reference names it in VirtFusion's records, as reference_2.
	Reference string     `json:"reference"`
	Reason    *string    `json:"reason"`
	Attempts  int64      `json:"attempts"`
	CreatedAt time.Time  `json:"createdAt"`
	DueAt     time.Time  `json:"dueAt"` // not taken before
	TakingAt  *time.Time `json:"takingAt"`
	EndedAt   *time.Time `json:"endedAt"`
	CreditID  *string    `json:"creditId"` // VirtFusion's
	LedgerID  *int64     `json:"transactionId"`
	// Todo says what a person has to do; null: nothing.
	Todo *string `json:"todo"`
}

func toFirstCharge(c *db.FirstCharge) FirstCharge {
	v := FirstCharge{
		ID: c.ID, State: string(c.State), ServerID: c.ServerID, UserID: c.UserID, BillingID: c.BillingID, TransactionID: c.TransactionID,
		Tokens: c.Tokens, Reference: c.Reference, Reason: orNull(c.Reason), Attempts: c.Attempts,
		CreatedAt: c.CreatedAt.UTC(), DueAt: c.DueAt.UTC(), TakingAt: utc(c.TakingAt), EndedAt: utc(c.EndedAt),
		CreditID: orNull(c.CreditID), LedgerID: c.LedgerID,
	}
	if c.State == db.ChargeUnclear {
		v.Todo = new(fmt.Sprintf(`look in VirtFusion at the credit of user %d for %s with reference_1 %d, reference_2 %q; then POST /api/admin/charges/%d/resolve {"taken": true} or {"taken": false}`,
			c.UserID, tokens(c.Tokens), c.TransactionID, c.Reference, c.ID))
	}
	return v
}

// listCharges answers GET /api/admin/charges.
func (a *API) listCharges(c echo.Context) error {
	given, err := readParams(c, append([]string{"state"}, pageParams...))
	if err != nil {
		return err
	}
	limit, err := readLimit(given.Get("limit"), defaultCharges, maxCharges)
	if err != nil {
		return err
	}
	var cursor int64
	if value := given.Get("cursor"); value != "" {
		if cursor, err = strconv.ParseInt(value, 10, 64); err != nil || cursor < 1 {
			return badRequest("bad_cursor", "cursor must be the nextCursor of the page before")
		}
	}
	state := db.ChargeState(given.Get("state"))
	if state != "" && !slices.Contains(db.ChargeStates(), state) {
		return badRequest("bad_state", "state must be one of due, taking, taken, failed, unclear, cancelled")
	}
	found, err := db.ListCharges(c.Request().Context(), a.db, state, cursor, limit+1)
	if err != nil {
		return fault(err)
	}
	page := Page[FirstCharge]{Items: make([]FirstCharge, 0, limit)}
	if len(found) > limit {
		found = found[:limit]
		page.NextCursor = new(strconv.FormatInt(found[limit-1].ID, 10))
	}
	for i := range found {
		page.Items = append(page.Items, toFirstCharge(&found[i]))
	}
	return succeed(c, page)
}

// resolveCharge answers POST /api/admin/charges/:id/resolve.
func (a *API) resolveCharge(c echo.Context) error {
	if _, err := readParams(c, nil); err != nil {
		return err
	}
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil || id < 1 {
		return badRequest("bad_charge_id", "a first charge is named by its id, a number; GET /api/admin/charges lists them")
	}
	var taken *bool
	var creditID string
	if err := readBody(c, map[string]any{"taken": &taken, "creditId": &creditID}); err != nil {
		return err
	}
	switch {
	case taken == nil:
		return badRequest("taken_missing", `say whether VirtFusion took the credit: {"taken": true} or {"taken": false}`)
	case len(creditID) > maxCreditID || creditID != "" && !*taken:
		return badRequest("bad_credit_id", "creditId is VirtFusion's id of what was taken, at most 64 characters; of what was not taken there is none")
	}
	by := caller(c).name
	resolved, err := a.books.ResolveCharge(c.Request().Context(), id, *taken, creditID, by)
	switch {
	case errors.Is(err, db.ErrNoCharge):
		return refuse(http.StatusNotFound, "charge_not_found", "there is no first charge with this id; GET /api/admin/charges lists them")
	case errors.Is(err, db.ErrChargeState) && resolved.State == db.ChargeTaking:
		return refuse(http.StatusConflict, "charge_in_hand", "its credit is being taken right now; what became of it is known within two minutes")
	case errors.Is(err, db.ErrChargeState):
		return refuse(http.StatusConflict, "charge_settled", fmt.Sprintf("it is %s already: there is nothing to resolve", resolved.State))
	case err != nil:
		return fault(err)
	}
	a.log.Info().Str("by", by).Int64("charge", id).Bool("taken", *taken).Str("state", string(resolved.State)).Msg("a first charge was resolved")
	return succeed(c, toFirstCharge(&resolved))
}
