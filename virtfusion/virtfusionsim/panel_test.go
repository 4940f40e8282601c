package virtfusionsim_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"serversync/virtfusion"
	"serversync/virtfusion/virtfusionsim"
)

// hooked returns a panel with two users and two packages, and what it reports.
func hooked(t *testing.T) (*virtfusionsim.Panel, *[]virtfusionsim.Delivery) {
	t.Helper()
	reported := &[]virtfusionsim.Delivery{}
	panel := populated(virtfusionsim.Config{
		WebhookToken: "hook-token",
		Hook:         func(d virtfusionsim.Delivery) { *reported = append(*reported, d) },
		Clock:        func() time.Time { return epoch().Add(316192 * time.Microsecond) },
	})
	return panel, reported
}

func populated(config virtfusionsim.Config) *virtfusionsim.Panel {
	panel := virtfusionsim.New(config)
	panel.AddUser(virtfusionsim.User{ExtRelationID: 1001})
	panel.AddUser(virtfusionsim.User{})
	panel.AddPackage(virtfusionsim.Package{Name: "S", MemoryMB: 1024, StorageGB: 20, CPUCores: 1})
	panel.AddPackage(virtfusionsim.Package{Name: "M", MemoryMB: 2048, StorageGB: 40, CPUCores: 2})
	panel.AddHypervisor(virtfusionsim.Hypervisor{Name: "hv-1", GroupID: 1})
	return panel
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestEveryChangeIsReported(t *testing.T) {
	t.Parallel()
	panel, reported := hooked(t)
	server := must[virtfusionsim.Server](t)
	args := virtfusionsim.CreateArgs{OwnerID: 1, PackageID: 1, Name: "web"}
	id := server(panel.CreateServer(args)).ID
	for _, change := range []struct {
		event, status string
		do            func() (virtfusionsim.Server, error)
		holds         func(s virtfusion.Server) bool
	}{
		{"server.build", "success", func() (virtfusionsim.Server, error) { return panel.Build(id) }, func(s virtfusion.Server) bool { return *s.CommissionStatus == 3 && s.Built != nil }},
		{"server.build", "fail", func() (virtfusionsim.Server, error) { return panel.FailBuild(id) }, func(s virtfusion.Server) bool { return *s.BuildFailed }},
		{"server.build", "success", func() (virtfusionsim.Server, error) { return panel.Rebuild(id) }, func(s virtfusion.Server) bool { return !*s.BuildFailed && *s.State == "running" }},
		{"server.update", "success", func() (virtfusionsim.Server, error) { return panel.Rename(id, "db", "db.example.net") }, func(s virtfusion.Server) bool { return *s.Name == "db" && *s.Hostname == "db.example.net" }},
		{"server.suspend", "success", func() (virtfusionsim.Server, error) { return panel.Suspend(id) }, func(s virtfusion.Server) bool { return *s.Suspended }},
		{"server.unsuspend", "success", func() (virtfusionsim.Server, error) { return panel.Unsuspend(id) }, func(s virtfusion.Server) bool { return !*s.Suspended }},
		{"server.owner", "success", func() (virtfusionsim.Server, error) { return panel.Move(id, 2) }, func(s virtfusion.Server) bool { return *s.OwnerID == 2 && s.Owner.ExtRelationID == nil }},
		{"server.package", "success", func() (virtfusionsim.Server, error) { return panel.SetPackage(id, 2) }, func(s virtfusion.Server) bool { return *s.PackageID == 2 && *s.MemoryMB == 2048 }},
		{"server.destroy", "fail", func() (virtfusionsim.Server, error) { return panel.FailDestroy(id) }, func(virtfusion.Server) bool { return len(panel.Servers()) == 1 }},
		{"server.destroy", "success", func() (virtfusionsim.Server, error) { return panel.Destroy(id) }, func(virtfusion.Server) bool { return len(panel.Servers()) == 0 }},
	} {
		before := len(*reported)
		server(change.do())
		if len(*reported) != before+1 {
			t.Fatalf("%s: %d webhooks, want one", change.event, len(*reported)-before)
		}
		webhook := must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook((*reported)[before].Body))
		got := must[virtfusion.Server](t)(virtfusion.DecodeServer(webhook.Data.Server))
		if webhook.Event != change.event || webhook.EventStatus != change.status || got.ID != id || !change.holds(got) {
			t.Errorf("%s %s: %+v", change.event, change.status, got)
		}
	}
}

func TestCreateWebhook(t *testing.T) {
	t.Parallel()
	panel, reported := hooked(t)
	args := virtfusionsim.CreateArgs{OwnerID: 1, PackageID: 2}
	must[virtfusionsim.Server](t)(panel.CreateServer(args))
	if err := panel.FailCreate(args); err != nil {
		t.Fatal(err)
	}
	created, failed := (*reported)[0], (*reported)[1]
	for name, want := range map[string]string{
		"Content-Type":               "application/json",
		"Authorization":              "Bearer aG9vay10b2tlbg==",
		virtfusion.HeaderEvent:       "server.create",
		virtfusion.HeaderHook:        "1",
		virtfusion.HeaderHookEvent:   "1",
		virtfusion.HeaderCreated:     "2025-01-15T15:00:49.316192Z",
		virtfusion.HeaderEventStatus: "success",
	} {
		if got := created.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(created.Header.Get("User-Agent"), "VirtFusion-Hookshot/") {
		t.Errorf("User-Agent: %q", created.Header.Get("User-Agent"))
	}
	webhook := must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(created.Body))
	if !webhook.Created.Equal(epoch().Add(316192*time.Microsecond)) || *webhook.Data.Args.PackageID != 2 || *webhook.Data.Args.UserID != 1 {
		t.Errorf("create: %+v", webhook)
	}
	webhook = must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(failed.Body))
	if webhook.Data.ServerKind() != virtfusion.ServerFalse || webhook.EventStatus == virtfusion.StatusSuccess || len(panel.Servers()) != 1 {
		t.Errorf("failed create: %+v", webhook)
	}
	if !bytes.Contains(created.Body, []byte(`"hookId":1`)) || !bytes.Contains(failed.Body, []byte(`"hookId":"1"`)) {
		t.Error("ids are not numbers once and text once")
	}
}

func TestFullObjectsHoldEverySecretAndTheTypesNone(t *testing.T) {
	t.Parallel()
	panel, _ := hooked(t)
	id := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, PackageID: 1})).ID
	body := must[[]byte](t)(panel.WebhookBody(id, "server.build"))
	webhook := must[virtfusion.Webhook](t)(virtfusion.DecodeWebhook(body))
	kept := must[[]byte](t)(json.Marshal([]any{webhook, must[virtfusion.Server](t)(virtfusion.DecodeServer(webhook.Data.Server))}))
	for _, secret := range virtfusionsim.Secrets() {
		if !bytes.Contains(body, []byte(secret)) {
			t.Errorf("%s is not in the webhook", secret)
		}
		if bytes.Contains(kept, []byte(secret)) {
			t.Errorf("%s was kept: %s", secret, kept)
		}
	}
	if size := len(body); size < 3500 || size > 6000 {
		t.Errorf("the body has %d bytes, want about 4 KB", size)
	}
}

func TestUnknownIsAnErrorAndNoWebhook(t *testing.T) {
	t.Parallel()
	panel, reported := hooked(t)
	id := must[virtfusionsim.Server](t)(panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 1, Silent: true})).ID
	for name, do := range map[string]func() (virtfusionsim.Server, error){
		"owner":       func() (virtfusionsim.Server, error) { return panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 9}) },
		"package":     func() (virtfusionsim.Server, error) { return panel.SetPackage(id, 9) },
		"new owner":   func() (virtfusionsim.Server, error) { return panel.Move(id, 9) },
		"server":      func() (virtfusionsim.Server, error) { return panel.Destroy(9) },
		"one to show": func() (virtfusionsim.Server, error) { return panel.Server(9) },
	} {
		if _, err := do(); !errors.Is(err, virtfusionsim.ErrUnknown) {
			t.Errorf("%s: %v, want ErrUnknown", name, err)
		}
	}
	if len(*reported) != 0 {
		t.Errorf("%d webhooks, want none", len(*reported))
	}
}

func TestAPIRefusals(t *testing.T) {
	t.Parallel()
	panel := populated(virtfusionsim.Config{Token: token})
	for target, want := range map[string]int{
		"/api/v1/servers?results=201": 422, "/api/v1/servers?results=0": 422, "/api/v1/servers?results=x": 422,
		"/api/v1/servers?type=huge": 422, "/api/v1/servers?page=-1": 200, "/api/v1/servers/x": 404, "/api/v2/servers": 404,
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		request.Header.Set("Authorization", "Bearer "+token)
		answer := httptest.NewRecorder()
		panel.Handler().ServeHTTP(answer, request)
		if answer.Code != want || !json.Valid(answer.Body.Bytes()) {
			t.Errorf("%s: %d %s, want %d in JSON", target, answer.Code, answer.Body, want)
		}
	}
}
