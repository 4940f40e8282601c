package httpserver

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/labstack/echo/v4"
)

// ClientAddr returns the address of the request's client: the peer's own, or,
// when the peer is a trusted proxy, what it says in X-Forwarded-For. The zero
// Addr when there is none (a Unix socket). IPv4 in IPv6 is unwrapped.
func ClientAddr(c echo.Context) netip.Addr {
	addr, err := netip.ParseAddr(c.RealIP())
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// clientAddrExtractor walks X-Forwarded-For from its end, where the nearest
// proxy wrote, for as long as the address that vouches for the next one is
// trusted. What a client wrote in front of that is never reached.
func clientAddrExtractor(trusted []netip.Prefix) echo.IPExtractor {
	isTrusted := func(a netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) string {
		client, ok := parseHop(r.RemoteAddr)
		if !ok {
			return ""
		}
		hops := strings.Split(strings.Join(r.Header.Values(echo.HeaderXForwardedFor), ","), ",")
		for i := len(hops) - 1; i >= 0 && isTrusted(client); i-- {
			hop, ok := parseHop(strings.TrimSpace(hops[i]))
			if !ok {
				break // what stands before an unreadable hop proves nothing
			}
			client = hop
		}
		return client.String()
	}
}

// parseHop reads an address with or without a port.
func parseHop(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}
