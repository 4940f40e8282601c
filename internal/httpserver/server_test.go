package httpserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/internal/httpserver"
)

// running starts s and returns its URL, how to stop it, and Run's answer.
func running(t *testing.T, s *httpserver.Server) (url string, stop context.CancelFunc, ended <-chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("Run: %v", err)
	}
	return "http://" + s.Addr().String(), stop, done
}

func TestRunAnswersAndStopsCleanly(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0"})
	if s.Addr() != nil {
		t.Error("Addr is known before the server listens")
	}
	url, stop, ended := running(t, s)
	if got := request(t, http.MethodGet, url+"/healthz", nil); got.status != http.StatusOK {
		t.Errorf("GET /healthz = %d", got.status)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil after a clean stop", err)
	}
}

func TestRunFailsWhenTheAddressIsTaken(t *testing.T) {
	t.Parallel()
	first, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0"})
	url, _, _ := running(t, first)
	second, _ := setup(t, httpserver.Config{Addr: strings.TrimPrefix(url, "http://")})
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "LISTEN_ADDR") {
		t.Errorf("Run = %v on an address that is taken; it must say what to do", err)
	}
}

func TestRequestInHandIsFinishedOnStop(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0"})
	entered, release := make(chan struct{}), make(chan struct{})
	s.Echo().GET("/slow", func(c echo.Context) error {
		close(entered)
		<-release
		if err := c.Request().Context().Err(); err != nil {
			return err
		}
		return c.String(http.StatusOK, "done")
	})
	url, stop, ended := running(t, s)
	answered := make(chan answer, 1)
	go func() { answered <- request(t, http.MethodGet, url+"/slow", nil) }()
	<-entered
	stop()
	waitUntilRefused(t, url)
	select {
	case err := <-ended:
		t.Fatalf("Run ended with %v while a request was in hand", err)
	default:
	}
	close(release)
	if got := <-answered; got.status != http.StatusOK || got.body != "done" {
		t.Errorf("request in hand = %d %q, want its answer", got.status, got.body)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// waitUntilRefused waits until the server has stopped accepting.
func waitUntilRefused(t *testing.T, url string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			return
		}
		res.Body.Close()
	}
	t.Fatal("the server goes on accepting after its context has ended")
}

func TestDrainHasADeadline(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0", DrainTimeout: 50 * time.Millisecond})
	entered := make(chan struct{})
	s.Echo().GET("/stuck", func(c echo.Context) error {
		close(entered)
		<-c.Request().Context().Done() // ends when the drain does
		return c.Request().Context().Err()
	})
	url, stop, ended := running(t, s)
	go func() {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url+"/stuck", nil) //nolint:usetesting // outlives the test's context
		if err != nil {
			return
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
		}
	}()
	<-entered
	stop()
	if err := <-ended; err != nil {
		t.Errorf("a request that had to be cut off made the end a failure: %v", err)
	}
}
