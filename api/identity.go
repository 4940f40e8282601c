package api

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/rs/zerolog"
	"github.com/uptrace/bun"

	"serversync/db"
	"serversync/internal/httpserver"
)

// authenticator finds out who sends a request.
type authenticator struct {
	db            *bun.DB
	adminToken    [sha256.Size]byte
	sessionSecret []byte // SkyPANEL's; empty: cookies are not accepted
	origins       origins
	now           func() time.Time
	log           zerolog.Logger
	// known are identities found a moment ago, by a digest of the credential.
	known *memory[[sha256.Size]byte, identity]
	// guesses counts wrong tokens and keys, anonymous requests by nobody, each
	// by address.
	guesses, anonymous *httpserver.Attempts
}

func newAuthenticator(c *Config) *authenticator {
	return &authenticator{
		db: c.DB, adminToken: sha256.Sum256([]byte(c.AdminToken)), sessionSecret: []byte(c.SessionSecret), origins: c.PublicOrigins,
		now: c.Now, log: c.Log, known: newMemory[[sha256.Size]byte, identity](identityFor),
		guesses: httpserver.NewAttempts(), anonymous: httpserver.NewAttempts(),
	}
}

// identify says who sends the request, or refuses it. The first of these that
// is there decides, also when it is wrong: a bearer token (the admin token or
// an API key), X-API-Key, SkyPANEL's session cookie.
//
// An address that guessed tokens or keys wrong too often is not listened to for
// a while, whatever token or key it sends: otherwise the answer to each further
// guess would still tell whether it was right. Sessions are another matter:
// nobody guesses the signature of a cookie, and who is signed in behind the
// same address as somebody who guesses tokens must not be locked out. So a
// cookie is always looked at, and one that does not hold counts as none: it
// costs whoever has an old one in the browser nothing but a 401, and locks
// nobody out. The same goes for a key that does not hold any more.
func (a *authenticator) identify(c echo.Context) (identity, error) {
	r, address, now := c.Request(), httpserver.ClientAddr(c), a.now()
	token := bearer(r.Header.Get(echo.HeaderAuthorization))
	secret := cmp.Or(token, strings.TrimSpace(r.Header.Get("X-API-Key")))
	if secret != "" && a.guesses.Exhausted(address, now) {
		return identity{}, unauthorized(c, false)
	}
	if token != "" && a.isAdminToken(token) {
		return identity{kind: kindToken, role: roleAdmin, name: "admin token"}, nil
	}
	var who identity
	var err error
	if secret != "" {
		who, err = a.byKey(r.Context(), secret, now)
	} else {
		who, err = a.byCookie(r, now)
	}
	switch {
	case err == nil:
		return who, nil
	case errors.Is(err, errLapsed):
		return identity{}, unauthorized(c, a.anonymous.Fail(address, now))
	case errors.Is(err, db.ErrNobody):
		return identity{}, unauthorized(c, a.guesses.Fail(address, now))
	}
	return identity{}, fault(err)
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
		err := refuse(http.StatusTooManyRequests, "too_many_attempts", "too many requests from this address by nobody we know")
		err.RetryAfter = time.Minute
		return err
	}
	c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="serversync"`)
	return refuse(http.StatusUnauthorized, "unauthorized",
		"sign in to SkyPANEL, or send Authorization: Bearer with an API key of SkyPANEL's or the admin token (ADMIN_TOKEN, or the file admin.token in the service's DATA_DIR)")
}
