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
	// addresses are those of the enabled interfaces by their order; of each the
	// IPv4 addresses first. Nil when there is no network to tell.
	addresses []string
}

func (n *wireNetwork) read(data []byte) {
	n.addresses = nil
	var interfaces []wireInterface
	known := isObject(data) || isEmptyArray(data)
	f := fieldsOf(data)
	for f.next() {
		if string(f.key()) == "interfaces" {
			interfaces, known = readList(f.value, (*wireInterface).read)
		}
	}
	if known {
		n.addresses = addresses(interfaces)
	}
}

type wireInterface struct {
	Order   number
	Enabled flag
	IPv4    []wireIPv4
	IPv6    []wireIPv6
}

func (w *wireInterface) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "order":
			w.Order.read(f.value)
		case "enabled":
			w.Enabled.read(f.value)
		case "ipv4":
			w.IPv4, _ = readList(f.value, (*wireIPv4).read)
		case "ipv6":
			w.IPv6, _ = readList(f.value, (*wireIPv6).read)
		}
	}
}

// wireIPv4 is an object, or the address alone.
type wireIPv4 struct {
	order   number
	enabled flag
	address text
}

func (a *wireIPv4) read(data []byte) {
	if !isObject(data) {
		a.address.read(data)
		return
	}
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "order":
			a.order.read(f.value)
		case "enabled":
			a.enabled.read(f.value)
		case "address":
			a.address.read(f.value)
		}
	}
}

type wireIPv6 struct {
	Order     number
	Enabled   flag
	Subnet    text
	CIDR      number
	Addresses []wireIPv4
}

func (w *wireIPv6) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "order":
			w.Order.read(f.value)
		case "enabled":
			w.Enabled.read(f.value)
		case "subnet":
			w.Subnet.read(f.value)
		case "cidr":
			w.CIDR.read(f.value)
		case "addresses":
			w.Addresses, _ = readList(f.value, (*wireIPv4).read)
		}
	}
}

// addresses lists the addresses of the interfaces; never nil.
func addresses(interfaces []wireInterface) []string {
	found := []string{}
	for _, nic := range inOrder(interfaces, func(i *wireInterface) (number, flag) { return i.Order, i.Enabled }) {
		for _, ip := range inOrder(nic.IPv4, addressOrder) {
			found = appendAddress(found, ip.address.value)
		}
		for _, ip := range inOrder(nic.IPv6, func(i *wireIPv6) (number, flag) { return i.Order, i.Enabled }) {
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
	for _, ip := range inOrder(w.Addresses, addressOrder) {
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
