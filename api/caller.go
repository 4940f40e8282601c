package api

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"serversync/internal/httpserver"
)

// role is what SkyPANEL's users.role says of a user. Any other than admin
// opens the user's own servers alone.
type role string

const roleAdmin role = "admin"

// kind is by what a caller was known.
type kind string

const (
	kindToken   kind = "token"   // the admin token
	kindKey     kind = "key"     // an API key of SkyPANEL's
	kindSession kind = "session" // SkyPANEL's session cookie
)

// The scopes of an API key that open something here.
const (
	scopeAll   = "*"
	scopeRead  = "read:servers"
	scopeWrite = "write:servers" // reads too
)

// identity is who calls, once that is certain.
type identity struct {
	kind kind
	role role
	// userID is SkyPANEL's users.id; 0 for the admin token, which is nobody's.
	// What a caller may see of their own is selected by this, and by nothing
	// that a request says.
	userID int64
	// scopes of the API key; of no meaning for other kinds, which may do what
	// their role may.
	scopes []string
	// name is for logs and for the history: "admin token", "user 7 (session)",
	// "user 7 (api key 12)". Never a secret.
	name string
}

// may reports whether one of the scopes opens something to the caller.
func (who *identity) may(scopes ...string) bool {
	return who.kind != kindKey || slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(who.scopes, s) })
}

// identityKey is where a request's identity is kept in its echo.Context.
const identityKey = "api.identity"

// caller returns who calls. Only behind [authenticator.requireAdmin] and
// [authenticator.requireUser]; behind the latter its userID is never 0.
func caller(c echo.Context) identity {
	who, _ := c.Get(identityKey).(identity)
	return who
}

// requireAdmin lets in whoever has the admin role, a key of theirs only with
// the scope for everything.
func (a *authenticator) requireAdmin(next echo.HandlerFunc) echo.HandlerFunc {
	return a.require(next, func(who *identity, _ *http.Request) error {
		if who.role != roleAdmin {
			return refuse(http.StatusForbidden, "forbidden", "this needs the role admin")
		}
		if !who.may(scopeAll) {
			return scopeMissing(scopeAll)
		}
		return nil
	})
}

// requireUser lets in SkyPANEL's users, to what is their own: with a key that
// reads for GET, with one that writes for every other method. So no route can
// forget to ask.
func (a *authenticator) requireUser(next echo.HandlerFunc) echo.HandlerFunc {
	return a.require(next, func(who *identity, r *http.Request) error {
		if who.userID == 0 {
			return refuse(http.StatusForbidden, "no_user",
				"the admin token is no user's and has no servers of its own: take /api/admin/users/{id}/…, or a user's API key or session")
		}
		if writes(r) && !who.may(scopeWrite, scopeAll) {
			return scopeMissing(scopeWrite)
		}
		if !who.may(scopeRead, scopeWrite, scopeAll) {
			return scopeMissing(scopeRead)
		}
		return nil
	})
}

func scopeMissing(scope string) error {
	return refuse(http.StatusForbidden, "scope_missing", "this API key lacks the scope "+scope)
}

// require finds out who calls, and lets them in if they are permitted.
func (a *authenticator) require(next echo.HandlerFunc, permit func(*identity, *http.Request) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
		who, err := a.identify(c)
		if err != nil {
			return err
		}
		httpserver.Known(c)
		if r := c.Request(); who.kind == kindSession && (writes(r) || upgrades(r)) && !a.origins.sent(r) {
			return refuse(http.StatusForbidden, "cross_site",
				"a session changes and follows things only from our own pages: list the origin of this page in PUBLIC_ORIGINS, or send an API key")
		}
		if err := permit(&who, c.Request()); err != nil {
			return err
		}
		c.Set(identityKey, who)
		return next(c)
	}
}

// writes reports whether a request may change something.
func writes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions
}
