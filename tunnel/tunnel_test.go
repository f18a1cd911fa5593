package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

var ctx = context.Background()

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a namespace with eth0.
type node struct {
	t  testing.TB
	n  int // number: addresses end in it
	ns int
	h  *netlink.Handle
	d  *Driver
}

func newNode(t testing.TB, n int) *node {
	t.Helper()
	ns := nstest.New(t)
	h, err := netlink.Open(ns)
	must(t, err)
	t.Cleanup(h.Close)
	return &node{t: t, n: n, ns: ns, h: h, d: New(h, Config{})}
}

// single is a node whose eth0 leads nowhere.
func single(t *testing.T) *node {
	t.Helper()
	x := newNode(t, 1)
	must(t, x.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "eth0"}, PeerName: "far0"}))
	must(t, x.h.LinkSetUp(x.get("far0")))
	x.eth0()
	return x
}

// two are nodes whose eth0 are joined.
func two(t *testing.T) (*node, *node) {
	t.Helper()
	a, b := newNode(t, 1), newNode(t, 2)
	must(t, a.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: vnl.NsFd(b.ns)}))
	a.eth0()
	b.eth0()
	return a, b
}

func (x *node) eth0() {
	x.t.Helper()
	must(x.t, x.h.LinkSetUp(x.get("eth0")))
	x.addr("eth0", x.underlay(dataplane.IPv4).String()+"/24")
	x.addr("eth0", x.underlay(dataplane.IPv6).String()+"/64")
}

func (x *node) addr(link, p string) {
	x.t.Helper()
	must(x.t, x.h.AddrAdd(x.get(link), &vnl.Addr{IPNet: netlink.IPNet(pfx(p)), Flags: unix.IFA_F_NODAD}))
}

func (x *node) get(name string) vnl.Link {
	x.t.Helper()
	l, err := x.h.LinkByName(name)
	must(x.t, err)
	return l
}

func (x *node) underlay(f dataplane.Family) netip.Addr {
	return adr(fmt.Sprintf(map[dataplane.Family]string{4: "10.0.0.%d", 6: "fd00::%d"}[f], x.n))
}

func (x *node) inner(f dataplane.Family) netip.Addr {
	return adr(fmt.Sprintf(map[dataplane.Family]string{4: "10.65.%d.0", 6: "fd65:%d::1"}[f], x.n))
}

func (x *node) mac(f dataplane.Family) string { return fmt.Sprintf("66:00:00:00:0%d:0%d", f, x.n) }

func (x *node) tunnel(f dataplane.Family) *dataplane.Tunnel {
	return &dataplane.Tunnel{
		Encap: dataplane.VXLAN, Family: f, Addr: x.inner(f), MAC: x.mac(f), Underlay: x.underlay(f),
		VNI: 4096, Port: 4789,
	}
}

func (x *node) vtep(f dataplane.Family) *dataplane.VTEP {
	return &dataplane.VTEP{Underlay: x.underlay(f), Addr: x.inner(f), MAC: x.mac(f)}
}

// knows tells the Driver of both tunnels, and of other nodes.
func (x *node) knows(others ...*node) {
	d := dataplane.NewDelta()
	for _, f := range dataplane.Families {
		d.Tunnels[vxlanNames[f]] = x.tunnel(f)
		for _, o := range others {
			d.VTEPs[dataplane.VTEPKey{Device: vxlanNames[f], Node: fmt.Sprint("node", o.n)}] = o.vtep(f)
		}
	}
	x.d.Update(d)
}

func (x *node) sync() { x.t.Helper(); must(x.t, x.d.Sync(ctx)) }

// quiet checks that a sync, with the kernel read back, writes nothing.
func (x *node) quiet() {
	x.t.Helper()
	before := x.d.Stats().Writes
	x.d.Resync()
	x.sync()
	if n := x.d.Stats().Writes - before; n != 0 {
		x.t.Fatalf("a second sync wrote %d times", n)
	}
}

// state is what the kernel has on our devices, for comparison and for people.
func (x *node) state() string {
	x.t.Helper()
	var s []string
	for _, f := range dataplane.Families {
		l, err := x.h.LinkByName(vxlanNames[f])
		if err != nil {
			continue
		}
		v := l.(*vnl.Vxlan)
		s = append(s, fmt.Sprintf("%s vni %d port %d local %v parent %d learning %v mtu %d mac %v up %v",
			v.Name, v.VxlanId, v.Port, v.SrcAddr, v.VtepDevIndex, v.Learning, v.MTU, v.HardwareAddr, v.Flags&net.FlagUp != 0))
		as, err := x.h.AddrList(l, unix.AF_UNSPEC)
		must(x.t, err)
		for _, a := range as {
			s = append(s, fmt.Sprintf("  addr %v flags %#x", a.IPNet, a.Flags))
		}
		for _, af := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
			ns, err := x.h.NeighList(v.Index, af)
			must(x.t, err)
			var es []string
			for _, n := range ns {
				if n.State&unix.NUD_PERMANENT != 0 {
					es = append(es, fmt.Sprintf("  af %d %v %v", af, n.IP, n.HardwareAddr))
				}
			}
			slices.Sort(es)
			s = append(s, es...)
		}
	}
	return strings.Join(s, "\n")
}

func TestDevice(t *testing.T) {
	x := single(t)
	o := &node{n: 2}
	x.knows(o)
	x.sync()
	eth0 := x.get("eth0").Attrs().Index
	want := fmt.Sprintf(`vxlan.calico vni 4096 port 4789 local 10.0.0.1 parent %d learning false mtu 1450 mac 66:00:00:00:04:01 up true
  addr 10.65.1.0/32 flags 0x80
  af 2 10.65.2.0 66:00:00:00:04:02
  af 7 10.0.0.2 66:00:00:00:04:02
vxlan-v6.calico vni 4096 port 4789 local fd00::1 parent %d learning false mtu 1430 mac 66:00:00:00:06:01 up true
  addr fd65:1::1/128 flags 0x82
  af 10 fd65:2::1 66:00:00:00:06:02
  af 7 fd00::2 66:00:00:00:06:02`, eth0, eth0)
	if got := x.state(); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	x.quiet()
	if s := x.d.Stats(); s.Devices != 2 || s.VTEPs != 2 || s.Failed != 0 {
		t.Errorf("stats %+v", s)
	}

	d := dataplane.NewDelta()
	for _, f := range dataplane.Families {
		d.Tunnels[vxlanNames[f]] = nil
		d.VTEPs[dataplane.VTEPKey{Device: vxlanNames[f], Node: "node2"}] = nil
	}
	x.d.Update(d)
	x.sync()
	if got := x.state(); got != "" {
		t.Fatalf("left\n%s", got)
	}
	x.quiet()
}

// Packets pass from node to node through the driver's objects alone: nothing is flooded
// or learned, and no ARP or NDP is answered.
func TestPing(t *testing.T) {
	a, b := two(t)
	a.knows(b)
	b.knows(a)
	for _, x := range []*node{a, b} {
		x.sync()
		x.quiet()
	}
	for _, f := range dataplane.Families {
		a.route(f, b)
		b.route(f, a)
		if err := ping(a, b, f); err != nil {
			t.Errorf("%v: %v", f, err)
		}
		l := b.get(vxlanNames[f])
		if rx := l.Attrs().Statistics.RxPackets; rx == 0 {
			t.Errorf("%v: %s received nothing", f, vxlanNames[f])
		}
	}
	// Without its forwarding entry nothing gets through; a resync brings it back.
	l := a.get(dataplane.DeviceVXLAN)
	must(t, a.h.NeighDel(&vnl.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, IP: netlink.IP(b.underlay(4)), HardwareAddr: mustMAC(t, b.mac(4))}))
	dropped := func() uint64 { return a.get(dataplane.DeviceVXLAN).Attrs().Statistics.TxDropped }
	before := dropped()
	c, err := a.listen(dataplane.IPv4)
	must(t, err)
	_, err = c.WriteTo([]byte("lost"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.inner(4), 7)))
	must(t, errors.Join(err, c.Close()))
	if dropped() == before {
		t.Error("a packet without a forwarding entry was not dropped")
	}
	a.d.Resync()
	a.sync()
	if err := ping(a, b, dataplane.IPv4); err != nil {
		t.Error(err)
	}
}

func mustMAC(t testing.TB, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	must(t, err)
	return m
}

// route leads to another node's tunnel address, as package route would.
func (x *node) route(f dataplane.Family, o *node) {
	x.t.Helper()
	to := o.inner(f)
	must(x.t, x.h.RouteReplace(&vnl.Route{
		Dst: netlink.IPNet(netip.PrefixFrom(to, to.BitLen())), LinkIndex: x.get(vxlanNames[f]).Attrs().Index,
		Src: netlink.IP(x.inner(f)), Scope: map[dataplane.Family]vnl.Scope{4: vnl.SCOPE_LINK}[f],
	}))
}

// listen opens a UDP socket on port 7 of the node's tunnel address.
func (x *node) listen(f dataplane.Family) (c net.PacketConn, err error) {
	err = netlink.Do(x.ns, func() (err error) {
		c, err = net.ListenPacket("udp", netip.AddrPortFrom(x.inner(f), 7).String())
		return err
	})
	return c, err
}

// ping sends a datagram from a to b's tunnel address and waits for its echo.
func ping(a, b *node, f dataplane.Family) error {
	server, err := b.listen(f)
	if err != nil {
		return err
	}
	client, err := a.listen(f)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(buf[:n], from)
		}
	}()
	defer func() { server.Close(); <-done }()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	msg := make([]byte, 1300)
	if _, err := client.WriteTo(msg, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.inner(f), 7))); err != nil {
		return err
	}
	n, _, err := client.ReadFrom(make([]byte, 2000))
	if err == nil && n != len(msg) {
		return fmt.Errorf("%d bytes came back", n)
	}
	return err
}

func TestDriftIsRepaired(t *testing.T) {
	x := single(t)
	x.knows(&node{n: 2}, &node{n: 3})
	x.sync()
	want := x.state()
	v4 := func() vnl.Link { return x.get(dataplane.DeviceVXLAN) }
	v6 := func() vnl.Link { return x.get(dataplane.DeviceVXLANv6) }
	index := func() int { return v4().Attrs().Index }
	o := &node{n: 2}
	recreate := func(change func(*vnl.Vxlan)) func() error {
		return func() error {
			v := v4().(*vnl.Vxlan)
			must(t, x.h.LinkDel(v))
			n := &vnl.Vxlan{LinkAttrs: vnl.LinkAttrs{Name: v.Name, HardwareAddr: v.HardwareAddr, MTU: v.MTU}, VxlanId: v.VxlanId, Port: v.Port, SrcAddr: v.SrcAddr, VtepDevIndex: v.VtepDevIndex}
			change(n)
			return x.h.LinkAdd(n)
		}
	}
	for _, c := range []struct {
		name   string
		meddle func() error
	}{
		{"device gone", func() error { return x.h.LinkDel(v4()) }},
		{"device down", func() error { return x.h.LinkSetDown(v6()) }},
		{"MTU", func() error { return x.h.LinkSetMTU(v4(), 1300) }},
		{"MAC", func() error { return x.h.LinkSetHardwareAddr(v4(), mustMAC(t, "66:00:00:00:00:99")) }},
		{"address gone", func() error { return x.h.AddrDel(v4(), &vnl.Addr{IPNet: netlink.IPNet(pfx("10.65.1.0/32"))}) }},
		{"IPv6 address gone", func() error { return x.h.AddrDel(v6(), &vnl.Addr{IPNet: netlink.IPNet(pfx("fd65:1::1/128"))}) }},
		{"another address", func() error { x.addr(dataplane.DeviceVXLAN, "10.77.0.1/24"); return nil }},
		{"link-local address", func() error { x.addr(dataplane.DeviceVXLANv6, "fe80::1/64"); return nil }},
		{"neighbour gone", func() error { return x.h.NeighDel(&vnl.Neigh{LinkIndex: index(), IP: netlink.IP(o.inner(4))}) }},
		{"neighbour elsewhere", func() error {
			return x.h.NeighSet(&vnl.Neigh{LinkIndex: index(), State: unix.NUD_PERMANENT, IP: netlink.IP(o.inner(4)), HardwareAddr: mustMAC(t, x.mac(4))})
		}},
		{"neighbour not permanent", func() error {
			return x.h.NeighSet(&vnl.Neigh{LinkIndex: index(), State: unix.NUD_STALE, IP: netlink.IP(o.inner(4)), HardwareAddr: mustMAC(t, o.mac(4))})
		}},
		{"neighbour too many", func() error {
			return x.h.NeighSet(&vnl.Neigh{LinkIndex: index(), State: unix.NUD_PERMANENT, IP: netlink.IP(adr("10.65.9.0")), HardwareAddr: mustMAC(t, o.mac(4))})
		}},
		{"FDB entry gone", func() error {
			return x.h.NeighDel(&vnl.Neigh{LinkIndex: index(), Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, IP: netlink.IP(o.underlay(4)), HardwareAddr: mustMAC(t, o.mac(4))})
		}},
		{"FDB entry elsewhere", func() error {
			return x.h.NeighSet(&vnl.Neigh{LinkIndex: index(), Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT, IP: netlink.IP(adr("10.0.0.9")), HardwareAddr: mustMAC(t, o.mac(4))})
		}},
		{"flooding", func() error {
			n := &vnl.Neigh{LinkIndex: index(), Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT, IP: netlink.IP(adr("10.0.0.9")), HardwareAddr: make([]byte, 6)}
			must(t, x.h.NeighAppend(n))
			n.IP = netlink.IP(adr("10.0.0.8"))
			return x.h.NeighAppend(n)
		}},
		{"another type", func() error {
			must(t, x.h.LinkDel(v4()))
			return x.h.LinkAdd(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: dataplane.DeviceVXLAN}})
		}},
		{"another VNI", recreate(func(v *vnl.Vxlan) { v.VxlanId = 7 })},
		{"another port", recreate(func(v *vnl.Vxlan) { v.Port = 8472 })},
		{"learning", recreate(func(v *vnl.Vxlan) { v.Learning = true })},
		{"no underlay", recreate(func(v *vnl.Vxlan) { v.VtepDevIndex = 0 })},
		{"another local address", recreate(func(v *vnl.Vxlan) { v.SrcAddr = net.IPv4(10, 0, 0, 77) })},
	} {
		must(t, c.meddle())
		x.d.Resync()
		if err := x.d.Sync(ctx); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := x.state(); got != want {
			t.Fatalf("%s: got\n%s\nwant\n%s", c.name, got, want)
		}
		x.quiet()
	}
}

// What can be changed in place is: the device keeps its index, the entries stay.
func TestChangesInPlace(t *testing.T) {
	x := single(t)
	x.knows(&node{n: 2})
	x.sync()
	index := x.get(dataplane.DeviceVXLAN).Attrs().Index
	d := dataplane.NewDelta()
	tun := x.tunnel(dataplane.IPv4)
	tun.MTU, tun.MAC, tun.Addr = 1400, "66:00:00:00:04:AA", adr("10.65.1.63")
	d.Tunnels[dataplane.DeviceVXLAN] = tun
	d.VTEPs[dataplane.VTEPKey{Device: dataplane.DeviceVXLAN, Node: "node2"}] = (&node{n: 4}).vtep(dataplane.IPv4)
	x.d.Update(d)
	x.sync()
	l := x.get(dataplane.DeviceVXLAN)
	if l.Attrs().Index != index || l.Attrs().MTU != 1400 {
		t.Errorf("the device is %+v", l)
	}
	got := x.state()
	for _, s := range []string{"mac 66:00:00:00:04:aa", "10.65.1.63/32", "af 2 10.65.4.0 66:00:00:00:04:04", "af 7 10.0.0.4 66:00:00:00:04:04"} {
		if !strings.Contains(got, s) {
			t.Errorf("no %q in\n%s", s, got)
		}
	}
	if strings.Contains(got, ":04:02") {
		t.Errorf("an old entry is left in\n%s", got)
	}
	x.quiet()
	tun2 := *tun
	tun2.Addr, tun2.MTU = netip.Addr{}, 0
	d = dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceVXLAN] = &tun2
	x.d.Update(d)
	x.sync()
	if got := x.state(); strings.Contains(got, "10.65.1") || !strings.Contains(got, "mtu 1450") {
		t.Errorf("got\n%s", got)
	}
	x.quiet()
}

// What cannot be changed in place makes the device anew, and the kernel drops its entries:
// they are back after the same sync.
func TestChangeOfVNI(t *testing.T) {
	x := single(t)
	x.knows(&node{n: 2})
	x.sync()
	want := x.state()
	vni := func(n int) {
		d := dataplane.NewDelta()
		tun := x.tunnel(dataplane.IPv4)
		tun.VNI += n
		d.Tunnels[dataplane.DeviceVXLAN] = tun
		x.d.Update(d)
		x.sync()
	}
	vni(1)
	vni(0)
	if got := x.state(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	x.quiet()
}

// The underlay's device goes, and the tunnel with it; it comes back elsewhere.
func TestUnderlayMoves(t *testing.T) {
	x := single(t)
	x.knows(&node{n: 2})
	x.sync()
	must(t, x.h.LinkDel(x.get("eth0")))
	x.d.Resync()
	err := x.d.Sync(ctx)
	if !errors.Is(err, ErrNoUnderlay) || err.Error() != "tunnel vxlan-v6.calico: no interface of this node has the address fd00::1; tunnel vxlan.calico: no interface of this node has the address 10.0.0.1" {
		t.Fatalf("got %v", err)
	}
	must(t, x.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "eth0", MTU: 9000}, PeerName: "far1"}))
	must(t, x.h.LinkSetUp(x.get("far1")))
	x.eth0()
	x.sync()
	want := x.state()
	if !strings.Contains(want, "mtu 8950") || !strings.Contains(want, "mtu 8930") || !strings.Contains(want, "10.65.2.0 66:00:00:00:04:02") {
		t.Fatalf("got\n%s", want)
	}
	must(t, x.h.LinkSetMTU(x.get("eth0"), 1400))
	x.d.Resync()
	x.sync()
	if got := x.state(); !strings.Contains(got, "mtu 1350") {
		t.Fatalf("got\n%s", got)
	}
	x.quiet()
	// Only the address is lost: the device stays, the problem is named.
	must(t, x.h.AddrDel(x.get("eth0"), &vnl.Addr{IPNet: netlink.IPNet(pfx("10.0.0.1/24"))}))
	x.d.Resync()
	if err := x.d.Sync(ctx); !errors.Is(err, ErrNoUnderlay) || !errors.Is(err, reconcile.ErrPartial) {
		t.Fatalf("got %v", err)
	}
	x.get(dataplane.DeviceVXLAN)
}

// A node whose address is on the loopback interface lets the routes choose the device.
func TestUnderlayOnLoopback(t *testing.T) {
	x := single(t)
	x.addr("lo", "10.9.9.9/32")
	tun := x.tunnel(dataplane.IPv4)
	tun.Underlay = adr("10.9.9.9")
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceVXLAN] = tun
	x.d.Update(d)
	x.sync()
	if got := x.state(); !strings.Contains(got, "local 10.9.9.9 parent 0 learning false mtu 1450") {
		t.Errorf("got\n%s", got)
	}
	x.quiet()
}

// IPIP and VXLAN stand side by side, and go one by one.
func TestIPIPDoesNotDisturbVXLAN(t *testing.T) {
	x := single(t)
	x.knows(&node{n: 2})
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = &dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Addr: adr("10.66.0.1"), Underlay: x.underlay(4)}
	d.VTEPs[dataplane.VTEPKey{Device: dataplane.DeviceIPIP, Node: "node2"}] = &dataplane.VTEP{Underlay: adr("10.0.0.2"), Addr: adr("10.66.0.2")}
	x.d.Update(d)
	x.sync()
	x.quiet()
	x.get(dataplane.DeviceIPIP)
	if got := x.state(); !strings.Contains(got, "af 7 fd00::2 66:00:00:00:06:02") {
		t.Errorf("got\n%s", got)
	}
	d = dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = nil
	d.VTEPs[dataplane.VTEPKey{Device: dataplane.DeviceIPIP, Node: "node2"}] = nil
	x.d.Update(d)
	x.sync()
	x.quiet()
	if got := x.state(); !strings.Contains(got, "af 7 fd00::2 66:00:00:00:06:02") {
		t.Errorf("got\n%s", got)
	}
}

func TestErrors(t *testing.T) {
	x := single(t)
	o := &node{n: 2}
	change := func(f func(*dataplane.Tunnel)) *dataplane.Delta {
		d := dataplane.NewDelta()
		tun := x.tunnel(dataplane.IPv4)
		f(tun)
		d.Tunnels[dataplane.DeviceVXLAN] = tun
		return d
	}
	vtep := func(device string, f func(*dataplane.VTEP)) *dataplane.Delta {
		d := change(func(*dataplane.Tunnel) {})
		v := o.vtep(dataplane.IPv4)
		f(v)
		d.VTEPs[dataplane.VTEPKey{Device: device, Node: "node2"}] = v
		return d
	}
	for _, c := range []struct {
		d    *dataplane.Delta
		is   error
		text string
	}{
		{change(func(t *dataplane.Tunnel) { t.MAC = "x" }), ErrInvalid, `the MAC address "x" is none`},
		{change(func(t *dataplane.Tunnel) { t.MAC = "01:02:03:04:05:06:07:08" }), ErrInvalid, "is none"},
		{change(func(t *dataplane.Tunnel) { t.Underlay = adr("fd00::1") }), ErrInvalid, "underlay address fd00::1 is not of IPv4"},
		{change(func(t *dataplane.Tunnel) { t.Addr = adr("fd00::1") }), ErrInvalid, "tunnel address fd00::1 is not of IPv4"},
		{change(func(t *dataplane.Tunnel) { t.Family = dataplane.IPv6 }), ErrInvalid, "not called so"},
		{change(func(t *dataplane.Tunnel) { t.Family = 9 }), ErrInvalid, "not called so"},
		{change(func(t *dataplane.Tunnel) { t.VNI = 1 << 24 }), ErrInvalid, "VNI"},
		{change(func(t *dataplane.Tunnel) { t.Port = 0 }), ErrInvalid, "port"},
		{change(func(t *dataplane.Tunnel) { t.Encap = 9 }), nil, "encapsulation 9 is not supported"},
		{change(func(t *dataplane.Tunnel) { t.MTU = 1500 }), unix.EINVAL, "set MTU of vxlan.calico to 1500 (eth0 has 1500, VXLAN takes 50)"},
		{vtep("vxlan.calico", func(v *dataplane.VTEP) { v.MAC = "" }), ErrInvalid, `node node2 has the tunnel MAC address ""`},
		{vtep("vxlan.calico", func(v *dataplane.VTEP) { v.Addr = netip.Addr{} }), ErrInvalid, "node node2 has the tunnel address invalid IP"},
		{vtep("vxlan.calico", func(v *dataplane.VTEP) { v.Underlay = adr("fd00::2") }), ErrInvalid, "node node2 has the address fd00::2"},
		{vtep("eth0", func(*dataplane.VTEP) {}), ErrInvalid, "eth0 is not a VXLAN device of ours"},
		{vtep("vxlan-v6.calico", func(v *dataplane.VTEP) { *v = *o.vtep(6) }), ErrNoDevice, "neighbour fd65:2::1 dev vxlan-v6.calico: the tunnel device does not exist (yet)"},
	} {
		x.d = New(x.h, Config{})
		x.d.Update(c.d)
		err := x.d.Sync(ctx)
		if !errors.Is(err, reconcile.ErrPartial) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("want %q, got %v", c.text, err)
		}
	}
}

// Two nodes that claim one address or MAC: the first by name has it, whoever came first, and
// when it goes the other has it.
func TestVTEPClaims(t *testing.T) {
	x := single(t)
	x.knows()
	v, same := (&node{n: 2}).vtep(dataplane.IPv4), (&node{n: 2}).vtep(dataplane.IPv4)
	same.Underlay, same.MAC = adr("10.0.0.7"), "66:00:00:00:04:07"
	put := func(name string, v *dataplane.VTEP) {
		d := dataplane.NewDelta()
		d.VTEPs[dataplane.VTEPKey{Device: dataplane.DeviceVXLAN, Node: name}] = v
		x.d.Update(d)
		x.sync()
	}
	has := func(s string) {
		t.Helper()
		if got := x.state(); !strings.Contains(got, "af 2 10.65.2.0 "+s) {
			t.Fatalf("no %s in\n%s", s, got)
		}
		x.quiet()
	}
	put("b", v)
	has("66:00:00:00:04:02")
	put("a", same)
	has("66:00:00:00:04:07")
	put("a", nil)
	has("66:00:00:00:04:02")
	put("c", same)
	has("66:00:00:00:04:02")
	put("b", nil)
	has("66:00:00:00:04:07")
}

func TestCreatedHook(t *testing.T) {
	x := single(t)
	var names []string
	x.d = New(x.h, Config{Created: func(name string) error { names = append(names, name); return nil }})
	x.knows()
	x.sync()
	x.quiet()
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "vxlan-v6.calico vxlan.calico" {
		t.Errorf("created %s", got)
	}
}

func TestProbe(t *testing.T) {
	x := newNode(t, 1)
	must(t, Probe(x.h))
	links, err := x.h.Links()
	must(t, err)
	for _, l := range links {
		if l.Type() == "vxlan" {
			t.Errorf("left %s behind", l.Attrs().Name)
		}
	}
}
