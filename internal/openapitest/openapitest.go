// Package openapitest holds real answers against an OpenAPI document, for the
// tests of those who serve what it describes.
package openapitest

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Load reads openapi.yaml, and the schemas that it refers to as a client would
// find them: beside it. Any fault ends t.
func Load(t testing.TB, files fs.FS) *openapi3.T {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, location *url.URL) ([]byte, error) {
		return fs.ReadFile(files, strings.TrimPrefix(strings.TrimPrefix(location.Path, "/"), "schemas/"))
	}
	doc, err := loader.LoadFromURI(&url.URL{Path: "/openapi.yaml"})
	if err != nil {
		t.Fatalf("load openapi.yaml: %v", err)
	}
	return doc
}

// Check fails t unless the answer has a status that the document describes for
// the method and the path (as the document writes it), and its body is the
// described one.
func Check(t testing.TB, doc *openapi3.T, method, path string, res *http.Response, body []byte) {
	t.Helper()
	item := doc.Paths.Value(path)
	if item == nil || item.GetOperation(method) == nil {
		t.Errorf("%s %s is not described", method, path)
		return
	}
	answer := item.GetOperation(method).Responses.Value(strconv.Itoa(res.StatusCode))
	if answer == nil {
		t.Errorf("%s %s: status %d is not described", method, path, res.StatusCode)
		return
	}
	mediaType, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	content := answer.Value.Content.Get(mediaType)
	if content == nil {
		t.Errorf("%s %s: %d in %s is not described", method, path, res.StatusCode, mediaType)
		return
	}
	if !strings.HasSuffix(mediaType, "json") {
		return
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return
	}
	if err := content.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
		t.Errorf("%s %s: %d with a body that is not the described one: %v\n%s", method, path, res.StatusCode, err, body)
	}
}
