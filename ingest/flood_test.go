package ingest

import (
	"net/netip"
	"testing"
)

func TestFloodGateMemoryIsBounded(t *testing.T) {
	t.Parallel()
	g := newFloodGate()
	address := netip.MustParseAddr("10.0.0.0")
	for range 5 * floodAddresses {
		g.admits(address, arrival())
		address = address.Next()
	}
	if n := len(g.current) + len(g.previous); n > 2*floodAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestFloodGateTakesAnIPv6NetworkForOneClient(t *testing.T) {
	t.Parallel()
	g := newFloodGate()
	address := netip.MustParseAddr("2001:db8::")
	for range floodBurst {
		if !g.admits(address, arrival()) {
			t.Fatal("refused within the burst")
		}
		address = address.Next()
	}
	if g.admits(address, arrival()) {
		t.Error("a neighbour in the same network has a burst of its own")
	}
	if !g.admits(netip.MustParseAddr("2001:db8:0:1::"), arrival()) || !g.admits(netip.Addr{}, arrival()) {
		t.Error("another network is refused")
	}
}
