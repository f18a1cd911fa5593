package netlink_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// flowTable makes a namespace with the flows i → j of UDP in it.
func flowTable(t testing.TB, flows ...netlink.Tuple) (*netlink.Conntrack, *vnl.Handle) {
	t.Helper()
	ns := nstest.New(t)
	h, err := vnl.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	for _, f := range flows {
		makeFlow(t, h, f)
	}
	c, err := netlink.OpenConntrack(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, h
}

func makeFlow(t testing.TB, h *vnl.Handle, f netlink.Tuple) {
	t.Helper()
	ip := func(a netip.Addr) net.IP { return net.IP(a.AsSlice()) }
	family := vnl.InetFamily(unix.AF_INET)
	if f.Src.Is6() {
		family = unix.AF_INET6
	}
	err := h.ConntrackCreate(vnl.ConntrackTable, family, &vnl.ConntrackFlow{
		FamilyType: uint8(family),
		Forward:    vnl.IPTuple{SrcIP: ip(f.Src), DstIP: ip(f.Dst), SrcPort: f.SrcPort, DstPort: f.DstPort, Protocol: f.Protocol},
		Reverse:    vnl.IPTuple{SrcIP: ip(f.Dst), DstIP: ip(f.Src), SrcPort: f.DstPort, DstPort: f.SrcPort, Protocol: f.Protocol},
		TimeOut:    600, Mark: 0xf,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func udp(src, dst string, port uint16) netlink.Tuple {
	return netlink.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: unix.IPPROTO_UDP, SrcPort: port, DstPort: 53}
}

func BenchmarkConntrackEach(b *testing.B) {
	for _, n := range []int{0, 1000, 100_000} {
		c, h := flowTable(b)
		for i := range n {
			a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 16), byte(i >> 8)})
			makeFlow(b, h, netlink.Tuple{Src: a, Dst: netip.MustParseAddr("10.2.0.1"), Protocol: 17, SrcPort: uint16(i), DstPort: 53})
		}
		for name, q := range map[string]netlink.Query{
			"all":    {Family: unix.AF_INET},
			"source": {Family: unix.AF_INET, Source: netip.MustParseAddr("10.1.0.1")},
		} {
			b.Run(fmt.Sprint(n, "/", name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					seen := 0
					if err := c.Each(q, func(*netlink.Flow) { seen++ }); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprint(n, "/len"), func(b *testing.B) {
			for b.Loop() {
				if got, err := c.Len(); err != nil || got < n {
					b.Fatal(got, err)
				}
			}
		})
	}
}
