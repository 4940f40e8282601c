package httpserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/internal/httpserver"
)

// slow opens a connection, sends something, and waits for what never comes.
func slow(t *testing.T, url, send string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, send); err != nil {
		t.Logf("a slow sender was cut off at once: %v", err) // no fault: it had to go
	}
	return conn
}

// fresh asks on a connection of its own.
func fresh(ctx context.Context, url string) (int, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func TestStrangersMakeRoomForOthers(t *testing.T) {
	t.Parallel()
	const places, strangers, honest = 32, 150, 40
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0", MaxConnections: places, Grace: 20 * time.Millisecond})
	entered, release := make(chan struct{}), make(chan struct{})
	s.Echo().GET("/slow", func(c echo.Context) error {
		httpserver.Known(c)
		close(entered)
		<-release
		return c.NoContent(http.StatusOK)
	})
	url, _, _ := running(t, s)
	inHand := make(chan error, 1)
	go func() {
		status, err := fresh(t.Context(), url+"/slow")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		inHand <- err
	}()
	<-entered

	var all sync.WaitGroup
	for i := range strangers {
		half := []string{"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"}[i%3] // half a header, nothing, and one that stays when it is answered
		all.Go(func() { slow(t, url, half) })
	}
	errs := make(chan error, honest)
	for range honest {
		all.Go(func() {
			status, err := fresh(t.Context(), url+"/healthz")
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("status %d", status)
			}
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Errorf("an honest request among slow strangers: %v", err)
		}
	}
	close(release)
	if err := <-inHand; err != nil {
		t.Errorf("what was in hand for somebody who is known: %v", err)
	}
	got := request(t, http.MethodGet, url+"/metrics", nil)
	if !strings.Contains(got.body, "serversync_http_connections ") || strings.Contains(got.body, "serversync_http_connections_dropped_total 0\n") {
		t.Errorf("nobody was dropped though %d connections came to %d places", strangers+honest, places)
	}
}

// A request for somebody who is known is not dropped, and who comes meanwhile
// waits until it is done.
func TestWhoIsKnownKeepsTheirPlace(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0", MaxConnections: 1, Grace: time.Millisecond})
	entered, release := make(chan struct{}), make(chan struct{})
	s.Echo().GET("/slow", func(c echo.Context) error {
		httpserver.Known(c)
		close(entered)
		<-release
		return c.NoContent(http.StatusOK)
	})
	url, _, _ := running(t, s)
	results := make(chan string, 2)
	ask := func(path string) {
		status, err := fresh(t.Context(), url+path)
		results <- fmt.Sprint(path, status, err)
	}
	go ask("/slow")
	<-entered
	go ask("/healthz")
	select {
	case early := <-results:
		t.Errorf("answered too early: %s", early)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	got := []string{<-results, <-results} // either may be told first
	slices.Sort(got)
	if want := []string{"/healthz200 <nil>", "/slow200 <nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAStrangersBodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0"})
	s.Echo().POST("/hook", func(echo.Context) error {
		return &httpserver.StatusError{Status: http.StatusUnauthorized, Code: "unauthorized", Message: "no"}
	})
	url, _, _ := running(t, s)
	conn := slow(t, url, "POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
	// Well before the 30 s that a request may take.
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized || !response.Close {
		t.Errorf("%d, close %v", response.StatusCode, response.Close)
	}
	if _, err := io.Copy(io.Discard, reader); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection stays open: %v", err)
	}
}

func TestRefusalsOfStrangersAreCounted(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{})
	refuse := &httpserver.StatusError{Status: http.StatusForbidden, Code: "forbidden", Message: "no"}
	s.Echo().GET("/no", func(c echo.Context) error {
		if c.Request().Header.Get("X-Known") != "" {
			httpserver.Known(c)
		}
		return refuse
	})
	url := serve(t, s)
	last := func(header http.Header) (last answer) {
		for range 200 {
			last = request(t, http.MethodGet, url+"/no", header)
		}
		return last
	}
	if got := last(http.Header{"X-Known": {"yes"}}); got.status != http.StatusForbidden {
		t.Errorf("who is known: %d", got.status)
	}
	if got := last(nil); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("a stranger: %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	if got := request(t, http.MethodGet, url+"/healthz", nil); got.status != http.StatusOK {
		t.Errorf("a stranger who is not refused: %d", got.status)
	}
}

// Bodies wait for room, and get their time when there is some.
func TestBodiesWaitForRoom(t *testing.T) {
	t.Parallel()
	const size, callers = 1000, 8
	s, _ := setup(t, httpserver.Config{})
	bodies := httpserver.NewBodies(2 * (size + 512))
	var mu sync.Mutex
	var now, most int
	entered, release := make(chan struct{}, callers), make(chan struct{})
	s.Echo().POST("/body", func(c echo.Context) error {
		body, done, err := bodies.Read(c, size)
		defer done()
		if err != nil || len(body) != size {
			return fmt.Errorf("%d bytes, %w", len(body), err)
		}
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		entered <- struct{}{}
		<-release
		mu.Lock()
		now--
		mu.Unlock()
		return c.NoContent(http.StatusOK)
	})
	url := serve(t, s)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			response, err := http.Post(url+"/body", "text/plain", strings.NewReader(strings.Repeat("x", size))) //nolint:noctx // the test's end ends it
			if err != nil {
				t.Error(err)
				return
			}
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("status %d", response.StatusCode)
			}
		})
	}
	<-entered
	<-entered
	select {
	case <-entered:
		t.Error("a third body is in memory")
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	all.Wait()
	if most != 2 {
		t.Errorf("%d bodies in memory at once, want 2", most)
	}
}

// answered sends a request on a connection that is open, and reads its answer.
func answered(conn net.Conn, reader *bufio.Reader) error {
	if _, err := io.WriteString(conn, "GET /known HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// One customer's idle connections give way when strangers would have to be
// waited for, but for a quarter of the places.
func TestIdleConnectionsGiveWay(t *testing.T) {
	t.Parallel()
	const places, quarter = 8, 2
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0", MaxConnections: places, Grace: 200 * time.Millisecond})
	s.Echo().GET("/known", func(c echo.Context) error {
		httpserver.Known(c)
		return c.NoContent(http.StatusOK)
	})
	url, _, _ := running(t, s)
	conns, readers := make([]net.Conn, places-1), make([]*bufio.Reader, places-1)
	for i := range conns {
		conns[i] = slow(t, url, "")
		readers[i] = bufio.NewReader(conns[i])
		if err := answered(conns[i], readers[i]); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 * places {
		slow(t, url, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if status, err := fresh(ctx, url+"/known"); err != nil || status != http.StatusOK {
		t.Fatalf("a delivery among them: %d, %v", status, err)
	}
	stay := 0
	for i := range conns {
		if err := conns[i].SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if answered(conns[i], readers[i]) == nil {
			stay++
		}
	}
	if stay != quarter {
		t.Errorf("%d idle connections keep their places, want %d", stay, quarter)
	}
}
