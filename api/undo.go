package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

// Undoes is what an undo takes back: what a run did, or one server's last change.
type Undoes struct {
	RunID    *string    `json:"runId"`
	ServerID *int64     `json:"serverId"`
	At       *time.Time `json:"at"` // of the server's change
}

func toUndoes(o *db.UndoOrder) *Undoes {
	switch {
	case o == nil:
		return nil
	case o.RunID != "":
		return &Undoes{RunID: &o.RunID}
	default:
		return &Undoes{ServerID: &o.ServerID, At: utc(&o.At)}
	}
}

// undoRun answers POST /api/admin/runs/:id/undo.
func (a *API) undoRun(c echo.Context) error {
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	run, err := db.ReadRun(ctx, a.db, id)
	if err != nil {
		return runFault(err)
	}
	totals, err := db.TotalsOfRuns(ctx, a.db, []string{id})
	if err != nil {
		return fault(err)
	}
	done := totals[id].New + totals[id].Updated // by a part that was applied before it asked again
	switch {
	case run.DryRun:
		return refuse(http.StatusConflict, "nothing_to_undo", "this was a dry run: it changed nothing")
	case run.State == db.RunRunning:
		return refuse(http.StatusConflict, "run_not_ended", "the run is at work: undo it when it has ended")
	case run.State == db.RunNeedsApproval && done == 0:
		return refuse(http.StatusConflict, "nothing_to_undo", "the run waits for approval and has billed nobody: not approved, it does nothing; for servers that are never to be billed there is the bulk action ignore")
	}
	return a.undo(c, db.UndoOrder{RunID: id})
}

// undoServer answers POST /api/admin/servers/:id/undo.
func (a *API) undoServer(c echo.Context) error {
	ref, err := ParseServer(c.Param("id"))
	if err != nil || ref.ID == 0 {
		return badRequest("bad_server_id", "a server is named here by its VirtFusion id, such as 14")
	}
	at, err := db.LastChange(c.Request().Context(), a.db, ref.ID)
	if errors.Is(err, db.ErrNoChange) {
		return refuse(http.StatusNotFound, "nothing_to_undo", "nothing of this server's billing was ever changed; GET /api/admin/servers/{id}/timeline shows what is known of it")
	}
	if err != nil {
		return fault(err)
	}
	return a.undo(c, db.UndoOrder{ServerID: ref.ID, At: at})
}

// undo makes a run that takes something back, and waits for it for a while.
func (a *API) undo(c echo.Context, order db.UndoOrder) error {
	query, err := a.readSyncQuery(c)
	if err != nil {
		return err
	}
	dryRun := query.dryRun
	if a.bulks == nil {
		return fault(ErrNotReady)
	}
	ctx := c.Request().Context()
	id, err := a.bulks.StartUndo(ctx, order, dryRun, caller(c).name)
	if err != nil {
		return fault(err)
	}
	a.log.Info().Str("by", caller(c).name).Str("run", id).Bool("dry_run", dryRun).Msg("an operator undoes " + order.Words())
	run, err := a.awaitRun(ctx, id, query.wait)
	if err != nil {
		return fault(err)
	}
	if run.State == db.RunRunning {
		return accept(c, run, "the undo goes on: look at the run for its end, and at its servers for what became of each")
	}
	if err := a.listLeft(ctx, run); err != nil {
		return fault(err)
	}
	return c.JSON(http.StatusOK, successBody{Success: true, Message: undoMessage(run), Data: run})
}

// listLeft puts all that an undo has left, up to a thousand servers, among its
// problems.
func (a *API) listLeft(ctx context.Context, run *Run) error {
	failures, err := db.FailuresOfRuns(ctx, a.db, []string{run.ID}, maxResults)
	if err != nil {
		return err
	}
	run.Problems = []Problem{}
	for _, f := range failures {
		run.Problems = append(run.Problems, failureOf(f))
	}
	return nil
}

func undoMessage(run *Run) string {
	done, left := "taken back for", ""
	if run.DryRun {
		done = "to be taken back for"
	}
	if n := len(run.Problems); n > 0 {
		left = fmt.Sprintf("; of %d not everything: the problems say what is left", n)
	}
	if !run.DryRun && run.State == db.RunSucceeded && run.New+run.Updated == 0 {
		return fmt.Sprintf("Nothing was changed: of %d servers there was nothing, or nothing more, to take back%s", run.Expected, left)
	}
	return fmt.Sprintf("What was done is %s %d servers%s", done, run.Expected, left)
}
