package tunnel

import (
	"net/netip"
	"testing"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/netlink"
)

// BenchmarkRoundTrip is of a datagram and its echo between pods of two nodes: over plain
// routes, and over IPIP of each kind.
func BenchmarkRoundTrip(b *testing.B) { eachWay(b, benchRoundTrip) }

// BenchmarkStream is of TCP between pods of two nodes.
func BenchmarkStream(b *testing.B) { eachWay(b, benchStream) }

// eachWay runs f between nodes of each kind, and between the same over plain routes.
func eachWay(b *testing.B, f func(b *testing.B, x, y *member)) {
	for _, kind := range []IPIPKind{EBPFIPIP, KernelIPIP} {
		b.Run(string(kind), func(b *testing.B) {
			x, y := twoMembers(b, kind, kind)
			b.Run("ipip", func(b *testing.B) { f(b, x, y) })
			x.plain(y)
			y.plain(x)
			b.Run("plain", func(b *testing.B) { f(b, x, y) })
		})
	}
}

// plain has packets to another node's pods go without a tunnel.
func (m *member) plain(o *member) {
	m.t.Helper()
	must(m.t, m.h.RouteReplace(&vnl.Route{
		Dst: netlink.IPNet(netip.PrefixFrom(o.podAddr(), 24).Masked()), Gw: netlink.IP(o.addr),
	}))
}

func benchRoundTrip(b *testing.B, x, y *member) {
	at := echo(b, y.pod, netip.AddrPortFrom(y.podAddr(), 0))
	c := udp(b, x.pod, netip.AddrPortFrom(x.podAddr(), 0))
	for b.Loop() {
		must(b, asks(c, at, 100))
	}
}

func benchStream(b *testing.B, x, y *member) {
	const n = 64 << 20
	b.SetBytes(n)
	for b.Loop() {
		must(b, stream(b, x.pod, y.pod, y.podAddr(), n))
	}
}
