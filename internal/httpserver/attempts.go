package httpserver

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Each address may fail attemptBurst times at once and attemptsPerSecond times
// a second from then on.
const (
	attemptsPerSecond = 1
	attemptBurst      = 60
	// attemptAddresses bounds the memory: two generations of this many
	// addresses are remembered, some 100 bytes each.
	attemptAddresses = 10_000
)

// Attempts counts failed authentications by client address. When a generation
// of addresses is full the one before it is forgotten, so that memory is
// bounded whoever knocks; those who keep knocking stay remembered.
type Attempts struct {
	perSecond rate.Limit
	burst     int

	mu                sync.Mutex
	current, previous map[netip.Prefix]*rate.Limiter
}

// NewAttempts starts counting.
func NewAttempts() *Attempts { return newAttempts(attemptsPerSecond, attemptBurst) }

func newAttempts(perSecond rate.Limit, burst int) *Attempts {
	return &Attempts{perSecond: perSecond, burst: burst, current: make(map[netip.Prefix]*rate.Limiter)}
}

// Fail counts one more failed attempt from addr and reports whether it was
// within bounds.
func (a *Attempts) Fail(addr netip.Addr, now time.Time) bool {
	return a.limiter(addr).AllowN(now, 1)
}

// Exhausted reports whether the next failed attempt from addr would be out of
// bounds. It counts nothing.
func (a *Attempts) Exhausted(addr netip.Addr, now time.Time) bool {
	key := attemptKey(addr)
	a.mu.Lock()
	limiter, ok := a.current[key]
	if !ok {
		limiter, ok = a.previous[key]
	}
	a.mu.Unlock()
	return ok && limiter.TokensAt(now) < 1
}

func (a *Attempts) limiter(addr netip.Addr) *rate.Limiter {
	key := attemptKey(addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	limiter, ok := a.current[key]
	if ok {
		return limiter
	}
	if limiter, ok = a.previous[key]; !ok {
		limiter = rate.NewLimiter(a.perSecond, a.burst)
	}
	if len(a.current) >= attemptAddresses {
		a.previous, a.current = a.current, make(map[netip.Prefix]*rate.Limiter)
	}
	a.current[key] = limiter
	return limiter
}

// attemptKey takes an IPv6 network of 64 bits for one client: that is what one
// customer is given, and all of it is theirs to choose from.
func attemptKey(addr netip.Addr) netip.Prefix {
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
