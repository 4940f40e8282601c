package httpserver

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	// defaultMaxConnections bounds the memory of connections, each of which may
	// hold a header of maxHeaderBytes.
	defaultMaxConnections = 2048
	// defaultGrace is how long a connection may take for its first header, or
	// for its answer, before it can be dropped for another one. An honest client
	// sends its request at once.
	defaultGrace = 500 * time.Millisecond
	// idleShare: idle connections of known peers go last while they are at most
	// so many-th of all places. Those beyond it may have to go after idleGraces
	// times the grace: a client that sends again just then loses its request.
	idleShare, idleGraces = 4, 2
)

// connections is a listener that keeps at most so many connections open. When
// there are as many, the next one takes the place of the one that is missed
// least: first those nobody has authenticated on (of the address that has the
// most of them, the oldest), then those that are idle, in the same order. Where
// strangers have to be waited for, and a quarter of the places does nothing for
// known peers, some of these go at once: one customer's idle connections must not
// leave all others a few places. Where all are at work for somebody who is known,
// the next one waits.
type connections struct {
	net.Listener
	max     int
	grace   time.Duration
	trusted []netip.Prefix // peers that are never strangers: proxies of ours
	dropped func()         // called for each that had to go

	mu     sync.Mutex
	open   map[*connection]struct{}
	freed  chan struct{} // has an element when one was closed
	closed chan struct{}
	once   sync.Once
}

// connection is one of them. Its fields are guarded by the listener's lock.
type connection struct {
	net.Conn
	all   *connections
	peer  netip.Prefix
	proxy bool      // the peer is trusted
	known bool      // somebody authenticated on it, or the peer is trusted
	idle  bool      // between two requests
	since time.Time // when it was opened, or began what it does
	once  sync.Once
}

func limitConnections(ln net.Listener, limit int, grace time.Duration, trusted []netip.Prefix, dropped func()) *connections {
	return &connections{
		Listener: ln, max: limit, grace: grace, trusted: trusted, dropped: dropped,
		open: make(map[*connection]struct{}), freed: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

// Accept waits for a connection, and for its place.
func (l *connections) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, all: l}
	if addr, ok := parseHop(conn.RemoteAddr().String()); ok {
		c.peer = attemptKey(addr)
		c.proxy = slices.ContainsFunc(l.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
		c.known = c.proxy
	}
	for {
		wait, admitted := l.admit(c)
		if admitted {
			return c, nil
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-l.freed:
		case <-l.closed:
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		again.Stop()
	}
}

// admit takes a connection in. Where there is no place yet it says after what
// time to ask again.
func (l *connections) admit(c *connection) (wait time.Duration, admitted bool) {
	now := time.Now()
	l.mu.Lock()
	var victim *connection
	if len(l.open) >= l.max {
		if victim, wait = l.leastMissed(now); victim == nil {
			l.mu.Unlock()
			return wait, false
		}
		delete(l.open, victim)
	}
	c.since = now
	l.open[c] = struct{}{}
	l.mu.Unlock()
	if victim != nil {
		l.dropped()
		_ = victim.Conn.Close() // whoever serves it notices
	}
	return 0, true
}

// leastMissed is the connection that goes first; nil: none may go yet, and wait
// says when one may. l.mu is held.
func (l *connections) leastMissed(now time.Time) (victim *connection, wait time.Duration) {
	wait = l.grace
	strangers, idle := make(crowd), make(crowd)
	many := -l.max / idleShare // how many idle ones are too many
	for c := range l.open {
		switch {
		case !c.known:
			strangers[c.peer]++
		case c.idle && !c.proxy:
			idle[c.peer]++
			many++
		}
	}
	for c := range l.open {
		patience := l.grace // its next request may be on its way
		switch {
		case !c.known && c.idle:
			patience = 0
		case !c.known:
		case !c.idle:
			continue // at work for somebody who is known
		case len(strangers) > 0 && (many <= 0 || c.proxy):
			continue // strangers go first
		case len(strangers) > 0:
			patience *= idleGraces
		}
		if rest := patience - now.Sub(c.since); rest > 0 {
			wait = min(wait, rest)
			continue
		}
		if victim == nil || missedLess(c, victim, strangers, idle) {
			victim = c
		}
	}
	return victim, wait
}

// crowd is how many connections an address has.
type crowd map[netip.Prefix]int

// missedLess reports whether a goes before b: of strangers, and of idle ones of
// known peers.
func missedLess(a, b *connection, strangers, idle crowd) bool {
	if a.known != b.known {
		return b.known
	}
	alike := strangers
	if a.known {
		alike = idle
	}
	if x, y := alike[a.peer], alike[b.peer]; x != y {
		return x > y // proxies of ours, which nobody counts, go last
	}
	return a.since.Before(b.since)
}

// Close stops accepting; connections stay open.
func (l *connections) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// count is how many connections are open.
func (l *connections) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// state is told by net/http what a connection does.
func (l *connections) state(conn net.Conn, state http.ConnState) {
	c, ours := conn.(*connection)
	if !ours || state != http.StateActive && state != http.StateIdle && state != http.StateHijacked {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.idle, c.since = state == http.StateIdle, time.Now()
}

// Close gives the place back.
func (c *connection) Close() error {
	c.once.Do(func() {
		c.all.mu.Lock()
		delete(c.all.open, c)
		c.all.mu.Unlock()
		select {
		case c.all.freed <- struct{}{}:
		default:
		}
	})
	return c.Conn.Close()
}

// CloseWrite lets net/http end a connection so that the client still reads its
// answer.
func (c *connection) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// connectionKey is where a request's context has its connection.
type connectionKey struct{}

func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// knownKey is where an echo.Context has that somebody has authenticated.
const knownKey = "httpserver.known"

// Known says that the request comes from somebody who has authenticated: its
// refusals are not counted, and its connection is not dropped for another one
// while it works.
func Known(c echo.Context) {
	c.Set(knownKey, true)
	conn, ok := c.Request().Context().Value(connectionKey{}).(*connection)
	if !ok {
		return
	}
	conn.all.mu.Lock()
	defer conn.all.mu.Unlock()
	conn.known = true
}

func isKnown(c echo.Context) bool { return c.Get(knownKey) != nil }
