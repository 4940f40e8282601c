package main

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"serversync/api"
	"serversync/db/dbtest"
	"serversync/virtfusion/virtfusionsim"
)

// The doctor of one user: the link in both systems, what VirtFusion lists, and how
// each server stands in the books.
func TestDoctorOfAUser(t *testing.T) {
	t.Parallel()
	dsn := dbtest.NewDSN(t)
	database := openDSN(t, dsn)
	panel := virtfusionsim.New(virtfusionsim.Config{Token: "vf"})
	panel.AddUser(virtfusionsim.User{ID: 70, ExtRelationID: 7, Name: "Anna"})
	panel.AddUser(virtfusionsim.User{ID: 80, ExtRelationID: 9, Name: "Bert"})
	panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 1, Name: "hv", GroupID: 1})
	panel.AddPackage(virtfusionsim.Package{ID: 5, Name: "Small", MemoryMB: 1024})
	var ids []int64
	for i := range 4 {
		s, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 70, PackageID: 5, Name: fmt.Sprint("s", i), Built: true, Silent: true})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	server := httptest.NewServer(panel.Handler())
	t.Cleanup(server.Close)
	args := []string{"--database-url", dsn, "--virtfusion-api-url", server.URL, "--virtfusion-api-token", "vf", "--user"}
	look := func(user, statement string) map[string]finding {
		t.Helper()
		if statement != "" {
			execIn(t, database, statement)
		}
		return askTheDoctor(t, append(args, user)...)
	}
	found := look("7", "")
	want(t, found, "user", api.SeverityError, "SkyPANEL has no user 7")

	found = look("7", fmt.Sprintf(`
		INSERT INTO users (id, email, username, password, full_name, virtfusion_id, is_active) VALUES (7, 'a', 'anna', '!', 'Anna A.', 70, true), (8, 'b', 'bert', '!', 'Bert B.', NULL, false);
		INSERT INTO serversync.servers (virtfusion_id, owner_id, user_id, status, billing, billing_reason, note, observed_at, observed_source, observed_event_id, first_seen_at, last_seen_at)
		SELECT id, 70, 7, status, billing, nullif(reason, ''), 'as its note says.', now(), '', '', now(), now()
		FROM (VALUES (%[1]d, 'external', 'on', ''), (%[2]d, 'external', 'off', 'unpriced'), (%[3]d, 'gone', 'off', 'destroyed'), (901, 'gone', 'off', 'destroyed'), (902, 'external', 'on', '')) AS v (id, status, billing, reason);
		INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate)
		VALUES (1, 7, %[1]d, %[1]d, 5, 'Small', 11, 0.015), (2, 7, 903, 903, 5, 'Small', 11, 0.015)`, ids[0], ids[1], ids[2]))
	want(t, found, "user", api.SeverityOK, "Anna A., is active")
	want(t, found, "link", api.SeverityOK, "agree: VirtFusion's user 70")
	want(t, found, "VirtFusion's list", api.SeverityOK, "4 servers")
	check := func(id int64) string { return fmt.Sprint("server ", id) }
	want(t, found, check(ids[0]), api.SeverityOK, "external, billing on: as its note says; VirtFusion lists it; billing row 1 of user 7 is on at $11.00 a month ($14.60 as charged)")
	want(t, found, check(ids[1]), api.SeverityWarning, "external, billing off (unpriced)")
	want(t, found, check(ids[2]), api.SeverityError, "the books and VirtFusion disagree: gone")
	want(t, found, check(ids[3]), api.SeverityError, "it is not in the books; VirtFusion lists it; it has no billing row → have the user's servers looked at: serversync sweep --user 7")
	want(t, found, check(901), api.SeverityOK, "gone, billing off (destroyed)")
	want(t, found, check(902), api.SeverityError, "VirtFusion does not list it")
	want(t, found, check(903), api.SeverityWarning, "switch its billing row off")

	found = look("7", `UPDATE users SET virtfusion_id = 80 WHERE id = 7; INSERT INTO virtfusion_hourly_billing (id, user_id, server_id, virtfusion_server_id, package_id, package_name, monthly_price, hourly_rate) SELECT 3, 7, virtfusion_server_id, virtfusion_server_id, 5, '', 1, 0 FROM virtfusion_hourly_billing WHERE id = 1`)
	want(t, found, "link", api.SeverityError, "SkyPANEL links the user to VirtFusion's user 80, VirtFusion's user 70 names SkyPANEL's user 7")
	want(t, found, check(ids[0]), api.SeverityError, "two rows are on")
	found = look("7", `UPDATE users SET virtfusion_id = NULL WHERE id = 7`)
	want(t, found, "link", api.SeverityWarning, "set users.virtfusion_id to 70")
	want(t, found, "VirtFusion's list", api.SeverityOK, "4 servers")

	found = look("8", "")
	want(t, found, "user", api.SeverityWarning, "Bert B., is not active")
	want(t, found, "link", api.SeverityError, "VirtFusion has no user whose external relation id is 8")
	found = look("8", `UPDATE users SET virtfusion_id = 99 WHERE id IN (7, 8)`)
	want(t, found, "link", api.SeverityWarning, "VirtFusion has no user whose external relation id is 8") // the last of the two
	want(t, found, "VirtFusion's list", api.SeverityError, "VirtFusion has no user 99")
	server.Close()
	found = look("7", "")
	want(t, found, "VirtFusion", api.SeverityError, "check VIRTFUSION_API_URL")
	want(t, found, check(ids[0]), api.SeverityError, "VirtFusion was not asked")
}
