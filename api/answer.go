package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/db"
	"serversync/internal/httpserver"
)

type successBody struct {
	Success bool `json:"success"` // always true
	Data    any  `json:"data"`
}

func succeed(c echo.Context, data any) error {
	return c.JSON(http.StatusOK, successBody{Success: true, Data: data})
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

// fault is the answer to an error of the database or the reconciler: 503 while
// the database is away or not set up, else a fault of ours.
func fault(err error) error {
	if errors.Is(err, ErrNotReady) {
		e := refuse(http.StatusServiceUnavailable, "not_ready", "the service is still starting; GET /readyz says what it waits for")
		e.RetryAfter, e.Err = 5*time.Second, err
		return e
	}
	if db.Classify(err) == db.FaultOfData {
		return err
	}
	e := refuse(http.StatusServiceUnavailable, "database_unavailable", "the database cannot be used right now; GET /readyz says more")
	e.RetryAfter, e.Err = 5*time.Second, err
	return e
}

// flagParam reads a true-or-false parameter; missing or empty is false.
func flagParam(c echo.Context, name, code string) (bool, error) {
	value := c.QueryParam(name)
	if value == "" {
		return false, nil
	}
	flag, err := strconv.ParseBool(value)
	if err != nil {
		return false, badRequest(code, name+" must be true or false")
	}
	return flag, nil
}
