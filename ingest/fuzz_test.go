package ingest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"serversync/ingest"
	"serversync/schemas"
)

// FuzzWebhookHandler: whatever is posted, the answer is one of the documented
// ones, nothing panics, the token stays out of the log, and what is published
// is what the schema describes.
func FuzzWebhookHandler(f *testing.F) {
	f.Add([]byte(goodBody), bearer(testToken), "application/json", "", "", "")
	f.Add([]byte(`{}`), bearer(testToken), "application/json; charset=utf-8", "server.create", "fail", "2026-01-01T00:00:00Z")
	f.Add([]byte(`{"event":"server.build","data":{"server":{"id":1,"name":"\u0000\ud800"}}}`), bearer(testToken), "application/json", "", "", "9999-12-31T23:59:59-12:00")
	f.Add([]byte(`{"event":"server.destroy","data":{"server":[]}}`), bearer(testToken), "application/json", "", "", "")
	f.Add([]byte(strings.Repeat(`{"data":`, 20_000)), bearer(testToken), "application/json", "", "", "")
	f.Add([]byte(goodBody), "Bearer x", "text/plain", "", "", "")
	for _, name := range []string{"server.create", "server.destroy", "user.create"} {
		f.Add(sample(f, name), bearer(testToken), "application/json", "", "", "")
	}
	schema := compile(f, schemas.Event())
	s := assemble(f, withToken())
	listed := map[int]bool{202: true, 400: true, 401: true, 413: true, 415: true, 422: true, 429: true}

	f.Fuzz(func(t *testing.T, body []byte, authorization, contentType, event, status, created string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body)))
		for key, value := range map[string]string{
			"Authorization": authorization, "Content-Type": contentType,
			"X-VirtFusion-Event": event, "X-VirtFusion-Event-Status": status, "X-VirtFusion-Created": created,
		} {
			req.Header.Set(key, value)
		}
		before := len(s.recorder.events())
		res := httptest.NewRecorder()
		s.handler.ServeHTTP(res, req)
		if !listed[res.Code] {
			t.Errorf("status %d: %s", res.Code, res.Body)
		}
		var answer struct {
			Success bool
			ID      string
			Error   struct{ Code string }
		}
		if err := json.Unmarshal(res.Body.Bytes(), &answer); err != nil || answer.Success != (res.Code == http.StatusAccepted) || answer.Success == (answer.Error.Code != "") {
			t.Errorf("status %d with body %s", res.Code, res.Body)
		}
		published := s.recorder.events()[before:]
		if len(published) > 1 || (len(published) == 1) != (answer.ID != "") {
			t.Errorf("%d events published, answer %s", len(published), res.Body)
		}
		for _, e := range published {
			if data := encode(t, e); validate(schema, data) != nil {
				t.Errorf("%v\n%s", validate(schema, data), data)
			}
		}
		if strings.Contains(s.log.String(), testToken) || strings.Contains(s.log.String(), bearer(testToken)) {
			t.Error("the token is in the log")
		}
		s.log.reset()
		s.recorder.reset()
	})
}

// FuzzTranslate: whatever a server object says, the event made of it is what
// the schema describes, and the secrets beside it do not get in.
func FuzzTranslate(f *testing.F) {
	const secret = "s3cr3t-marker"
	f.Add([]byte(`{"id":1}`), "server.create", "success")
	f.Add([]byte(`{"id":"7","name":"\u0000x","uuid":"","ownerId":-1,"settings":{"resources":{"memory":-5,"storage":1e30}}}`), "server.destroy", "fail")
	f.Add([]byte(`{"id":7,"owner":{"id":3,"extRelationId":"x"},"created":"0000-01-01T00:00:00Z","updated":"9999-12-31T23:59:59-14:00"}`), "server.x", "")
	f.Add([]byte(`{"id":7,"network":{"interfaces":[{"order":1,"enabled":true,"ipv4":[{"address":"1.2.3.4"}],"ipv6":[{"subnet":"::","cidr":999}]}]}}`), "server.updated", "success")
	schema := compile(f, schemas.Event())
	s := assemble(f, ingest.WebhookConfig{AllowUnauthenticated: true})

	f.Fuzz(func(t *testing.T, rawServer []byte, name, status string) {
		var server map[string]any
		if json.Unmarshal(rawServer, &server) != nil || server == nil || strings.Contains(string(rawServer)+name, secret) {
			t.Skip()
		}
		for _, key := range []string{"vnc", "sshKeys", "os", "qemuAgent", "cloudInit", "customXML", "email"} {
			server[key] = map[string]any{"password": secret, "os": map[string]any{"screen": secret}, "name": secret}
		}
		for key, value := range map[string]string{"settings": "encryptedPassword", "owner": "email", "hypervisor": "token", "network": "key"} {
			if object, ok := server[key].(map[string]any); ok {
				object[value] = secret
			}
		}
		body := encode(t, map[string]any{"event": "server." + name, "eventStatus": status, "data": map[string]any{"server": server}})
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body)))
		req.Header.Set("Content-Type", "application/json")
		res := httptest.NewRecorder()
		s.handler.ServeHTTP(res, req)
		if res.Code != http.StatusAccepted && res.Code != http.StatusUnprocessableEntity && res.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d: %s", res.Code, res.Body)
		}
		for _, e := range s.recorder.events() {
			data := encode(t, e)
			if err := validate(schema, data); err != nil {
				t.Errorf("%v\n%s", err, data)
			}
			if strings.Contains(string(data), secret) {
				t.Errorf("a secret is in the event: %s", data)
			}
		}
		if strings.Contains(s.log.String()+res.Body.String(), secret) {
			t.Error("a secret is in the log or the answer")
		}
		s.log.reset()
		s.recorder.reset()
	})
}
