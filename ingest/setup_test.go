package ingest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/ingest"
	"serversync/internal/httpserver"
	"serversync/schemas"
)

const (
	testToken = "correct horse battery staple?>"
	path      = "/webhooks/virtfusion"
)

func testNow() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// recorder is a publisher that keeps what it is given.
type recorder struct {
	mu        sync.Mutex
	published []events.Event
	duplicate bool
	err       error
	before    func(context.Context) // runs first, when set
}

func (r *recorder) Publish(ctx context.Context, e *events.Event) (events.Ack, error) {
	if r.before != nil {
		r.before(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return events.Ack{}, r.err
	}
	if err := e.Seal(); err != nil {
		return events.Ack{}, err
	}
	r.published = append(r.published, *e)
	return events.Ack{Sequence: uint64(len(r.published)), Duplicate: r.duplicate}, nil
}

func (r *recorder) events() []events.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]events.Event(nil), r.published...)
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.published = r.published[:0]
}

// logBuffer is a log that a test may read while handlers write.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// system is a webhook endpoint behind the real HTTP server.
type system struct {
	handler  http.Handler
	url      string
	recorder *recorder
	registry *prometheus.Registry
	log      *logBuffer
}

func withToken() ingest.WebhookConfig { return ingest.WebhookConfig{Tokens: []string{testToken}} }

// assemble makes the system without a listener.
func assemble(tb testing.TB, cfg ingest.WebhookConfig) *system {
	tb.Helper()
	s := &system{recorder: new(recorder), registry: prometheus.NewRegistry(), log: new(logBuffer)}
	log := zerolog.New(s.log)
	roles := []string{"ingest", "api", "reconcile", "sweep"}
	server, err := httpserver.New(httpserver.Config{
		Registry: s.registry, Log: log, OpenAPI: schemas.OpenAPI(), Schemas: schemas.FS(), Roles: roles, KnownRoles: roles,
		Checks: []httpserver.Check{{Name: "broker", Probe: func(context.Context) error { return s.recorder.err }}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	hook, err := ingest.NewWebhook(cfg, s.recorder, s.registry, log, testNow)
	if err != nil {
		tb.Fatal(err)
	}
	hook.Register(server.Echo())
	s.handler = server.Handler()
	return s
}

// setup serves the system over real HTTP.
func setup(t *testing.T, cfg ingest.WebhookConfig) *system {
	t.Helper()
	s := assemble(t, cfg)
	srv := httptest.NewServer(s.handler)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// bearer is a token as VirtFusion sends it.
func bearer(token string) string {
	return "Bearer " + base64.StdEncoding.EncodeToString([]byte(token))
}

// goodHeader is the header of a delivery that is let in.
func goodHeader() http.Header {
	return http.Header{"Authorization": {bearer(testToken)}, "Content-Type": {"application/json"}}
}

// answer is what came back, in the two shapes that there are.
type answer struct {
	status int
	header http.Header
	raw    string
	body   struct {
		Success bool
		ID      string
		Ignored bool
		Error   struct{ Code, Message string }
	}
}

func (s *system) post(t *testing.T, header http.Header, body io.Reader) answer {
	t.Helper()
	return s.send(t, http.MethodPost, header, body)
}

func (s *system) send(t *testing.T, method string, header http.Header, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	return readAnswer(t, res)
}

func readAnswer(t *testing.T, res *http.Response) answer {
	t.Helper()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	if err := json.Unmarshal(raw, &a.body); err != nil {
		t.Fatalf("status %d, body %q: %v", res.StatusCode, raw, err)
	}
	if a.body.Success != (a.status == http.StatusAccepted) || a.body.Success == (a.body.Error.Code != "") {
		t.Fatalf("status %d with body %s", a.status, raw)
	}
	return a
}
