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
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"serversync/internal/httpserver"
)

// slow opens a connection, sends something, and waits for what never comes.
func slow(t *testing.T, dial dialer, send string) net.Conn {
	t.Helper()
	conn, err := dial(t.Context(), "tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, send) // it may have had to go meanwhile
	return conn
}

// loopback is the address of everybody who has none of their own.
const loopback = "127.0.0.1"

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// pipes is a listener in memory. In a synctest bubble the clock stands still
// while somebody works, so that a busy machine makes nobody slow: only those
// who wait for what never comes are.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// inMemory serves s on pipes until the test ends. What dials takes its own
// address, as an IP, for the address.
func inMemory(t *testing.T, s *httpserver.Server) dialer {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, p) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return p.dial
}

func (p *pipes) dial(ctx context.Context, _, peer string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- from{theirs, peer}:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from is a pipe's end whose other end has an address.
type from struct {
	net.Conn
	peer string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.peer), Port: 1} }

// fresh asks on a connection of its own. Anything but 200 is an error.
func fresh(ctx context.Context, dial dialer, path string) (body string, err error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, loopback) },
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return string(read), err
}

func TestStrangersMakeRoomForOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places, strangers, honest = 32, 150, 40
		s, _ := setup(t, httpserver.Config{MaxConnections: places})
		entered, release := make(chan struct{}), make(chan struct{})
		s.Echo().GET("/slow", func(c echo.Context) error {
			httpserver.Known(c)
			close(entered)
			<-release
			return c.NoContent(http.StatusOK)
		})
		dial := inMemory(t, s)
		inHand := make(chan error, 1)
		go func() {
			_, err := fresh(t.Context(), dial, "/slow")
			inHand <- err
		}()
		<-entered

		var all sync.WaitGroup
		for i := range strangers {
			half := []string{"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"}[i%3] // half a header, nothing, and one that stays when it is answered
			all.Go(func() {
				conn := slow(t, dial, half)
				go func() { _, _ = io.Copy(io.Discard, conn) }()
			})
		}
		errs := make(chan error, honest)
		for range honest {
			all.Go(func() {
				_, err := fresh(t.Context(), dial, "/healthz")
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
		got, err := fresh(t.Context(), dial, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got, "serversync_http_connections ") || strings.Contains(got, "serversync_http_connections_dropped_total 0\n") {
			t.Errorf("nobody was dropped though %d connections came to %d places", strangers+honest, places)
		}
	})
}

// A request for somebody who is known is not dropped, and who comes meanwhile
// waits until it is done.
func TestWhoIsKnownKeepsTheirPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := setup(t, httpserver.Config{MaxConnections: 1})
		entered, release := make(chan struct{}), make(chan struct{})
		s.Echo().GET("/slow", func(c echo.Context) error {
			httpserver.Known(c)
			close(entered)
			<-release
			return c.NoContent(http.StatusOK)
		})
		dial := inMemory(t, s)
		results := make(chan string, 2)
		ask := func(path string) {
			_, err := fresh(t.Context(), dial, path)
			results <- fmt.Sprint(path, " ", err)
		}
		go ask("/slow")
		<-entered
		go ask("/healthz")
		select {
		case early := <-results:
			t.Errorf("answered too early: %s", early)
		case <-time.After(20 * time.Second): // of the bubble's clock
		}
		close(release)
		got := []string{<-results, <-results} // either may be told first
		slices.Sort(got)
		if want := []string{"/healthz <nil>", "/slow <nil>"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// over dials a server by its address.
func over(url string) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(url, "http://"))
	}
}

// Of strangers those go first whose address has the most connections: the one
// who is slow on a bad line stays, though they came first.
func TestAFloodDropsItsOwnConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places = 8
		s, _ := setup(t, httpserver.Config{MaxConnections: places})
		dial := inMemory(t, s)
		alone, err := dial(t.Context(), "tcp", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		defer alone.Close()
		if _, err := io.WriteString(alone, "GET /healthz HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		for range places - 1 {
			slow(t, dial, "")
		}
		got, err := fresh(t.Context(), dial, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got, "serversync_http_connections_dropped_total 1\n") {
			t.Errorf("not one was dropped when one too many came:\n%s", got)
		}
		if _, err := io.WriteString(alone, "Host: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(alone).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Errorf("who was there first and alone is answered %q, %v", line, err)
		}
	})
}

func TestAStrangersBodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s, _ := setup(t, httpserver.Config{Addr: "127.0.0.1:0"})
	s.Echo().POST("/hook", func(echo.Context) error {
		return &httpserver.StatusError{Status: http.StatusUnauthorized, Code: "unauthorized", Message: "no"}
	})
	url, _, _ := running(t, s)
	conn := slow(t, over(url), "POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
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
	synctest.Test(t, func(t *testing.T) {
		const places, quarter = 8, 2
		s, _ := setup(t, httpserver.Config{MaxConnections: places})
		s.Echo().GET("/known", func(c echo.Context) error {
			httpserver.Known(c)
			return c.NoContent(http.StatusOK)
		})
		dial := inMemory(t, s)
		conns, readers := make([]net.Conn, places-1), make([]*bufio.Reader, places-1)
		for i := range conns {
			conns[i] = slow(t, dial, "")
			readers[i] = bufio.NewReader(conns[i])
			if err := answered(conns[i], readers[i]); err != nil {
				t.Fatal(err)
			}
		}
		var strangers sync.WaitGroup
		for range 5 * places {
			strangers.Go(func() { slow(t, dial, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ") })
		}
		if _, err := fresh(t.Context(), dial, "/known"); err != nil {
			t.Fatalf("a delivery among them: %v", err)
		}
		strangers.Wait()
		stay := 0
		for i := range conns {
			if answered(conns[i], readers[i]) == nil {
				stay++
			}
		}
		if stay != quarter {
			t.Errorf("%d idle connections keep their places, want %d", stay, quarter)
		}
	})
}
