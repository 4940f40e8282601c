package httpserver

import (
	"net/netip"
	"testing"
	"time"
)

func atNoon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func TestAttemptsMemoryIsBounded(t *testing.T) {
	t.Parallel()
	a := NewAttempts()
	address := netip.MustParseAddr("10.0.0.0")
	for range 5 * attemptAddresses {
		a.Fail(address, atNoon())
		address = address.Next()
	}
	if n := len(a.current) + len(a.previous); n > 2*attemptAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestAttemptsTakeAnIPv6NetworkForOneClient(t *testing.T) {
	t.Parallel()
	a := NewAttempts()
	address := netip.MustParseAddr("2001:db8::")
	for range attemptBurst {
		if a.Exhausted(address, atNoon()) || !a.Fail(address, atNoon()) {
			t.Fatal("refused within the burst")
		}
		address = address.Next()
	}
	if !a.Exhausted(address, atNoon()) || a.Fail(address, atNoon()) {
		t.Error("a neighbour in the same network has a burst of its own")
	}
	if a.Exhausted(address, atNoon().Add(2*time.Second)) {
		t.Error("time does not heal")
	}
	other := netip.MustParseAddr("2001:db8:0:1::")
	if a.Exhausted(other, atNoon()) || !a.Fail(other, atNoon()) || !a.Fail(netip.Addr{}, atNoon()) {
		t.Error("another network is refused")
	}
}
