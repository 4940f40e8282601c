package api

import (
	"encoding/json"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultEntries = 50
	maxEntries     = 200
)

// HistoryEntry is a run of a user's, or a change of one of the user's servers.
type HistoryEntry struct {
	Type   string    `json:"type"` // "run" or "change"
	At     time.Time `json:"at"`
	Run    *Run      `json:"run,omitempty"`
	Change *Change   `json:"change,omitempty"`
}

// Change is something that became of a server, or of its billing.
type Change struct {
	ID         int64   `json:"id"`
	ServerID   int64   `json:"serverId"` // VirtFusion's
	ServerName string  `json:"serverName"`
	Kind       string  `json:"kind"`
	Message    string  `json:"message"` // the kind, in words
	BillingID  *int64  `json:"billingId"`
	RunID      *string `json:"runId"`
	// Operators also see why, and what it was before.
	*ChangeDetail
}

// ChangeDetail is what only administrators see of a change: it may name others.
type ChangeDetail struct {
	Reason  string          `json:"reason"`
	Before  json.RawMessage `json:"before"` // an object, or null
	After   json.RawMessage `json:"after"`
	Source  string          `json:"source"`
	EventID *string         `json:"eventId"`
}

// ownHistory answers GET /api/user/servers/sync/history.
func (a *API) ownHistory(c echo.Context) error {
	who := caller(c)
	return a.history(c, who.userID, func(e *HistoryEntry) {
		if e.Run != nil {
			e.Run = forUser(e.Run, who.name)
		} else {
			e.Change.ChangeDetail = nil
		}
	})
}

// userHistory answers GET /api/admin/users/:id/servers/sync/history.
func (a *API) userHistory(c echo.Context) error {
	userID, err := readUserID(c.Param("id"), "bad_user_id")
	if err != nil {
		return err
	}
	if err := db.UserExists(c.Request().Context(), a.db, userID); err != nil {
		return fault(err)
	}
	return a.history(c, userID, func(*HistoryEntry) {})
}

// history answers with a page of a user's history; show takes from an entry what
// the caller may not see.
func (a *API) history(c echo.Context, userID int64, show func(*HistoryEntry)) error {
	limit, after, err := readHistoryPage(c)
	if err != nil {
		return err
	}
	found, err := db.UserHistory(c.Request().Context(), a.db, userID, after, limit+1)
	if err != nil {
		return fault(err)
	}
	page := Page[HistoryEntry]{Items: []HistoryEntry{}}
	if len(found) > limit {
		found = found[:limit]
		page.NextCursor = new(historyCursor(&found[limit-1]))
	}
	runs, err := a.runsOf(c, found)
	if err != nil {
		return fault(err)
	}
	for i := range found {
		e := HistoryEntry{Type: "run", At: found[i].At.UTC()}
		if found[i].Change != nil {
			e.Type, e.Change = "change", toChange(found[i].Change)
		} else if e.Run = runs[found[i].RunID]; e.Run == nil {
			continue // it was forgotten in between
		}
		show(&e)
		page.Items = append(page.Items, e)
	}
	return succeed(c, page)
}

// runsOf reads the runs of a page.
func (a *API) runsOf(c echo.Context, entries []db.Entry) (map[string]*Run, error) {
	var ids []string
	for i := range entries {
		if id := entries[i].RunID; id != "" {
			ids = append(ids, id)
		}
	}
	found, err := db.RunsByID(c.Request().Context(), a.db, ids)
	if err != nil {
		return nil, err
	}
	runs, err := a.toRuns(c.Request().Context(), found)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*Run, len(runs))
	for i := range runs {
		byID[runs[i].ID] = &runs[i]
	}
	return byID, nil
}

func toChange(u *db.UserChange) *Change {
	return &Change{
		ID: u.ID, ServerID: u.VirtfusionID, ServerName: u.ServerName, Kind: u.Kind, Message: changeMessage(u),
		BillingID: u.BillingID, RunID: orNull(u.RunID),
		ChangeDetail: &ChangeDetail{Reason: u.Reason, Before: u.Before, After: u.After, Source: u.Source, EventID: orNull(u.EventID)},
	}
}

// moment of a history, as a cursor holds it.
type historyPlace struct {
	At   int64  `json:"t"` // microseconds
	Run  string `json:"r,omitempty"`
	Line int64  `json:"l,omitempty"`
}

func historyCursor(e *db.Entry) string {
	k := e.Key()
	return encodeCursor(historyPlace{At: k.At.UnixMicro(), Run: k.RunID, Line: k.Line})
}

func readHistoryPage(c echo.Context) (limit int, after *db.EntryKey, err error) {
	var given url.Values
	if given, err = readParams(c, pageParams); err != nil {
		return 0, nil, err
	}
	if limit, err = readLimit(given.Get("limit"), defaultEntries, maxEntries); err != nil {
		return 0, nil, err
	}
	cursor := given.Get("cursor")
	if cursor == "" {
		return limit, nil, nil
	}
	p, ok := decodeCursor[historyPlace](cursor)
	if !ok || p.At < 0 || p.At > lastMoment.UnixMicro() || p.Line < 0 || (p.Line == 0) == (p.Run == "") || p.Run != "" && !runID.MatchString(p.Run) {
		return 0, nil, badRequest("bad_cursor", "cursor must be the nextCursor of the page before")
	}
	return limit, &db.EntryKey{At: time.UnixMicro(p.At), RunID: p.Run, Line: p.Line}, nil
}
