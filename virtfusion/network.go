package virtfusion

import (
	"bytes"
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// maxAddresses bounds what one server can make us keep and compare.
const maxAddresses = 1024

// wireNetwork is a server's network: known when it is an object whose
// interfaces can be read or are not mentioned, or PHP's [], an empty one.
type wireNetwork struct {
	interfaces list[wireInterface]
	known      bool
}

type wireNetworkObject struct {
	Interfaces list[wireInterface] `json:"interfaces"`
}

type wireInterface struct {
	Order   number         `json:"order"`
	Enabled flag           `json:"enabled"`
	IPv4    list[wireIPv4] `json:"ipv4"`
	IPv6    list[wireIPv6] `json:"ipv6"`
}

// wireIPv4 is an object, or the address alone.
type wireIPv4 struct {
	order   number
	enabled flag
	address text
}

type wireIPv6 struct {
	Order     number         `json:"order"`
	Enabled   flag           `json:"enabled"`
	Subnet    text           `json:"subnet"`
	CIDR      number         `json:"cidr"`
	Addresses list[wireIPv4] `json:"addresses"`
}

// UnmarshalJSON implements [json.Unmarshaler]; it never fails.
func (n *wireNetwork) UnmarshalJSON(data []byte) error {
	*n = wireNetwork{}
	if !isObject(data) {
		n.known = isEmptyArray(data)
		return nil
	}
	var object wireNetworkObject
	if decodeLeniently(data, &object) == nil {
		n.interfaces = object.Interfaces
		n.known = n.interfaces.known || !n.interfaces.present
	}
	return nil
}

// UnmarshalJSON implements [json.Unmarshaler]; it never fails.
func (a *wireIPv4) UnmarshalJSON(data []byte) error {
	*a = wireIPv4{}
	if !isObject(data) {
		return a.address.UnmarshalJSON(data)
	}
	var object struct {
		Order   number `json:"order"`
		Enabled flag   `json:"enabled"`
		Address text   `json:"address"`
	}
	_ = decodeLeniently(data, &object)
	a.order, a.enabled, a.address = object.Order, object.Enabled, object.Address
	return nil
}

// addresses lists the addresses of the enabled interfaces by their order; of
// each the IPv4 addresses first. Nil when there is no network to tell.
func (n *wireNetwork) addresses() []string {
	if !n.known {
		return nil
	}
	found := []string{}
	for _, nic := range inOrder(n.interfaces.items, func(i *wireInterface) (number, flag) { return i.Order, i.Enabled }) {
		for _, ip := range inOrder(nic.IPv4.items, addressOrder) {
			found = appendAddress(found, ip.address.value)
		}
		for _, ip := range inOrder(nic.IPv6.items, func(i *wireIPv6) (number, flag) { return i.Order, i.Enabled }) {
			found = ip.append(found)
		}
	}
	return found
}

func addressOrder(a *wireIPv4) (number, flag) { return a.order, a.enabled }

// append adds the single addresses of a subnet, or, when there are none, the
// subnet itself.
func (w *wireIPv6) append(found []string) []string {
	before := len(found)
	for _, ip := range inOrder(w.Addresses.items, addressOrder) {
		found = appendAddress(found, ip.address.value)
	}
	if len(found) > before {
		return found
	}
	if prefix, err := netip.ParsePrefix(w.Subnet.value); err == nil {
		return appendNew(found, prefix.String())
	}
	subnet, err := netip.ParseAddr(w.Subnet.value)
	if err != nil || subnet.Zone() != "" {
		return found
	}
	if !w.CIDR.known || w.CIDR.value > int64(subnet.BitLen()) {
		return appendNew(found, subnet.String())
	}
	return appendNew(found, netip.PrefixFrom(subnet, int(w.CIDR.value)).String())
}

// inOrder returns the items that are not switched off, by their order; those
// without one come last, as they stood.
func inOrder[T any](items []T, of func(*T) (order number, enabled flag)) []T {
	position := func(item *T) int64 {
		order, _ := of(item)
		if !order.known {
			return math.MaxInt64
		}
		return order.value
	}
	kept := slices.DeleteFunc(items, func(item T) bool {
		_, enabled := of(&item)
		return enabled.known && !enabled.value
	})
	slices.SortStableFunc(kept, func(a, b T) int { return cmp.Compare(position(&a), position(&b)) })
	return kept
}

// appendAddress adds an address in its canonical form; what is none is left out.
func appendAddress(found []string, written string) []string {
	address, err := netip.ParseAddr(strings.TrimSpace(written))
	if err != nil || address.Zone() != "" {
		return found
	}
	return appendNew(found, address.String())
}

func appendNew(found []string, address string) []string {
	if len(found) >= maxAddresses || slices.Contains(found, address) {
		return found
	}
	return append(found, address)
}

// isEmptyArray tells whether data is [], PHP's empty object.
func isEmptyArray(data []byte) bool {
	return len(data) >= 2 && data[0] == '[' && len(bytes.TrimSpace(data[1:len(data)-1])) == 0
}
