package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	cdppage "github.com/chromedp/cdproto/page"

	"serversync/virtfusion/virtfusionsim"
)

// What the pages do when answers are late, fail, or overtake each other.

// hooked is a script that takes down what a page asks for, in asked, and lets
// rules decide what becomes of it: {part of the address, method; once: for one
// request; fail: nothing answers; hold: a promise, for which the answer waits;
// say: the data that is answered instead}.
const hooked = `
	const realFetch = globalThis.fetch;
	globalThis.asked = [];
	globalThis.rules = [];
	globalThis.fetch = async (input, init) => {
		const url = String(input), method = init?.method ?? 'GET';
		const mine = { url, method, at: performance.now(), body: init?.body };
		asked.push(mine);
		const rule = rules.find((r) => url.includes(r.part) && method === (r.method ?? 'GET') && !r.off);
		if (rule?.once) rule.off = true;
		if (rule?.fail) throw new TypeError('made up');
		const answer = rule?.say ? Response.json({ success: true, data: rule.say }) : await realFetch(input, init);
		await rule?.hold;
		return answer;
	};
	globalThis.askedFor = (part, method = 'GET') => asked.filter((a) => a.url.includes(part) && a.method === method);`

// hook puts [hooked] into the page.
func (p *tab) hook() {
	p.Helper()
	p.eval(`(() => {`+hooked+`})()`, nil)
}

// rule adds a rule to a page with [hooked].
func (p *tab) rule(rule string) {
	p.Helper()
	p.eval(`void rules.push(`+rule+`)`, nil)
}

// atStart runs a script in each page that is opened, before its own.
func (p *tab) atStart(script string) {
	p.Helper()
	if _, err := command(p, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		p.Fatal(err)
	}
}

// caughtUp waits until the customer's page has read again what it shows, as it does
// when its connection opens. Changes before that need no request of their own.
func (p *tab) caughtUp() {
	p.Helper()
	p.waitText("#live", "Live")
	p.waitFor(`performance.getEntriesByType('resource').some((e) => e.name.includes('api/user/servers?') && e.name.includes('limit=200'))`)
}

// one makes a server whose billing is settled.
func (w *pagesWorld) one(name string) virtfusionsim.Server {
	w.Helper()
	s := w.createLoudly(customerID, smallPlan, name)
	w.until("external", `SELECT status FROM serversync.servers WHERE virtfusion_id = $1`, s.ID)
	return s
}

// copies puts n servers like one of Beatriz's into the books, each a minute older than
// the one before; with a negative step newer ones.
func (w *pagesWorld) copies(of *virtfusionsim.Server, name string, n, from, step int) {
	w.Helper()
	w.exec(fmt.Sprintf(`DO $$
		DECLARE columns text;
		BEGIN
			SELECT string_agg(quote_ident(column_name), ',') INTO columns FROM information_schema.columns
			WHERE table_schema = 'serversync' AND table_name = 'servers' AND is_generated = 'NEVER' AND column_name NOT IN ('virtfusion_id', 'name', 'uuid', 'first_seen_at', 'created_at');
			EXECUTE format('INSERT INTO serversync.servers (virtfusion_id, name, uuid, first_seen_at, created_at, %%s) SELECT %d + g, ''%s-'' || g, gen_random_uuid()::text, first_seen_at - g * %d * interval ''1 minute'', created_at - g * interval ''1 minute'', %%s
				FROM serversync.servers, generate_series(1, %d) g WHERE virtfusion_id = %d', columns, columns);
		END $$`, from, name, step, n, of.ID))
}

func (w *pagesWorld) rename(s *virtfusionsim.Server, name string) {
	w.Helper()
	if _, err := w.panel.Rename(s.ID, name, "renamed.example"); err != nil {
		w.Fatal(err)
	}
}

// A next page that cannot be read is not asked for again by itself, and belongs to what
// is shown, whatever is typed meanwhile.
func TestPagesRaceOfTheNextPage(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	model := w.one("model")
	w.copies(&model, "many", 300, 100_000, 1)
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText("#count", "The first 50")
	p.waitText("#live", "Live")
	p.fill("input[name=q]", "m")
	p.waitText("#count", "Type one more letter")
	p.hook()
	p.rule(`{part: 'cursor=', fail: true}`)
	p.eval(`scrollTo(0, document.body.scrollHeight)`, nil)
	p.waitText("#trouble", "cannot be reached")
	w.rename(&model, "still-live")
	p.waitText(row(model), "still-live")
	var n int
	p.eval(`askedFor('cursor=').length`, &n)
	if n != 1 {
		t.Errorf("the page that fails was asked for %d times", n)
	}
	p.eval(`void (rules.length = 0)`, nil)
	p.click(byRole("button", "Try again"))
	p.waitFor(`deepAll('#list > li').length >= 150`)
	p.waitCount("#trouble .notice", 0)
}

// However many servers are new at once, and however many pages there are, all that are
// newer than what is shown appear.
func TestPagesRaceOfManyNewServers(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	model := w.one("model")
	w.copies(&model, "many", 300, 100_000, 1)
	p := w.signedIn(t, customerUser)
	p.expectErrors("net::ERR_", "WebSocket", "503") // while the service is away
	p.open("/")
	p.waitText("#count", "The first 50")
	p.waitText("#live", "Live")
	admin := w.signedIn(t, adminUser)
	admin.expectErrors("net::ERR_", "WebSocket", "503")
	admin.open("/admin#/servers")
	admin.waitText("#live", "Live")
	admin.waitFor(`deepAll('#view tbody tr').length >= 50`)
	admin.eval(`scrollTo(0, document.body.scrollHeight)`, nil)
	admin.waitFor(`deepAll('#view tbody tr').length >= 100`)

	const loud = 12
	made := make(chan error, loud)
	for i := range loud {
		go func() {
			_, err := w.panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: customerID, PackageID: smallPlan, Name: fmt.Sprintf("loud-%d", i), Built: true})
			made <- err
		}()
	}
	for range loud {
		if err := <-made; err != nil {
			t.Fatal(err)
		}
	}
	p.waitFor(`deepAll('#list > li h2').filter((e) => e.textContent.startsWith('loud')).length === ` + strconv.Itoa(loud))

	// The same while nobody could tell.
	w.until("0", `SELECT count(*) FROM serversync.servers WHERE status = 'settling'`)
	w.stop()
	p.waitText("#live", "Reconnecting")
	admin.waitText("#live", "Reconnecting")
	w.copies(&model, "away", 5, 200_000, -60)
	w.restart()
	p.waitFor(`deepAll('#list > li h2').map((e) => e.textContent).slice(0, 5).join() === 'away-5,away-4,away-3,away-2,away-1'`)
	p.waitCount("#list > li", 50+loud+5)
	admin.waitText("#view tbody tr", "away-5")
	if n := admin.count("#view tbody tr"); n < 100+5 {
		t.Errorf("after a reconnect %d rows are left of what was scrolled to", n)
	}
}

// In another order than the newest first, what is new appears where it belongs.
func TestPagesRaceKeepsTheOrder(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	model := w.one("model")
	w.copies(&model, "many", 300, 100_000, 1)
	p := w.signedIn(t, customerUser)
	p.open("/?sort=name")
	p.waitText("#count", "The first 50")
	p.waitText("#live", "Live")
	last := w.one("zzz")
	first := w.one("aaa")
	p.waitText(row(first), "External")
	p.waitFor(`deepAll('#list > li h2')[0].textContent === 'aaa'`)
	if n := p.count(row(last)); n != 0 {
		t.Error("what belongs on a page that is not loaded is shown")
	}
}

// More changes at once than one request reads.
func TestPagesRaceOfHundredsOfChanges(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.one("model")
	p := w.signedIn(t, adminUser)
	p.open("/admin#/servers")
	p.waitText("#live", "Live")
	p.waitText("#view", "model")
	for i := range 450 {
		w.createSilently(customerID, smallPlan, fmt.Sprintf("swept-%d", i))
	}
	p.eval(`fetch('/api/admin/servers/sync', {method: 'POST'}).then((r) => r.status)`, nil)
	w.until("451", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p.waitFor(`deepAll('#view tbody tr').length === 451`)
	p.waitFor(`!deepAll('#view tbody .badge').some((b) => b.textContent === 'New')`)
}

// A refresh that fails is tried again after a pause, and changes that never end do not
// put it off.
func TestPagesRaceOfRefreshes(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	first := w.one("first")
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.caughtUp()
	p.waitCount(row(first), 1)
	p.hook()
	p.rule(`{part: 'id=', fail: true}`)
	second := w.createLoudly(customerID, smallPlan, "second")
	p.waitFor(`askedFor('id=').length >= 3`)
	var pauses []float64
	p.eval(`askedFor('id=').slice(1, 3).map((a, i) => a.at - askedFor('id=')[i].at)`, &pauses)
	if pauses[0] < 1500 || pauses[1] < 1500 {
		t.Errorf("what fails is asked for again after %.0f ms", pauses)
	}
	p.eval(`void (rules.length = 0)`, nil)
	p.waitText(row(second), "External")

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				ended <- nil
				return
			case <-ticker.C:
			}
			if _, err := w.panel.Rename(first.ID, fmt.Sprintf("steady-%d", i), "steady.example"); err != nil {
				ended <- err
				return
			}
		}
	}()
	p.waitText(row(first), "steady-")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An answer to the filter before does nothing to what is shown now.
func TestPagesRaceOfFilters(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	on, signal := w.one("on-one"), w.one("signal")
	off := w.createLoudly(customerID, unpricedPlan, "off-one")
	w.until("3", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p := w.signedIn(t, customerUser)
	p.open("/?billing=off")
	p.caughtUp()
	p.waitCount(row(off), 1)
	p.hook()
	p.rule(`{part: 'id=', once: true, hold: new Promise((r) => { globalThis.letGo = r; })}`)
	w.rename(&on, "on-renamed")
	p.waitFor(`askedFor('id=').length > 0`)
	p.choose("select[name=billing]", "Billed")
	p.waitCount(row(on), 1)
	p.waitCount(row(off), 0)
	p.eval(`void letGo()`, nil)
	w.rename(&signal, "has-come")
	p.waitText(row(signal), "has-come")
	if p.count(row(on)) != 1 || p.count(row(off)) != 0 {
		t.Errorf("an old answer changed what is shown: %s", p.text("#list"))
	}
}

// What did not change is not drawn anew, and what did keeps the focus and what was
// opened.
func TestPagesRaceKeepsRows(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	s := w.one("same")
	p := w.signedIn(t, customerUser)
	p.open("/")
	p.waitText("#live", "Live")
	p.waitText(row(s), "External")
	p.eval(`void (globalThis.was = document.querySelector('#list > li'))`, nil)
	p.click(byRole("button", "Sync servers"))
	p.waitText("dialog .notice.good", "All in step")
	p.click("dialog footer .first")
	next := w.one("next")
	p.waitText(row(next), "External")
	p.waitFor(`was.isConnected`)

	admin := w.signedIn(t, adminUser)
	admin.open("/admin#/servers")
	admin.waitText("#live", "Live")
	admin.waitText("#view", "same")
	box := fmt.Sprintf("Choose server %d", s.ID)
	admin.eval(`document.querySelector('[aria-label="`+box+`"]').focus()`, nil)
	w.rename(&s, "another-name")
	admin.waitText("#view", "another-name")
	if got := admin.focused(); !strings.Contains(got, box) {
		t.Errorf("the focus went to %s", got)
	}
	admin.open(fmt.Sprintf("/admin#/servers/%d", s.ID))
	admin.waitText("#view .timeline", "Observed")
	admin.eval(`document.querySelector('.timeline > li:last-child details:last-of-type').open = true`, nil)
	w.rename(&s, "third-name")
	admin.waitText("#view .timeline", "third-name")
	admin.waitFor(`document.querySelector('.timeline > li:last-child details:last-of-type').open`)
}

// A run's end is known for good: neither an answer from before it, nor a connection that
// opened after it, leaves the page saying that it runs.
func TestPagesRaceOfARunsEnd(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createSilently(customerID, smallPlan, "slow")
	w.panel.SetAPIFaults(virtfusionsim.APIFault{Kind: virtfusionsim.FaultHanging})
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	p.waitText("#live", "Live")
	p.hook()
	p.rule(`{part: 'api/admin/runs/', once: true, hold: new Promise((r) => { globalThis.letGo = r; })}`)
	p.click(byRole("button", "Sweep now"))
	p.waitFor(`location.hash.startsWith('#/runs/') && askedFor('api/admin/runs/').length > 0`)
	var hash string
	p.eval(`location.hash`, &hash)

	late := w.signedIn(t, adminUser) // whose connection opens after the end
	late.atStart(`
		const Real = WebSocket;
		globalThis.opened = new Promise((r) => { globalThis.openNow = r; });
		globalThis.WebSocket = class extends EventTarget {
			constructor(url) {
				super();
				opened.then(() => {
					this.real = new Real(url);
					this.real.onmessage = (e) => this.dispatchEvent(new MessageEvent('message', { data: e.data.replace(/"type":"snapshot".*/, '"type":"hello"}') }));
					this.real.onclose = () => this.dispatchEvent(new Event('close'));
				});
			}
			close() { this.real?.close(); }
		};`)
	late.open("/admin" + hash)
	late.waitText("#view .standing", "Running")

	w.panel.SetAPIFaults()
	w.until("succeeded", `SELECT state FROM serversync.runs WHERE kind = 'sweep'`)
	p.waitText("#view .standing", "Succeeded") // which all were told who listen
	late.eval(`void openNow()`, nil)
	late.waitText("#view .standing", "Succeeded")
	p.eval(`(letGo(), new Promise((r) => setTimeout(r, 300)))`, nil)
	if got := p.text("#view .standing"); !strings.Contains(got, "Succeeded") {
		t.Errorf("after an old answer the page says %s", got)
	}
}

// While a run is followed, a moment without a network is waited for; nothing is ordered
// twice.
func TestPagesRaceOfOrders(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	server := w.one("replayed")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p := w.signedIn(t, adminUser)
	p.open(fmt.Sprintf("/admin#/users/%d", customerUser))
	p.waitText("#live", "Live")
	p.waitText("#view", "In step")
	p.hook()
	p.rule(`{part: 'api/admin/runs/', fail: true, once: true}`)
	p.click(byRole("button", "Sync now"))
	p.waitText("#view .notice.good", "Sync:")
	p.waitFor(`askedFor('/sync', 'POST').length === 1 && askedFor('api/admin/runs/').length > 1`)

	// A replay that could not be ordered is ordered by "Try again", as it was previewed.
	w.exec(`UPDATE public.virtfusion_hourly_billing SET monthly_price = 1`)
	p.click(byRole("button", "Preview replay"))
	p.waitText("#view", "The price changed from 1.00 to 5.00 a month, as charged from 0.00 to 7.30.")
	p.rule(`{part: '/replay', method: 'POST', fail: true, once: true}`)
	p.click(byRole("button", "Replay"))
	p.waitText("#view", "cannot be reached")
	p.click(byRole("button", "Try again"))
	w.until("5", `SELECT monthly_price::int FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, server.ID)
	w.until("1", `SELECT count(*) FROM serversync.runs WHERE kind = 'replay' AND NOT dry_run`)
}

// Who leaves a view is not followed by what it still does.
func TestPagesRaceOfLeaving(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	buried := w.createSilently(customerID, smallPlan, "buried")
	w.bury(&buried, "nobody knows")
	p := w.signedIn(t, adminUser)
	p.open("/admin#/dead-letters")
	p.waitText("#live", "Live")
	p.hook()
	p.rule(`{part: '/requeue', method: 'POST', hold: new Promise((r) => { globalThis.letGo = r; })}`)
	p.click(byRole("button", "Requeue*"))
	p.waitFor(`askedFor('/requeue', 'POST').length > 0`)
	p.eval(`void (location.hash = '#/servers')`, nil)
	p.waitText("#view h1", "Servers")
	p.waitText("#view", "buried")
	p.eval(`letGo()`, nil) // a fault of the page's fails the test

	var at string
	p.eval(`(async () => {
		const q = document.querySelector('input[name=q]');
		q.value = 'abc';
		q.dispatchEvent(new Event('input', { bubbles: true }));
		location.hash = '#/runs';
		await new Promise((r) => setTimeout(r, 600)); // longer than typing is waited for
		return location.hash + ' ' + document.querySelector('#view h1').textContent;
	})()`, &at)
	if at != "#/runs Runs" {
		t.Errorf("the address and the view are %s", at)
	}
}

// What failed at first is made good when the connection is there: the list, and who looks.
func TestPagesRaceOfTheStart(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	s := w.one("only")
	p := w.signedIn(t, adminUser)
	w.exec(`UPDATE serversync.servers SET user_id = $1`, adminUser)
	p.atStart(hooked + `
		rules.push({ part: 'api/user/me', fail: true, once: true });
		rules.push({ part: 'api/user/servers?', fail: true, once: true });
		const RealSocket = WebSocket;
		globalThis.WebSocket = function (url) { const s = new RealSocket(url); const listen = s.addEventListener.bind(s); s.addEventListener = (type, hear) => listen(type, type === 'message' ? async (e) => { await globalThis.opened; hear(e); } : hear); return s; };
		globalThis.opened = new Promise((r) => { globalThis.openNow = r; });`)
	p.open("/")
	p.waitText("#trouble", "cannot be reached")
	p.waitCount("#empty", 0)
	p.eval(`void openNow()`, nil)
	p.waitCount(row(s), 1)
	p.waitCount("#trouble .notice", 0)
	p.waitText("#pages", "Control room")
}

// What could not be previewed is not offered to be applied, and what has no user or no
// package is not taken for everybody's.
func TestPagesRaceOfDoubtfulActions(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	s := w.one("one")
	p := w.signedIn(t, adminUser)
	p.open("/admin#/servers")
	p.waitText("#live", "Live")
	p.hook()
	p.rule(`{part: 'servers/bulk', method: 'POST', once: true, say: {runId: 'x', preview: null, results: [{id: ` + strconv.FormatInt(s.ID, 10) + `, result: 'pending'}], errors: [], failed: 0}}`)
	p.click(byRole("checkbox", fmt.Sprintf("Choose server %d", s.ID)))
	p.click(byRole("button", "Preview"))
	p.waitText("#view", "could not be worked out")
	if n := p.count("#view .bulk button.first:enabled"); n != 0 {
		t.Error("it can be applied")
	}
	p.rule(`{part: 'reason=disabled', say: {items: [{id: ` + strconv.FormatInt(s.ID, 10) + `, name: 'one', userId: null, monthlyPrice: '5'}], nextCursor: null}}`)
	p.eval(`void (location.hash = '#/attention')`, nil)
	p.waitText("#view", "nobody: SkyPANEL switched billing off for 1 server")
	p.eval(`void [...document.querySelectorAll('#view summary')].find((e) => e.textContent === 'Switch it on again').click()`, nil)
	p.click(byRole("button", "Preview"))
	p.waitFor(`askedFor('servers/bulk', 'POST').length === 2`)
	var body string
	p.eval(`askedFor('servers/bulk', 'POST')[1].body`, &body)
	if !strings.Contains(body, fmt.Sprintf(`"ids":[%d]`, s.ID)) || strings.Contains(body, "filter") {
		t.Errorf("asked for %s", body)
	}
}
