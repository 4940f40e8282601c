package ingest_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"serversync/ingest"
	"serversync/schemas"
)

var errBroker = errors.New("broker away")

// loadOpenAPI loads the document and the schemas it refers to as a client
// would find them: beside it.
func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, location *url.URL) ([]byte, error) {
		return fs.ReadFile(schemas.FS(), strings.TrimPrefix(strings.TrimPrefix(location.Path, "/"), "schemas/"))
	}
	doc, err := loader.LoadFromURI(&url.URL{Path: "/openapi.yaml"})
	if err != nil {
		t.Fatalf("load openapi.yaml: %v", err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	doc := loadOpenAPI(t)
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("version %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("openapi.yaml: %v", err)
	}
}

// Every route is described, and nothing is described that there is not.
func TestOpenAPIIsTheRoutes(t *testing.T) {
	t.Parallel()
	described := map[route]bool{}
	for p, item := range loadOpenAPI(t).Paths.Map() {
		for method := range item.Operations() {
			described[route{method, p}] = true
		}
	}
	served := map[route]bool{}
	for _, r := range assemble(t, withToken()).routes {
		served[route{r.method, strings.ReplaceAll(r.path, ":name", "{name}")}] = true
	}
	for r := range served {
		if !described[r] {
			t.Errorf("%s %s is served and not described", r.method, r.path)
		}
	}
	for r := range described {
		if !served[r] {
			t.Errorf("%s %s is described and not served", r.method, r.path)
		}
	}
}

// Real answers have a status that is described, and the described body.
func TestOpenAPIIsTheAnswers(t *testing.T) {
	t.Parallel()
	doc := loadOpenAPI(t)
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
		checkAnswer(t, doc, tt.method, tt.target, res, body)
	}
}

func checkAnswer(t *testing.T, doc *openapi3.T, method, target string, res *http.Response, body []byte) {
	t.Helper()
	described, _, _ := strings.Cut(target, "?")
	if strings.HasPrefix(described, "/schemas/") {
		described = "/schemas/{name}"
	}
	answer := doc.Paths.Value(described).GetOperation(method).Responses.Value(strconv.Itoa(res.StatusCode))
	if answer == nil {
		t.Errorf("%s %s: status %d is not described", method, target, res.StatusCode)
		return
	}
	mediaType, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	content := answer.Value.Content.Get(mediaType)
	if content == nil {
		t.Errorf("%s %s: %d in %s is not described", method, target, res.StatusCode, mediaType)
		return
	}
	if !strings.HasSuffix(mediaType, "json") {
		return
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		t.Errorf("%s %s: %v", method, target, err)
		return
	}
	if err := content.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
		t.Errorf("%s %s: %d with a body that is not the described one: %v\n%s", method, target, res.StatusCode, err, body)
	}
}
