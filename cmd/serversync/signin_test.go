package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"testing"

	"serversync/api"
)

// Whoever is signed in to SkyPANEL is known to the service that was given
// SkyPANEL's secret, from the origins that it was given.
func TestSkyPANELsSessionOpensTheService(t *testing.T) {
	t.Parallel()
	const secret, origin = "a session secret of the test", "https://panel.example.com"
	r := start(t, config{sessionSecret: secret, publicOrigins: []api.Origin{origin}})
	r.ready(t)
	if _, err := r.stores.db.ExecContext(t.Context(), `
		INSERT INTO users (id, email, username, password, full_name) VALUES (7, 'x', 'x', '!', 'X');
		INSERT INTO session (sid, sess, expire) VALUES ('abc', '{"passport":{"user":7}}', now() + interval '1 hour')`); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("abc"))
	ask := func(method, path, from string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, r.base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Cookie", "connect.sid="+url.QueryEscape("s:abc."+base64.RawStdEncoding.EncodeToString(mac.Sum(nil))))
		request.Header.Set("Origin", from)
		return do(t, request)
	}
	if status, body := ask(http.MethodGet, "/api/user/servers/sync/status", origin); status != http.StatusOK {
		t.Errorf("the status: %d %s", status, body)
	}
	if status, body := ask(http.MethodPost, "/api/user/servers/sync?wait=99", origin); status != http.StatusBadRequest { // it got as far as that
		t.Errorf("a sync from a listed origin: %d %s", status, body)
	}
	if status, body := ask(http.MethodPost, "/api/user/servers/sync?wait=99", "https://evil.example.com"); status != http.StatusForbidden {
		t.Errorf("a sync from elsewhere: %d %s", status, body)
	}
	if status, body := ask(http.MethodGet, "/api/admin/overview", origin); status != http.StatusForbidden {
		t.Errorf("the admin's: %d %s", status, body)
	}
}
