package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/internal/httpserver"
)

// role is what a caller may do.
type role string

// roleAdmin may do everything. SkyPANEL's other role, 'client', may see its
// own servers; nobody comes in by it yet.
const roleAdmin role = "admin"

// identity is who calls, once that is certain.
type identity struct {
	role role
	// name is for logs and for the history: "admin token".
	name string
}

// identityKey is where a request's identity is kept in its echo.Context.
const identityKey = "api.identity"

// caller returns who calls. Only behind [authenticator.require].
func caller(c echo.Context) identity {
	who, _ := c.Get(identityKey).(identity)
	return who
}

// authenticator finds out who sends a request.
type authenticator struct {
	adminToken [sha256.Size]byte
	now        func() time.Time
	// guesses counts wrong credentials, anonymous requests without any, each
	// by address.
	guesses, anonymous *httpserver.Attempts
}

func newAuthenticator(adminToken string, now func() time.Time) *authenticator {
	return &authenticator{
		adminToken: sha256.Sum256([]byte(adminToken)), now: now,
		guesses: httpserver.NewAttempts(), anonymous: httpserver.NewAttempts(),
	}
}

// require lets in those who have the role.
func (a *authenticator) require(needed role) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
			who, err := a.identify(c)
			if err != nil {
				return err
			}
			if who.role != needed {
				return refuse(http.StatusForbidden, "forbidden", "this needs the role "+string(needed))
			}
			c.Set(identityKey, who)
			return next(c)
		}
	}
}

// identify says who sends the request, or refuses it. An address that guessed
// wrong too often is not listened to for a while, whatever it says: otherwise
// the answer to each further guess would still tell whether it was right.
func (a *authenticator) identify(c echo.Context) (identity, error) {
	address, now := httpserver.ClientAddr(c), a.now()
	token := bearer(c.Request().Header.Get(echo.HeaderAuthorization))
	if token == "" {
		return identity{}, unauthorized(c, a.anonymous.Fail(address, now))
	}
	if a.guesses.Exhausted(address, now) {
		return identity{}, unauthorized(c, false)
	}
	if a.isAdminToken(token) {
		return identity{role: roleAdmin, name: "admin token"}, nil
	}
	return identity{}, unauthorized(c, a.guesses.Fail(address, now))
}

// isAdminToken takes the same time however much of the token is right.
func (a *authenticator) isAdminToken(token string) bool {
	digest := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(digest[:], a.adminToken[:]) == 1
}

// bearer is the token of "Authorization: Bearer <token>", or empty.
func bearer(authorization string) string {
	scheme, token, _ := strings.Cut(strings.TrimSpace(authorization), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// unauthorized refuses a request; it says why only within bounds.
func unauthorized(c echo.Context, withinBounds bool) error {
	if !withinBounds {
		err := refuse(http.StatusTooManyRequests, "too_many_attempts", "too many requests without a valid token from this address")
		err.RetryAfter = time.Minute
		return err
	}
	c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="serversync"`)
	return refuse(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer and the admin token: ADMIN_TOKEN, or the file admin.token in the service's DATA_DIR")
}
