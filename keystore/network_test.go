package keystore

import (
	"net/netip"
	"testing"
)

func TestNetworks(t *testing.T) {
	n, err := NewNetworks([]string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "::ffff:198.51.100.0/120", "10.0.0.0/8"})
	if err != nil || n != "10.0.0.0/8 192.0.2.7/32 198.51.100.0/24 2001:db8::/32" {
		t.Fatalf("%q, %v", n, err)
	}
	for addr, in := range map[string]bool{
		"10.1.2.3": true, "11.0.0.1": false, "192.0.2.7": true, "192.0.2.8": false, "198.51.100.9": true,
		"2001:db8:ffff::1": true, "2001:db9::1": false, "::ffff:10.1.2.3": true, "2001:db8::1%eth0": true, "::1": false,
	} {
		if got := n.Contain(netip.MustParseAddr(addr)); got != in {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if n.Contain(netip.Addr{}) {
		t.Error("an unknown address lies in a network")
	}
	if !Networks("").Contain(netip.Addr{}) {
		t.Error("no networks restrict")
	}
	if Networks("what is this").Contain(netip.MustParseAddr("10.0.0.1")) {
		t.Error("a network that cannot be read lets in")
	}
}

func TestNetworksRefused(t *testing.T) {
	for _, text := range []string{"", "10.0.0.1/8", "10.0.0.0/33", "2001:db8::1/32", "fe80::1%eth0", "localhost", "10.0.0.0 /8", "10/8", "0x0a.0.0.0/8", "::ffff:10.0.0.0/40"} {
		if n, err := NewNetworks([]string{text}); err == nil {
			t.Errorf("%q is taken for %q", text, n)
		}
	}
	if _, err := NewNetworks(make([]string, maxNetworks+1)); err == nil {
		t.Error("too many")
	}
}
