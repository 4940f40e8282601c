package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
	"serversync/internal/httpserver"
)

type successBody struct {
	Success bool   `json:"success"` // always true
	Message string `json:"message,omitempty"`
	Data    any    `json:"data"`
}

func succeed(c echo.Context, data any) error {
	return c.JSON(http.StatusOK, successBody{Success: true, Data: data})
}

// accept answers that a run goes on, and where to look for it.
func accept(c echo.Context, run *Run, message string) error {
	c.Response().Header().Set(echo.HeaderLocation, "/api/admin/runs/"+run.ID)
	return c.JSON(http.StatusAccepted, successBody{Success: true, Message: message, Data: run})
}

func refuse(status int, code, message string) *httpserver.StatusError {
	return &httpserver.StatusError{Status: status, Code: code, Message: message}
}

func badRequest(code, message string) error {
	return refuse(http.StatusBadRequest, code, message)
}

// ErrNotReady is what the interfaces that the API asks return while what they
// stand for is still starting.
var ErrNotReady = errors.New("still starting")

// ErrNoUser is what the interfaces that the API asks return for a user whom
// SkyPANEL does not have.
var ErrNoUser = db.ErrNoUser

// fault is the answer to an error of the database or the reconciler: 503 while
// the database is away or not set up, else a fault of ours.
func fault(err error) error {
	if errors.Is(err, ErrNotReady) {
		e := refuse(http.StatusServiceUnavailable, "not_ready", "the service is still starting; GET /readyz says what it waits for")
		e.RetryAfter, e.Err = 5*time.Second, err
		return e
	}
	if errors.Is(err, ErrNoUser) {
		return refuse(http.StatusNotFound, "user_not_found", "SkyPANEL has no user with this id: it is users.id that is meant, not VirtFusion's id of the user")
	}
	if db.Classify(err) == db.FaultOfData {
		return err
	}
	e := refuse(http.StatusServiceUnavailable, "database_unavailable", "the database cannot be used right now; GET /readyz says more")
	e.RetryAfter, e.Err = 5*time.Second, err
	return e
}

// maxUserID bounds SkyPANEL's users.id, an integer of 32 bits.
const maxUserID = math.MaxInt32

// readUserID reads SkyPANEL's id of a user.
func readUserID(value, code string) (int64, error) {
	id, err := strconv.ParseInt(value, 10, 64)
	if err != nil || id < 1 || id > maxUserID || value[0] == '+' {
		return 0, badRequest(code, "a user is named by SkyPANEL's users.id, a number from 1 to 2147483647")
	}
	return id, nil
}

// dryRunParam reads the parameter dryRun; missing is false. Empty is refused:
// whoever names it wants to look first.
func dryRunParam(c echo.Context) (bool, error) {
	if !c.QueryParams().Has("dryRun") {
		return false, nil
	}
	flag, err := strconv.ParseBool(c.QueryParam("dryRun"))
	if err != nil {
		return false, badRequest("bad_dry_run", "dryRun must be true or false")
	}
	return flag, nil
}
