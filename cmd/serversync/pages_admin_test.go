package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The coverage adds up to the servers that VirtFusion has, in the picture's
// legend too, and every alarm leads somewhere.
func TestPagesOverviewAddsUp(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createLoudly(customerID, smallPlan, "billed")
	w.createLoudly(customerID, unpricedPlan, "unpriced")
	w.createLoudly(12, smallPlan, "nobody's") // VirtFusion's user 12 is nobody in SkyPANEL
	w.until("3", `SELECT count(*) FROM serversync.servers WHERE status <> 'settling'`)
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	p.waitText("#view", "External, billed 1")
	p.waitText("#view", "All servers = 3")
	p.waitText("#view", "1 server runs without a price.")
	p.waitText("#view", "1 server belongs to nobody in SkyPANEL.")
	p.axe()
	p.click(byRole("link", "Package by package"))
	p.waitText("#view", "Package 7 has no price in SkyPANEL (1 server)")
	p.waitText("#view", "VirtFusion user 12 owns 1 server")
	p.axe()

	// What happens is seen at once.
	p.open("/admin#/servers")
	p.waitText("#live", "Live")
	p.waitText("#view", "billed")
	live := w.createLoudly(customerID, smallPlan, "just-now")
	p.waitText("#view", "just-now")
	p.axe()
	p.click(byRole("link", "just-now"))
	p.waitText("#view", "Made outside SkyPANEL, billed 5.00 a month, 7.30 as charged")
	p.waitText("#view", fmt.Sprintf("Server %d", live.ID))
	p.axe()
}

// A sweep that would change too much waits, says what it would cost, and does it
// once it is approved.
func TestPagesApproveASweep(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{maxChanges: "3"})
	for i := range 12 {
		w.createSilently(customerID, smallPlan, fmt.Sprintf("unseen-%d", i))
	}
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	p.click(byRole("button", "Dry run"))
	p.waitText("#view", "It would make 12 billing records")
	p.waitText("#view", "1 customer, the largest change first.")
	p.waitText(".bills tbody", "12 made")
	p.waitText(".bills tbody", "recorded; nobody collects it")
	p.axe()
	p.fill(byRole("spinbutton", "Only changes over, in dollars a month"), "87.60")
	p.press("Enter")
	p.waitText("#view", "No customer’s month changes by that much.")
	if href := p.attribute(".bills a[download]:first-of-type", "href"); !strings.HasSuffix(href, "/preview.csv?changesOver=87.60") {
		t.Errorf("the file is at %s", href)
	}
	p.click(byRole("link", "Overview"))
	p.click(byRole("button", "Sweep now"))
	p.waitText("#view", "May it?")
	p.waitText("#view", "12 billing records")
	p.axe()
	w.until("0", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.click(byRole("button", "Approve …"))
	p.waitText("dialog", "It will make 12 billing records.")
	p.waitText("dialog", "$87.60") // 12 at one cent an hour
	p.axe()
	p.click(byRole("button", "Not now"))
	w.until("needs_approval", `SELECT state FROM serversync.runs WHERE kind = 'sweep' AND NOT dry_run`)
	w.exec(`UPDATE package_pricing SET price = 1500 WHERE virtfusion_package_id = $1`, smallPlan)
	p.click(byRole("button", "Approve …"))
	p.click(byRole("button", "Approve"))
	p.waitText("#view", "It was approved, and would by now do something else.")
	p.waitText("#view", "approved +$87.60 a month as charged; now it is +$175.20.")
	p.waitText(".notice table", fmt.Sprintf("user %d", customerUser))
	p.axe()
	w.until("0", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.click(byRole("button", "Approve …"))
	p.waitText("dialog", "$175.20")
	p.click(byRole("button", "Approve"))
	p.waitText("#view", "Succeeded")
	w.until("12", `SELECT count(*) FROM public.virtfusion_hourly_billing WHERE billing_enabled`)
	w.until("user 1 (session)", `SELECT approved_by FROM serversync.runs WHERE kind = 'sweep' AND NOT dry_run`)
}

// A bulk action is previewed first, and done to what was previewed.
func TestPagesBulkActions(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	one := w.createLoudly(customerID, smallPlan, "one")
	two := w.createLoudly(customerID, smallPlan, "two")
	w.until("2", `SELECT count(*) FROM serversync.servers WHERE status = 'external'`)
	p := w.signedIn(t, adminUser)
	p.open("/admin#/servers")
	p.waitText("#view", "two")
	p.click(byRole("checkbox", fmt.Sprintf("Choose server %d", one.ID)))
	p.choose(byRole("combobox", "Action"), "Do not bill it")
	p.fill(byRole("textbox", "Reason"), "a friend of the house")
	if n := p.count("#view button.first:enabled"); n != 0 {
		t.Error("it can be applied without a preview")
	}
	p.click(byRole("button", "Preview"))
	p.waitText("#view", "“Do not bill it” for 1 server would end 1 record.")
	w.until("on", `SELECT billing FROM serversync.servers WHERE virtfusion_id = $1`, one.ID)
	p.axe()
	p.click(byRole("button", "Apply to 1 server"))
	p.waitText("#view", "Done for 1 server")
	w.until("operator", `SELECT billing_reason FROM serversync.servers WHERE virtfusion_id = $1`, one.ID)
	w.until("on", `SELECT billing FROM serversync.servers WHERE virtfusion_id = $1`, two.ID)
	p.open(fmt.Sprintf("/admin#/servers/%d", one.ID))
	p.waitText("#view", "a friend of the house")
}

// Dead letters are tried again, or given up after a question.
func TestPagesDeadLetters(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	buried := w.createSilently(customerID, smallPlan, "buried")
	w.bury(&buried, "the database refused it <b>so</b>")
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	p.waitText("#view", "1 event could not be reconciled")
	p.open("/admin#/dead-letters")
	p.waitText("#view", "the database refused it <b>so</b>")
	p.axe()
	p.click(byRole("button", "Requeue*"))
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, buried.ID)
	w.await("no dead letter", func() bool { return w.deadLetters() == 0 })
	other := w.createSilently(customerID, smallPlan, "given-up")
	w.bury(&other, "nobody knows")
	p.reload()
	p.click(byRole("button", "Discard*"))
	p.waitText("dialog", "Give this event up?")
	p.axe()
	p.click(within("dialog", byRole("button", "Discard*")))
	w.await("no dead letter", func() bool { return w.deadLetters() == 0 })
	w.until("0", `SELECT count(*) FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, other.ID)
}

// A replay is previewed before it is done.
func TestPagesReplayAUser(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	server := w.createLoudly(customerID, smallPlan, "replayed")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	w.exec(`UPDATE public.virtfusion_hourly_billing SET monthly_price = 1`)
	p := w.signedIn(t, adminUser)
	p.open(fmt.Sprintf("/admin#/users/%d", customerUser))
	p.waitText("#view h1", strconv.Itoa(customerUser))
	p.axe()
	p.click(byRole("button", "Preview replay"))
	w.until("1", `SELECT count(*) FROM serversync.runs WHERE kind = 'replay' AND dry_run`)
	p.waitText("#view", "The price changed from 1.00 to 5.00 a month, as charged from 0.00 to 7.30.")
	w.until("1", `SELECT monthly_price::int FROM public.virtfusion_hourly_billing`)
	p.click(byRole("button", "Replay"))
	w.until("1", `SELECT count(*) FROM serversync.runs WHERE kind = 'replay' AND NOT dry_run AND state = 'succeeded'`)
	w.until("5", `SELECT monthly_price::int FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, server.ID)
}

// Without anything to see, every view says so, and can be walked by keyboard.
func TestPagesAdminViewsWithoutAnything(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	for view, says := range map[string]string{"": "There has been no sweep yet", "attention": "No server is in doubt.", "servers": "No server", "runs": "No run", "reports": "External servers and revenue", "dead-letters": "No dead letter", "proofs": "Nothing was proved yet", "charges": "No charge is unclear.", "notices": "There is nothing to tell."} {
		p.eval(fmt.Sprintf(`void (location.hash = '#/%s')`, view), nil)
		p.waitText("#view", says)
		p.axe()
		p.setViewport(390, 844)
		var wide float64
		p.eval(`document.documentElement.scrollWidth - innerWidth`, &wide)
		if wide > 0 {
			t.Errorf("#/%s is %.0f pixels wider than a phone", view, wide)
		}
		p.setViewport(1280, 800)
	}
	p.open("/admin")
	p.waitCount("#view h1", 1)
	reach(p, `link "Runs"`)
	p.press("Enter")
	p.waitText("#view h1", "Runs")
	if got := p.focused(); !strings.HasPrefix(got, `heading "Runs`) {
		t.Errorf("in the new view the focus is at %s", got)
	}
}

// A sweep's page goes with it to its end.
func TestPagesFollowASweep(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{settle: time.Hour})
	for i := range 30 {
		w.createSilently(customerID, smallPlan, fmt.Sprintf("swept-%d", i))
	}
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	p.click(byRole("button", "Sweep now"))
	p.waitFor(`location.hash.startsWith('#/runs/')`)
	p.waitText("#view", "Succeeded")
	p.waitText("#view", "Servers 30")
}

// What a run did is taken back, after a look at what that would do.
func TestPagesUndoARun(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	w.createSilently(customerID, smallPlan, "regretted")
	p := w.signedIn(t, adminUser)
	p.open("/admin")
	p.click(byRole("button", "Sweep now"))
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	w.until("succeeded", `SELECT state FROM serversync.runs WHERE kind = 'sweep' ORDER BY started_at DESC LIMIT 1`)
	p.open("/admin#/runs/" + w.value(`SELECT id FROM serversync.runs WHERE kind = 'sweep' ORDER BY started_at DESC LIMIT 1`))
	p.click(byRole("button", "Preview undo"))
	p.waitText("#view", "It would end")
	p.axe()
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.click(byRole("button", "Do it: take it back"))
	w.until("0", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.waitText("#view", "It takes back")
}

// The last change of one server is taken back in the same way, from its page.
func TestPagesUndoAServersLastChange(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	server := w.createLoudly(customerID, smallPlan, "regretted")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p := w.signedIn(t, adminUser)
	p.open(fmt.Sprintf("/admin#/servers/%d", server.ID))
	p.waitText("#view", "regretted")
	p.click(byRole("button", "Preview undo of its last change"))
	p.waitText("#view", "It would end")
	p.waitText("#view", "the last change of")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.click(byRole("button", "Do it: take it back"))
	w.until("0", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p.waitText("#view", "What it set out to do")

	// Of a server that nobody changed it says so, and stays where it is.
	w.until("0", `SELECT count(*) FROM serversync.runs WHERE state = 'running'`)
	w.exec(`DELETE FROM serversync.history`)
	p.open(fmt.Sprintf("/admin#/servers/%d", server.ID))
	p.waitText("#view", "An operator's word") // what is still on its way draws the page anew
	p.click(byRole("button", "Preview undo of its last change"))
	p.waitText("#view", "othing of this server's billing was ever changed")
	p.expectErrors("/undo?dryRun=true")
	p.axe()
}

// The watchdog says what is wrong, and has a server billed again from now on.
func TestPagesWatchdog(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	server := w.createLoudly(customerID, smallPlan, "leaking")
	w.until("1", `SELECT count(*) FROM public.virtfusion_hourly_billing`)
	p := w.signedIn(t, adminUser)
	p.open("/admin#/watchdog")
	p.waitText("#view", "Nothing is wrong with SkyPANEL")
	p.axe()
	w.exec(`UPDATE public.virtfusion_hourly_billing SET billing_enabled = false`)
	w.exec(`UPDATE serversync.servers SET billing = 'off', billing_reason = 'disabled_by_skypanel' WHERE virtfusion_id = $1`, server.ID) // as the books pass would within a minute
	p.open("/admin#/runs")
	p.open("/admin#/watchdog")
	p.waitText("#view", "Switched off by SkyPANEL")
	p.waitText("#view", "are not billed")
	p.axe()
	p.click("#view details summary")
	p.fill(byRole("textbox", "Reason"), "not meant")
	p.click(byRole("button", "Preview"))
	p.waitText("#view", "would change 1 billing record")
	p.click(byRole("button", "Apply to 1 server"))
	w.until("true", `SELECT billing_enabled FROM public.virtfusion_hourly_billing WHERE virtfusion_server_id = $1`, server.ID)
}
