package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
)

// statusFor is how long a user's status is not counted again, as long as
// nothing becomes of the user's runs.
const statusFor = 30 * time.Second

// pathUserRun shows a user one of their own runs.
const pathUserRun = "/api/user/servers/sync/runs/"

// Me is who calls.
type Me struct {
	ID    int64  `json:"id"` // SkyPANEL's users.id
	Name  string `json:"name"`
	Admin bool   `json:"admin"` // has the role admin
}

// me answers GET /api/user/me.
func (a *API) me(c echo.Context) error {
	who := caller(c)
	name, err := db.ReadUserName(c.Request().Context(), a.db, who.userID)
	if err != nil {
		return fault(err)
	}
	if name == "" {
		name = "user " + strconv.FormatInt(who.userID, 10)
	}
	return succeed(c, Me{ID: who.userID, Name: name, Admin: who.role == roleAdmin})
}

// syncOwn answers POST /api/user/servers/sync.
func (a *API) syncOwn(c echo.Context) error {
	query, err := a.readSyncQuery(c)
	if err != nil {
		return err
	}
	if query.dryRun { // dry runs join nothing: anybody could have as many as they like at once
		return badRequest("bad_dry_run", "only an administrator can ask for a dry run")
	}
	query.userID, query.own = caller(c).userID, true
	return a.sync(c, query)
}

// showOwnRun answers GET /api/user/servers/sync/runs/:id.
func (a *API) showOwnRun(c echo.Context) error {
	id, err := readRunID(c)
	if err != nil {
		return err
	}
	ctx, who := c.Request().Context(), caller(c)
	found, err := db.ReadUserRun(ctx, a.db, id, who.userID)
	if err != nil {
		return runFault(err)
	}
	run, err := a.toRun(ctx, &found)
	if err != nil {
		return fault(err)
	}
	return succeed(c, forUser(run, who.name))
}

// ownStatus answers GET /api/user/servers/sync/status.
func (a *API) ownStatus(c echo.Context) error {
	status, err := a.rememberedStatus(c.Request().Context(), caller(c).userID)
	if err != nil {
		return fault(err)
	}
	return succeed(c, status)
}

// rememberedStatus counts a user's servers, at most every 30 s while nothing
// becomes of the user's runs: what was counted is remembered under them.
func (a *API) rememberedStatus(ctx context.Context, userID int64) (UserStatus, error) {
	mark, err := db.UserRunsMark(ctx, a.db, userID) // before the counting: it may already be newer, never older
	if err != nil {
		return UserStatus{}, err
	}
	key, now := strconv.FormatInt(userID, 10)+" "+mark, a.now()
	if status, ok := a.statuses.get(key, now); ok {
		return status, nil
	}
	status, err := a.userStatus(ctx, userID)
	if err == nil {
		a.statuses.put(key, status, now)
	}
	return status, err
}

// forUser is a run as the user whose run it is may see it: in words for
// customers, and without what is the operators' affair or tells of others.
func forUser(run *Run, name string) *Run {
	own := *run
	own.Problems = problemsForUser(run.Problems)
	own.Preview, own.SupersededBy = nil, nil
	if !samePerson(own.RequestedBy, name) {
		own.RequestedBy = "an administrator"
	}
	if own.ApprovedBy != nil {
		own.ApprovedBy = new("an administrator")
	}
	own.Note = notesForUser[run.State]
	return &own
}

// samePerson tells whether two names of callers are one user's, by whatever key
// or session: "user 2 (session)" and "user 2 (api key 9)" are.
func samePerson(one, other string) bool {
	a, _, _ := strings.Cut(one, " (")
	b, _, _ := strings.Cut(other, " (")
	return a == b
}

// notesForUser say each state of a run.
var notesForUser = map[string]string{
	db.RunRunning:       "your servers are being synchronized",
	db.RunNeedsApproval: "so many servers would change that an administrator has to approve it",
	db.RunSucceeded:     "all your servers are in step",
	db.RunIncomplete:    "not everything could be seen or done: problems says what",
	db.RunFailed:        "your servers could not be synchronized: problems says why",
	db.RunSuperseded:    "a newer synchronization took over",
}

// problemsForUser keeps codes and servers. The operators' words for them may
// hold addresses, settings, and the names of others.
func problemsForUser(problems []Problem) []Problem {
	own := make([]Problem, len(problems))
	for i, p := range problems {
		own[i] = Problem{Code: p.Code, Message: problemForUser(p.Code), ServerID: p.ServerID}
	}
	return own
}

func problemForUser(code string) string {
	switch code {
	case "user_not_linked":
		return "your account is not linked to the servers' panel yet: ask the support to link it"
	case "virtfusion_unauthorized", "virtfusion_forbidden", "virtfusion_not_configured":
		return "the servers' panel refuses to tell us of your servers: ask the support to mend our access"
	case "virtfusion_unavailable", "virtfusion_rate_limited":
		return "the servers' panel does not answer at the moment: try again in a few minutes"
	case "virtfusion_not_found":
		return "the servers' panel does not know this any more"
	case "server_failed":
		return "this server could not be brought in step yet: try again in a few minutes, and ask the support if that does not help"
	}
	return "something did not work: try again in a few minutes, and ask the support if that does not help"
}

// acceptOwn answers that a user's own sync goes on, and where to look for it.
func acceptOwn(c echo.Context, run *Run) error {
	own := forUser(run, caller(c).name)
	c.Response().Header().Set(echo.HeaderLocation, pathUserRun+run.ID)
	return c.JSON(http.StatusAccepted, successBody{Success: true, Message: own.Note, Data: own})
}
