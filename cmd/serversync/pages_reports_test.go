package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
)

// pdf prints the page as a reader would. Where PRINTS names a directory it writes it
// there, to be looked at.
func (p *tab) pdf(name string) []byte {
	p.Helper()
	printed, err := command(p, cdppage.PrintToPDF, cdppage.PrintToPDFParams{PreferCSSPageSize: new(true)})
	if err != nil {
		p.Fatalf("print %s: %v", name, err)
	}
	if directory := os.Getenv("PRINTS"); directory != "" {
		if err := os.WriteFile(directory+"/"+name+".pdf", printed.Data, 0o600); err != nil {
			p.Fatal(err)
		}
	}
	return printed.Data
}

// reported writes what a monthly report counts: two servers found a quarter ago, one
// in the present quarter, and what went wrong.
func (w *pagesWorld) reported() (present, before time.Time) {
	w.Helper()
	now := time.Now().UTC()
	present = time.Date(now.Year(), now.Month()-(now.Month()-1)%3, 1, 0, 0, 0, 0, time.UTC)
	before = present.AddDate(0, -3, 0)
	for i, at := range []time.Time{before, before.AddDate(0, 1, 0), present} {
		server := w.createLoudly(customerID, smallPlan, "found")
		w.until("1", `SELECT count(*) FROM serversync.billing_rows WHERE virtfusion_id = $1`, server.ID)
		w.exec(`UPDATE serversync.billing_rows SET created_at = $2 WHERE virtfusion_id = $1`, server.ID, at.Add(time.Duration(i)*time.Second))
	}
	w.exec(`INSERT INTO serversync.history (at, virtfusion_id, kind, reason, before, after) VALUES
		($1, 7001, 'decided', '', '{"billing_on": false, "billing_reason": "unpriced"}', '{"billing_on": true, "billing_reason": ""}'),
		($2, 7002, 'decided', '', '{"status": "external"}', '{"status": "conflict"}')`, before, present)
	return present, before
}

// The report says what each month and quarter found and what went wrong, beside the
// quarter before, and is printed alone, black on white.
func TestPagesReports(t *testing.T) {
	t.Parallel()
	w := newPagesWorld(t, pagesOptions{})
	present, before := w.reported()
	p := w.signedIn(t, adminUser)
	p.dark()
	p.open("/admin")
	p.click(byRole("link", "Reports"))
	p.waitText("#view h1", "Reports")
	p.waitText(".report .quarter:first-of-type h2", "Quarter "+quarterOf(present)+" (so far)")
	p.waitText(".report .quarter:first-of-type .figures", "External servers found 1 −1 against the quarter before")
	p.waitText(".report .quarter:first-of-type .figures", "Revenue recovered a month $7.30 as charged; $5.00 by list price; −$7.30 against the quarter before")
	p.waitText(".report .quarter:first-of-type .figures", "Incidents 1 1 conflict")
	p.waitText(".report .quarter:nth-of-type(2) .figures", "Leaks closed 1 +1 against the quarter before")
	p.waitText(".report .quarter:nth-of-type(2)", before.Format("January 2006"))
	p.waitText(".report .quarter:last-of-type", "$21.90")
	p.axe()
	p.setViewport(390, 844)
	p.axe()
	var wide float64
	p.eval(`document.documentElement.scrollWidth - innerWidth`, &wide)
	if wide > 0 {
		t.Errorf("the reports are %.0f pixels wider than a phone", wide)
	}
	p.setViewport(1280, 800)

	whole := p.pdf("reports")
	p.choose(byRole("combobox", "Quarter"), "Quarter "+quarterOf(before))
	p.waitCount(".report .quarter", 1)
	p.waitText(".report .made", "External servers and revenue: Quarter "+quarterOf(before)+". Made on ")
	if address := p.attribute(`a[download][href*="monthly.csv"]`, "href"); !strings.Contains(address, "months=12") {
		t.Errorf("the file is at %s", address)
	}
	one := p.pdf("reports-quarter")
	if pages := bytes.Count(one, []byte("/Type /Page\n")); pages != 1 || bytes.Count(whole, []byte("/Type /Page\n")) < 2 {
		t.Errorf("a quarter takes %d pages, all take %d", pages, bytes.Count(whole, []byte("/Type /Page\n")))
	}
	if _, err := command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Media: "print", Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	}); err != nil {
		t.Fatal(err)
	}
	var seen string
	p.eval(`[...document.querySelectorAll('.bar, .no-print, button')].some((e) => e.checkVisibility()) ? 'the navigation' : ''`, &seen)
	if seen != "" {
		t.Errorf("%s is printed", seen)
	}
	for selector, want := range map[string]string{"body": "rgb(0, 0, 0) on rgb(255, 255, 255)", ".report .quarter": "rgb(0, 0, 0) on rgb(255, 255, 255)"} {
		var got string
		p.eval(`((s) => s.color + ' on ' + s.backgroundColor)(getComputedStyle(document.querySelector('`+selector+`')))`, &got)
		if got != want {
			t.Errorf("%s is %s, want %s", selector, got, want)
		}
	}
}

// quarterOf names the quarter that begins then: "4 of 2026".
func quarterOf(begins time.Time) string {
	return string(rune('0'+(int(begins.Month())+2)/3)) + " of " + begins.Format("2006")
}
