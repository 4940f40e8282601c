package main

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"serversync/events"
	"serversync/ingest"
	"serversync/virtfusion/virtfusionsim"
)

// spanCollector is a small collector: it keeps what it is sent as OTLP over HTTP.
type spanCollector struct {
	url string

	mu       sync.Mutex
	spans    []*otlp.Span
	services []string
	refuse   bool
	refused  int
}

func newSpanCollector(t *testing.T) *spanCollector {
	t.Helper()
	c := &spanCollector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var sent collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &sent)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s of %s: %v", r.URL.Path, r.Header.Get("Content-Type"), err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.refuse {
			c.refused++
			w.WriteHeader(http.StatusBadRequest) // not to be tried again
			return
		}
		for _, resource := range sent.GetResourceSpans() {
			for _, a := range resource.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					c.services = append(c.services, a.GetValue().GetStringValue())
				}
			}
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// named are the spans of a name.
func (c *spanCollector) named(name string) []*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*otlp.Span
	for _, s := range c.spans {
		if s.GetName() == name {
			found = append(found, s)
		}
	}
	return found
}

// deliver posts the creation of a server as VirtFusion does.
func (r *running) deliver(t *testing.T, id string, header http.Header) {
	t.Helper()
	body := `{"event":"server.create","created":"2026-03-01T12:00:00.000000Z","eventStatus":"success","data":{"server":{"id":` + id +
		`,"uuid":"6b1d8c6e-0000-4000-8000-00000000000` + id + `","ownerId":7,"name":"web"}}}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.base+"/webhooks/virtfusion", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString([]byte(testToken)))
	if status, answer := do(t, request); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
}

// reconciled waits until nothing is on its way into the books.
func (r *running) reconciled(t *testing.T) {
	t.Helper()
	eventually(t, "the event is in the books", func() bool {
		state, err := events.Inspect(t.Context(), r.js)
		return err == nil && state.Messages > 0 && state.OldestAt.IsZero()
	})
}

func TestOneTraceLeadsFromTheWebhookToTheCommit(t *testing.T) {
	t.Parallel()
	c := newSpanCollector(t)
	r := start(t, config{tracesURL: c.url + tracesPath})
	r.ready(t)
	r.deliver(t, "1", http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	r.reconciled(t)
	if err := r.stop(); err != nil { // which sends the last spans
		t.Fatal(err)
	}

	post, publish, commit, batch := c.named("POST /webhooks/virtfusion"), c.named("publish"), c.named("reconcile"), c.named("reconcile batch")
	if len(post) != 1 || len(publish) != 1 || len(commit) != 1 || len(batch) != 1 {
		t.Fatalf("%d spans of the webhook, %d of publishing, %d of the commit, %d of its batch; want one of each", len(post), len(publish), len(commit), len(batch))
	}
	trace := hex.EncodeToString(post[0].GetTraceId())
	for _, child := range []*otlp.Span{publish[0], commit[0]} {
		if hex.EncodeToString(child.GetTraceId()) != trace || hex.EncodeToString(child.GetParentSpanId()) != hex.EncodeToString(post[0].GetSpanId()) {
			t.Errorf("%s is not a child of the webhook's span", child.GetName())
		}
	}
	if links := batch[0].GetLinks(); len(links) != 1 || hex.EncodeToString(links[0].GetSpanId()) != hex.EncodeToString(post[0].GetSpanId()) {
		t.Errorf("the batch links to %v, want the webhook's span", links)
	}
	if links := commit[0].GetLinks(); len(links) != 1 || hex.EncodeToString(links[0].GetSpanId()) != hex.EncodeToString(batch[0].GetSpanId()) {
		t.Errorf("the commit links to %v, want the batch's span", links)
	}
	if got := commit[0].GetEvents(); len(got) != 1 || got[0].GetName() != "committed" {
		t.Errorf("the commit's span has the events %v", got)
	}
	if publish[0].GetEndTimeUnixNano() > post[0].GetEndTimeUnixNano() {
		t.Error("the answer was sent before the event was durable")
	}
	// A stranger's trace is linked to, not gone on with.
	if strange := "0af7651916cd43dd8448eb211c80319c"; trace == strange || len(post[0].GetLinks()) != 1 || hex.EncodeToString(post[0].GetLinks()[0].GetTraceId()) != strange {
		t.Errorf("a stranger's traceparent led to the trace %s with the links %v", trace, post[0].GetLinks())
	}
	if !strings.Contains(r.log.String(), `"traceId":"`+trace+`"`) {
		t.Error("the delivery's log line does not name the trace")
	}
	if len(c.services) == 0 || c.services[0] != "serversync" {
		t.Errorf("the service calls itself %v", c.services)
	}
	if len(c.named("GET /readyz")) > 0 {
		t.Error("probes are traced")
	}
}

// The id of an event is the same whatever trace it comes in, or none.
func TestTheTraceIsNoPartOfTheEvent(t *testing.T) {
	t.Parallel()
	c := newSpanCollector(t)
	with, without := start(t, config{tracesURL: c.url + tracesPath}), start(t, config{})
	ids := make(map[string]string)
	for name, r := range map[string]*running{"with": with, "without": without} {
		r.ready(t)
		r.deliver(t, "1", nil)
		r.deliver(t, "1", nil) // in another trace: the same event
		stream, err := r.js.Stream(t.Context(), events.StreamName)
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.Msgs; n != 1 {
			t.Errorf("%s traces one event is %d messages", name, n)
		}
		m, err := stream.GetMsg(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = m.Header.Get("Nats-Msg-Id")
		if traced := m.Header.Get("traceparent") != ""; traced != (name == "with") {
			t.Errorf("%s traces the message has the headers %v", name, m.Header)
		}
	}
	if ids["with"] != ids["without"] || ids["with"] == "" {
		t.Errorf("the event's id depends on the trace: %v", ids)
	}
}

// A collector that refuses everything holds nothing up, and is complained of
// once.
func TestACollectorThatFailsHoldsNothingUp(t *testing.T) {
	t.Parallel()
	c := newSpanCollector(t)
	c.refuse = true
	r := start(t, config{tracesURL: c.url + tracesPath})
	r.ready(t)
	for _, id := range []string{"1", "2", "3"} {
		r.deliver(t, id, nil)
		if err := r.tracing.provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.reconciled(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if said := strings.Count(r.log.String(), "spans could not be sent"); c.refused < 3 || said != 1 {
		t.Errorf("%d exports were refused, which was said %d times; want at least 3, once", c.refused, said)
	}
}

// A collector that never answers delays the end by flushTimeout at most.
func TestShutdownWaitsForNoCollector(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(held) })
	r := start(t, config{tracesURL: server.URL + tracesPath})
	r.ready(t)
	r.deliver(t, "1", nil)
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the shutdown waits for the collector")
	}
	if !strings.Contains(r.log.String(), "the last spans were not sent") {
		t.Error("nobody was told that spans were lost")
	}
}

// The phases of a sweep and the pages that it read are spans of one trace.
func TestASweepIsTraced(t *testing.T) {
	t.Parallel()
	c := newSpanCollector(t)
	panel := virtfusionsim.New(virtfusionsim.Config{})
	served := httptest.NewServer(panel.Handler())
	t.Cleanup(served.Close)
	panel.AddUser(virtfusionsim.User{ID: 7, Name: "C"})
	panel.AddPackage(virtfusionsim.Package{ID: 3, Name: "Small", MemoryMB: 1024, StorageGB: 20, CPUCores: 1})
	if _, err := panel.CreateServer(virtfusionsim.CreateArgs{OwnerID: 7, PackageID: 3, Built: true}); err != nil {
		t.Fatal(err)
	}
	maxChanges, err := ingest.ParseMaxChanges("100%")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, config{tracesURL: c.url + tracesPath, virtfusionURL: served.URL, virtfusionToken: virtfusionsim.DefaultToken, maxChanges: maxChanges})
	r.ready(t)
	eventually(t, "a sweep is complete", func() bool {
		return strings.Contains(r.metrics(t), `serversync_runs_total{kind="sweep",state="succeeded"} 1`)
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	runs, pages := c.named("run sweep"), c.named("list page")
	if len(runs) == 0 || len(pages) == 0 {
		t.Fatalf("%d spans of runs, %d of pages", len(runs), len(pages))
	}
	if hex.EncodeToString(pages[0].GetTraceId()) != hex.EncodeToString(runs[0].GetTraceId()) {
		t.Error("a page is not in its run's trace")
	}
}

func (r *running) metrics(t *testing.T) string {
	t.Helper()
	_, body := get(t, r.base+"/metrics")
	return body
}
