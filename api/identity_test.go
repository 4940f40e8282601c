package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/rs/zerolog"

	"serversync/api"
)

// Every route is the admin's alone, whoever forgets to say so.
func TestEveryRouteNeedsTheAdminToken(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var walked int
	for _, r := range s.server.Echo().Routes() {
		if !strings.HasPrefix(r.Path, "/api/") || r.Method == echo.RouteNotFound {
			continue
		}
		walked++
		path := strings.ReplaceAll(r.Path, ":id", "7")
		for _, authorization := range []string{
			"", "Bearer", "Bearer ", "Bearer wrong", "Bearer " + testToken + "x", "Bearer " + testToken[1:], "Basic " + testToken, testToken,
		} {
			a := s.ask(t, r.Method, path, authorization)
			if a.status != http.StatusUnauthorized || a.body.Error.Code != "unauthorized" || a.header.Get("WWW-Authenticate") != `Bearer realm="serversync"` {
				t.Errorf("%s %s as %q = %d %s", r.Method, path, authorization, a.status, a.raw)
			}
		}
		if a := s.ask(t, r.Method, path, "bearer  "+testToken+" "); a.status == http.StatusUnauthorized || a.status == http.StatusTooManyRequests {
			t.Errorf("%s %s with the token = %d %s", r.Method, path, a.status, a.raw)
		}
	}
	if walked < 2 || len(s.books.redecided) > 0 {
		t.Errorf("%d routes were walked, %v was decided again", walked, s.books.redecided)
	}
	if strings.Contains(s.log.String(), testToken) {
		t.Error("the log holds the token")
	}
}

func TestGuessesAreBounded(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const path = "/api/admin/servers/7/timeline"
	for i := range 60 {
		if a := s.ask(t, http.MethodGet, path, "Bearer guess"); a.status != http.StatusUnauthorized {
			t.Fatalf("guess %d = %d", i, a.status)
		}
	}
	for _, authorization := range []string{"Bearer guess", "Bearer " + testToken} {
		a := s.ask(t, http.MethodGet, path, authorization)
		if a.status != http.StatusTooManyRequests || a.body.Error.Code != "too_many_attempts" || a.header.Get("Retry-After") == "" {
			t.Errorf("after too many guesses %q = %d %s", authorization, a.status, a.raw)
		}
	}
}

// Somebody behind the same proxy who has no token must not lock us out.
func TestRequestsWithoutATokenLockNobodyOut(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var last int
	for range 61 {
		last = s.ask(t, http.MethodPost, "/api/admin/cleanup", "").status
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the last of many requests without a token = %d", last)
	}
	if a := s.admin(t, http.MethodPost, "/api/admin/cleanup"); a.status != http.StatusOK {
		t.Errorf("with the token = %d %s", a.status, a.raw)
	}
}

func TestAnEmptyTokenLetsNobodyIn(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Config{Now: noon, Log: zerolog.Nop()}); err == nil {
		t.Error("an API without an admin token was made")
	}
}
