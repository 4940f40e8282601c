package virtfusion_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"serversync/virtfusion"
)

func TestDecodeWebhookRecorded(t *testing.T) {
	t.Parallel()
	webhook, err := virtfusion.DecodeWebhook(recorded(t, "webhook_server_create.json"))
	if err != nil {
		t.Fatal(err)
	}
	if kind := webhook.Data.ServerKind(); kind != virtfusion.ServerObject {
		t.Errorf("ServerKind() = %d, want an object", kind)
	}
	server, err := virtfusion.DecodeServer(webhook.Data.Server)
	if err != nil || server.ID != 1 || *server.Owner.ExtRelationID != 1001 {
		t.Errorf("DecodeServer = %+v, %v", server, err)
	}
	webhook.Data.Server = nil
	want := virtfusion.Webhook{
		Event:         virtfusion.EventServerCreate,
		Created:       new(time.Date(2025, 1, 15, 15, 0, 49, 316192000, time.UTC)),
		HookID:        "1",
		HookEventID:   "1",
		EventStatus:   virtfusion.StatusSuccess,
		ControlDomain: "cp.example.com",
		Data:          virtfusion.WebhookData{Args: virtfusion.WebhookArgs{PackageID: new(int64(3)), UserID: new(int64(7))}},
	}
	if diff := cmp.Diff(want, webhook); diff != "" {
		t.Errorf("webhook (-want +got):\n%s", diff)
	}
}

func TestServerKind(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]virtfusion.ServerKind{
		`{}`:                             virtfusion.ServerMissing,
		`{"data":[]}`:                    virtfusion.ServerMissing,
		`{"data":null}`:                  virtfusion.ServerMissing,
		`{"data":{}}`:                    virtfusion.ServerMissing,
		`{"data":{"server":null}}`:       virtfusion.ServerMissing,
		`{"data":{"server":false}}`:      virtfusion.ServerFalse,
		`{"data":{"server": [ ] }}`:      virtfusion.ServerFalse,
		`{"data":{"server":{}}}`:         virtfusion.ServerObject,
		`{"data":{"server": {"id":1} }}`: virtfusion.ServerObject,
		`{"data":{"server":true}}`:       virtfusion.ServerUnreadable,
		`{"data":{"server":"x"}}`:        virtfusion.ServerUnreadable,
		`{"data":{"server":[1]}}`:        virtfusion.ServerUnreadable,
	} {
		webhook, err := virtfusion.DecodeWebhook([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if kind := webhook.Data.ServerKind(); kind != want {
			t.Errorf("%s: kind %d, want %d", body, kind, want)
		}
	}
}

func TestDecodeWebhookTolerance(t *testing.T) {
	t.Parallel()
	webhook, err := virtfusion.DecodeWebhook([]byte(`{"event":7,"created":"?","hookId":1,"hookEventId":{},"eventStatus":null,"data":{"args":[],"server":{"id":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if webhook.Event != "7" || webhook.Created != nil || webhook.HookID != "1" || webhook.HookEventID != "" || webhook.EventStatus != "" {
		t.Errorf("webhook = %+v", webhook)
	}
	if webhook.Data.Args != (virtfusion.WebhookArgs{}) || webhook.Data.ServerKind() != virtfusion.ServerObject {
		t.Errorf("data = %+v", webhook.Data)
	}
}

func TestDecodeWebhookRefusesWhatIsNoObject(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`null`, `[]`, `"x"`, `7`, ` false`} {
		if _, err := virtfusion.DecodeWebhook([]byte(body)); !errors.Is(err, virtfusion.ErrNotObject) {
			t.Errorf("%q: %v, want ErrNotObject", body, err)
		}
	}
	for _, body := range []string{``, `x`, `{`, `{"event":`, "\xff", `<html>`} {
		if _, err := virtfusion.DecodeWebhook([]byte(body)); err == nil || errors.Is(err, virtfusion.ErrNotObject) {
			t.Errorf("%q: %v, want a syntax error", body, err)
		}
	}
}

func FuzzWebhook(f *testing.F) {
	f.Add(recorded(f, "webhook_server_create.json"))
	f.Add([]byte(`{"event":"user.create","data":[]}`))
	f.Add([]byte(`{"event":"server.destroy","eventStatus":"fail","data":{"server":false,"args":[]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		webhook, err := virtfusion.DecodeWebhook(body)
		if err != nil {
			return
		}
		if webhook.Data.ServerKind() == virtfusion.ServerObject {
			if _, err := virtfusion.DecodeServer(webhook.Data.Server); err != nil {
				t.Errorf("an object that is none: %v", err)
			}
		}
		var object map[string]any
		if err := json.Unmarshal(body, &object); err != nil || bytes.Contains(body, []byte(marker)) {
			return
		}
		server := map[string]any{"id": 1}
		plantSecrets(server, marker)
		object["data"] = map[string]any{"server": server, "args": map[string]any{"password": marker}, "errors": []string{marker}}
		planted, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		webhook, err = virtfusion.DecodeWebhook(planted)
		if err != nil {
			t.Fatalf("with secrets planted: %v", err)
		}
		encoded, err := json.Marshal(webhook)
		if err != nil {
			t.Fatalf("what was decoded cannot be written down: %v", err)
		}
		if bytes.Contains(encoded, []byte(marker)) {
			t.Errorf("a secret got through: %s", encoded)
		}
	})
}
