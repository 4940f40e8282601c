package httpserver_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/internal/httpserver"
)

func TestErrorsHaveOneShape(t *testing.T) {
	t.Parallel()
	s, logged := setup(t, httpserver.Config{})
	s.Echo().POST("/known", func(echo.Context) error {
		return &httpserver.StatusError{
			Status: http.StatusConflict, Code: "taken", Message: "try another",
			RetryAfter: 1500 * time.Millisecond, Err: errors.New("the-cause"),
		}
	})
	s.Echo().POST("/unknown", func(echo.Context) error {
		return errors.New("dial postgres://sky:hunter2@db/sky: no route")
	})
	s.Echo().POST("/panic", func(echo.Context) error { panic("the-panic") })
	s.Echo().POST("/echo500", func(echo.Context) error {
		return echo.NewHTTPError(http.StatusInternalServerError, "inner workings")
	})
	url := serve(t, s)

	tests := []struct {
		method, path string
		status       int
		code         string
		logs         string
	}{
		{http.MethodGet, "/nothing", http.StatusNotFound, "not_found", ""},
		{http.MethodGet, "/known", http.StatusMethodNotAllowed, "method_not_allowed", ""},
		{http.MethodHead, "/known", http.StatusMethodNotAllowed, "", ""},
		{http.MethodPost, "/known", http.StatusConflict, "taken", "the-cause"},
		{http.MethodPost, "/unknown", http.StatusInternalServerError, "internal", "no route"},
		{http.MethodPost, "/panic", http.StatusInternalServerError, "internal", "the-panic"},
		{http.MethodPost, "/echo500", http.StatusInternalServerError, "internal", "inner workings"},
	}
	for _, tt := range tests {
		got := request(t, tt.method, url+tt.path, nil)
		if got.status != tt.status {
			t.Errorf("%s %s = %d, want %d", tt.method, tt.path, got.status, tt.status)
		}
		if tt.code != "" && got.errorCode(t) != tt.code {
			t.Errorf("%s %s: body %s, want code %q", tt.method, tt.path, got.body, tt.code)
		}
		if tt.logs != "" && (strings.Contains(got.body, tt.logs) || !strings.Contains(logged.String(), tt.logs)) {
			t.Errorf("%s %s: %q belongs into the log and not into the body %s", tt.method, tt.path, tt.logs, got.body)
		}
		if tt.status == http.StatusMethodNotAllowed && !strings.Contains(got.header.Get("Allow"), http.MethodPost) {
			t.Errorf("%s %s: Allow = %q", tt.method, tt.path, got.header.Get("Allow"))
		}
	}
	if got := request(t, http.MethodPost, url+"/known", nil).header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After = %q, want seconds rounded up", got)
	}
	if strings.Contains(logged.String(), "hunter2") {
		t.Error("a password of a URL is in the log")
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{})
	url := serve(t, s)
	for sent, kept := range map[string]bool{
		"abc-DEF_1.2":            true,
		strings.Repeat("a", 64):  true,
		strings.Repeat("a", 65):  false,
		"":                       false,
		"two words":              false,
		`x","level":"fatal`:      false,
		"\u00e9":                 false,
		"<script>":               false,
		strings.Repeat("a", 999): false,
	} {
		got := request(t, http.MethodGet, url+"/healthz", http.Header{"X-Request-Id": {sent}}).header.Get("X-Request-ID")
		if (got == sent) != kept || got == "" {
			t.Errorf("X-Request-ID %.80q was answered with %q, want it kept: %t", sent, got, kept)
		}
	}
}

func TestClientAddr(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	tests := []struct {
		name, peer string
		forwarded  []string
		trusted    []netip.Prefix
		want       string
	}{
		{"peer", "192.0.2.1:55", nil, nil, "192.0.2.1"},
		{"nobody is trusted by default", "10.0.0.1:55", []string{"198.51.100.1"}, nil, "10.0.0.1"},
		{"a stranger cannot choose", "192.0.2.1:55", []string{"198.51.100.1"}, proxies, "192.0.2.1"},
		{"proxy", "10.0.0.1:55", []string{"198.51.100.1"}, proxies, "198.51.100.1"},
		{"two proxies", "10.0.0.1:55", []string{"198.51.100.1, 10.0.0.2"}, proxies, "198.51.100.1"},
		{"what the client wrote in front", "10.0.0.1:55", []string{"10.9.9.9, 198.51.100.1"}, proxies, "198.51.100.1"},
		{"two headers", "10.0.0.1:55", []string{"203.0.113.9", "198.51.100.1"}, proxies, "198.51.100.1"},
		{"proxies only", "10.0.0.1:55", []string{"10.0.0.3, 10.0.0.2"}, proxies, "10.0.0.3"},
		{"rubbish", "10.0.0.1:55", []string{"198.51.100.1, rubbish"}, proxies, "10.0.0.1"},
		{"no header", "10.0.0.1:55", nil, proxies, "10.0.0.1"},
		{"with a port", "10.0.0.1:55", []string{"198.51.100.1:99"}, proxies, "198.51.100.1"},
		{"IPv6", "[fd00::1]:55", []string{"[2001:db8::1]:99"}, proxies, "2001:db8::1"},
		{"IPv6 bare", "[fd00::1]:55", []string{"2001:db8::1"}, proxies, "2001:db8::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:55", []string{"::ffff:198.51.100.1"}, proxies, "198.51.100.1"},
		{"Unix socket", "@", []string{"198.51.100.1"}, proxies, "invalid IP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, _ := setup(t, httpserver.Config{TrustedProxies: tt.trusted})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.RemoteAddr = tt.peer
			for _, f := range tt.forwarded {
				req.Header.Add("X-Forwarded-For", f)
			}
			if got := httpserver.ClientAddr(s.Echo().NewContext(req, nil)).String(); got != tt.want {
				t.Errorf("ClientAddr = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOneLogLinePerRequest(t *testing.T) {
	t.Parallel()
	s, logged := setup(t, httpserver.Config{})
	s.Echo().GET("/page", func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	s.Echo().GET("/quiet", func(c echo.Context) error {
		httpserver.OwnLog(c)
		return c.NoContent(http.StatusNoContent)
	})
	url := serve(t, s)
	request(t, http.MethodGet, url+"/page?token=s3cret", nil)
	request(t, http.MethodGet, url+"/quiet", nil)
	request(t, http.MethodGet, url+"/healthz", nil)
	request(t, http.MethodGet, url+"/nothing", nil)

	text := logged.String()
	if n := strings.Count(text, "\n"); n != 3 {
		t.Errorf("%d lines for 4 requests of which one has its own log:\n%s", n, text)
	}
	if strings.Contains(text, "s3cret") {
		t.Error("the query is in the log")
	}
	for line := range strings.Lines(text) {
		if wantDebug := !strings.Contains(line, `"path":"/page"`); strings.Contains(line, `"level":"debug"`) != wantDebug {
			t.Errorf("level of %s", line)
		}
	}
}

func TestDocumentsAndMetrics(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{
		OpenAPI: []byte("openapi: 3.1.0\n"),
		Schemas: fstest.MapFS{"event.json": {Data: []byte(`{"a":1}`)}, "secret.txt": {Data: []byte("no")}},
	})
	url := serve(t, s)
	for path, want := range map[string]string{
		"/openapi.yaml":       "openapi: 3.1.0\n",
		"/schemas/event.json": `{"a":1}`,
	} {
		if got := request(t, http.MethodGet, url+path, nil); got.status != http.StatusOK || got.body != want {
			t.Errorf("GET %s = %d %q", path, got.status, got.body)
		}
	}
	for _, path := range []string{"/schemas/secret.txt", "/schemas/other.json", "/schemas/", "/schemas/..%2fsecret.txt"} {
		if got := request(t, http.MethodGet, url+path, nil); got.status != http.StatusNotFound {
			t.Errorf("GET %s = %d", path, got.status)
		}
	}
	got := request(t, http.MethodGet, url+"/metrics", nil)
	for _, want := range []string{
		`serversync_http_requests_total{method="GET",route="/openapi.yaml",status="200"} 1`,
		`serversync_http_requests_total{method="any",route="none",status="404"} 4`,
	} {
		if !strings.Contains(got.body, want) {
			t.Errorf("GET /metrics lacks %s in\n%s", want, got.body)
		}
	}
	if got := request(t, http.MethodHead, url+"/healthz", nil); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD /healthz = %d %q", got.status, got.body)
	}
}
