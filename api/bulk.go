package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	// maxBulk is how many servers one bulk action takes.
	maxBulk = 10_000
	// maxReason is how many characters an operator's reason has at most.
	maxReason = 1000
	// maxResults is how many servers of a run are on a page, defaultResults how
	// many unless somebody asks for more or fewer.
	maxResults, defaultResults = 1000, 100
)

// The bulk actions.
const (
	bulkResync     = "resync"      // ask VirtFusion for each, and bring the books in step
	bulkBillingOn  = "billing-on"  // bill it, whatever SkyPANEL or VirtFusion say
	bulkBillingOff = "billing-off" // do not bill it
	bulkPackage    = "set-package" // bill it as another package
	bulkIgnore     = "ignore"      // leave it alone: no row of ours, and none that is on
	bulkClear      = "clear"       // forget what operators wanted of it
)

// bulkActions are what becomes of operators' wishes by each action. Who wants a
// server billed wants it neither off nor left alone, and so on.
var bulkActions = map[string]db.WishChange{
	bulkResync:     {},
	bulkBillingOn:  {Set: db.WishBillingOn, Drop: []string{db.WishBillingOff, db.WishIgnore, db.WishUndone, db.WishKeep}},
	bulkBillingOff: {Set: db.WishBillingOff, Drop: []string{db.WishBillingOn, db.WishKeep}},
	bulkPackage:    {Set: db.WishPackage, Drop: []string{db.WishKeep}},
	bulkIgnore:     {Set: db.WishIgnore, Drop: []string{db.WishBillingOn, db.WishBillingOff, db.WishKeep}},
	bulkClear:      {Drop: []string{db.WishBillingOn, db.WishBillingOff, db.WishPackage, db.WishIgnore, db.WishUndone, db.WishKeep}},
}

// BulkOrder is what an operator wants done with servers.
type BulkOrder struct {
	IDs    []int64 // VirtFusion's, in order, each once
	Order  db.BulkOrder
	DryRun bool
	By     string // who wants it
}

// bulker works on bulk actions and undoes, in the background of this process. Its
// methods return [ErrNotReady] while it is still starting.
type bulker interface {
	StartBulk(ctx context.Context, o BulkOrder) (runID string, err error)
	StartUndo(ctx context.Context, order db.UndoOrder, dryRun bool, by string) (runID string, err error)
}

// Bulk is what became of a bulk action; in a dry run, what would.
type Bulk struct {
	RunID     string         `json:"runId"`
	Action    string         `json:"action"`
	DryRun    bool           `json:"dryRun"`
	Results   []ServerResult `json:"results"`
	New       int64          `json:"new"`
	Updated   int64          `json:"updated"`
	Unchanged int64          `json:"unchanged"`
	Failed    int64          `json:"failed"`
	Errors    []Problem      `json:"errors"`  // of no one server
	Preview   *Preview       `json:"preview"` // null: not worked out
}

// ServerResult is what became of one server of a run.
type ServerResult struct {
	ID int64 `json:"id"`
	// Result is "new", "updated", "unchanged" or "failed"; "pending" while the
	// run has not come to it; in a dry run "create", "change", "move", "end" or
	// "none", what would become of its billing.
	Result string   `json:"result"`
	Error  *Problem `json:"error,omitempty"`
	// Note says why an operator's wish does nothing to the server, for now.
	Note string `json:"note,omitempty"`
}

// wishWaits says of each status why an operator's wish changes no billing while it
// lasts.
var wishWaits = map[string]string{
	"native":   "SkyPANEL bills it by a record of its own: change that in SkyPANEL; the wish is kept in case that record goes",
	"unlinked": "its owner has no account in SkyPANEL: the wish takes effect once there is one",
	"settling": "it is new: the wish takes effect once it is known that SkyPANEL makes no record of its own",
	"conflict": "SkyPANEL's tables contradict each other about it: the wish takes effect once that is cleared up; its page says what it is",
	"gone":     "VirtFusion has it no more: the wish takes effect should it come back",
}

// bulk answers POST /api/admin/servers/bulk.
func (a *API) bulk(c echo.Context) error {
	ctx := c.Request().Context()
	order, err := a.readBulk(c)
	if err != nil {
		return err
	}
	if a.bulks == nil {
		return fault(ErrNotReady)
	}
	id, err := a.bulks.StartBulk(ctx, order)
	if err != nil {
		return fault(err)
	}
	run, err := a.awaitRun(ctx, id, a.syncWait)
	if err != nil {
		return fault(err)
	}
	if run.State == db.RunRunning {
		return accept(c, run, "the action goes on: look at the run for its end, and at its servers for what became of each")
	}
	told, err := a.toBulk(ctx, run, order.Order.Action)
	if err != nil {
		return fault(err)
	}
	return c.JSON(http.StatusOK, successBody{Success: true, Message: bulkMessage(run, told), Data: told})
}

// readBulk reads what is wanted of which servers.
func (a *API) readBulk(c echo.Context) (o BulkOrder, err error) {
	o.By = caller(c).name
	var filter map[string]json.RawMessage
	var packageID *int64
	if err := requireJSON(c); err != nil {
		return o, err
	}
	err = readBody(c, map[string]any{
		"ids": &o.IDs, "filter": &filter, "action": &o.Order.Action, "packageId": &packageID, "reason": &o.Order.Reason, "dryRun": &o.DryRun,
	})
	if err != nil {
		return o, err
	}
	if o.DryRun, err = alsoDryRun(c, o.DryRun); err != nil {
		return o, err
	}
	change, known := bulkActions[o.Order.Action]
	if !known {
		return o, badRequest("bad_action", "action must be one of resync, billing-on, billing-off, set-package, ignore, clear")
	}
	o.Order.WishChange = change
	if o.Order.Reason = strings.TrimSpace(o.Order.Reason); utf8.RuneCountInString(o.Order.Reason) > maxReason || strings.ContainsFunc(o.Order.Reason, isControl) {
		return o, badRequest("bad_reason", "reason must be one line of at most 1000 characters")
	}
	if err := a.readPackage(c.Request().Context(), &o, packageID); err != nil {
		return o, err
	}
	switch {
	case filter != nil && o.IDs != nil:
		return o, badRequest("bad_ids", "send either ids or a filter")
	case filter != nil:
		o.IDs, err = a.selectServers(c.Request().Context(), filter)
	default:
		err = checkIDs(o.IDs)
	}
	slices.Sort(o.IDs)
	o.IDs = slices.Compact(o.IDs)
	return o, err
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// readPackage takes the package of a set-package: one that SkyPANEL has a price
// for, or its servers would be billed no more.
func (a *API) readPackage(ctx context.Context, o *BulkOrder, packageID *int64) error {
	if o.Order.Action != bulkPackage {
		if packageID != nil {
			return badRequest("bad_package_id", "packageId belongs to the action set-package alone")
		}
		return nil
	}
	if packageID == nil || *packageID < 1 {
		return badRequest("bad_package_id", "set-package needs packageId, VirtFusion's id of a package")
	}
	prices, err := db.ReadPrices(ctx, a.db)
	if err != nil {
		return fault(err)
	}
	if !slices.ContainsFunc(prices, func(p db.PackagePricing) bool { return p.VirtfusionPackageID == *packageID }) {
		return badRequest("unknown_package", fmt.Sprintf("SkyPANEL has no price for package %d: add one there first", *packageID))
	}
	o.Order.PackageID = packageID
	return nil
}

func checkIDs(ids []int64) error {
	switch {
	case len(ids) == 0:
		return badRequest("bad_ids", "send ids, VirtFusion's ids of the servers, or a filter")
	case len(ids) > maxBulk:
		return badRequest("too_many_servers", fmt.Sprintf("a bulk action takes at most %d servers: send them in parts", maxBulk))
	case slices.Min(ids) < 1:
		return badRequest("bad_ids", "an id is a number above 0")
	}
	return nil
}

// selectServers lists the servers that a filter selects, of the same names and
// values as the query of GET /api/admin/servers.
func (a *API) selectServers(ctx context.Context, filter map[string]json.RawMessage) ([]int64, error) {
	values := make(url.Values, len(filter))
	for name, raw := range filter {
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, badRequest("bad_filter", "filter must be an object of texts, numbers, and true or false")
		}
		switch v := value.(type) {
		case string:
			if v == "" { // most likely a variable that was not set; a list would take it for every server
				return nil, badRequest("bad_filter", "filter's "+strconv.QuoteToASCII(shortened(name, 40))+" is empty: say a value, or leave it out")
			}
			values.Set(name, v)
		case float64, bool:
			values.Set(name, string(raw))
		default:
			return nil, badRequest("bad_filter", "filter must be an object of texts, numbers, and true or false")
		}
	}
	if len(values) == 0 {
		return nil, badRequest("bad_filter", "an empty filter would select every server: say which")
	}
	q, err := readServersFilter(values)
	if err != nil {
		return nil, err
	}
	q.Sort, q.Descending, q.After, q.Limit = db.SortID, false, nil, maxBulk+1
	servers, err := db.ListServers(ctx, a.db, q)
	if err != nil {
		return nil, fault(err)
	}
	ids := make([]int64, len(servers))
	for i := range servers {
		ids[i] = servers[i].VirtfusionID
	}
	if len(ids) == 0 {
		return nil, badRequest("nothing_selected", "the filter selects no server")
	}
	return ids, checkIDs(ids)
}

// toBulk tells a run that has ended as the answer to a bulk action.
func (a *API) toBulk(ctx context.Context, run *Run, action string) (*Bulk, error) {
	items, err := db.ItemResults(ctx, a.db, run.ID, 0, maxBulk)
	if err != nil {
		return nil, err
	}
	b := &Bulk{
		RunID: run.ID, Action: action, DryRun: run.DryRun, Results: toResults(items, action), New: run.New, Updated: run.Updated, Unchanged: run.Unchanged,
		Failed: run.Failed, Errors: []Problem{}, Preview: run.Preview,
	}
	for _, p := range run.Problems {
		if p.ServerID == nil {
			b.Errors = append(b.Errors, p)
		}
	}
	return b, nil
}

// toResults tells what became of the servers of a run; action is the bulk action that
// it was, if it was one.
func toResults(items []db.ItemResult, action string) []ServerResult {
	results := make([]ServerResult, len(items))
	wished := bulkActions[action].Set != ""
	for i, item := range items {
		results[i] = ServerResult{ID: item.ServerID, Result: cmp.Or(item.Outcome, item.Effect, "pending")}
		if item.Outcome == db.OutcomeFailed || item.Found == db.FoundUndo && item.Error != "" {
			code := codeNotUndone
			switch {
			case item.Found == db.FoundUnknown:
				code = "unknown_server"
			case item.Outcome == db.OutcomeFailed:
				code = codeServerFailed
			}
			results[i].Error = &Problem{Code: code, Message: item.Error, ServerID: &item.ServerID}
		}
		if r := results[i].Result; wished && (r == db.OutcomeUnchanged || r == db.EffectNone) {
			results[i].Note = wishWaits[item.Status]
		}
	}
	return results
}

func bulkMessage(run *Run, b *Bulk) string {
	switch {
	case run.DryRun:
		return fmt.Sprintf("Dry run: nothing was changed for %d servers", len(b.Results))
	case run.State == db.RunSucceeded:
		return fmt.Sprintf("Done for %d servers", len(b.Results))
	}
	return fmt.Sprintf("Not everything could be done for %d servers: results and errors say what", len(b.Results))
}

// runServers answers GET /api/admin/runs/:id/servers: what became of each.
func (a *API) runServers(c echo.Context) error {
	ctx := c.Request().Context()
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	limit, after := defaultResults, int64(0)
	if v := c.QueryParam("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return badRequest("bad_limit", "limit must be a number from 1 to 1000")
		}
		limit = min(n, maxResults)
	}
	if v := c.QueryParam("cursor"); v != "" {
		if after, err = strconv.ParseInt(v, 10, 64); err != nil || after < 0 {
			return badRequest("bad_cursor", "cursor must be nextCursor of the page before")
		}
	}
	run, err := db.ReadRun(ctx, a.db, id)
	if err != nil {
		return runFault(err)
	}
	action := ""
	if run.Progress.Bulk != nil {
		action = run.Progress.Bulk.Action
	}
	items, err := db.ItemResults(ctx, a.db, id, after, limit+1)
	if err != nil {
		return fault(err)
	}
	page := RunServers{}
	if len(items) > limit {
		items = items[:limit]
		page.NextCursor = new(strconv.FormatInt(items[limit-1].ServerID, 10))
	}
	page.Items = toResults(items, action)
	return succeed(c, page)
}

// RunServers is a page of a run's servers, in the order of their ids.
type RunServers struct {
	Items      []ServerResult `json:"items"`
	NextCursor *string        `json:"nextCursor"` // null: there are no more
}
