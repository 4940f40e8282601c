package ingest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"serversync/events"
	"serversync/schemas"
)

// compile compiles a schema with its formats asserted.
func compile(tb testing.TB, doc []byte) *jsonschema.Schema {
	tb.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", parsed); err != nil {
		tb.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		tb.Fatal(err)
	}
	return schema
}

func validate(schema *jsonschema.Schema, doc []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func encode(tb testing.TB, v any) []byte {
	tb.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func sample(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// What becomes of a whole server.create, and that what is published validates.
func TestSampleCreation(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	got := s.post(t, goodHeader(), bytes.NewReader(sample(t, "server.create")))
	if got.status != http.StatusAccepted {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	e := s.recorder.events()[0]
	want := events.Event{
		Version: events.Version, ID: got.body.ID, Kind: events.KindCreated, Source: events.SourceWebhook, Name: "server.create",
		ObservedAt: time.Date(2026, 3, 1, 11, 59, 58, 316192000, time.UTC), ReceivedAt: testNow(),
		Server: events.Server{
			ID: 4711, UUID: new("0d4cf3b2-9f6e-4c63-a6f4-1c1f0a3ad5ef"),
			Owner: &events.Owner{ID: 3, ExtRelationID: new(int64(17)), Whole: true},
			Name:  new("web one"), Hostname: new("web1.example.com"), State: new("running"), CommissionStatus: new(int64(3)),
			Suspended: new(false), Protected: new(false), BuildFailed: new(false), SelfService: new(int64(0)), PackageID: new(int64(12)),
			MemoryMB: new(int64(4096)), StorageGB: new(int64(80)), TrafficGB: new(int64(0)), CPUCores: new(int64(2)),
			IPAddresses:  []string{"203.0.113.7", "2001:db8:1::7", "10.0.0.7"},
			HypervisorID: new(int64(2)), HypervisorName: new("hv2"), HypervisorGroup: new(int64(1)),
			CreatedAt: new(time.Date(2026, 3, 1, 11, 59, 40, 0, time.UTC)), UpdatedAt: new(time.Date(2026, 3, 1, 11, 59, 57, 0, time.UTC)),
		},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every sample is what the webhook's schema describes, and becomes an event
// that the event's schema describes, and nothing secret comes through.
func TestSamplesAndSecrets(t *testing.T) {
	t.Parallel()
	webhookSchema, eventSchema := compile(t, schemas.Webhook()), compile(t, schemas.Event())
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := sample(t, name)
			if err := validate(webhookSchema, body); err != nil {
				t.Errorf("the sample is not what webhook.json describes: %v", err)
			}
			for _, failing := range []error{nil, errBroker} {
				s := setup(t, withToken())
				s.recorder.err = failing
				got := s.post(t, goodHeader(), bytes.NewReader(body))
				refused := s.post(t, http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer SECRET-plain"}}, bytes.NewReader(body))
				for _, e := range s.recorder.events() {
					data := encode(t, e)
					if err := validate(eventSchema, data); err != nil {
						t.Errorf("the event is not what event.json describes: %v\n%s", err, data)
					}
					if bytes.Contains(data, []byte("SECRET")) {
						t.Errorf("a secret is in the event: %s", data)
					}
				}
				if out := got.raw + refused.raw + s.log.String(); strings.Contains(out, "SECRET") || strings.Contains(out, testToken) {
					t.Errorf("a secret is in the answers or the log: %s", out)
				}
				if !strings.Contains(s.log.String(), `"outcome"`) {
					t.Error("nothing was logged: this test would not see a leak")
				}
			}
		})
	}
}

// webhook.json refuses what the endpoint refuses for its content.
func TestWebhookSchemaRefusals(t *testing.T) {
	t.Parallel()
	schema := compile(t, schemas.Webhook())
	for body, valid := range map[string]bool{
		`[]`: false, `"x"`: false, `null`: false,
		`{"event":"server.build","data":{"server":{"id":"7"}}}`:   true,
		`{"event":"server.build","data":{"server":[]}}`:           true,
		`{"event":"server.build","data":{"server":false}}`:        true,
		`{"event":"server.build","data":{"server":{"name":"x"}}}`: false,
		`{"event":"server.build","data":{"server":{"id":0}}}`:     false,
		`{"event":"server.build","data":{"server":{"id":"0"}}}`:   false,
		`{"event":"server.build","data":{"server":"7"}}`:          false,
		`{"event":"server.build","data":{"server":[{"id":7}]}}`:   false,
		`{"event":"user.create","data":{"server":{"name":"x"}}}`:  true,
	} {
		if err := validate(schema, []byte(body)); (err == nil) != valid {
			t.Errorf("%s: %v, want valid: %t", body, err, valid)
		}
	}
}

// objectSchema is the part of a JSON Schema that TestEventSchemaIsTheGoType reads.
type objectSchema struct {
	AdditionalProperties *bool
	Required             []string
	Properties           map[string]struct{ Description string }
	Defs                 map[string]objectSchema `json:"$defs"`
}

// event.json and the Go types name the same fields: those that are always
// written are required, and each is described.
func TestEventSchemaIsTheGoType(t *testing.T) {
	t.Parallel()
	var root objectSchema
	if err := json.Unmarshal(schemas.Event(), &root); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		goType reflect.Type
		schema objectSchema
	}{
		{reflect.TypeFor[events.Event](), root},
		{reflect.TypeFor[events.Server](), root.Defs["server"]},
		{reflect.TypeFor[events.Owner](), root.Defs["owner"]},
	} {
		if tt.schema.AdditionalProperties == nil || *tt.schema.AdditionalProperties {
			t.Errorf("%s: the schema is not strict", tt.goType)
		}
		fields := map[string]bool{} // name: always written
		for field := range tt.goType.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields[name] = !strings.Contains(options, "omit")
		}
		required := map[string]bool{}
		for _, name := range tt.schema.Required {
			required[name] = true
		}
		for name, always := range fields {
			property, ok := tt.schema.Properties[name]
			if !ok || property.Description == "" {
				t.Errorf("%s: field %q is not described", tt.goType, name)
			}
			if always != required[name] {
				t.Errorf("%s: field %q is always written: %t, required: %t", tt.goType, name, always, required[name])
			}
		}
		for name := range tt.schema.Properties {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s: %q is described, but there is no such field", tt.goType, name)
			}
		}
	}
}
