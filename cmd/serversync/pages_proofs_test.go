package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// atEveryWidth holds what is shown to the rules of accessibility, light and dark,
// on a desk and on a phone, and takes pictures where somebody asked for them.
func (p *tab) atEveryWidth(name string) {
	p.Helper()
	p.axe()
	p.shoot(name)
	p.setViewport(390, 844)
	p.fitsAPhone()
	p.dark()
	p.axe()
	p.screenshot(name+"-dark-390", 390, 844)
	p.emulate("prefers-color-scheme", "light")
	p.setViewport(1280, 800)
}

// fitsAPhone reports what is wider than the viewport.
func (p *tab) fitsAPhone() {
	p.Helper()
	var wide float64
	p.eval(`document.documentElement.scrollWidth - innerWidth`, &wide)
	if wide > 0 {
		p.Errorf("the page is %.0f pixels wider than a phone", wide)
	}
}

// A proof is asked for, is seen to its end, and says what stays different.
func TestPagesProve(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	for i := range 3 {
		w.createLoudly(customerID, smallPlan, fmt.Sprintf("proved-%d", i))
	}
	w.createLoudly(customerID, unpricedPlan, "unpriced")
	w.until("4", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	now := time.Now().UTC()
	for _, ago := range []int{1, 2, 5, 6} { // on two days nobody looked
		w.exec(`
			INSERT INTO serversync.coverage_days (day, written_at, total, external_on, external_off, native, unlinked, conflict, settling, recorded_list, recorded_effective,
				leaking_servers, leaking_list, leaking_effective, leaks, sweep_run, sweep_at, virtfusion_total, known_least, known_most)
			VALUES ($1, $2, 5, 3, '{"unpriced": 1}', 1, 0, 0, 0, 15, 14.60, 1, 0, 0, '[]', 'a-sweep', $2, $3, 5, 5)`,
			now.AddDate(0, 0, -ago).Format(time.DateOnly), now.AddDate(0, 0, -ago), 5+ago/6)
	}
	p := w.signedIn(t, adminUser)
	p.open("/admin#/proofs")
	p.waitText("#view", "Nothing was proved yet")
	p.waitText("#view", "All servers = 4")
	p.waitText("#view", "On 2 days nobody looked")
	p.waitText("#view", "On 1 day VirtFusion counted other servers than were known.")
	p.waitText("#view", now.AddDate(0, 0, -3).Format(time.DateOnly)+" –")
	p.atEveryWidth("admin-proofs")
	if href := p.attribute(byRole("link", "All of it (CSV)"), "href"); !strings.HasSuffix(href, "/api/admin/coverage.csv?days=30") {
		t.Errorf("the file is at %s", href)
	}
	// When today was not written down either, the days since the last one are a gap.
	w.exec(`DELETE FROM serversync.coverage_days WHERE day > $1`, now.AddDate(0, 0, -5).Format(time.DateOnly))
	p.choose(byRole("combobox", "Of the last"), "7 days")
	p.waitText("#view", "On 4 days nobody looked")
	p.waitFor(`document.querySelector('#view a[download]').href.endsWith('days=7')`)

	// By keyboard to the button, and to what it began.
	p.reload()
	p.waitText("#view", "All servers = 4")
	reach(p, `button "Prove now"`)
	p.press("Enter")
	p.waitFor(`location.hash.startsWith('#/proofs/')`)
	p.waitText("#view", "Complete")
	p.waitText("#view", "Nothing stayed different.")
	p.waitText("#view", "All 4 servers agree.")
	p.waitText("#view", "All servers = 4")
	p.axe()
	p.click(byRole("link", "All proofs"))
	p.waitText("#view", "4 of 4 agree")

	// One of them stays different.
	w.exec(`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'wrong <b>here</b>'; RETURN NEW; END $$`)
	w.exec(`CREATE TRIGGER hold BEFORE UPDATE ON serversync.servers FOR EACH ROW WHEN (OLD.name IN ('proved-1', 'wrong <b>here</b>')) EXECUTE FUNCTION hold()`)
	w.exec(`UPDATE serversync.servers SET last_seen_at = last_seen_at WHERE name = 'proved-1'`)
	p.click(byRole("button", "Prove now"))
	p.waitText("#view", "1 mismatch.")
	p.waitText("#view", "wrong <b>here</b>")
	p.atEveryWidth("admin-proof")
	w.until("1", `SELECT count(*) FROM serversync.proofs WHERE mismatches = 1`)
	p.open("/admin#/proofs/none")
	p.waitText("#view", "There is no proof with this id")
	p.expectErrors("404")
}

// A person says what became of an unclear charge, after a question.
func TestPagesFirstCharges(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	var charges []string
	p := w.signedIn(t, adminUser)
	p.open("/admin#/charges")
	p.waitText("#view", "No charge is unclear.")
	p.axe()
	for i, state := range []string{"unclear", "unclear", "taken"} {
		server := w.createLoudly(customerID, smallPlan, fmt.Sprintf("charged-%d", i))
		w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_transactions t JOIN serversync.servers s ON s.billing_id = t.billing_id WHERE s.virtfusion_id = $1`, server.ID)
		w.exec(`
			INSERT INTO serversync.charges (transaction_id, billing_id, virtfusion_id, user_id, owner_id, tokens, reference, state, reason, attempts, created_at, due_at, taking_at)
			SELECT t.id, t.billing_id, $1, t.user_id, $2, 1, 'serversync-x-' || t.id, $3, $4, 1, now(), now(), now()
			FROM public.virtfusion_hourly_transactions t JOIN serversync.servers s ON s.billing_id = t.billing_id WHERE s.virtfusion_id = $1`,
			server.ID, customerID, state, map[bool]string{true: "VirtFusion did not answer: <i>timeout</i>"}[state == "unclear"])
		charges = append(charges, w.value(`SELECT max(id) FROM serversync.charges`))
	}
	p.reload()
	p.waitText("#view", "VirtFusion did not answer: <i>timeout</i>.")
	p.waitText("#view", "serversync-x-")
	p.waitText("#view", "Taken")
	p.atEveryWidth("admin-charges")

	p.waitText("#nav", "First charges 2 unclear")
	p.open("/admin")
	p.waitText("#view", "Of 2 first charges nobody knows whether the credit was taken.")
	p.axe()
	p.open("/admin#/charges")

	state := func(i int) string { return w.value(`SELECT state FROM serversync.charges WHERE id = ` + charges[i]) }
	p.click(byRole("button", "It was taken: first charge "+charges[0]))
	p.waitText("dialog", "VirtFusion took the credit?")
	p.axe()
	p.press("Escape")
	p.waitCount("dialog", 0)
	if got := state(0); got != "unclear" {
		t.Errorf("without an answer it is %s", got)
	}
	p.click(byRole("button", "It was taken: first charge "+charges[0]))
	p.fill(byRole("textbox", "VirtFusion’s id*"), "cr-77")
	p.click(within("dialog", byRole("button", "It was taken")))
	p.waitText("#view", fmt.Sprintf("First charge %s: taken.", charges[0]))
	if got := state(0); got != "taken" {
		t.Errorf("it is %s", got)
	}
	w.until("cr-77", `SELECT credit_id FROM serversync.charges WHERE id = `+charges[0])
	p.click(byRole("button", "Nothing was taken: first charge "+charges[1]))
	p.waitText("dialog", "VirtFusion took nothing?")
	p.click(within("dialog", byRole("button", "Nothing was taken")))
	p.waitText("#view", "No charge is unclear.")
	if got := state(1); got != "failed" {
		t.Errorf("it is %s", got)
	}
	p.choose(byRole("combobox", "State"), "Not taken")
	p.waitFor(`location.hash.endsWith('state=failed')`)
	p.waitText("#view", "So says user 1")
}

// Notices say who was told, and what did not arrive.
func TestPagesNotices(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, adminUser)
	p.open("/admin#/notices")
	p.waitText("#view", "There is nothing to tell.")
	p.axe()
	for i, title := range []string{"Server 1: the evidence disagrees", "The watchdog: coverage_gap <b>x</b>", "A sweep waits for approval"} {
		kind := []string{"conflict", "finding", "approval"}[i]
		w.exec(`INSERT INTO serversync.notices (subject, kind, severity, title, message, server_id, run_id, at) VALUES ($1, $2, $3, $4, 'somebody should look at this', $5, $6, now())`,
			strconv.Itoa(i), kind, []string{"warning", "critical", "warning"}[i], title, []any{1, nil, nil}[i], []any{nil, nil, "a-run"}[i])
	}
	w.exec(`INSERT INTO serversync.notice_messages (id, channel, made_at, attempts, next_at, error, delivered_at) VALUES
		('m1', 'email', now(), 3, now() + interval '10 minutes', 'smtp.example.com: connection refused', NULL),
		('m2', 'skypanel', now() - interval '1 hour', 1, now(), '', now()), ('m3', 'webhook', now() - interval '4 days', 40, now(), 'status 500', NULL)`)
	w.exec(`INSERT INTO serversync.notice_deliveries (notice_id, channel, message_id)
		SELECT id, v.channel, v.message FROM serversync.notices JOIN (VALUES ('1', 'email', 'm1'), ('1', 'skypanel', 'm2'), ('2', 'webhook', 'm3')) v (subject, channel, message) USING (subject)`)
	p.reload()
	p.waitText("#view", "The watchdog: coverage_gap <b>x</b>")
	p.waitText("#view", "E-mail: did not arrive, 3 attempts; tried again in 10 minutes")
	p.waitText("#view", "SkyPANEL’s administrators: delivered")
	p.waitText("#view", "Webhook: given up after 40 attempts")
	p.waitText("#view", "Nobody was told")
	p.atEveryWidth("admin-notices")
	p.click(byRole("checkbox", "Only what did not arrive"))
	p.waitFor(`location.hash.endsWith('undelivered=true') && !document.querySelector('#view').textContent.includes('the evidence disagrees')`)
	p.waitText("#view", "connection refused")
	reach(p, `link "the run"`)
}
