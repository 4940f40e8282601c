package api_test

import (
	"net/http"
	"strings"
	"testing"

	"serversync/api"
)

func TestParseOrigin(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]api.Origin{
		"https://panel.example.com":      "https://panel.example.com",
		"HTTPS://Panel.Example.COM:443":  "https://panel.example.com",
		"http://panel.example.com:80":    "http://panel.example.com",
		"http://panel.example.com:443":   "http://panel.example.com:443",
		"https://panel.example.com:8443": "https://panel.example.com:8443",
		"http://[2001:DB8::1]:3000":      "http://[2001:db8::1]:3000",
		"http://10.0.0.5:3000":           "http://10.0.0.5:3000",
	} {
		if got, err := api.ParseOrigin(s); err != nil || got != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for s, says := range map[string]string{
		"":                                "a scheme and a host",
		"null":                            "a scheme and a host",
		"*":                               "a scheme and a host",
		"panel.example.com":               "a scheme and a host",
		"panel.example.com:443":           "a scheme and a host",
		"ftp://panel.example.com":         "a scheme and a host",
		"https://":                        "a scheme and a host",
		"https://:443":                    "a scheme and a host",
		"https://user@panel.example.com":  "a scheme and a host",
		"https://panel.example.com/":      "no path",
		"https://panel.example.com/sync":  "no path",
		"https://panel.example.com?":      "no path",
		"https://panel.example.com#":      "no path",
		"https://*.example.com":           "wildcards",
		"https://pänel.example.com":       "ASCII",
		"https://\u212Aelvin.example.com": "ASCII",
		"https://panel.example.com;":      "ASCII",
		"https://a.example;script-src":    "ASCII",
		"https://'self'":                  "ASCII",
		"https://a.example.com,b":         "ASCII",
		"https://panel.example.com:":      "port",
		"https://panel.example.com:0":     "port",
		"https://panel.example.com:70000": "port",
		"https://panel.example.com:x":     "a scheme and a host",
	} {
		if got, err := api.ParseOrigin(s); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
}

// Which pages may use a session to change something.
func TestWhosePageItIs(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	cookie := s.signIn(t, "annaSession", passport("41"), noon().AddDate(1, 0, 0))
	s.syncs.err = api.ErrNoUser
	ownHost := strings.TrimPrefix(s.url, "http://")
	for _, test := range []struct {
		site    string
		origins []string
		more    []string
		ours    bool
	}{
		{site: "same-origin", ours: true},
		{site: "none", ours: true},
		{site: "same-site"},
		{site: "cross-site"},
		{site: "nonsense"},
		{origins: []string{"http://" + ownHost}, ours: true},
		{origins: []string{"https://" + ownHost}, ours: true}, // a proxy ended the encryption
		{origins: []string{"http://" + ownHost + "0"}},
		{origins: []string{"http://127.0.0.1"}},
		{origins: []string{"http://localhost:1"}},
		{origins: []string{"null"}},
		{origins: []string{""}},
		{origins: []string{testOrigin}, ours: true},
		{origins: []string{strings.ToUpper(testOrigin) + ":443"}, ours: true},
		{origins: []string{"http://panel.example.com"}},
		{origins: []string{testOrigin + ".evil.example.com"}},
		{origins: []string{testOrigin + ":8443"}},
		{origins: []string{testOrigin, "https://evil.example.com"}},
		{site: "same-site", origins: []string{testOrigin}, ours: true},
		{site: "cross-site", origins: []string{"http://" + ownHost}}, // the browser knows better
		{origins: []string{"https://evil.example.com"}, more: []string{"X-Forwarded-Host", "evil.example.com", "X-Forwarded-Proto", "https"}},
		{more: []string{"Referer", "http://" + ownHost + "/"}},
		{},
	} {
		header := headers(append([]string{"Cookie", cookie}, test.more...)...)
		if test.site != "" {
			header.Set("Sec-Fetch-Site", test.site)
		}
		header["Origin"] = test.origins
		want := crossSite
		if test.ours {
			want = letIn
		}
		if got := outcome(s.send(t, http.MethodPost, "/api/user/servers/sync", header, "")); got != want {
			t.Errorf("Sec-Fetch-Site %q, Origin %q, %q: %q, want %q", test.site, test.origins, test.more, got, want)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.people(t)
	cookie := s.signIn(t, "annaSession", passport("41"), noon().AddDate(1, 0, 0))
	preflight := func(path, origin string) (int, http.Header) {
		t.Helper()
		return fetch(t, http.MethodOptions, s.url+path, headers("Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-api-key"))
	}
	for _, path := range []string{"/api/user/servers/sync", "/api/admin/overview"} {
		status, h := preflight(path, testOrigin)
		if status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != testOrigin || h.Get("Access-Control-Allow-Credentials") != "true" ||
			!strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "X-API-Key") ||
			!strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
			t.Errorf("the preflight of %s: %d %v", path, status, h)
		}
	}
	for _, origin := range []string{"https://evil.example.com", s.url, "null", "http://panel.example.com"} {
		if _, h := preflight("/api/user/servers/sync", origin); h.Get("Access-Control-Allow-Origin") != "" || h.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("the preflight of %s: %v", origin, h)
		}
	}
	if _, h := preflight("/healthz", testOrigin); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("outside the API: %v", h)
	}

	for _, header := range []http.Header{headers("Cookie", cookie, "Origin", testOrigin), headers("Origin", testOrigin)} { // refusals are to be read too
		a := s.send(t, http.MethodGet, statusPath, header, "")
		if a.header.Get("Access-Control-Allow-Origin") != testOrigin || a.header.Get("Access-Control-Allow-Credentials") != "true" || a.header.Get("Vary") != "Origin" ||
			!strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "Location") {
			t.Errorf("%d with %v", a.status, a.header)
		}
	}
	a := s.send(t, http.MethodGet, statusPath, headers("Cookie", cookie, "Origin", "https://evil.example.com"), "")
	if a.status != http.StatusOK || a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Vary") != "Origin" {
		t.Errorf("from elsewhere: %d with %v", a.status, a.header)
	}
}
