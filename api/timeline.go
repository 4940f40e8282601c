package api

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultLines = 50
	maxLines     = 200
	// shownCharges of each billing row are in a timeline: the newest.
	shownCharges = 25
)

// timeline answers GET /api/admin/servers/:id/timeline.
func (a *API) timeline(c echo.Context) error {
	query, err := readTimelineQuery(c)
	if err != nil {
		return err
	}
	story, err := db.ReadStory(c.Request().Context(), a.db, query)
	switch {
	case errors.Is(err, db.ErrNoServer):
		return refuse(http.StatusNotFound, "unknown_server", "no server with this id or UUID is in the inventory; a sweep finds every server that VirtFusion has")
	case errors.Is(err, db.ErrAmbiguousUUID):
		return refuse(http.StatusConflict, "ambiguous_uuid", "several servers carry this UUID: ask by VirtFusion id")
	case err != nil:
		return fault(err)
	}
	return succeed(c, toTimeline(&story, a.now()))
}

func readTimelineQuery(c echo.Context) (db.StoryQuery, error) {
	q := db.StoryQuery{Lines: defaultLines, Charges: shownCharges}
	ref, err := ParseServer(c.Param("id"))
	if err != nil {
		return q, badRequest("bad_server_id", err.Error())
	}
	q.ServerID, q.UUID = ref.ID, ref.UUID
	switch c.QueryParam("order") {
	case "", "newest":
	case "oldest":
		q.OldestFirst = true
	default:
		return q, badRequest("bad_order", "order must be newest or oldest")
	}
	if limit := c.QueryParam("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 {
			return q, badRequest("bad_limit", "limit must be a number from 1 to 200")
		}
		q.Lines = min(n, maxLines)
	}
	if cursor := c.QueryParam("cursor"); cursor != "" {
		if q.Cursor, err = strconv.ParseInt(cursor, 10, 64); err != nil || q.Cursor < 1 {
			return q, badRequest("bad_cursor", "cursor must be the nextCursor of the page before")
		}
	}
	return q, nil
}
