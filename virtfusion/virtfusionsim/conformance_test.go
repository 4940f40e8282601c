package virtfusionsim_test

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

const token = "conformance-token"

// epoch is when everything in the conformance world happened.
func epoch() time.Time { return time.Date(2025, 1, 15, 15, 0, 49, 0, time.UTC) }

func uuid(n string) string { return "1b0e9a3c-6a0e-4c0b-9d4f-0a1f2b3c4d0" + n }

// simulated is the conformance world as a panel.
func simulated(t *testing.T) http.Handler {
	t.Helper()
	panel := virtfusionsim.New(virtfusionsim.Config{Token: token, Clock: func() time.Time { return epoch() }})
	panel.AddUser(virtfusionsim.User{ID: 7, ExtRelationID: 1001, Name: "Ada Example", SelfService: 1})
	panel.AddUser(virtfusionsim.User{ID: 8, Name: "Grace Example", Admin: true})
	panel.AddPackage(virtfusionsim.Package{ID: 3, Name: "KVM S", MemoryMB: 2048, StorageGB: 40, TrafficGB: 1000, CPUCores: 2})
	panel.AddPackage(virtfusionsim.Package{ID: 4, Name: "KVM M", MemoryMB: 4096, StorageGB: 80, CPUCores: 4, Disabled: true})
	panel.AddHypervisor(virtfusionsim.Hypervisor{ID: 2, Name: "hv-fra-1", GroupID: 5})
	for _, args := range []virtfusionsim.CreateArgs{
		{OwnerID: 7, PackageID: 3, Name: "web-1", Hostname: "web-1.example.net", UUID: uuid("1"), Built: true},
		{OwnerID: 8, PackageID: 4, Name: "db-1", UUID: uuid("2")},
		{OwnerID: 7, PackageID: 4, Name: "mail-1", Hostname: "mail-1.example.net", UUID: uuid("3"), Built: true},
	} {
		if _, err := panel.CreateServer(args); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := panel.Suspend(3); err != nil {
		t.Fatal(err)
	}
	return panel.Handler()
}

// part is a part of the suite.
type part struct {
	name string
	// calls are the client's methods that it asserts.
	calls []string
	// check gets a client, and one with another token.
	check func(t *testing.T, client, stranger *virtfusion.Client)
}

// suite is all that the client relies on.
func suite() []part {
	return []part{
		{"token", []string{"Connect"}, conformToken},
		{"servers", []string{"GetServer", "ServersOfUser"}, conformServers},
		{"pages", []string{"ListServers"}, conformPages},
		{"catalog", []string{"UserByExtRelation", "Packages", "Package"}, conformCatalog},
		{"credit", []string{"AddCredit", "RemoveCredit"}, conformCredit},
		{"nothing there", []string{"GetServer", "ServersOfUser", "UserByExtRelation", "Package", "AddCredit", "RemoveCredit"}, conformAbsence},
	}
}

// TestConformance holds the simulator and the recorded answers to the same
// assertions, through the client that serversync uses.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, world := range map[string]func(*testing.T) http.Handler{"simulator": simulated, "recorded": recorded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var made calls
			server := httptest.NewServer(made.noted(world(t)))
			t.Cleanup(server.Close)
			t.Cleanup(func() { made.check(t) })
			for _, part := range suite() {
				t.Run(part.name, func(t *testing.T) {
					t.Parallel()
					part.check(t, dial(t, server.URL, token), dial(t, server.URL, "another"))
				})
			}
		})
	}
}

// TestTheSuiteCoversTheClient: a call that the client can make and the suite
// does not know is one that the simulator may answer as it likes.
func TestTheSuiteCoversTheClient(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{}
	for _, part := range suite() {
		for _, call := range part.calls {
			covered[call] = true
		}
	}
	for method := range reflect.TypeFor[*virtfusion.Client]().Methods() {
		if !covered[method.Name] {
			t.Errorf("no part of the suite has Client.%s", method.Name)
		}
		delete(covered, method.Name)
	}
	for call := range covered {
		t.Errorf("the suite has %s, the client has not", call)
	}
}

func dial(t *testing.T, url, token string) *virtfusion.Client {
	t.Helper()
	client, err := virtfusion.New(virtfusion.Config{BaseURL: url, Token: token, Budget: virtfusion.NewBudget(math.Inf(1)), MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func conformToken(t *testing.T, client, stranger *virtfusion.Client) {
	t.Helper()
	if err := client.Connect(t.Context()); err != nil {
		t.Errorf("Connect: %v", err)
	}
	if err := stranger.Connect(t.Context()); !errors.Is(err, virtfusion.ErrUnauthorized) {
		t.Errorf("Connect with another token: %v, want ErrUnauthorized", err)
	}
}

func conformAbsence(t *testing.T, client, _ *virtfusion.Client) {
	t.Helper()
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"server":        func() error { _, err := client.GetServer(ctx, 999); return err },
		"user":          func() error { _, err := client.ServersOfUser(ctx, 999); return err },
		"ext":           func() error { _, err := client.UserByExtRelation(ctx, 999); return err },
		"package":       func() error { _, err := client.Package(ctx, 999); return err },
		"credit":        func() error { _, err := client.AddCredit(ctx, 999, virtfusion.Credit{Tokens: 1}); return err },
		"credit, taken": func() error { _, err := client.RemoveCredit(ctx, 999, virtfusion.Credit{Tokens: 1}); return err },
	} {
		err := call()
		if !errors.Is(err, virtfusion.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
		if failed, ok := errors.AsType[*virtfusion.Error](err); ok && failed.ObservedAt.IsZero() {
			t.Errorf("%s: not found, but when?", name)
		}
	}
}

// full is the world's servers in the full form.
func full() []virtfusion.Server {
	ada := &virtfusion.Owner{ExtRelationID: new(int64(1001)), Admin: new(false), Suspended: new(false)}
	grace := &virtfusion.Owner{Admin: new(true), Suspended: new(false)}
	server := func(id int64, owner int64, details *virtfusion.Owner, name, state string, suspended bool, plan int64, ip, subnet string) virtfusion.Server {
		s := virtfusion.Server{
			ID: id, UUID: new(uuid(string(rune('0' + id)))), OwnerID: new(owner), Owner: details,
			Name: new(name), Hostname: new(name + ".example.net"), State: new(state),
			CommissionStatus: new(int64(virtfusion.Commissioned)),
			Suspended:        new(suspended), Protected: new(false), Rebuild: new(false), BuildFailed: new(false),
			SelfService: new(int64(0)), PackageID: new(plan),
			MemoryMB: new(int64(4096)), StorageGB: new(int64(80)), TrafficGB: new(int64(0)), CPUCores: new(int64(4)),
			IPAddresses:  []string{ip, subnet},
			HypervisorID: new(int64(2)), HypervisorName: new("hv-fra-1"), HypervisorGroupID: new(int64(5)),
			Created: new(epoch()), Updated: new(epoch()), Built: new(epoch()),
		}
		if plan == 3 {
			s.MemoryMB, s.StorageGB, s.TrafficGB, s.CPUCores = new(int64(2048)), new(int64(40)), new(int64(1000)), new(int64(2))
		}
		return s
	}
	web := server(1, 7, ada, "web-1", "running", false, 3, "192.0.2.1", "2001:db8:0:1::/64")
	db := server(2, 8, grace, "db-1", "queued", false, 4, "192.0.2.2", "2001:db8:0:2::/64")
	db.Hostname, db.Built, db.CommissionStatus = nil, nil, new(int64(0))
	mail := server(3, 7, ada, "mail-1", "stopped", true, 4, "192.0.2.3", "2001:db8:0:3::/64")
	return []virtfusion.Server{web, db, mail}
}

func conformServers(t *testing.T, client, _ *virtfusion.Client) {
	t.Helper()
	for _, want := range full() {
		got, err := client.GetServer(t.Context(), want.ID)
		if err != nil {
			t.Fatalf("GetServer(%d): %v", want.ID, err)
		}
		if diff := cmp.Diff(want, got.Server); diff != "" {
			t.Errorf("server %d (-want +got):\n%s", want.ID, diff)
		}
		if got.ObservedAt.IsZero() || got.Server.PrimaryIP() != want.IPAddresses[0] {
			t.Errorf("server %d: observed at %v, primary IP %s", want.ID, got.ObservedAt, got.Server.PrimaryIP())
		}
	}
	want := []virtfusion.Server{full()[0], full()[2]}
	for i := range want {
		s := &want[i] // what this form does not have
		s.Owner, s.Created, s.Updated, s.Built, s.PackageID, s.SelfService = nil, nil, nil, nil, nil, nil
		s.HypervisorName, s.HypervisorGroupID = nil, nil
	}
	got, err := client.ServersOfUser(t.Context(), 7)
	if err != nil || got.ObservedAt.IsZero() {
		t.Fatalf("ServersOfUser(7) at %v: %v", got.ObservedAt, err)
	}
	if diff := cmp.Diff(want, got.Servers); diff != "" {
		t.Errorf("servers of user 7 (-want +got):\n%s", diff)
	}
}

func conformPages(t *testing.T, client, _ *virtfusion.Client) {
	t.Helper()
	ignoreTime := cmpopts.IgnoreFields(virtfusion.Page{}, "ObservedAt")
	page, err := client.ListServers(t.Context(), 1, 200, true)
	if err != nil || page.ObservedAt.IsZero() {
		t.Fatalf("full page at %v: %v", page.ObservedAt, err)
	}
	want := virtfusion.Page{Servers: full(), Number: 1, LastPage: 1, PerPage: 200, Total: 3}
	if diff := cmp.Diff(want, page, ignoreTime); diff != "" {
		t.Errorf("full page (-want +got):\n%s", diff)
	}
	var simple []virtfusion.Server
	for _, s := range full() {
		simple = append(simple, virtfusion.Server{
			ID: s.ID, UUID: s.UUID, OwnerID: s.OwnerID, Name: s.Name, CommissionStatus: s.CommissionStatus,
			Suspended: s.Suspended, Protected: s.Protected, HypervisorID: s.HypervisorID, Created: s.Created, Updated: s.Updated,
		})
	}
	for number, want := range map[int]virtfusion.Page{
		1: {Servers: simple[:2], Number: 1, LastPage: 2, PerPage: 2, Total: 3, HasNext: true},
		2: {Servers: simple[2:], Number: 2, LastPage: 2, PerPage: 2, Total: 3},
		3: {Servers: []virtfusion.Server{}, Number: 3, LastPage: 2, PerPage: 2, Total: 3},
	} {
		page, err := client.ListServers(t.Context(), number, 2, false)
		if err != nil {
			t.Fatalf("simple page %d: %v", number, err)
		}
		if diff := cmp.Diff(want, page, ignoreTime); diff != "" {
			t.Errorf("simple page %d (-want +got):\n%s", number, diff)
		}
	}
}

func conformCatalog(t *testing.T, client, _ *virtfusion.Client) {
	t.Helper()
	user, err := client.UserByExtRelation(t.Context(), 1001)
	if err != nil {
		t.Fatal(err)
	}
	wantUser := virtfusion.User{ID: 7, ExtRelationID: new(int64(1001)), SelfService: new(int64(1)), Name: new("Ada Example"), Suspended: new(false)}
	if diff := cmp.Diff(wantUser, user); diff != "" {
		t.Errorf("user (-want +got):\n%s", diff)
	}
	want := []virtfusion.Package{
		{ID: 3, Name: new("KVM S"), Enabled: new(true), MemoryMB: new(int64(2048)), PrimaryStorageGB: new(int64(40)), TrafficGB: new(int64(1000)), CPUCores: new(int64(2))},
		{ID: 4, Name: new("KVM M"), Enabled: new(false), MemoryMB: new(int64(4096)), PrimaryStorageGB: new(int64(80)), TrafficGB: new(int64(0)), CPUCores: new(int64(4))},
	}
	packages, err := client.Packages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	one, err := client.Package(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[0], one); diff != "" {
		t.Errorf("package 3 (-want +got):\n%s", diff)
	}
}

func conformCredit(t *testing.T, client, _ *virtfusion.Client) {
	t.Helper()
	credit := virtfusion.Credit{Tokens: 5, Reference1: 42, Reference2: "external_server_1"}
	receipt, err := client.AddCredit(t.Context(), 1001, credit)
	if err != nil || receipt.ID != 1 {
		t.Errorf("AddCredit = %+v, %v", receipt, err)
	}
	if _, err := client.RemoveCredit(t.Context(), 1001, credit); err != nil {
		t.Errorf("RemoveCredit: %v", err)
	}
}
