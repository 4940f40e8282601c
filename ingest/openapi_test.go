package ingest_test

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"serversync/ingest"
	"serversync/internal/openapitest"
	"serversync/schemas"
)

var errBroker = errors.New("broker away")

func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	doc := openapitest.Load(t, schemas.FS())
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("version %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("openapi.yaml: %v", err)
	}
}

// Real answers have a status that is described, and the described body.
func TestOpenAPIIsTheAnswers(t *testing.T) {
	t.Parallel()
	doc := openapitest.Load(t, schemas.FS())
	open := setup(t, ingest.WebhookConfig{AllowUnauthenticated: true})
	failing := setup(t, withToken())
	failing.recorder.err = errBroker
	s := setup(t, withToken())
	elsewhere := setup(t, ingest.WebhookConfig{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	jsonOnly := http.Header{"Content-Type": {"application/json"}}

	tests := []struct {
		system         *system
		method, target string
		header         http.Header
		body           string
		status         int
	}{
		{s, http.MethodPost, path, goodHeader(), goodBody, 202},
		{open, http.MethodPost, path, jsonOnly, `{"event":"user.create"}`, 202},
		{s, http.MethodPost, path, goodHeader(), `[]`, 400},
		{s, http.MethodPost, path, jsonOnly, goodBody, 401},
		{elsewhere, http.MethodPost, path, goodHeader(), goodBody, 403},
		{s, http.MethodPost, path, goodHeader(), padded(1<<20 + 1), 413},
		{open, http.MethodPost, path, http.Header{}, goodBody, 415},
		{s, http.MethodPost, path, goodHeader(), `{"event":"server.build","data":{"server":{}}}`, 422},
		{failing, http.MethodPost, path, goodHeader(), goodBody, 503},
		{s, http.MethodGet, "/healthz", nil, "", 200},
		{s, http.MethodGet, "/readyz", nil, "", 200},
		{failing, http.MethodGet, "/readyz", nil, "", 503},
		{s, http.MethodGet, "/readyz?role=none", nil, "", 400},
		{s, http.MethodGet, "/metrics", nil, "", 200},
		{s, http.MethodGet, "/openapi.yaml", nil, "", 200},
		{s, http.MethodGet, "/schemas/event.json", nil, "", 200},
		{s, http.MethodGet, "/schemas/other.json", nil, "", 404},
	}
	for _, tt := range tests {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, tt.system.url+tt.target, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.header != nil {
			req.Header = tt.header
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != tt.status {
			t.Errorf("%s %s = %d, want %d", tt.method, tt.target, res.StatusCode, tt.status)
			continue
		}
		described, _, _ := strings.Cut(tt.target, "?")
		if strings.HasPrefix(described, "/schemas/") {
			described = "/schemas/{name}"
		}
		openapitest.Check(t, doc, tt.method, described, res, body)
	}
}
