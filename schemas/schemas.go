// Package schemas holds the documents that describe serversync to other
// programs: the JSON Schemas (draft 2020-12) of what VirtFusion posts to us
// and of the event that we put on the stream, and the OpenAPI 3.1 document of
// the HTTP interface. They are served as they stand, and tests in package
// ingest hold the Go types and the routes against them.
package schemas

import (
	"embed"
	"io/fs"
)

// Names of the schemas, as they are served under /schemas/.
const (
	WebhookName = "webhook.json"
	EventName   = "event.json"
)

//go:embed *.json openapi.yaml
var files embed.FS

// FS returns the JSON Schemas, as *.json in the root, and openapi.yaml.
func FS() fs.FS { return files }

// Webhook returns the JSON Schema of a webhook delivery's body.
func Webhook() []byte { return mustRead(WebhookName) }

// Event returns the JSON Schema of an event on the stream.
func Event() []byte { return mustRead(EventName) }

// OpenAPI returns the OpenAPI document, in YAML.
func OpenAPI() []byte { return mustRead("openapi.yaml") }

// mustRead cannot fail for the names above: the compiler has embedded them.
func mustRead(name string) []byte {
	data, err := files.ReadFile(name)
	if err != nil {
		panic("schemas: " + err.Error())
	}
	return data
}
