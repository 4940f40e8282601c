package httpserver

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
)

// StatusError is an error whose answer is known. A handler returns it; the
// client sees Status, Code and Message, the log sees Err too.
type StatusError struct {
	Status int    // HTTP status
	Code   string // stable, for programs: snake_case
	// Message is for people, and says what to do. Never put into it what a
	// client sent or what a dependency said.
	Message string
	// RetryAfter, when above 0, is sent as Retry-After in whole seconds,
	// rounded up.
	RetryAfter time.Duration
	// Err is the cause, for the log alone. May be nil.
	Err error
}

// Error says code and cause, for logs.
func (e *StatusError) Error() string {
	if e.Err == nil {
		return e.Code
	}
	return e.Code + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *StatusError) Unwrap() error { return e.Err }

// ErrorBody is the body of every answer that is not a success.
type ErrorBody struct {
	Success bool        `json:"success"` // always false
	Error   ErrorDetail `json:"error"`
}

// ErrorDetail says what went wrong, to a program and to a person.
type ErrorDetail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// answerError turns any error into an answer. What is not a [StatusError] nor
// echo's own is a fault of ours: 500, with nothing of the error in the body.
func (s *Server) answerError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	status := asStatusError(err)
	if status.RetryAfter > 0 {
		seconds := int(math.Ceil(status.RetryAfter.Seconds()))
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(seconds))
	}
	body := ErrorBody{Error: ErrorDetail{Code: status.Code, Message: status.Message}}
	if err := c.JSON(status.Status, body); err != nil {
		s.log.Debug().Err(err).Str("requestId", RequestID(c)).Msg("answer not delivered")
	}
}

func asStatusError(err error) *StatusError {
	if known, ok := errors.AsType[*StatusError](err); ok {
		return known
	}
	if fromEcho, ok := errors.AsType[*echo.HTTPError](err); ok && fromEcho.Code < http.StatusInternalServerError {
		return echoStatus(fromEcho.Code)
	}
	return &StatusError{
		Status: http.StatusInternalServerError, Code: "internal", Err: err,
		Message: "something failed here; the log has the details under the id in X-Request-ID",
	}
}

// echoStatus words the refusals that echo itself makes.
func echoStatus(status int) *StatusError {
	e := &StatusError{Status: status, Code: "bad_request", Message: http.StatusText(status)}
	switch status {
	case http.StatusUnauthorized:
		e.Code = "unauthorized"
	case http.StatusForbidden:
		e.Code = "forbidden"
	case http.StatusNotFound:
		e.Code, e.Message = "not_found", "there is nothing at this path; /openapi.yaml lists what there is"
	case http.StatusMethodNotAllowed:
		e.Code, e.Message = "method_not_allowed", "this path does not take that method; the Allow header lists those it takes"
	case http.StatusRequestEntityTooLarge:
		e.Code = "too_large"
	case http.StatusUnsupportedMediaType:
		e.Code = "unsupported_media_type"
	case http.StatusUnprocessableEntity:
		e.Code = "unprocessable"
	case http.StatusTooManyRequests:
		e.Code = "too_many_requests"
	}
	return e
}
