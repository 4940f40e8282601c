package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/api"
	"serversync/db"
)

// access is who may call a route.
type access string

const (
	everybody access = "everybody"
	ofUser    access = "a user, about their own servers"
	ofAdmin   access = "an administrator"
)

// routes are all routes. A new one is missing here until somebody has thought
// about who may call it.
var routes = map[string]access{
	"GET /healthz": everybody,
	"GET /readyz":  everybody,
	"GET /metrics": everybody,

	"GET /api/user/me":                    ofUser,
	"POST /api/user/servers/sync":         ofUser,
	"GET /api/user/servers/sync/status":   ofUser,
	"GET /api/user/servers/sync/runs/:id": ofUser,
	"GET /api/user/servers/sync/live":     ofUser,
	"GET /api/user/servers/sync/history":  ofUser,
	"GET /api/user/servers":               ofUser,

	"GET /api/admin/servers":                        ofAdmin,
	"GET /api/admin/servers.csv":                    ofAdmin,
	"POST /api/admin/servers/sync":                  ofAdmin,
	"POST /api/admin/servers/bulk":                  ofAdmin,
	"GET /api/admin/servers/:id/timeline":           ofAdmin,
	"POST /api/admin/users/:id/servers/sync":        ofAdmin,
	"POST /api/admin/users/:id/servers/replay":      ofAdmin,
	"GET /api/admin/users/:id/servers/sync/status":  ofAdmin,
	"GET /api/admin/users/:id/servers/sync/history": ofAdmin,
	"GET /api/admin/runs":                           ofAdmin,
	"GET /api/admin/runs/:id":                       ofAdmin,
	"GET /api/admin/runs/:id/servers":               ofAdmin,
	"GET /api/admin/runs/:id/preview":               ofAdmin,
	"GET /api/admin/runs/:id/preview.csv":           ofAdmin,
	"POST /api/admin/runs/:id/approve":              ofAdmin,
	"POST /api/admin/runs/:id/undo":                 ofAdmin,
	"POST /api/admin/servers/:id/undo":              ofAdmin,
	"GET /api/admin/overview":                       ofAdmin,
	"GET /api/admin/dead-letters":                   ofAdmin,
	"POST /api/admin/dead-letters/:id/requeue":      ofAdmin,
	"DELETE /api/admin/dead-letters/:id":            ofAdmin,
	"GET /api/admin/charges":                        ofAdmin,
	"POST /api/admin/charges/:id/resolve":           ofAdmin,
	"GET /api/admin/reports/external.csv":           ofAdmin,
	"GET /api/admin/charts/external.svg":            ofAdmin,
	"GET /api/admin/charts/coverage.svg":            ofAdmin,
	"GET /api/admin/reports/monthly":                ofAdmin,
	"GET /api/admin/reports/monthly.csv":            ofAdmin,
	"GET /api/admin/coverage":                       ofAdmin,
	"GET /api/admin/coverage.csv":                   ofAdmin,
	"GET /api/admin/notices":                        ofAdmin,
	"POST /api/admin/proofs":                        ofAdmin,
	"GET /api/admin/proofs":                         ofAdmin,
	"GET /api/admin/proofs/:id":                     ofAdmin,
	"GET /api/admin/charts/events.svg":              ofAdmin,
	"GET /api/admin/charts/lag.svg":                 ofAdmin,
	"GET /api/admin/charts/revenue.svg":             ofAdmin,
	"GET /api/admin/live":                           ofAdmin,
	"POST /api/admin/cleanup":                       ofAdmin,
	"GET /api/admin/doctor":                         ofAdmin,
	"GET /api/admin/audit":                          ofAdmin,
}

// callerOf is a kind of caller, and how it is refused: where it only looks, and
// where it may change something. Empty: it is let in.
type callerOf struct {
	name                    string
	header                  http.Header
	adminLooks, adminWrites string
	userLooks, userWrites   string
}

// The ways of being refused.
const (
	letIn     = ""
	unknown   = "401 unauthorized"
	forbidden = "403 forbidden"
	noScope   = "403 scope_missing"
	crossSite = "403 cross_site"
	noUser    = "403 no_user"
)

// callers sets up every kind of caller there is.
func (s *system) callers(t *testing.T) []callerOf {
	t.Helper()
	s.people(t)
	later := noon().AddDate(1, 0, 0)
	bearer := func(user, n int, scopes, set string) http.Header { return withKey(s.addKey(t, user, n, scopes, set)) }
	rootSigned := s.signIn(t, "rootSession", passport("1"), later)
	annaSigned := s.signIn(t, "annaSession", passport("41"), later)
	annaText := s.signIn(t, "annaText.with.dots", passport(`"41"`), later)
	foreign := withKey(secretOf(boris, 20)) // its digest is in a row of anna's
	s.addKey(t, boris, 20, "{*}", "user_id = 41")

	nobody := func(name string, header http.Header) callerOf {
		return callerOf{name, header, unknown, unknown, unknown, unknown}
	}
	signed := func(name, cookie string, more ...string) callerOf {
		return callerOf{name: name, header: headers(append([]string{"Cookie", cookie}, more...)...)}
	}
	looksOnly := func(c callerOf) callerOf {
		c.adminWrites, c.userWrites = crossSite, crossSite
		return c
	}
	nowhere := func(c callerOf) callerOf {
		c.adminLooks, c.adminWrites, c.userLooks, c.userWrites = crossSite, crossSite, crossSite, crossSite
		return c
	}
	const siteHeader, webSocket = "Sec-Fetch-Site", "Upgrade"
	return []callerOf{
		nobody("nobody", headers()),
		nobody("an empty bearer", headers("Authorization", "Bearer ")),
		nobody("a wrong token", headers("Authorization", "Bearer wrong")),
		nobody("half a token", headers("Authorization", "Bearer "+testToken[1:])),
		nobody("a longer token", headers("Authorization", "Bearer "+testToken+"x")),
		nobody("the token, basic", headers("Authorization", "Basic "+testToken)),
		nobody("the token, bare", headers("Authorization", testToken)),
		nobody("the token as a key", headers("X-API-Key", testToken)),
		{"the admin token", headers("Authorization", "bearer  "+testToken+" "), letIn, letIn, noUser, noUser},
		{"the admin token and a session", headers("Authorization", "Bearer "+testToken, "Cookie", annaSigned), letIn, letIn, noUser, noUser},
		{"an admin's key for all", bearer(root, 1, "{*}", ""), letIn, letIn, letIn, letIn},
		{"an admin's key for servers", bearer(root, 2, "{read:servers,write:servers}", ""), noScope, noScope, letIn, letIn},
		signed("an admin's page", rootSigned, siteHeader, "same-origin"),
		signed("an admin's page, by Origin", rootSigned, "Origin", s.url),
		signed("an admin's page, listed", rootSigned, "Origin", testOrigin, siteHeader, "cross-site"),
		looksOnly(signed("an admin's cookie, from another site", rootSigned, siteHeader, "cross-site", "Origin", "https://evil.example.com")),
		looksOnly(signed("an admin's cookie, from a neighbour", rootSigned, siteHeader, "same-site", "Origin", "https://shop.example.com")),
		looksOnly(signed("an admin's cookie, another Origin", rootSigned, "Origin", "https://evil.example.com")),
		looksOnly(signed("an admin's cookie, Origin null", rootSigned, "Origin", "null")),
		looksOnly(signed("an admin's cookie, by no page", rootSigned)),
		nowhere(signed("an admin's cookie, WebSocket from another site", rootSigned, webSocket, "websocket", "Origin", "https://evil.example.com")),
		nowhere(signed("an admin's cookie, WebSocket by no page", rootSigned, webSocket, "WebSocket")),
		signed("an admin's page, WebSocket", rootSigned, webSocket, "websocket", "Origin", s.url),
		{"a key that reads", bearer(anna, 3, "{read:servers}", ""), forbidden, forbidden, letIn, noScope},
		{"a key that reads, as X-API-Key", headers("X-API-Key", s.addKey(t, anna, 4, "{read:user,read:servers}", "")), forbidden, forbidden, letIn, noScope},
		{"a key that writes", bearer(anna, 5, "{write:servers}", ""), forbidden, forbidden, letIn, letIn},
		{"a key that writes, WebSocket", withUpgrade(bearer(anna, 6, "{write:servers}", "")), forbidden, forbidden, letIn, letIn},
		{"a key for all", bearer(anna, 7, "{*}", "expires_at = '2030-01-01'"), forbidden, forbidden, letIn, letIn},
		{"a key for other things", bearer(anna, 8, "{read:user,read:billing,read:servers:all}", ""), forbidden, forbidden, noScope, noScope},
		{"a key for nothing", bearer(anna, 9, "{}", "scopes = NULL"), forbidden, forbidden, noScope, noScope},
		nobody("a key that has expired", bearer(anna, 10, "{*}", "expires_at = '2026-03-01 12:00'")),
		nobody("a key that is switched off", bearer(anna, 11, "{*}", "is_active = false")),
		nobody("a key that nobody switched on", bearer(anna, 12, "{*}", "is_active = NULL")),
		nobody("a key of somebody inactive", bearer(carl, 13, "{*}", "")),
		nobody("a key of nobody", withKey(secretOf(anna, 99))),
		nobody("a key that names somebody else", foreign),
		nobody("a key with a dot too many", withKey(strings.Replace(secretOf(anna, 3), "_", ".", 2))),
		nobody("a key and its digest", withKey(secretOf(anna, 3)+"0")),
		nobody("a wrong key, with a session", headers("Authorization", "Bearer wrong", "Cookie", annaSigned, siteHeader, "same-origin")),
		nobody("a wrong X-API-Key, with a session", headers("X-API-Key", "wrong", "Cookie", annaSigned, siteHeader, "same-origin")),
		{"a user's page", headers("Cookie", annaSigned, siteHeader, "same-origin"), forbidden, forbidden, letIn, letIn},
		{"a user's page, id as text", headers("Cookie", "a=b; "+annaText, siteHeader, "none"), forbidden, forbidden, letIn, letIn},
		{"a user's page, behind basic authentication", headers("Authorization", "Basic YTpi", "Cookie", annaSigned, siteHeader, "same-origin"), forbidden, forbidden, letIn, letIn},
		{"a user's cookie, from another site", headers("Cookie", annaSigned, siteHeader, "cross-site"), forbidden, crossSite, letIn, crossSite},
		nobody("a session that has expired", headers("Cookie", s.signIn(t, "old", passport("41"), noon()), siteHeader, "same-origin")),
		nobody("a session of nobody", headers("Cookie", s.signIn(t, "empty", `{"cookie":{}}`, later), siteHeader, "same-origin")),
		nobody("a session of text", headers("Cookie", s.signIn(t, "text", passport(`"41 OR 1=1"`), later), siteHeader, "same-origin")),
		nobody("a session of an object", headers("Cookie", s.signIn(t, "object", passport(`{"id":41}`), later), siteHeader, "same-origin")),
		nobody("a session of somebody inactive", headers("Cookie", s.signIn(t, "carlSession", passport("43"), later), siteHeader, "same-origin")),
		nobody("a session that ended", headers("Cookie", cookieOf("ended", testSecret), siteHeader, "same-origin")),
		nobody("a forged signature", headers("Cookie", cookieOf("annaSession", testSecret+"x"), siteHeader, "same-origin")),
		nobody("no signature", headers("Cookie", "connect.sid=s%3AannaSession.", siteHeader, "same-origin")),
		nobody("a bare session id", headers("Cookie", "connect.sid=annaSession", siteHeader, "same-origin")),
		nobody("a signature without s:", headers("Cookie", strings.Replace(annaSigned, "s%3A", "", 1), siteHeader, "same-origin")),
		nobody("a forged cookie before the right one", headers("Cookie", "connect.sid=x; "+annaSigned, siteHeader, "same-origin")),
	}
}

func withUpgrade(h http.Header) http.Header {
	h.Set("Upgrade", "websocket")
	return h
}

// Whoever calls any route is let in or refused as the table says, and no route
// is missing from it.
func TestEveryRouteAndEveryCaller(t *testing.T) {
	t.Parallel()
	s := setup(t)
	callers := s.callers(t)
	s.syncs.err = api.ErrNoUser // nothing to wait for
	for _, r := range s.server.Echo().Routes() {
		if r.Method == echo.RouteNotFound {
			continue
		}
		route := r.Method + " " + r.Path
		needs, ok := routes[route]
		if !ok {
			t.Errorf("%s is not in the table: who may call it?", route)
			continue
		}
		path := strings.ReplaceAll(r.Path, ":id", "7")
		if needs == everybody {
			continue // others look at those; here is nothing to refuse
		}
		for i := range callers {
			c := &callers[i]
			s.wait(10 * time.Second) // no address is exhausted by this
			a := s.send(t, r.Method, path, c.header, "")
			if got, want := outcome(a), c.expected(needs, r.Method); got != want {
				t.Errorf("%s by %s = %d %s, want %q", route, c.name, a.status, a.raw, want)
			}
			if challenged := a.header.Get("WWW-Authenticate") == `Bearer realm="serversync"`; challenged != (a.status == http.StatusUnauthorized) {
				t.Errorf("%s by %s: %d with WWW-Authenticate %q", route, c.name, a.status, a.header.Get("WWW-Authenticate"))
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s by %s may be kept by caches", route, c.name)
			}
		}
	}
	for route := range routes {
		method, path, _ := strings.Cut(route, " ")
		if !slices.ContainsFunc(s.server.Echo().Routes(), func(r *echo.Route) bool { return r.Method == method && r.Path == path }) {
			t.Errorf("%s is in the table, and there is no such route", route)
		}
	}
	for _, secret := range []string{testToken, testSecret, "annaSession", "rootSession", secretOf(anna, 3), secretOf(anna, 99)} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func (c *callerOf) expected(needs access, method string) string {
	looks := method == http.MethodGet
	switch {
	case needs == ofAdmin && looks:
		return c.adminLooks
	case needs == ofAdmin:
		return c.adminWrites
	case looks:
		return c.userLooks
	}
	return c.userWrites
}

// What is boris's, and must not be seen by anna.
const (
	borisServer = "90042"
	borisUUID   = "b0515b05-15b0-415b-8515-b0515b0515b0"
	borisRun    = "run-of-boris"
)

// twoUsers gives anna one server, and boris three, with runs and history. It
// returns what nobody but boris may see.
func (s *system) twoUsers(t *testing.T) (marks []string) {
	t.Helper()
	s.people(t)
	s.exec(t, `
		INSERT INTO serversync.servers (virtfusion_id, uuid, owner_id, user_id, name, hostname, status, billing, ip_addresses, hypervisor_name, note,
			observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at) VALUES
			(90041, 'a0000000-0000-4000-8000-000000000041', 70, 41, 'anna-web', 'anna.host', 'external', 'on', '{192.0.2.41}', 'h1', '', now(), 'webhook', 'ea', now(), now()),
			(90042, ?0, 71, 42, 'boris-web', 'boris.host', 'external', 'on', '{198.51.100.42}', 'h1', 'boris-note', now(), 'webhook', 'boris-event', now(), now()),
			(90043, '', 71, 42, 'boris-mail', 'boris.mail', 'native', 'on', '{198.51.100.43}', 'h1', 'boris-note', now(), 'webhook', 'boris-event', now(), now()),
			(90044, '', 71, 42, 'boris-new', 'boris.new', 'settling', 'off', '{198.51.100.44}', 'h1', 'boris-note', now(), 'webhook', 'boris-event', now(), now());
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate, billing_enabled)
		VALUES (9041, 41, 90041, 90041, 5, 'Small', 5, 0.006849, true), (9042, 42, 90042, 90042, 6, 'boris-package', 77.77, 0.1, true), (9043, 42, 90043, 90043, 6, 'boris-package', 77.77, 0.1, true);
		INSERT INTO serversync.history (at, virtfusion_id, kind, reason, before, after, source, event_id, run_id, billing_id, user_id) VALUES
			(now(), 90041, 'billing_created', 'anna-reason', NULL, '{"user_id": 41}', 'webhook', 'ea', 'run-of-anna', 9041, 41),
			(now(), 90042, 'billing_created', 'boris-reason', NULL, '{"user_id": 42}', 'webhook', 'boris-event', ?1, 9042, 42)`, borisUUID, borisRun)
	for _, r := range []db.Run{
		{ID: "run-of-anna", UserID: new(int64(anna)), StartedAt: noon().Add(-time.Hour)},
		{ID: borisRun, UserID: new(int64(boris)), StartedAt: noon(), Problems: []db.Problem{{Code: "server_failed", Message: "boris-problem", ServerID: 90042}}},
	} {
		r.Kind, r.State, r.Phase, r.EndedAt, r.Note = db.RunSync, db.RunSucceeded, db.PhaseEnded, new(noon()), r.ID+"-note"
		s.addRun(t, r)
	}
	s.exec(t, `INSERT INTO serversync.run_items (run_id, virtfusion_id, found, state, outcome, error) VALUES
		('run-of-anna', 90041, 'asked', 'done', 'new', NULL), (?, 90042, 'asked', 'done', 'failed', 'boris-failure')`, borisRun)
	return []string{"boris", "90042", "90043", "90044", "198.51.100.", borisUUID, "77.77", `"userId":42`}
}

// foreignIDs are boris's names for things, in every way to say them.
func foreignIDs() []string { return []string{"42", borisServer, borisUUID, borisRun, "9042", "71"} }

// Whatever ids anna puts into a path, a query or a body of any user's route:
// she sees and syncs what is hers alone.
func TestNoUserSeesAnother(t *testing.T) {
	t.Parallel()
	s := setup(t)
	marks := s.twoUsers(t)
	s.syncs.begun = func(r *db.Run) {
		if *r.UserID != anna || r.RequestedBy != "user 41 (api key 1)" && r.RequestedBy != "user 41 (session)" {
			t.Errorf("a sync was begun: of user %d by %q", *r.UserID, r.RequestedBy)
		}
		s.end(t, r.ID, db.RunSucceeded, "unchanged")
	}
	callers := []http.Header{
		withKey(s.addKey(t, anna, 1, "{*}", "")),
		headers("Cookie", s.signIn(t, "annaSession", passport("41"), noon().Add(time.Hour)), "Sec-Fetch-Site", "same-origin"),
	}
	var asked, saw int
	look := func(method, path string, header http.Header, body string) {
		t.Helper()
		s.exec(t, `DELETE FROM serversync.runs WHERE id LIKE 'sync-of-%'`)
		a := s.send(t, method, path, header, body)
		asked++
		for _, mark := range marks {
			if strings.Contains(a.raw, mark) || strings.Contains(a.header.Get("Location"), mark) {
				t.Errorf("%s %s with %s shows anna %q: %s", method, path, body, mark, a.raw)
			}
		}
		if a.status < 300 {
			saw++
		}
	}
	for route, needs := range routes {
		if needs != ofUser {
			continue
		}
		method, path, _ := strings.Cut(route, " ")
		for _, header := range callers {
			for _, id := range foreignIDs() {
				there := strings.NewReplacer(":id", id).Replace(path)
				look(method, there, header, "")
				for _, name := range []string{"user", "userId", "user_id", "id", "owner", "server", "run", "runId", "q", "cursor"} {
					look(method, there+"?"+name+"="+id, header, "")
				}
				look(method, there, header, `{"userId":`+"42"+`,"user_id":42,"id":"`+id+`","ids":[90042],"runId":"`+borisRun+`","owner":71}`)
			}
		}
	}
	if asked < 100 || saw < 10 {
		t.Errorf("%d requests, of which %d showed something", asked, saw)
	}

	// What is her own she does see.
	for _, header := range callers {
		a := s.send(t, http.MethodGet, "/api/user/servers/sync/status?userId=42", header, "")
		if got := data[api.UserStatus](t, a); got.TotalServers != 1 || got.BillingRecords != 1 {
			t.Errorf("anna's status: %s", a.raw)
		}
		if a := s.send(t, http.MethodGet, "/api/user/servers/sync/runs/run-of-anna", header, ""); a.status != http.StatusOK {
			t.Errorf("anna's run: %s", a.raw)
		}
		theirs := s.send(t, http.MethodGet, "/api/user/servers/sync/runs/"+borisRun, header, "")
		none := s.send(t, http.MethodGet, "/api/user/servers/sync/runs/no-such-run", header, "")
		if theirs.status != http.StatusNotFound || theirs.raw != none.raw {
			t.Errorf("another's run tells that it is there: %s, %s", theirs.raw, none.raw)
		}
	}
	// And the marks are there to be seen.
	header := withKey(s.addKey(t, boris, 2, "{read:servers}", ""))
	if a := s.send(t, http.MethodGet, "/api/user/servers/sync/runs/"+borisRun, header, ""); !strings.Contains(a.raw, borisRun) || !strings.Contains(a.raw, "90042") {
		t.Errorf("boris's run: %s", a.raw)
	}
	for _, path := range []string{"/api/user/servers", "/api/user/servers/sync/history"} {
		if a := s.send(t, http.MethodGet, path, header, ""); a.status != http.StatusOK || !strings.Contains(a.raw, "90042") {
			t.Errorf("boris's %s: %s", path, a.raw)
		}
	}
	if got := data[api.UserStatus](t, s.send(t, http.MethodGet, "/api/user/servers/sync/status", header, "")); got.TotalServers != 3 {
		t.Errorf("boris's status: %+v", got)
	}
}
