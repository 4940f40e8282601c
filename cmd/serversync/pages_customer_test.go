package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"serversync/api"
	"serversync/virtfusion/virtfusionsim"
)

// Another customer, and a plan without a price.
const (
	otherID      = 5 // Chen Cai's, in VirtFusion
	unpricedPlan = 7
)

// From the click to the summary, with what was found on the way.
func TestPagesSyncFromClickToSummary(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText("#empty", "No servers yet")
	found := w.createSilently(customerID, smallPlan, "found-by-sync")
	w.createSilently(customerID, unpricedPlan, "no-price-yet")
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .notice.good", "2 servers")
	// Its billing is decided a moment later, when it is clear that SkyPANEL has not sold it.
	p.waitText("dialog .found", "found-by-sync External new: billed by the hour")
	p.waitText("dialog .found", "no-price-yet External new: not billed: no price")
	p.waitText("#list", "found-by-sync")
	w.until("on", `SELECT billing FROM serversync.servers WHERE virtfusion_id = $1`, found.ID)
	p.axe()
	p.click(byRole("button", "Sync again"))
	p.waitText("dialog .notice.good", "All in step: 2 servers synchronised, nothing had to change.")
	p.click("dialog summary")
	p.waitText("dialog .history", "Sync: succeeded; 2 servers, 0 new, 0 updated.")
	p.click("dialog footer .first")
	p.waitCount("dialog", 0)
	p.waitText("#standing", "2 servers, 2 of them external; all in step with billing")
}

// Why a server is not billed is said where the server is.
func TestPagesSayHowAServerIsBilled(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	priced := w.createLoudly(customerID, smallPlan, "priced")
	unpriced := w.createLoudly(customerID, unpricedPlan, "unpriced")
	w.until("2", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText(row(priced), "Billed by the hour Created directly in VirtFusion, outside the billing panel. A month $7.30 list price $5.00")
	p.waitText(row(unpriced), "Not billed Its plan has no price yet. Nothing is charged until your provider sets one")
	p.waitText(row(unpriced), "A month nothing")

	// Filters and search are the API's, and live in the address.
	p.choose("select[name=billing]", "Not billed")
	p.waitCount("#list > li", 1)
	p.waitText("#count", "1 server matches")
	p.reload()
	p.waitText("#count", "1 server matches")
	p.choose("select[name=billing]", "All")
	p.fill("input[name=q]", "priced")
	p.waitText("#count", "2 servers match")
	p.fill("input[name=q]", "unpri")
	p.waitText("#count", "1 server matches")
	p.fill("input[name=q]", "no such server")
	p.waitText("#empty", "No server matches.")

	// A button that is being pressed is not replaced by what is read meanwhile.
	p.eval(`globalThis.button = document.querySelector('#empty button'), true`, nil)
	p.fill("input[name=q]", "nor this one")
	p.waitFor(`performance.getEntriesByType('resource').some((e) => e.name.includes('nor+this+one') && e.responseStatus === 200)`)
	p.waitText("#count", "0 servers match")
	p.waitFor(`globalThis.button.isConnected`)
	p.click(byRole("button", "Show all"))
	p.waitCount("#list > li", 2)
}

func row(s virtfusionsim.Server) target { return target(fmt.Sprintf("#list > li[data-id='%d']", s.ID)) }

// What webhooks tell is seen without a reload; also what happened while the
// service was away.
func TestPagesAreLive(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	first := w.createLoudly(customerID, smallPlan, "first")
	w.until("1", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p := w.signedIn(t, customerUser)
	p.expectErrors("net::ERR_", "WebSocket", "503") // while it is away
	p.open("/")
	p.waitText("#live", "Live")
	p.waitCount("#list > li", 1)
	second := w.createLoudly(customerID, smallPlan, "second")
	p.waitText(row(second), "External")
	if _, err := w.panel.Destroy(first.ID); err != nil {
		t.Fatal(err)
	}
	p.waitCount(row(first), 0)

	w.stop()
	p.waitText("#live", "Reconnecting")
	w.exec(`UPDATE serversync.servers SET name = 'renamed meanwhile' WHERE virtfusion_id = $1`, second.ID)
	w.restart()
	p.waitText("#live", "Live")
	p.waitText(row(second), "renamed meanwhile")
	third := w.createLoudly(customerID, smallPlan, "third")
	p.waitText(row(third), "External")
}

// A sync that was running when the service went away is followed to its end.
func TestPagesFollowASyncOverARestart(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createSilently(customerID, smallPlan, "slow")
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultHanging})
	p := w.signedIn(t, customerUser)
	p.expectErrors("net::ERR_", "WebSocket", "503")
	p.open("/")
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog [role=status]", "Asking VirtFusion")
	w.panel.SetAPIFaults()
	w.stop()
	w.restart()
	p.waitText("dialog .notice", "sync") // how it ended: done, or taken over
	p.click(byRole("button", "Sync again"))
	p.waitText("dialog .notice.good", "1 server")
}

func TestPagesShowNobodyElsesServers(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createLoudly(otherID, smallPlan, "not-hers")
	w.until("1", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p := w.signedIn(t, customerUser)
	var heard string
	p.open("/")
	p.waitText("#live", "Live")
	p.eval(`new Promise((resolve) => { globalThis.heard = ''; const s = new WebSocket('/api/user/servers/sync/live'.replace(/^/, location.origin.replace('http', 'ws'))); s.onmessage = (m) => { heard += m.data; resolve(''); }; })`, &heard)
	w.createLoudly(otherID, smallPlan, "not-hers-either")
	w.until("2", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	own := w.createLoudly(customerID, smallPlan, "hers") // after it, so all of it would have come by now
	p.waitText(row(own), "External")
	p.eval(`heard`, &heard)
	if text := p.text("body"); strings.Contains(text, "not-hers") || strings.Contains(heard, "not-hers") || !strings.Contains(heard, "hers") {
		t.Errorf("the page says %q, the WebSocket %q", text, heard)
	}
	var status int
	p.eval(`fetch('/api/admin/overview').then((r) => r.status)`, &status)
	p.expectErrors("403")
	if status != http.StatusForbidden {
		t.Errorf("the admin's overview was answered %d", status)
	}
}

func TestPagesAreUsedByKeyboard(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createLoudly(customerID, smallPlan, "only")
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitCount("#list > li", 1)
	p.press("Tab")
	if got := p.focused(); got != `link "Skip to the servers"` {
		t.Errorf("first comes %s", got)
	}
	reach(p, `button "Sync servers"`)
	p.press("Enter")
	p.waitText("dialog .notice.good", "1 server")
	// The focus stays inside, whichever way.
	for _, key := range []string{"Tab", "Shift+Tab"} {
		for range 12 {
			p.press(key)
			var outside bool
			p.eval(`document.activeElement !== document.body && document.activeElement !== document.documentElement && document.activeElement.tagName !== 'SERVER-SYNC'`, &outside)
			if outside {
				t.Fatalf("%s left the dialog for %s", key, p.focused())
			}
		}
	}
	p.press("Escape")
	p.waitCount("dialog", 0)
	if got := p.focused(); got != `button "Sync servers"` {
		t.Errorf("after the dialog the focus is at %s", got)
	}
	reach(p, `searchbox "Search"`)
	p.press("Enter") // filters nothing, and stays
	p.waitCount("#list > li", 1)
}

// reach presses Tab until something has the focus.
func reach(p *tab, what string) {
	p.Helper()
	var passed []string
	for range 30 {
		if got := p.focused(); got == what {
			return
		} else {
			passed = append(passed, got)
		}
		p.press("Tab")
	}
	p.Fatalf("Tab does not reach %s, only %q", what, passed)
}

const markupName = `<img src=x onerror=alert(1)>"'&amp;</li></script><script>alert(2)</script>`

// Whatever a server is called, it is text.
func TestPagesShowHostileNamesAsText(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	hostile := w.createSilently(customerID, smallPlan, markupName)
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .found", `onerror=alert(1)>`)
	w.until("1", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p.click(byRole("button", "Sync again"))
	p.waitText("dialog .notice.good", "1 server")
	p.click("dialog summary")
	p.waitText("dialog .history", markupName)
	p.click("dialog footer .first")
	p.waitText(row(hostile), markupName)
	if n := p.count("#list img") + p.count("dialog img"); n != 0 {
		t.Errorf("%d pictures were made of a name", n)
	}
	admin := w.signedIn(t, adminUser)
	for _, view := range []string{"#/", "#/servers", fmt.Sprintf("#/servers/%d", hostile.ID), "#/runs", fmt.Sprintf("#/users/%d", customerUser)} {
		admin.open("/admin" + view)
		admin.waitCount("#view h1", 1)
		if strings.HasPrefix(view, "#/servers") {
			admin.waitText("#view", markupName)
		}
		if n := admin.count("#view img[src=x]"); n != 0 {
			t.Errorf("%s: %d pictures were made of a name", view, n)
		}
	}
}

// Who is not signed in is told how to.
func TestPagesSayHowToSignIn(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.newTab(t)
	p.expectErrors("401")
	p.open("/")
	p.waitText("#trouble", "Sign in to your hosting panel in this browser")
	if n := p.count("#content") + p.count(byRole("button", "Sync servers")); n != 0 {
		t.Error("there is still something to press that cannot work")
	}
	p.axe()
	p.open("/admin")
	p.waitText("main", "Sign in to SkyPANEL")
	p.axe()
	customer := w.signedIn(t, customerUser)
	customer.expectErrors("403")
	customer.open("/admin")
	customer.waitText("main", "Beatriz Barros")
	customer.axe()
}

// Errors say what to do, and lead somewhere.
func TestPagesSayWhatToDoAboutErrors(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, adminUser) // who has no account in VirtFusion
	p.open("/")
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .notice", "The sync")
	p.waitText("dialog", "What to do")
	p.axe()
	w.exec(`DELETE FROM session`) // signed out elsewhere
	p.expectErrors("401", "WebSocket")
	p.await("the session is forgotten", func() error {
		var status int
		p.eval(`fetch('/api/user/me').then((r) => r.status)`, &status)
		if status != http.StatusUnauthorized {
			return fmt.Errorf("answered %d", status)
		}
		return nil
	})
	p.click(byRole("button", "Sync again"))
	p.waitText("body", "Sign in to your hosting panel")
}

// Whoever is signed out, or somebody else by now, finds nothing of before, and a
// page that can be used.
func TestPagesForgetWhoWasSignedIn(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createLoudly(customerID, smallPlan, "hers-alone")
	w.until("1", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p := w.signedIn(t, customerUser)
	p.expectErrors("401", "WebSocket")
	p.open("/")
	p.waitText("#who", "Beatriz Barros")
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .notice.good", "1 server")
	w.exec(`DELETE FROM session`)
	p.waitText("#trouble", "Sign in to see your servers")
	p.waitCount("dialog", 0)
	if text := p.text("body"); strings.Contains(text, "Beatriz") || strings.Contains(text, "hers-alone") {
		t.Errorf("what is left: %s", text)
	}
	if got := p.focused(); got != `heading "Sign in to see your servers"` {
		t.Errorf("the focus is at %s", got)
	}
	p.click(byRole("button", "I am signed in now"))
	p.waitText("#trouble", "Sign in to see your servers")

	// Another customer signs in, in another tab of the same browser.
	other := w.signedIn(t, customerUser)
	other.open("/")
	other.waitText("#list", "hers-alone")
	w.exec(`UPDATE session SET sess = jsonb_set(sess::jsonb, '{passport,user}', '3') WHERE sess::jsonb #>> '{passport,user}' = '2'`)
	other.await("the session is another's", func() error {
		var id int
		other.eval(`fetch('/api/user/me').then((r) => r.json()).then((a) => a.data.id)`, &id)
		if id != 3 {
			return fmt.Errorf("still %d", id)
		}
		return nil
	})
	other.eval(`void dispatchEvent(new Event('focus'))`, nil)
	other.waitText("#who", "Chen Cai")
	other.waitText("#empty", "No servers yet.")
}

// The element on a page of another origin, which has its own policy, and a style
// that would hide all of it: everything works, if that origin is listed, and else it says why
// not.
func TestPagesElementOnAForeignPage(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{"as a module": ` type="module"`, "as a plain script": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			panel := httptest.NewUnstartedServer(nil)
			origin := "http://" + panel.Listener.Addr().String()
			w := newPagesWorld(t, pagesOptions{origins: []api.Origin{api.Origin(origin)}})
			panel.Config.Handler = foreign(t, w.base, script)
			panel.Start()
			t.Cleanup(panel.Close)
			p := w.signedIn(t, customerUser)
			p.open(origin + "/")
			p.waitText(".tile", "No servers yet")
			server := w.createSilently(customerID, smallPlan, "on-the-foreign-page")
			p.click("button.first")
			p.waitText("dialog .notice.good", "1 server")
			p.waitText("dialog .found", server.Name+" External")
			p.waitText("#last", "serversync:ended succeeded")
			p.click("dialog footer .first")
			p.waitText(".tile", "All servers in step")
			p.axe()
		})
	}
	t.Run("of an origin that is not listed", func(t *testing.T) {
		t.Parallel()
		w := newPagesWorld(t, pagesOptions{})
		panel := httptest.NewServer(foreign(t, w.base, ` type="module"`))
		t.Cleanup(panel.Close)
		p := w.signedIn(t, customerUser)
		p.expectErrors("CORS", "net::ERR_FAILED", "WebSocket", "403")
		p.open(panel.URL + "/")
		p.waitText(".tile", "Not known")
		p.click("button.first")
		p.waitText("dialog .notice.bad", "The service cannot be reached.")
	})
}

// foreign is somebody's page with the element: the one of the README, with a
// policy, and with what makes it known.
func foreign(t *testing.T, service, script string) http.Handler {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(readme), "```html\n")
	body, _, ends := strings.Cut(rest, "```")
	if !begins || !ends || !strings.Contains(body, `type="module" src="https://serversync.example.com`) {
		t.Fatal("the README has no page with the element")
	}
	body = strings.NewReplacer(` type="module"`, script, "https://serversync.example.com", service,
		"<h1>", `<link rel="stylesheet" href="style.css"><link rel="icon" href="data:,"><main><h1>`).Replace(body)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; img-src data:; style-src 'self'; script-src 'self' %s; connect-src %s %s",
			service, service, strings.Replace(service, "http", "ws", 1)))
		fmt.Fprint(w, body)
	})
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		fmt.Fprint(w, `h2, ul, button, dialog, .tile, .notice { display: none !important }`)
	})
	mux.HandleFunc("GET /dashboard.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, `document.addEventListener('serversync:ended', (e) => { document.getElementById('last').textContent = e.type + ' ' + e.detail.state; });`)
	})
	return mux
}

// Behind a proxy that takes a path away everything works as without.
func TestPagesUnderAPath(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	service, err := url.Parse(w.base)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.StripPrefix("/sync", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(service)
		r.Out.Host = r.In.Host
	}}))
	t.Cleanup(proxy.Close)
	server := w.createSilently(customerID, smallPlan, "under-a-path")
	p := w.signedIn(t, customerUser)
	p.open(proxy.URL + "/sync/")
	p.waitText("#live", "Live")
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .notice.good", "1 server")
	p.click("dialog footer .first")
	p.waitText(row(server), "External")
	admin := w.signedIn(t, adminUser)
	admin.open(proxy.URL + "/sync/admin")
	admin.waitText("#live", "Live")
	admin.click(byRole("link", "Servers"))
	admin.waitText("#view", "under-a-path")
	admin.click(byRole("link", "Customer’s page"))
	admin.waitText("#standing", "0 servers")
}

// Ten thousand servers come page by page, and are found among each other.
func TestPagesShowTenThousandServers(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	model := w.createLoudly(customerID, smallPlan, "model")
	w.until("1", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	w.exec(`DO $$
		DECLARE columns text;
		BEGIN
			SELECT string_agg(quote_ident(column_name), ',') INTO columns FROM information_schema.columns
			WHERE table_schema = 'serversync' AND table_name = 'servers' AND is_generated = 'NEVER' AND column_name NOT IN ('virtfusion_id', 'name', 'uuid');
			EXECUTE format('INSERT INTO serversync.servers (virtfusion_id, name, uuid, %s) SELECT 100000 + g, ''many-'' || g, gen_random_uuid()::text, %s
				FROM serversync.servers, generate_series(1, 10000) g WHERE virtfusion_id = ` + strconv.FormatInt(model.ID, 10) + `', columns, columns);
		END $$`)
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText("#count", "The first 50")
	p.waitText("#standing", "10,001 servers")
	p.eval(`scrollTo(0, document.body.scrollHeight)`, nil)
	p.waitFor(`deepAll('#list > li').length >= 150`)
	p.fill("input[name=q]", "many-7777")
	p.waitText("#count", "1 server matches")
	p.waitText("#list", "many-7777")
}

// The page is one round of requests: nothing that it needs is named only in what
// it needs. And it is small.
func TestPagesNeedOneRound(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	for user, path := range map[int64]string{customerUser: "/", adminUser: "/admin"} {
		p := w.signedIn(t, user)
		p.open(path)
		p.waitText("#live", "Live")
		var late []string
		p.eval(`(() => {
			const named = new Set([...document.querySelectorAll('link[href], script[src], img[src]')].map((e) => e.href || e.src));
			return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => n.includes('/assets/') && !named.has(n));
		})()`, &late)
		if len(late) > 0 {
			t.Errorf("%s names only in its scripts: %q", path, late)
		}
		// What is asked of the API grows with the books, and a chart with the hour of
		// the day: the page's own files do not.
		var own float64
		p.eval(`[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')].
			filter((e) => !e.name.includes('/api/')).reduce((n, e) => n + e.transferSize, 0)`, &own)
		t.Logf("%s: %.0f bytes of its own", path, own)
		if own == 0 || own > 50_000 {
			t.Errorf("%s: %.0f bytes of its own, want less than 50,000", path, own)
		}
	}
}

// A slash too many leads to the page all the same, also behind a proxy.
func TestPagesWithASlashTooMany(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, adminUser)
	p.open("/admin/")
	p.waitText("#view h1", "Overview")
	p.waitText("#live", "Live")
}

// rules are what becomes of a page's requests: [hold] and [fail] make them.
const requestRules = `(() => {
	globalThis.rules = []; globalThis.seen = [];
	const real = globalThis.fetch;
	globalThis.fetch = async (input, init) => {
		const url = String(input);
		seen.push((init?.method ?? 'GET') + ' ' + url);
		const rule = rules.find((r) => url.includes(r.part) && (r.method ?? 'GET') === (init?.method ?? 'GET'));
		if (rule) {
			if (rule.once) rules.splice(rules.indexOf(rule), 1);
			if (rule.fail) throw new TypeError('made to fail');
			await new Promise((resolve) => { rule.release = resolve; globalThis.held = rule; });
		}
		return real(input, init);
	};
})()`

// A sync that has begun is followed to its end, whatever the page fails to read.
func TestPagesDoNotLoseSightOfASync(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createSilently(customerID, smallPlan, "kept-in-sight")
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText("#live", "Live")
	p.eval(requestRules, nil)
	p.eval(`rules.push({part: '/sync/runs/', fail: true, once: true})`, nil)
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .notice.good", "1 server")

	// Closed while a sync is about to begin, and opened again: it is watched.
	p.eval(`rules.push({part: 'servers/sync?wait=0', method: 'POST', once: true})`, nil)
	p.click("dialog footer button:not(.first)")
	p.waitFor(`globalThis.held?.release !== undefined`)
	p.click("dialog footer .first")
	p.waitCount("dialog", 0)
	p.click(byRole("button", "Sync servers"))
	p.eval(`held.release(), true`, nil)
	p.waitText("dialog .notice.good", "All in step: 1 server synchronised")

	// What is older is asked for once, however impatient the reader.
	w.exec(`INSERT INTO serversync.history (at, virtfusion_id, user_id, kind, reason, source, event_id)
		SELECT now() - g * interval '1 minute', s.virtfusion_id, $1, 'observed', 'x', 'test', '' FROM serversync.servers s, generate_series(1, 50) g`, customerUser)
	p.click("dialog summary")
	p.waitCount("dialog .history > li", 20)
	p.eval(`deep('dialog details button').click(), deep('dialog details button').click(), true`, nil)
	p.waitCount("dialog .history > li", 40)
	p.eval(`rules.push({part: 'sync/history', fail: true, once: true})`, nil)
	p.click(byRole("button", "Show older"))
	p.waitText("dialog details", "The service cannot be reached")
	p.waitCount("dialog .history > li", 40)
}

// The element may be moved, changed and taken away: it leaves no timers behind,
// and takes the focus from nobody.
func TestPagesElementComesAndGoes(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText("#live", "Live")
	p.eval(`(() => {
		globalThis.timers = new Set();
		const set = setInterval, clear = clearInterval;
		globalThis.setInterval = (...a) => { const id = set(...a); timers.add(id); return id; };
		globalThis.clearInterval = (id) => { timers.delete(id); clear(id); };
		globalThis.tile = document.createElement('server-sync');
		tile.setAttribute('mode', 'status');
		document.querySelector('main').append(tile);
		document.querySelector('main').prepend(tile);
		for (const mode of ['', 'status', '', 'status']) tile.setAttribute('mode', mode);
	})()`, nil)
	p.waitText(".tile", "No servers yet")
	p.waitFor(`timers.size === 2`)
	p.eval(`tile.shadowRoot.querySelector('button').focus()`, nil)
	p.eval(requestRules, nil)
	p.eval(`void tile.shadowRoot.querySelector('.tile strong').setAttribute('data-old', '')`, nil)
	p.eval(`document.dispatchEvent(new CustomEvent('serversync:ended'))`, nil)
	p.waitFor(`tile.shadowRoot.querySelector('.tile strong:not([data-old])') !== null`) // drawn anew
	var focused bool
	p.eval(`document.activeElement === tile && tile.shadowRoot.activeElement?.tagName === 'BUTTON'`, &focused)
	if !focused {
		t.Error("the tile took the focus from its button")
	}
	p.eval(`tile.remove(), true`, nil)
	p.waitFor(`timers.size === 0`)
}
