package keystore

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// Networks is a set of address ranges in one string: CIDR in canonical form,
// sorted, separated by single spaces. The empty set restricts nothing.
type Networks string

const maxNetworks = 32

// NewNetworks returns the set of the given ranges, or a *FieldError. A single
// address is a range of one. Host bits must be zero: a range that says more
// than it means was not meant.
func NewNetworks(ranges []string) (Networks, error) {
	const pointer = "/networks"
	if len(ranges) > maxNetworks {
		return "", &FieldError{pointer, "at most 32 networks"}
	}
	set := make([]string, 0, len(ranges))
	for _, text := range ranges {
		p, err := parseNetwork(text)
		if err != nil || p.Masked() != p {
			return "", &FieldError{pointer, "must be addresses or CIDR ranges without host bits, such as 10.0.0.0/8 or 2001:db8::/32"}
		}
		set = append(set, p.String())
	}
	slices.Sort(set)
	return Networks(strings.Join(slices.Compact(set), " ")), nil
}

// parseNetwork takes an IPv4 range for the same whether it is written in IPv6
// or not.
func parseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("not an address everywhere")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

// List returns the ranges one by one.
func (n Networks) List() []string { return strings.Fields(string(n)) }

// Contain reports whether addr lies in one of the ranges, or there are none.
// An address that is not known lies in no range. It does not allocate.
func (n Networks) Contain(addr netip.Addr) bool {
	if n == "" {
		return true
	}
	addr = addr.Unmap().WithZone("")
	rest, one, more := string(n), "", true
	for more {
		one, rest, more = strings.Cut(rest, " ")
		if p, err := netip.ParsePrefix(one); err == nil && p.Contains(addr) {
			return true
		}
	}
	return false
}
