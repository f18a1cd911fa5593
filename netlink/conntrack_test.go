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

// TestConntrack holds that flows are listed by their ends, that a mark's other bits stay when some are
// changed, and that what is not there is no error.
func TestConntrack(t *testing.T) {
	t.Parallel()
	c, _ := flowTable(t, udp("10.0.0.1", "10.0.0.2", 1), udp("10.0.0.1", "10.0.0.3", 2), udp("10.0.0.3", "10.0.0.1", 3), udp("fd00::1", "fd00::2", 4))
	list := func(q netlink.Query) (flows []netlink.Flow) {
		t.Helper()
		if err := c.Each(q, func(f *netlink.Flow) error { flows = append(flows, f.Keep()); return nil }); err != nil {
			t.Fatal(err)
		}
		return flows
	}
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::2")
	for _, x := range []struct {
		q    netlink.Query
		want int
	}{
		{netlink.Query{}, 4}, {netlink.Query{Family: unix.AF_INET6}, 1}, {netlink.Query{Family: unix.AF_INET}, 3},
		{netlink.Query{Family: unix.AF_INET, Source: four}, 2}, {netlink.Query{Family: unix.AF_INET, Destination: four}, 1},
		{netlink.Query{Family: unix.AF_INET6, Destination: six}, 1}, {netlink.Query{Family: unix.AF_INET6, Source: six}, 0},
	} {
		if got := list(x.q); len(got) != x.want {
			t.Errorf("%+v selects %d flows, want %d: %+v", x.q, len(got), x.want, got)
		}
	}
	var changes []netlink.FlowChange
	all := list(netlink.Query{})
	for i := range all {
		changes = append(changes, netlink.FlowChange{Flow: &all[i], Mark: 0x40002, Mask: 0x40003})
	}
	if err := c.Change(changes); err != nil {
		t.Fatal(err)
	}
	for _, f := range list(netlink.Query{}) {
		if f.Mark != 0x4000e { // 0xf it was
			t.Errorf("mark %#x, want 0x4000e", f.Mark)
		}
	}
	for i := range changes {
		changes[i].Delete = true
	}
	for _, try := range []string{"there", "gone"} {
		if err := c.Change(changes[:3]); err != nil {
			t.Errorf("delete what is %s: %v", try, err)
		}
	}
	if n, err := c.Len(); n != 1 || err != nil {
		t.Errorf("%d flows are left, %v, want 1", n, err)
	}
	if err := c.Change([]netlink.FlowChange{{Flow: &netlink.Flow{}, Delete: true}}); err == nil {
		t.Error("a flow without a name was deleted, which would be all flows")
	}
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
					if err := c.Each(q, func(*netlink.Flow) error { seen++; return nil }); err != nil {
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
