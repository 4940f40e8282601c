package api_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"serversync/api"
	"serversync/internal/httpserver"
)

// The users of a test.
const (
	root  = 1  // an administrator
	anna  = 41 // a customer
	boris = 42 // another
	carl  = 43 // not active
)

// people adds the users.
func (s *system) people(t testing.TB) {
	t.Helper()
	s.exec(t, `
		INSERT INTO users (id, email, username, password, full_name, role, virtfusion_id, is_active) VALUES
			(1, 'root', 'root', '!', 'Root', 'admin', NULL, true), (41, 'anna', 'anna', '!', 'Anna', 'client', 70, true),
			(42, 'boris', 'boris', '!', 'Boris', 'client', 71, true), (43, 'carl', 'carl', '!', 'Carl', 'admin', 72, false)
		ON CONFLICT DO NOTHING`)
}

// secretOf is the API key number n that a user is given.
func secretOf(user, n int) string { return fmt.Sprintf("skyvps360_live.%d_%032x", user, 0xabc000+n) }

// addKey gives a user an API key as SkyPANEL does. Set are further columns, as
// "is_active = false".
func (s *system) addKey(t *testing.T, user, n int, scopes, set string) (secret string) {
	t.Helper()
	secret = secretOf(user, n)
	prefix, rest, _ := strings.Cut(secret, ".")
	digest := sha256.Sum256([]byte(prefix + rest))
	s.exec(t, `INSERT INTO api_keys (id, user_id, name, key, prefix, scopes) VALUES (?, ?, 'mine', ?, ?, ?)`, n, user, hex.EncodeToString(digest[:]), prefix, scopes)
	if set != "" {
		s.exec(t, `UPDATE api_keys SET `+set+` WHERE id = ?`, n)
	}
	return secret
}

// signIn makes a session as SkyPANEL does, and returns its cookie.
func (s *system) signIn(t *testing.T, sid, sess string, expire time.Time) (cookie string) {
	t.Helper()
	s.exec(t, `INSERT INTO session (sid, sess, expire) VALUES (?, ?, ?)`, sid, sess, expire.UTC().Format("2006-01-02 15:04:05.999999"))
	return cookieOf(sid, testSecret)
}

// cookieOf is a session's cookie as express-session writes it.
func cookieOf(sid, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(sid))
	return "connect.sid=" + url.QueryEscape("s:"+sid+"."+strings.TrimRight(base64.StdEncoding.EncodeToString(mac.Sum(nil)), "="))
}

// passport is a session's content as SkyPANEL writes it; user is JSON.
func passport(user string) string {
	return `{"cookie":{"originalMaxAge":86400000,"httpOnly":true,"path":"/","sameSite":"lax"},"passport":{"user":` + user + `}}`
}

// headers are given as name, value, name, value.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// withKey is the header of somebody who has an API key.
func withKey(secret string) http.Header { return headers("Authorization", "Bearer "+secret) }

// outcome is an answer as "403 cross_site", or empty when it is no refusal of
// the caller.
func outcome(a answer) string {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return strconv.Itoa(a.status) + " " + a.body.Error.Code
	}
	return ""
}

// serve serves an API over real HTTP and returns its URL.
func serve(t *testing.T, a *api.API) string {
	t.Helper()
	server, err := httpserver.New(httpserver.Config{})
	if err != nil {
		t.Fatal(err)
	}
	a.Register(server.Echo())
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

// fetch asks for a page whose body does not matter.
func fetch(t *testing.T, method, url string, header http.Header) (status int, answered http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header
}
