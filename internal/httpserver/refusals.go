package httpserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// Each address is told why it is refused so often; see [Attempts].
const (
	refusalsPerSecond = 2
	refusalBurst      = 120
	// unreadBody is how long what a stranger goes on sending after a refusal
	// keeps its connection.
	unreadBody = 500 * time.Millisecond
)

// refused looks at an error that a request is answered with. A stranger who is
// refused again and again gets 429 at last, and what a stranger sends after a
// refusal is not waited for. Who has authenticated ([Known]) always gets the
// answer itself.
func (s *Server) refused(c echo.Context, err error) error {
	err = s.methodNotAllowed(c, err)
	status := asStatusError(err)
	if isKnown(c) || status.Status >= http.StatusInternalServerError {
		return err
	}
	if c.Request().ContentLength != 0 {
		c.Response().Header().Set(echo.HeaderConnection, "close")
		// Without it net/http would read on for as long as a request may take.
		_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(unreadBody))
	}
	// 401 is counted by those who ask for credentials, with what was tried.
	if status.Status != http.StatusBadRequest && status.Status != http.StatusForbidden || s.refusals.Fail(ClientAddr(c), time.Now()) {
		return err
	}
	return &StatusError{
		Status: http.StatusTooManyRequests, Code: "too_many_attempts", Message: "too many requests from this address had to be refused",
		RetryAfter: time.Minute, Err: err,
	}
}

// methodNotAllowed makes 405 of a 404 where the path has other methods: echo
// says 404 of all that is in a group with middleware.
func (s *Server) methodNotAllowed(c echo.Context, err error) error {
	if !errors.Is(err, echo.ErrNotFound) || c.Response().Committed {
		return err
	}
	var allowed []string
	for _, route := range s.echo.Routes() {
		if route.Method != echo.RouteNotFound && fits(route.Path, c.Request().URL.Path) && !slices.Contains(allowed, route.Method) {
			allowed = append(allowed, route.Method)
		}
	}
	if len(allowed) == 0 || slices.Contains(allowed, c.Request().Method) {
		return err
	}
	slices.Sort(allowed)
	c.Response().Header().Set(echo.HeaderAllow, strings.Join(append([]string{http.MethodOptions}, allowed...), ", "))
	return echo.ErrMethodNotAllowed
}

// fits reports whether a path is one of a route's.
func fits(route, path string) bool {
	return slices.EqualFunc(strings.Split(route, "/"), strings.Split(path, "/"),
		func(r, p string) bool { return r == p || strings.HasPrefix(r, ":") && p != "" })
}
