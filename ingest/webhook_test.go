package ingest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"serversync/events"
	"serversync/ingest"
)

const goodBody = `{"event":"server.build","created":"2026-03-01T11:59:58.123456Z","eventStatus":"success","data":{"errors":[],"server":{"id":7,"ownerId":3}}}`

// padded is a good body of exactly n bytes.
func padded(n int) string { return goodBody + strings.Repeat(" ", n-len(goodBody)) }

func TestRefusals(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	with := func(key, value string) http.Header {
		h := goodHeader()
		h.Set(key, value)
		return h
	}
	without := func(key string) http.Header {
		h := goodHeader()
		h.Del(key)
		return h
	}
	elsewhere := ingest.WebhookConfig{Tokens: []string{testToken}, AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	tests := []struct {
		name   string
		cfg    ingest.WebhookConfig
		header http.Header
		body   string
		status int
		code   string // "ignored" for a delivery that is
	}{
		{"good", withToken(), goodHeader(), goodBody, 202, ""},
		{"exactly 1 MiB", withToken(), goodHeader(), padded(mib), 202, ""},
		{"1 MiB and a byte", withToken(), goodHeader(), padded(mib + 1), 413, "too_large"},
		{"charset", withToken(), with("Content-Type", "Application/JSON; charset=utf-8"), goodBody, 202, ""},
		{"byte order mark", withToken(), goodHeader(), "\xEF\xBB\xBF" + goodBody, 202, ""},

		{"no token sent", withToken(), without("Authorization"), goodBody, 401, "unauthorized"},
		{"wrong token", withToken(), with("Authorization", bearer("wrong")), goodBody, 401, "unauthorized"},
		{"plain token", withToken(), with("Authorization", "Bearer "+testToken), goodBody, 401, "unauthorized"},
		{"Basic", withToken(), with("Authorization", "Basic "+strings.TrimPrefix(bearer(testToken), "Bearer ")), goodBody, 401, "unauthorized"},
		{"empty token", withToken(), with("Authorization", "Bearer "), goodBody, 401, "unauthorized"},
		{"no token configured", ingest.WebhookConfig{}, goodHeader(), goodBody, 401, "unauthorized"},
		{"no token configured, empty one sent", ingest.WebhookConfig{}, with("Authorization", "Bearer "), goodBody, 401, "unauthorized"},
		{"open", ingest.WebhookConfig{AllowUnauthenticated: true}, without("Authorization"), goodBody, 202, ""},
		{"open, but there are tokens", ingest.WebhookConfig{Tokens: []string{testToken}, AllowUnauthenticated: true}, without("Authorization"), goodBody, 401, "unauthorized"},
		{"second token", ingest.WebhookConfig{Tokens: []string{"old", testToken, "new"}}, goodHeader(), goodBody, 202, ""},
		{"scheme in capitals, no padding", withToken(), with("Authorization", "BEARER "+strings.TrimRight(strings.TrimPrefix(bearer(testToken), "Bearer "), "=")), goodBody, 202, ""},
		{"URL alphabet", withToken(), with("Authorization", strings.NewReplacer("+", "-", "/", "_").Replace(bearer(testToken))), goodBody, 202, ""},

		{"address not allowed", elsewhere, goodHeader(), goodBody, 403, "address_not_allowed"},
		{"forwarded address from a peer that is not trusted", elsewhere, with("X-Forwarded-For", "192.0.2.1"), goodBody, 403, "address_not_allowed"},

		{"no content type", withToken(), without("Content-Type"), goodBody, 415, "unsupported_media_type"},
		{"form", withToken(), with("Content-Type", "application/x-www-form-urlencoded"), goodBody, 415, "unsupported_media_type"},
		{"text", withToken(), with("Content-Type", "text/json"), goodBody, 415, "unsupported_media_type"},
		{"compressed", withToken(), with("Content-Encoding", "gzip"), goodBody, 415, "unsupported_encoding"},

		{"empty", withToken(), goodHeader(), "", 400, "invalid_json"},
		{"text body", withToken(), goodHeader(), "hello", 400, "invalid_json"},
		{"array", withToken(), goodHeader(), "[" + goodBody + "]", 400, "invalid_json"},
		{"string", withToken(), goodHeader(), `"x"`, 400, "invalid_json"},
		{"null", withToken(), goodHeader(), `null`, 400, "invalid_json"},
		{"cut off", withToken(), goodHeader(), goodBody[:40], 400, "invalid_json"},
		{"garbage after it", withToken(), goodHeader(), goodBody + "x", 400, "invalid_json"},
		{"two objects", withToken(), goodHeader(), goodBody + goodBody, 400, "invalid_json"},
		{"deep nesting", withToken(), goodHeader(), `{"event":"server.build","data":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", 400, "invalid_json"},
		{"deep nesting, never closed", withToken(), goodHeader(), `{"event":"server.build","data":{"server":` + strings.Repeat(`{"a":`, 100_000), 400, "invalid_json"},
		{"empty object", withToken(), goodHeader(), `{}`, 400, "unrecognised"},
		{"no event name", withToken(), goodHeader(), `{"event":" ","data":{"server":{"id":7}}}`, 400, "unrecognised"},

		{"server without id", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"name":"x"}}}`, 422, "server_without_id"},
		{"id 0", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"id":0}}}`, 422, "server_without_id"},
		{"negative id", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"id":-7}}}`, 422, "server_without_id"},
		{"id too large", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"id":9223372036854775808}}}`, 422, "server_without_id"},
		{"fraction", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"id":7.5}}}`, 422, "server_without_id"},
		{"server is text", withToken(), goodHeader(), `{"event":"server.build","data":{"server":"7"}}`, 422, "invalid_server"},
		{"server is a number", withToken(), goodHeader(), `{"event":"server.build","data":{"server":7}}`, 422, "invalid_server"},
		{"server is true", withToken(), goodHeader(), `{"event":"server.build","data":{"server":true}}`, 422, "invalid_server"},
		{"server is a list", withToken(), goodHeader(), `{"event":"server.build","data":{"server":[{"id":7}]}}`, 422, "invalid_server"},

		{"server false", withToken(), goodHeader(), `{"event":"server.destroy","data":{"server":false}}`, 202, "ignored"},
		{"server null", withToken(), goodHeader(), `{"event":"server.destroy","data":{"server":null}}`, 202, "ignored"},
		{"server an empty list", withToken(), goodHeader(), `{"event":"server.destroy","data":{"server":[]}}`, 202, "ignored"},
		{"server missing", withToken(), goodHeader(), `{"event":"server.destroy","data":{}}`, 202, "ignored"},
		{"data missing", withToken(), goodHeader(), `{"event":"server.destroy"}`, 202, "ignored"},
		{"data a list", withToken(), goodHeader(), `{"event":"server.destroy","data":[]}`, 202, "ignored"},
		{"another kind", withToken(), goodHeader(), `{"event":"user.create","data":{"server":{"name":"no id"}}}`, 202, "ignored"},
		{"name in the header", withToken(), with("X-VirtFusion-Event", "backup.create"), `{"data":{}}`, 202, "ignored"},
		{"id as text", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"id":"7"}}}`, 202, ""},
		{"the last of two keys", withToken(), goodHeader(), `{"event":"server.build","data":{"server":{"id":0,"id":7}}}`, 202, ""},

		// The order: address, authentication, content type, size, JSON.
		{"address before authentication", elsewhere, with("Authorization", "x"), goodBody, 403, "address_not_allowed"},
		{"authentication before content type", withToken(), http.Header{"Content-Type": {"text/plain"}}, goodBody, 401, "unauthorized"},
		{"content type before size", withToken(), with("Content-Type", "text/plain"), padded(mib + 1), 415, "unsupported_media_type"},
		{"size before JSON", withToken(), goodHeader(), strings.Repeat("x", mib+1), 413, "too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, tt.cfg)
			got := s.post(t, tt.header, strings.NewReader(tt.body))
			if got.status != tt.status {
				t.Errorf("status %d, want %d: %s", got.status, tt.status, got.raw)
			}
			ignored := tt.code == "ignored"
			if got.body.Ignored != ignored || (!ignored && got.body.Error.Code != tt.code) {
				t.Errorf("body %s, want code %q", got.raw, tt.code)
			}
			published := s.recorder.events()
			if want := tt.status == 202 && !ignored; (len(published) == 1) != want {
				t.Fatalf("%d events published", len(published))
			}
			if len(published) == 1 && (got.body.ID == "" || got.body.ID != published[0].ID) {
				t.Errorf("answered id %q, published %q", got.body.ID, published[0].ID)
			}
			if (got.header.Get("WWW-Authenticate") != "") != (tt.status == 401) {
				t.Errorf("WWW-Authenticate = %q", got.header.Get("WWW-Authenticate"))
			}
			if got.header.Get("X-Request-ID") == "" {
				t.Error("no X-Request-ID")
			}
		})
	}
}

// A body of unknown length is read no further than it must be.
func TestEndlessBodyIsCutOff(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	got := s.post(t, goodHeader(), io.LimitReader(spaces{}, 64<<20))
	if got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", got.status)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestOtherMethodsAreNotAllowed(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		got := s.send(t, method, goodHeader(), strings.NewReader(goodBody))
		if got.status != http.StatusMethodNotAllowed || !strings.Contains(got.header.Get("Allow"), http.MethodPost) {
			t.Errorf("%s = %d with Allow %q", method, got.status, got.header.Get("Allow"))
		}
	}
}

func TestFloodIsStoppedButAuthenticatedDeliveriesAreNot(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	bad := goodHeader()
	bad.Set("Authorization", bearer("wrong"))
	statuses := map[int]int{}
	for range 200 {
		got := s.post(t, bad, strings.NewReader(goodBody))
		statuses[got.status]++
		if (got.status == http.StatusTooManyRequests) != (got.header.Get("Retry-After") != "") {
			t.Fatalf("status %d with Retry-After %q", got.status, got.header.Get("Retry-After"))
		}
	}
	if statuses[401] == 0 || statuses[429] == 0 || statuses[401]+statuses[429] != 200 {
		t.Errorf("a flood was answered with %v", statuses)
	}
	for range 200 {
		if got := s.post(t, goodHeader(), strings.NewReader(goodBody)); got.status != http.StatusAccepted {
			t.Fatalf("authenticated delivery during a flood = %d", got.status)
		}
	}
	if lines := strings.Count(s.log.String(), `"level":"warn"`); lines == 0 || lines > 30 {
		t.Errorf("200 refusals left %d lines in the log", lines)
	}
}

func TestBrokerFailureIs503(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	s.recorder.err = errors.New("nats: no responders; inner-detail")
	got := s.post(t, goodHeader(), strings.NewReader(goodBody))
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || got.body.Error.Code != "not_durable" {
		t.Errorf("status %d, Retry-After %q, body %s", got.status, got.header.Get("Retry-After"), got.raw)
	}
	if strings.Contains(got.raw, "inner-detail") || !strings.Contains(s.log.String(), "inner-detail") {
		t.Errorf("the cause belongs into the log and not into the body %s", got.raw)
	}
	if !strings.Contains(s.log.String(), `"server":7`) {
		t.Errorf("the log does not name the server whose delivery was lost: %s", s.log)
	}
}

// slowly makes s publish only after release is closed, and says on the
// returned channel with which context it was asked to.
func slowly(s *system, release <-chan struct{}) <-chan context.Context {
	asked := make(chan context.Context, 1)
	s.recorder.before = func(ctx context.Context) {
		asked <- ctx
		<-release
	}
	return asked
}

func TestAnswersOnlyWhatIsDurable(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	release := make(chan struct{})
	asked := slowly(s, release)
	answered := make(chan answer, 1)
	go func() { answered <- s.post(t, goodHeader(), strings.NewReader(goodBody)) }()
	<-asked
	select {
	case got := <-answered:
		t.Fatalf("answered %d before the event was published", got.status)
	case <-time.After(50 * time.Millisecond): // time enough for a handler that does not wait
	}
	close(release)
	if got := <-answered; got.status != http.StatusAccepted {
		t.Errorf("status %d", got.status)
	}
}

func TestPublishesWhatTheClientDoesNotWaitFor(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	release := make(chan struct{})
	asked := slowly(s, release)
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(goodBody))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = goodHeader()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
		}
	}()
	publishing := <-asked
	hangUp()
	<-gone
	select {
	case <-publishing.Done():
		t.Error("publishing ends with the client's request")
	case <-time.After(50 * time.Millisecond): // time enough for the server to notice
	}
	if _, ok := publishing.Deadline(); !ok {
		t.Error("publishing has no deadline of its own")
	}
	close(release)
	waitFor(t, func() bool { return len(s.recorder.events()) == 1 })
}

// waitFor waits until ok, for 10 s.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited for 10 s")
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	s.post(t, goodHeader(), strings.NewReader(goodBody))
	s.post(t, goodHeader(), strings.NewReader(`{"event":"user.create"}`))
	s.post(t, http.Header{}, strings.NewReader(goodBody))
	s.recorder.duplicate = true
	s.post(t, goodHeader(), strings.NewReader(goodBody))

	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		switch f.GetName() {
		case "serversync_webhook_deliveries_total":
			for _, m := range f.GetMetric() {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		case "serversync_webhook_last_accepted_timestamp_seconds":
			counted["last"] = f.GetMetric()[0].GetGauge().GetValue()
		case "serversync_webhook_delivery_duration_seconds":
			counted["durations"] = float64(f.GetMetric()[0].GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"accepted": 1, "duplicate": 1, "ignored": 1, "unauthorized": 1, "forbidden": 0, "unavailable": 0,
		"durations": 2, "last": float64(testNow().Unix()),
	} {
		if got, ok := counted[name]; !ok || got != want {
			t.Errorf("%s = %v (known: %t), want %v", name, got, ok, want)
		}
	}
}

func TestNewWebhookRefusesAnEmptyToken(t *testing.T) {
	t.Parallel()
	s := assemble(t, withToken())
	if _, err := ingest.NewWebhook(ingest.WebhookConfig{Tokens: []string{"a", ""}}, s.recorder, nil, zerolog.Nop(), testNow); err == nil {
		t.Error("an empty token was accepted: it would let everybody in")
	}
}

// The same delivery is the same event, whenever and however often it arrives.
func TestEventIDIsThatOfTheContent(t *testing.T) {
	t.Parallel()
	s := setup(t, withToken())
	first := s.post(t, goodHeader(), strings.NewReader(goodBody))
	again := s.post(t, goodHeader(), strings.NewReader(goodBody))
	other := s.post(t, goodHeader(), strings.NewReader(strings.Replace(goodBody, "58.123456", "58.123457", 1)))
	if first.body.ID != again.body.ID || first.body.ID == other.body.ID {
		t.Errorf("ids %s, %s and, a microsecond later, %s", first.body.ID, again.body.ID, other.body.ID)
	}
	if got := s.recorder.events()[0]; got.Source != events.SourceWebhook || got.Subject() != "virtfusion.users.3.servers.7.updated" {
		t.Errorf("source %s, subject %s", got.Source, got.Subject())
	}
}
