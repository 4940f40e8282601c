package api

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

const (
	defaultRuns = 50
	maxRuns     = 200
	// shownFailures of each run are among its problems.
	shownFailures = 20
)

var (
	runKinds  = []string{db.RunSweep, db.RunSync, db.RunReplay, db.RunBulk, db.RunUndo}
	runStates = []string{db.RunRunning, db.RunNeedsApproval, db.RunSucceeded, db.RunIncomplete, db.RunFailed, db.RunSuperseded}
)

// cursorHeader carries what asks for the next page of a list whose data is an
// array.
const cursorHeader = "X-Next-Cursor"

// listRuns answers GET /api/admin/runs.
func (a *API) listRuns(c echo.Context) error {
	query, err := readRunsQuery(c)
	if err != nil {
		return err
	}
	limit := query.Limit
	query.Limit++ // one more tells whether there is a next page
	found, err := db.Runs(c.Request().Context(), a.db, query)
	if err != nil {
		return fault(err)
	}
	if len(found) > limit {
		found = found[:limit]
		c.Response().Header().Set(cursorHeader, runCursor(&found[limit-1]))
	}
	runs, err := a.toRuns(c.Request().Context(), found)
	if err != nil {
		return fault(err)
	}
	return succeed(c, runs)
}

func readRunsQuery(c echo.Context) (db.RunsQuery, error) {
	q := db.RunsQuery{Kind: c.QueryParam("kind"), State: c.QueryParam("state"), Limit: defaultRuns}
	if q.Kind != "" && !slices.Contains(runKinds, q.Kind) {
		return q, badRequest("bad_kind", "kind must be one of "+strings.Join(runKinds, ", "))
	}
	if q.State != "" && !slices.Contains(runStates, q.State) {
		return q, badRequest("bad_state", "state must be one of "+strings.Join(runStates, ", "))
	}
	if user := c.QueryParam("user"); user != "" {
		id, err := readUserID(user, "bad_user")
		if err != nil {
			return q, err
		}
		q.UserID = &id
	}
	if limit := c.QueryParam("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 {
			return q, badRequest("bad_limit", "limit must be a number from 1 to 200")
		}
		q.Limit = min(n, maxRuns)
	}
	if cursor := c.QueryParam("cursor"); cursor != "" {
		var ok bool
		if q.BeforeStart, q.BeforeID, ok = readRunCursor(cursor); !ok {
			return q, badRequest("bad_cursor", "cursor must be what "+cursorHeader+" of the page before said")
		}
	}
	return q, nil
}

// runCursor names the last run of a page: its start in microseconds, and its id.
func runCursor(r *db.Run) string {
	return strconv.FormatInt(r.StartedAt.UnixMicro(), 10) + "." + r.ID
}

// lastMoment is the last one that PostgreSQL and RFC 3339 both know.
var lastMoment = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func readRunCursor(cursor string) (start time.Time, id string, ok bool) {
	micros, id, _ := strings.Cut(cursor, ".")
	n, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || n < 0 || n > lastMoment.UnixMicro() || !runID.MatchString(id) {
		return time.Time{}, "", false
	}
	return time.UnixMicro(n), id, true
}

// showRun answers GET /api/admin/runs/:id.
func (a *API) showRun(c echo.Context) error {
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	found, err := db.ReadRun(c.Request().Context(), a.db, id)
	if err != nil {
		return runFault(err)
	}
	run, err := a.toRun(c.Request().Context(), &found)
	if err != nil {
		return fault(err)
	}
	return succeed(c, run)
}

// approveRun answers POST /api/admin/runs/:id/approve.
func (a *API) approveRun(c echo.Context) error {
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	mark := c.QueryParam("preview")
	if mark != "" && !runID.MatchString(mark) {
		return badRequest("bad_preview", "preview must be the mark of the preview that is approved: preview.mark of the run")
	}
	ctx := c.Request().Context()
	found, approved, err := db.ApprovePreview(ctx, a.db, id, mark, caller(c).name, a.now())
	if db.Taken(err) { // by a newer run, which is at work
		found, err = db.ReadRun(ctx, a.db, id)
	}
	if err != nil {
		return runFault(err)
	}
	if p := found.Preview; !approved && mark != "" && found.State == db.RunNeedsApproval && (p == nil || p.Mark != mark) {
		return refuse(http.StatusConflict, "preview_changed", "the run was previewed again since, and would do something else: look at it once more, and approve that")
	}
	if !approved {
		return refuse(http.StatusConflict, "run_not_waiting", whyNotWaiting(&found))
	}
	run, err := a.toRun(ctx, &found)
	if err != nil {
		return fault(err)
	}
	a.log.Info().Str("by", caller(c).name).Str("run", id).Msg("a run was approved")
	return accept(c, run, "approved: the run goes on")
}

// whyNotWaiting says why a run cannot be approved, and what can be.
func whyNotWaiting(r *db.Run) string {
	switch {
	case r.State == db.RunSuperseded && r.SupersededBy != "":
		return "run " + r.SupersededBy + ", which is newer, took over what this one found: look at that one"
	case r.State == db.RunNeedsApproval && r.DryRun:
		return "this was a dry run: start a run that is none, and approve that one if it asks"
	case r.State == db.RunNeedsApproval && r.UserID == nil:
		return "a newer sweep is at work, and takes over what this one found: approve that one, if it asks"
	case r.State == db.RunNeedsApproval:
		return "a sweep, or a newer sync of the user, is at work, and may take over what this one found: look again when it has ended"
	case r.State == db.RunRunning && r.ApprovedAt != nil:
		return fmt.Sprintf("it was approved already, by %s at %s, and goes on", r.ApprovedBy, clock(*r.ApprovedAt))
	}
	return fmt.Sprintf("the run does not wait for approval: it is %q", r.State)
}

// runID is what a run's id looks like. Nothing else reaches the database or a
// header.
var runID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// readRunID reads the run that the path names; what cannot be the id of one is
// nobody's.
func readRunID(c echo.Context) (string, error) {
	if id := c.Param("id"); runID.MatchString(id) {
		return id, nil
	}
	return "", runFault(sql.ErrNoRows)
}

func runFault(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return refuse(http.StatusNotFound, "run_not_found", "there is no run with this id, or it was long ago: GET /api/user/servers/sync/history lists one's own, GET /api/admin/runs all")
	}
	return fault(err)
}

// toRun adds to a run what its servers say.
func (a *API) toRun(ctx context.Context, r *db.Run) (*Run, error) {
	runs, err := a.toRuns(ctx, []db.Run{*r})
	if err != nil {
		return nil, err
	}
	return &runs[0], nil
}

func (a *API) toRuns(ctx context.Context, found []db.Run) ([]Run, error) {
	runs := make([]Run, 0, len(found))
	if len(found) == 0 {
		return runs, nil
	}
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].ID
	}
	totals, err := db.TotalsOfRuns(ctx, a.db, ids)
	if err != nil {
		return nil, err
	}
	failures, err := db.FailuresOfRuns(ctx, a.db, ids, shownFailures)
	if err != nil {
		return nil, err
	}
	for i := range found {
		run := toRun(&found[i], totals[found[i].ID])
		for _, f := range failures {
			if f.RunID == run.ID {
				run.Problems = append(run.Problems, failureOf(f))
			}
		}
		runs = append(runs, run)
	}
	return runs, nil
}

// The codes of a run's problems with single servers.
const (
	codeServerFailed = "server_failed"
	codeNotUndone    = "not_undone" // something of it could not be taken back
)

// failureOf is a server with which a run has a problem.
func failureOf(f db.RunFailure) Problem {
	code := codeNotUndone
	if f.Failed {
		code = codeServerFailed
	}
	return Problem{Code: code, Message: f.Error, ServerID: &f.ServerID}
}
