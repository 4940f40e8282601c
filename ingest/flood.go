package ingest

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Each address may fail to authenticate floodBurst times at once and
// floodPerSecond times a second from then on; what comes beyond that is told
// to go away rather than why.
const (
	floodPerSecond = 1
	floodBurst     = 60
	// floodAddresses bounds the memory: two generations of this many
	// addresses are remembered, some 100 bytes each.
	floodAddresses = 10_000
)

// floodGate counts failed authentications by address. When a generation of
// addresses is full the one before it is forgotten, so that memory is bounded
// whoever knocks; those who keep knocking stay remembered.
type floodGate struct {
	mu                sync.Mutex
	current, previous map[netip.Prefix]*rate.Limiter
}

func newFloodGate() *floodGate {
	return &floodGate{current: make(map[netip.Prefix]*rate.Limiter)}
}

// admits reports whether one more failed attempt from addr is within bounds,
// and counts it.
func (g *floodGate) admits(addr netip.Addr, now time.Time) bool {
	key := floodKey(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	limiter, ok := g.current[key]
	if !ok {
		if limiter, ok = g.previous[key]; !ok {
			limiter = rate.NewLimiter(floodPerSecond, floodBurst)
		}
		if len(g.current) >= floodAddresses {
			g.previous, g.current = g.current, make(map[netip.Prefix]*rate.Limiter)
		}
		g.current[key] = limiter
	}
	return limiter.AllowN(now, 1)
}

// floodKey takes an IPv6 network of 64 bits for one client: that is what one
// customer is given, and all of it is theirs to choose from.
func floodKey(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	key, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address at all: all such peers are one
	}
	return key
}
