package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/uptrace/bun"

	"serversync/db/skypanelsim"
	"serversync/internal/httpserver"
)

const (
	// pathSignIn is where the demo's links lead.
	pathSignIn = "/demo/sign-in/"
	// sessionFor is how long somebody who followed one is signed in.
	sessionFor = 24 * time.Hour
)

// signIns stands for SkyPANEL's own page of signing in, in the demo alone: links
// that sign somebody in, each of which works once.
type signIns struct {
	db     *bun.DB
	secret string // SkyPANEL's, for its session cookie
	base   func() string
	out    io.Writer // where links are printed
	now    func() time.Time

	mu    sync.Mutex
	links map[string]visitor // by token; those that were used stay, so that they can be told from others
}

// visitor is who signs in by a link.
type visitor struct {
	userID int64 // SkyPANEL's users.id
	name   string
	page   string // where it leads
	used   bool
}

// visitors are those whom the demo prints links for: a customer who has a bit of
// everything, and the administrator.
func visitors(world skypanelsim.World) []visitor {
	all := []visitor{{userID: guest, page: "/"}, {userID: world.Users[0].ID, page: "/admin"}}
	for i := range all {
		for _, u := range world.Users {
			if u.ID == all[i].userID {
				all[i].name = u.FullName
			}
		}
	}
	return all
}

// link makes a new link for somebody.
func (s *signIns) link(v visitor) string {
	token := rand.Text()
	v.used = false
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links == nil {
		s.links = make(map[string]visitor)
	}
	s.links[token] = v
	return s.base() + pathSignIn + token
}

// use returns whose link this is, and whether it was good until now.
func (s *signIns) use(token string) (v visitor, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, known := s.links[token]
	if good = known && !v.used; good {
		used := v
		used.used = true
		s.links[token] = used
	}
	return v, good
}

// register adds the route.
func (s *signIns) register(e *echo.Echo) { e.GET(pathSignIn+":token", s.signIn) }

// signIn answers GET /demo/sign-in/:token. What only looks at the link, such as
// a preview, does not use it up.
func (s *signIns) signIn(c echo.Context) error {
	httpserver.OwnLog(c) // the link would be in the line
	r, header := c.Request(), c.Response().Header()
	header.Set(echo.HeaderCacheControl, "no-store")
	header.Set(echo.HeaderReferrerPolicy, "no-referrer")
	if httpserver.AskedByHead(r) || r.Header.Get("Sec-Purpose") != "" || r.Header.Get("Purpose") != "" {
		return c.NoContent(http.StatusNoContent)
	}
	v, good := s.use(c.Param("token"))
	switch {
	case good:
	case v.used:
		return c.String(http.StatusGone, "This link was used before, and each works once. The next one is in the demo's output: look for \"sign in as "+v.name+"\".\n")
	default:
		return c.String(http.StatusNotFound, "There is no such link. The demo prints those that there are: look for \"sign in as\" in its output.\n")
	}
	cookie, err := s.begin(r.Context(), v.userID)
	printf(s.out, "\n  sign in as %s again: %s\n\n", v.name, s.link(v))
	if err != nil {
		return err
	}
	c.SetCookie(cookie)
	return c.Redirect(http.StatusSeeOther, v.page)
}

// begin begins a session of SkyPANEL's, and returns its cookie, both as
// express-session and connect-pg-simple write them.
func (s *signIns) begin(ctx context.Context, userID int64) (*http.Cookie, error) {
	sid, expires := rand.Text(), s.now().Add(sessionFor).UTC().Truncate(time.Millisecond)
	session, err := json.Marshal(map[string]any{
		"cookie": map[string]any{
			"originalMaxAge": sessionFor.Milliseconds(), "expires": expires.Format("2006-01-02T15:04:05.000Z"),
			"secure": false, "httpOnly": true, "path": "/", "sameSite": "lax",
		},
		"passport": map[string]any{"user": userID},
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.db.NewRaw(`INSERT INTO public.session (sid, sess, expire) VALUES (?, ?::json, ?::timestamp)`,
		sid, string(session), expires.Format("2006-01-02 15:04:05.000")).Exec(ctx); err != nil {
		return nil, fmt.Errorf("sign user %d in: %w", userID, err)
	}
	mac := hmac.New(sha256.New, []byte(s.secret))
	mac.Write([]byte(sid)) // never fails
	return &http.Cookie{   //nolint:gosec // G124: not Secure, since the demo is reached by http
		Name: "connect.sid", Value: url.QueryEscape("s:" + sid + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))),
		Path: "/", Expires: expires, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}, nil
}
