package httpserver_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"serversync/internal/httpserver"
)

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

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// setup makes a server whose log can be read.
func setup(t *testing.T, cfg httpserver.Config) (*httpserver.Server, *logBuffer) {
	t.Helper()
	logged := new(logBuffer)
	cfg.Log = zerolog.New(logged)
	s, err := httpserver.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return s, logged
}

// serve serves s over real HTTP and returns its URL.
func serve(t *testing.T, s *httpserver.Server) string {
	t.Helper()
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

type answer struct {
	status int
	header http.Header
	body   string
}

// errorCode returns the code of an answer in the error shape, and fails the
// test when the answer has another shape.
func (a answer) errorCode(t *testing.T) string {
	t.Helper()
	var body struct {
		Success *bool `json:"success"`
		Error   struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
	if body.Success == nil || *body.Success || body.Error.Code == "" || body.Error.Message == "" {
		t.Fatalf("body %q is not in the shape of an error", a.body)
	}
	return body.Error.Code
}

func request(t *testing.T, method, url string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: read body: %v", method, url, err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: string(body)}
}
