package main

import (
	"bytes"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The customer's page loads for whoever is signed in, complains of nothing, is
// told what it may do, and keeps nobody from using it.
func TestPagesCustomerPageLoads(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createSilently(customerID, smallPlan, "one")
	p := w.signedIn(t, customerUser)
	answer := p.open("/")
	if answer.Status != http.StatusOK {
		t.Errorf("/ was answered %d", answer.Status)
	}
	if _, header := w.get("/"); !strings.Contains(header.Get("Content-Security-Policy"), "script-src 'self'") {
		t.Errorf("no policy: %v", header)
	}
	var status int
	p.eval(`fetch('/api/user/servers/sync/status').then((r) => r.status)`, &status)
	if status != http.StatusOK {
		t.Errorf("the browser is not signed in: the status was answered %d", status)
	}
	p.axe()
}

// The same for the administrator's.
func TestPagesAdminPageLoads(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, adminUser)
	if answer := p.open("/admin"); answer.Status != http.StatusOK {
		t.Errorf("/admin was answered %d", answer.Status)
	}
	var status int
	p.eval(`fetch('/api/admin/overview').then((r) => r.status)`, &status)
	if status != http.StatusOK {
		t.Errorf("the browser is not signed in: the overview was answered %d", status)
	}
	p.axe()
}

// The world is as its options say, and a browser that is signed in nowhere is
// nobody to the service.
func TestPagesWorldObeysItsOptions(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{observeOnly: true, frameAncestors: []string{"https://panel.example"}})
	if _, header := w.get("/"); !strings.Contains(header.Get("Content-Security-Policy"), "frame-ancestors 'self' https://panel.example") {
		t.Errorf("no frame ancestors: %v", header)
	}
	w.createLoudly(5, 5, "watched") // Chen's
	w.until("1", `SELECT count(*) FROM serversync.servers`)
	w.exec(`UPDATE serversync.servers SET settle_until = now() - interval '1 minute'`) // nobody acts on it
	w.createLoudly(5, 5, "watched too")
	w.until("2", `SELECT count(*) FROM serversync.servers`)
	if rows := w.value(`SELECT count(*) FROM public.virtfusion_hourly_billing`); rows != "0" {
		t.Errorf("%s billing rows while only observing", rows)
	}
	p := w.newTab(t)
	p.expectErrors("401")
	p.open("/")
	var status int
	p.eval(`fetch('/api/user/servers/sync/status').then((r) => r.status)`, &status)
	if status != http.StatusUnauthorized {
		t.Errorf("nobody's status was answered %d", status)
	}
}

// The service comes back where it was, with what it had, and browsers are still
// signed in.
func TestPagesWorldRestarts(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, customerUser)
	p.expectErrors("net::ERR_", "fetch", "WebSocket", "EventSource") // while it is away
	p.open("/")
	created := w.createLoudly(customerID, smallPlan, "before")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, created.ID)
	const answers = `fetch('/api/user/servers/sync/status').then((r) => r.status, () => 0)`
	w.stop()
	p.waitFor(answers + `.then((status) => status === 0)`)
	w.createLoudly(customerID, smallPlan, "lost")
	w.restart()
	p.waitFor(answers + `.then((status) => status === 200)`)
	created = w.createLoudly(customerID, smallPlan, "after")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, created.ID)
	w.until("2", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.reload()
}

// Dead letters: one for good, and one that succeeds when it is sent again.
func TestPagesWorldHasDeadLetters(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.poison()
	s := w.createSilently(customerID, smallPlan, "buried")
	id := w.bury(&s, "the database refused it")
	if n := w.deadLetters(); n != 2 {
		t.Fatalf("%d dead letters, want 2", n)
	}
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	var status int
	p.eval(`fetch('/api/admin/dead-letters/`+id+`/requeue', {method: 'POST'}).then((r) => r.status)`, &status)
	if status >= http.StatusBadRequest {
		t.Errorf("requeue was answered %d", status)
	}
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, s.ID)
}

// harness serves made-up pages. /strict has the policy of the service's own.
func harness(t *testing.T, body string) string {
	t.Helper()
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><html lang="en"><title>made up</title><link rel="icon" href="data:,">` + body))
	}
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("GET /strict", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; img-src data:; require-trusted-types-for 'script'; trusted-types 'none'")
		page(w, r)
	})
	mux.HandleFunc("GET /markup.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write([]byte(`document.body.innerHTML = '<p>from text'`))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// A page that does what ours must not is noticed: or all these tests could pass
// blindly.
func TestPagesNoticeWhatAPageComplainsOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, body, want string }{
		"an error on the console":     {"/", `<script>console.error('on the', {sleeve: 1})</script>`, "console.error: on the Object"},
		"an exception":                {"/", `<script>throw new Error('a bug')</script>`, "a bug"},
		"a promise that nobody keeps": {"/", `<script>Promise.reject(new Error('a broken one'))</script>`, "a broken one"},
		"a missing file":              {"/", `<img src="/nothing.png" alt="">`, "404"},
		"an inline script":            {"/strict", `<script>1</script>`, "script-src"},
		"an inline style":             {"/strict", `<p style="color: red">x</p>`, "style-src"},
		"a script of another origin":  {"/strict", `<script src="http://other.localhost:1/x.js"></script>`, "script-src"},
		"markup made of text":         {"/strict", `<body><script src="/markup.js"></script>`, "require-trusted-types-for"},
		"a dialog":                    {"/", `<script>setTimeout(() => alert('hello'))</script>`, "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTab(t, harness(t, c.body))
			p.open(c.path)
			p.await("the complaint", func() error {
				for _, fault := range p.consoleErrors() {
					if strings.Contains(fault, c.want) {
						return nil
					}
				}
				return http.ErrMissingFile // any error: not yet
			})
			p.expectErrors(p.consoleErrors()...)
			if left := p.consoleErrors(); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestPagesAxeNoticesABarrier(t *testing.T) {
	t.Parallel()
	// In a shadow root, and under our policy.
	p := newTab(t, harness(t, `<h1>x</h1><main><div><template shadowrootmode="open"><img src="data:,"><button></button></template></div></main>`))
	p.open("/strict")
	found := make(map[string]axeFinding)
	for _, f := range p.axeFindings() {
		found[f.ID] = f
	}
	for _, id := range []string{"image-alt", "button-name"} {
		if f := found[id]; f.Impact != "critical" || len(f.Nodes) != 1 {
			t.Errorf("%s: %s", id, f.String())
		}
	}
	p.expectErrors("data:,") // that is no picture
}

// What the helpers promise of elements, also in open shadow roots.
func TestPagesFindAndUseElements(t *testing.T) {
	t.Parallel()
	p := newTab(t, harness(t, `
<style>
	@media (prefers-color-scheme: dark) { body { background: black } }
	@media (prefers-reduced-motion: reduce) { #motion { display: none } }
	@media (max-width: 500px) { #wide { display: none } }
</style>
<p id=motion>it moves</p> <p id=wide>it is wide</p>
<x-card><template shadowrootmode="open">
	<section aria-label="Card">
		<button id=go>Sync <b>now</b></button> <button hidden>Sync now</button>
		<p id=said>nothing <slot></slot></p>
		<label>Name <input id=name></label>
		<label>Plan <select id=plan><option>Small<option>Large</select></label>
	</section>
</template>said</x-card>
<button disabled id=later>Later</button>
<table><tr id=row><th>web-1</th><td>3.00</td></tr></table>
<script>
	const root = document.querySelector('x-card').shadowRoot;
	const said = root.getElementById('said');
	root.getElementById('go').onclick = (e) => { said.textContent = 'clicked ' + e.isTrusted; };
	root.getElementById('plan').onchange = (e) => { said.textContent = 'chose ' + e.target.value; };
	root.getElementById('name').onkeydown = (e) => { if (e.key === 'Enter') said.textContent = 'hello ' + e.target.value; };
	document.getElementById('later').onclick = () => { said.textContent = 'later'; };
	setTimeout(() => { document.getElementById('later').disabled = false; }, 200);
</script>`))
	p.open("/")
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	want("text with a slot", p.text("#said"), "nothing said")
	want("a row", p.text("#row"), "web-1 3.00")
	p.click(byRole("button", "Sync now"))
	p.waitText("#said", "clicked true")
	p.click(within("x-card", byRole("button", "Sync*")))
	p.click("#later")
	p.waitText(within("x-card", "p"), "later")
	p.fill(byRole("textbox", "Name"), "old")
	p.fill("#name", "Beatriz")
	want("focus", p.focused(), `textbox "Name"`)
	p.press("Enter")
	p.waitText("#said", "hello Beatriz")
	p.choose(byRole("combobox", "Plan"), "Large")
	p.waitText("#said", "chose Large")
	p.press("Shift+Tab")
	want("focus after Shift+Tab", p.focused(), `button "Sync now"`)
	p.press("Tab")
	want("focus after Tab", p.focused(), `textbox "Name"`)
	want("an attribute", p.attribute("section", "aria-label"), "Card")
	if n := p.count(byRole("button", "")); n != 2 {
		t.Errorf("%d buttons, want the 2 that can be seen", n)
	}
	p.waitFor(`textOf(deep('#said')) === 'chose Large'`)

	p.reducedMotion()
	p.waitCount("#motion", 0)
	p.setViewport(400, 600)
	p.waitCount("#wide", 0)
	p.dark()
	var colour string
	p.about("body", "(e) => getComputedStyle(e).backgroundColor", &colour)
	want("the dark background", colour, "rgb(0, 0, 0)")
	picture, err := png.DecodeConfig(bytes.NewReader(p.screenshot("made-up", 640, 400)))
	if err != nil || picture.Width != 640 || picture.Height < 400 {
		t.Errorf("the picture is %d by %d: %v", picture.Width, picture.Height, err)
	}
}

// A frame of another site is looked into as the page is.
func TestPagesLookIntoFrames(t *testing.T) {
	t.Parallel()
	inner := harness(t, `<button onclick="this.textContent = 'pressed'">Press</button>`)
	inner = strings.Replace(inner, "127.0.0.1", "localhost", 1)
	p := newTab(t, harness(t, `<iframe title=inner src="`+inner+`"></iframe>`))
	p.open("/")
	frame := p.inFrame(inner)
	frame.click(byRole("button", "Press"))
	frame.waitText("button", "pressed")
}
