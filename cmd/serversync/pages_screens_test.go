package main

import (
	"fmt"
	"os"
	"testing"

	"serversync/virtfusion/virtfusionsim"
)

// TestScreens writes docs/screens: see `make screens`.
func TestScreens(t *testing.T) {
	t.Parallel()
	if os.Getenv("SCREENS") == "" {
		t.Skip("nobody asked for pictures: make screens")
	}
	w := newPagesWorld(t, pagesOptions{maxChanges: "4"})
	for i, name := range []string{"web-ams-1", "web-ams-2", "db-fra-1", "mail-lon-1"} {
		w.create(virtfusionsim.CreateArgs{OwnerID: customerID, PackageID: int64(3 + i%3), Name: name, Hostname: name + ".example.net", Built: true})
	}
	render := w.create(virtfusionsim.CreateArgs{OwnerID: customerID, PackageID: unpricedPlan, Name: "render-1", Hostname: "render-1.example.net", Built: true})
	w.createLoudly(otherID, 4, "shop-nyc-1")
	w.createLoudly(otherID, 5, "shop-nyc-2")
	w.createLoudly(13, 3, "of-an-inactive-customer")
	w.createLoudly(12, 3, "whose-is-this")
	w.until("9", `SELECT count(*) FROM serversync.servers WHERE status <> 'settling'`)
	w.bury(&render, "the database refused it: a check constraint of SkyPANEL's")

	customer := w.signedIn(t, customerUser)
	customer.open("/")
	customer.waitText("#list", "render-1")
	customer.shoot("customer")
	customer.dark()
	customer.shoot("customer-dark")
	customer.emulate("prefers-color-scheme", "light")
	w.createSilently(customerID, smallPlan, "found-by-sync")
	customer.click(byRole("button", "Sync servers"))
	customer.waitText("dialog .found", "billed by the hour")
	customer.waitText("dialog .notice.good", "6 servers")
	customer.shoot("sync")
	nobody := w.newTab(t)
	nobody.expectErrors("401")
	nobody.open("/")
	nobody.waitText("#trouble", "Sign in")
	nobody.shoot("sign-in")

	for i := range 9 {
		w.createSilently(otherID, 4, fmt.Sprintf("unseen-%d", i+1))
	}
	admin := w.signedIn(t, adminUser)
	admin.open("/admin")
	admin.click(byRole("button", "Sweep now"))
	admin.waitText("#view", "May it?")
	admin.shoot("admin-approval")
	for _, view := range []struct{ name, path, says string }{
		{"overview", "", "External, billed"},
		{"servers", "servers", "render-1"},
		{"attention", "attention", "Package 7"},
		{"runs", "runs", "Sweep"},
		{"dead-letters", "dead-letters", "refused it"},
		{"server", fmt.Sprintf("servers/%d", render.ID), "render-1"},
		{"user", fmt.Sprintf("users/%d", customerUser), "Replay"},
		{"proofs", "proofs", "Full proofs"},
	} {
		admin.open("/admin#/" + view.path)
		admin.waitText("#view", view.says)
		admin.shoot("admin-" + view.name)
	}
}

// shoot writes a picture for a desk and one for a phone.
func (p *tab) shoot(name string) {
	p.Helper()
	p.screenshot(name+"-1280", 1280, 800)
	p.screenshot(name+"-390", 390, 844)
	p.setViewport(1280, 800)
}
