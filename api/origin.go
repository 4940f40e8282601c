package api

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// Origin is where a page comes from, as browsers write it: scheme, host, and
// the port unless it is the scheme's own.
type Origin string

// ParseOrigin reads an origin. Letter case and a port that goes without saying
// make no difference.
func ParseOrigin(s string) (Origin, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return "", errors.New("an origin is a scheme and a host, such as https://panel.example.com or http://10.0.0.5:3000")
	}
	if u.Path != "" || strings.ContainsAny(s, "?#") {
		return "", errors.New("an origin has no path, not even a slash at its end: say one such as https://panel.example.com")
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._:[]", r)
	}) { // other signs could end it in a header, too
		return "", errors.New("an origin names one host, in ASCII and without wildcards: list each")
	}
	host := strings.ToLower(u.Host)
	if port := u.Port(); port != "" || strings.HasSuffix(host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", errors.New("the port of an origin is a number from 1 to 65535")
		}
		if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
			host = strings.TrimSuffix(host, ":"+port)
		}
	}
	return Origin(u.Scheme + "://" + host), nil
}

// origins are those besides our own whose pages may call the API with a
// session.
type origins []Origin

// sent reports whether a page of ours, or of a listed origin, sent the request,
// by what only browsers can say. Whoever says nothing did not.
//
// A page's own origin has our host and port as the request names them. Whether
// it is http or https we know only of a connection that is encrypted itself: a
// proxy may have ended the encryption, and what it says of that is not needed
// here, since a page that came by https is no less our own. Browsers tell
// same-origin themselves (Sec-Fetch-Site) wherever they reached us by https;
// then their word counts alone.
func (o origins) sent(r *http.Request) bool {
	origin, named := originOf(r)
	if named && slices.Contains(o, origin) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none": // none: by hand, not by a page
		return true
	case "":
		return named && isOwn(origin, r)
	}
	return false
}

func isOwn(origin Origin, r *http.Request) bool {
	scheme, _, _ := strings.Cut(string(origin), "://")
	if r.TLS != nil && scheme != "https" {
		return false
	}
	own, err := ParseOrigin(scheme + "://" + r.Host)
	return err == nil && own == origin
}

// originOf reads the request's one Origin.
func originOf(r *http.Request) (Origin, bool) {
	values := r.Header.Values(echo.HeaderOrigin)
	if len(values) != 1 {
		return "", false
	}
	origin, err := ParseOrigin(values[0])
	return origin, err == nil
}

// upgrades reports whether a request asks for a WebSocket.
func upgrades(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values(echo.HeaderUpgrade), func(v string) bool {
		return strings.Contains(strings.ToLower(v), "websocket")
	})
}

// What pages of listed origins may send and see. A preflight's answer is
// remembered for ten minutes.
const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsHeaders = "Authorization, Content-Type, X-API-Key, X-Request-ID"
	corsExposed = "Location, Retry-After, X-Next-Cursor, X-Request-ID"
	corsMaxAge  = "600"
)

// cors lets the pages of listed origins call the API and read its answers. A
// preflight carries no credentials, and is answered without any.
func (o origins) cors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, header := c.Request(), c.Response().Header()
		if len(o) == 0 || !strings.HasPrefix(r.URL.Path, "/api/") {
			return next(c)
		}
		header.Add(echo.HeaderVary, echo.HeaderOrigin)
		origin, named := originOf(r)
		if !named || !slices.Contains(o, origin) {
			return next(c)
		}
		header.Set(echo.HeaderAccessControlAllowOrigin, r.Header.Get(echo.HeaderOrigin))
		header.Set(echo.HeaderAccessControlAllowCredentials, "true")
		if r.Method != http.MethodOptions || r.Header.Get(echo.HeaderAccessControlRequestMethod) == "" {
			header.Set(echo.HeaderAccessControlExposeHeaders, corsExposed)
			return next(c)
		}
		header.Add(echo.HeaderVary, echo.HeaderAccessControlRequestMethod)
		header.Add(echo.HeaderVary, echo.HeaderAccessControlRequestHeaders)
		header.Set(echo.HeaderAccessControlAllowMethods, corsMethods)
		header.Set(echo.HeaderAccessControlAllowHeaders, corsHeaders)
		header.Set(echo.HeaderAccessControlMaxAge, corsMaxAge)
		return c.NoContent(http.StatusNoContent)
	}
}
