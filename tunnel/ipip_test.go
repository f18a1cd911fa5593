package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/bpf"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Packets pass both ways, from pods and from nodes, up to the MTU with DF; what is longer is
// refused with the MTU.
func TestIPIPPackets(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *member) {
		wire := newTap(t, b, "eth0")
		for _, way := range [][2]*member{{a, b}, {b, a}} {
			from, to := way[0], way[1]
			at := echo(t, to.pod, netip.AddrPortFrom(to.podAddr(), 7))
			c := udp(t, from.pod, netip.AddrPortFrom(from.podAddr(), 0))
			must(t, asks(c, at, 100))
			c = udp(t, from.ns, netip.AddrPortFrom(from.tunlAddr(), 0))
			must(t, asks(c, at, 100))
			checkMTU(t, from, at)
		}
		checkWire(t, wire, a, b, 2*6)
	})
}

// checkMTU sends datagrams with DF that just fit, and one that does not.
func checkMTU(t *testing.T, from *member, at netip.AddrPort) {
	t.Helper()
	const headers = 20 + 8
	c := udp(t, from.pod, netip.AddrPortFrom(from.podAddr(), 0))
	dontFragment(t, c, unix.IP_PMTUDISC_DO)
	if err := asks(c, at, 1480-headers); err != nil {
		t.Errorf("1,480 bytes with DF: %v", err)
	}
	control(t, c, func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	})
	if _, err := c.Write(make([]byte, 1481-headers)); err != nil {
		t.Fatal(err)
	}
	mtu := 0
	waitFor(t, "frag-needed", func() bool {
		control(t, c, func(fd int) (err error) { mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU); return err })
		return mtu != 1500
	})
	if mtu != 1480 {
		t.Errorf("the path's MTU became %d", mtu)
	}
}

// checkWire checks that everything between two nodes is IPIP with their addresses, and that
// each header has the right checksum and length; and that there is as much as is expected.
func checkWire(t *testing.T, wire *tap, a, b *member, least int) {
	t.Helper()
	count := 0
	wire.read(t, func(_ bool, ip []byte) {
		src, dst := addrsOf(ip)
		if src != a.addr && src != b.addr || dst != a.addr && dst != b.addr || src == dst || ip[9] != unix.IPPROTO_IPIP {
			t.Errorf("protocol %d from %v to %v passes", ip[9], src, dst)
			return
		}
		count++
		if ip[0] != 0x45 || sum(0, ip[:20]) != 0xffff {
			t.Errorf("the header % x is wrong", ip[:20])
		}
		inner := ip[20:]
		if binary.BigEndian.Uint16(ip[2:]) != uint16(len(ip)) && len(ip) > 60 || int(binary.BigEndian.Uint16(inner[2:])) > len(inner) {
			t.Errorf("%d bytes have the lengths %d and %d", len(ip), binary.BigEndian.Uint16(ip[2:]), binary.BigEndian.Uint16(inner[2:]))
		}
		if sum(0, inner[:20]) != 0xffff {
			t.Errorf("the inner header % x is wrong", inner[:20])
		}
		if ip[6]&0x40 != inner[6]&0x40 || ip[8] != inner[8] {
			t.Errorf("flags % x outside, % x inside, TTL %d outside, %d inside", ip[6:8], inner[6:8], ip[8], inner[8])
		}
	})
	if count < least {
		t.Errorf("%d packets passed, not the %d expected", count, least)
	}
}

func addrsOf(ip []byte) (src, dst netip.Addr) {
	return netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
}

// offloads are the features of all devices on the way that leave work to the device.
var offloads = []string{
	"tx-checksum-ip-generic", "tx-scatter-gather", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation",
	"tx-tcp-mangleid-segmentation", "tx-generic-segmentation", "rx-gro",
}

func (m *member) offloadsOff() {
	m.t.Helper()
	off := func(h *netlink.Handle, link string) {
		l, err := h.LinkByName(link)
		must(m.t, err)
		on, err := h.Features(l.Attrs().Index)
		must(m.t, err)
		var names []string
		for _, n := range offloads {
			if on[n] {
				names = append(names, n)
			}
		}
		if len(names) > 0 {
			must(m.t, h.FeaturesOff(l.Attrs().Index, names...))
		}
	}
	off(m.ph, "eth0")
	off(m.h, "cali0")
	off(m.h, "eth0")
}

// TCP passes both ways, between pods and from node to pod, with offloads on and off on either
// side.
func TestIPIPStreams(t *testing.T) {
	const n = 512 << 10
	eachPair(t, func(t *testing.T, a, b *member) {
		wire := newTap(t, b, "eth0")
		for _, off := range []func(){func() {}, a.offloadsOff, b.offloadsOff} {
			off()
			for _, way := range [][2]*member{{a, b}, {b, a}} {
				from, to := way[0], way[1]
				if err := stream(t, from.pod, to.pod, to.podAddr(), n); err != nil {
					t.Errorf("from pod %d: %v", from.n, err)
				}
				if err := stream(t, from.ns, to.pod, to.podAddr(), n/8); err != nil {
					t.Errorf("from node %d: %v", from.n, err)
				}
			}
		}
		checkWire(t, wire, a, b, 100)
	})
}

// What an address sends that is no node's goes nowhere, and is counted; so do fragments, and
// packets that the kernel's receive path would refuse. What is not for this node's address is
// left alone.
func TestForgedAndMalformed(t *testing.T) {
	a, b := twoMembers(t, EBPFIPIP, EBPFIPIP)
	got := udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 99))
	wire := newTap(t, b, "eth0")
	to, from := a.get("eth0").Attrs().HardwareAddr, b.get("eth0").Attrs().HardwareAddr
	inner := func(text string) []byte {
		return ipv4(unix.IPPROTO_UDP, b.podAddr(), a.podAddr(), nil, datagram(5, 99, text))
	}
	stranger := adr("10.0.0.66")
	b.addr1("eth0", "10.0.0.66/24") // so that it would be answered
	send := func(src netip.Addr, change func([]byte), payload []byte) {
		wire.send(t, to, from, ipv4(unix.IPPROTO_IPIP, src, a.addr, change, payload))
	}
	type counts = func(*statsIn) *uint64
	for _, c := range []struct {
		what  string
		send  func()
		count counts
	}{
		{"a foreign source", func() { send(stranger, nil, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Foreign }},
		{"a fragment", func() { send(b.addr, func(h []byte) { h[6] = 0x20 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Fragment }},
		{"a later fragment", func() { send(b.addr, func(h []byte) { h[7] = 1 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Fragment }},
		{"a wrong checksum", func() { send(b.addr, func(h []byte) { h[10] = 1 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"a length beyond its end", func() { send(b.addr, func(h []byte) { h[2] = 9 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"a length within its headers", func() { send(b.addr, func(h []byte) { h[2], h[3] = 0, 39 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"another version", func() { send(b.addr, func(h []byte) { h[0] = 0x55 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"options", func() { send(b.addr, func(h []byte) { h[0] = 0x46 }, append(make([]byte, 4), inner("bad")...)) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"IPv6 inside", func() { send(b.addr, nil, append([]byte{0x60}, inner("bad")[1:]...)) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"nothing inside", func() { send(b.addr, nil, nil) }, func(s *statsIn) *uint64 { return &s.Malformed }},
		{"congestion that the inside cannot bear", func() { send(b.addr, func(h []byte) { h[1] = 3 }, inner("bad")) }, func(s *statsIn) *uint64 { return &s.Congested }},
	} {
		before := a.stats()
		c.send()
		send(b.addr, nil, inner("good"))
		if text := receive(t, got); text != "good" {
			t.Errorf("%s: %q came", c.what, text)
		}
		want := before
		*c.count(&want)++
		want.Packets++
		want.Bytes += uint64(len(inner("good")))
		if now := a.stats(); now != want {
			t.Errorf("%s: counted %+v, want %+v", c.what, now, want)
		}
	}
	before := a.stats()
	wire.send(t, to, from, ipv4(unix.IPPROTO_IPIP, b.addr, a.tunlAddr(), nil, inner("bad")))
	wire.send(t, []byte{2, 9, 9, 9, 9, 9}, from, ipv4(unix.IPPROTO_IPIP, b.addr, a.addr, nil, inner("bad")))
	send(b.addr, nil, inner("good"))
	if text := receive(t, got); text != "good" {
		t.Errorf("for others: %q came", text)
	}
	if now := a.stats(); now.Packets != before.Packets+1 {
		t.Errorf("what is for others was counted: %+v after %+v", now, before)
	}
}

// A packet whose route leaves tunl0 while it is on its way there still goes to the node that
// its new route names.
func TestRouteLeaves(t *testing.T) {
	a, b := twoMembers(t, EBPFIPIP, EBPFIPIP)
	wire := newTap(t, b, "eth0")
	a.via("10.68.0.0/24", b.addr, "eth0")
	s := udp(t, a.ns, netip.AddrPortFrom(a.tunlAddr(), 0))
	control(t, s, func(fd int) error { return unix.BindToDevice(fd, "tunl0") }) // as if it were routed so
	_, err := s.WriteToUDPAddrPort([]byte("late"), netip.AddrPortFrom(adr("10.68.0.1"), 7))
	must(t, err)
	waitFor(t, "the packet", func() (came bool) {
		wire.read(t, func(_ bool, ip []byte) {
			came = came || ip[9] == unix.IPPROTO_IPIP && bytes.HasSuffix(ip, []byte("late"))
		})
		return came
	})
}

// What cannot be sent is counted by its reason, and nothing of it is on the wire.
func TestUnsendable(t *testing.T) {
	a, b := twoMembers(t, EBPFIPIP, EBPFIPIP)
	wire := newTap(t, b, "eth0")
	d := dataplane.NewDelta()
	lost := adr("172.31.0.9") // a node to which there is no way
	d.VTEPs[vtepKey(9)] = &dataplane.VTEP{Underlay: lost}
	a.d.Update(d)
	a.sync()
	via := func(dst string, gw netip.Addr) { a.via(dst, gw, "tunl0") }
	via("10.66.8.0/24", adr("10.0.0.99")) // no node
	via("10.66.9.0/24", lost)
	out := func() bpf.Stats {
		s, _, err := a.d.IPIPStats()
		must(t, err)
		s.In = bpf.Stats{}.In
		return s
	}
	for _, c := range []struct {
		what, to string
		count    func(*bpf.Stats) *uint64
	}{
		{"no node", "10.66.8.1", func(s *bpf.Stats) *uint64 { return &s.Out.NoNode }},
		{"no way", "10.66.9.1", func(s *bpf.Stats) *uint64 { return &s.Out.NoWay }},
		{"no route", "10.67.0.1", func(s *bpf.Stats) *uint64 { return &s.Out.NoRoute }},
	} {
		want := out()
		*c.count(&want)++
		s := udp(t, a.ns, netip.AddrPortFrom(a.tunlAddr(), 0))
		control(t, s, func(fd int) error { return unix.BindToDevice(fd, "tunl0") })
		_, err := s.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(adr(c.to), 7))
		must(t, err)
		if got := out(); got != want || got.Dropped() == 0 {
			t.Errorf("%s: counted %+v, want %+v", c.what, got, want)
		}
	}
	wire.read(t, func(_ bool, ip []byte) { t.Errorf("% x is on the wire", ip) })
}

// A forged inner source is refused by the kernel's reverse-path filter, as with the kernel's
// own device: the packet comes in on tunl0.
func TestForgedInnerSource(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *member) {
		must(t, netlink.SetSysctls(a.ns, netlink.Sysctl{Name: "net/ipv4/conf/tunl0/rp_filter", Value: "1"}))
		got := udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 99))
		wire := newTap(t, b, "eth0")
		send := func(src netip.Addr, text string) {
			inner := ipv4(unix.IPPROTO_UDP, src, a.podAddr(), nil, datagram(5, 99, text))
			wire.send(t, a.get("eth0").Attrs().HardwareAddr, b.get("eth0").Attrs().HardwareAddr,
				ipv4(unix.IPPROTO_IPIP, b.addr, a.addr, nil, inner))
		}
		send(adr("10.66.1.3"), "bad") // a neighbour's
		send(b.addr, "bad")
		send(b.podAddr(), "good")
		if text := receive(t, got); text != "good" {
			t.Errorf("%q came", text)
		}
	})
}

// The path MTU and the links follow the routes; an explicit MTU wins.
func TestIPIPMTU(t *testing.T) {
	a, _ := twoMembers(t, EBPFIPIP, EBPFIPIP)
	mtu := func(want int) {
		t.Helper()
		a.d.Resync()
		a.sync()
		if got := a.get("tunl0").Attrs().MTU; got != want {
			t.Errorf("MTU %d, want %d", got, want)
		}
		a.quiet()
	}
	mtu(1480)
	a.viaMTU(1400)
	mtu(1380)
	must(t, a.h.LinkSetMTU(a.get("eth0"), 1300))
	mtu(1280)
	d := dataplane.NewDelta()
	tun := a.ipip()
	tun.MTU = 1250
	d.Tunnels[dataplane.DeviceIPIP] = tun
	a.d.Update(d)
	a.sync()
	mtu(1250)
}

func TestIPIPErrors(t *testing.T) {
	change := func(f func(*dataplane.Tunnel)) *dataplane.Delta {
		d := dataplane.NewDelta()
		tun := &dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Addr: adr("10.66.0.1"), Underlay: adr("10.0.0.1")}
		f(tun)
		d.Tunnels[dataplane.DeviceIPIP] = tun
		return d
	}
	vtep := func(a netip.Addr) *dataplane.Delta {
		d := change(func(*dataplane.Tunnel) {})
		d.VTEPs[vtepKey(2)] = &dataplane.VTEP{Underlay: a}
		return d
	}
	other := change(func(*dataplane.Tunnel) {})
	other.Tunnels["tunl1"], other.Tunnels["tunl0"] = other.Tunnels["tunl0"], nil
	for _, c := range []struct {
		d    *dataplane.Delta
		kind IPIPKind
		is   error
		text string
	}{
		{change(func(t *dataplane.Tunnel) { t.Underlay = adr("fd00::1") }), "", ErrInvalid, "tunnel tunl0: invalid tunnel: the underlay address fd00::1 is not of IPv4"},
		{change(func(t *dataplane.Tunnel) { t.Addr = adr("fd00::1") }), "", ErrInvalid, "tunnel address fd00::1 is not of IPv4"},
		{change(func(t *dataplane.Tunnel) { t.Family = dataplane.IPv6 }), "", ErrInvalid, "the only IPIP device is tunl0, of IPv4"},
		{change(func(t *dataplane.Tunnel) { t.MTU = -1 }), "", ErrInvalid, "the MTU -1 is negative"},
		{change(func(t *dataplane.Tunnel) { t.Underlay = adr("10.9.9.9") }), EBPFIPIP, netlink.ErrNoSuchAddr, "tunnel tunl0: no interface of this node has the address 10.9.9.9"},
		{other, "", ErrInvalid, "tunnel tunl1: invalid tunnel: the only IPIP device is tunl0"},
		{vtep(adr("fd00::2")), EBPFIPIP, ErrInvalid, "node node2 has the address fd00::2"},
		{change(func(*dataplane.Tunnel) {}), "quantum", ErrInvalid, `there is no kind "quantum" of IPIP device`},
	} {
		if c.kind == EBPFIPIP {
			needKind(t, c.kind)
		}
		x := single(t)
		x.d = New(x.h, Config{IPIP: c.kind})
		x.d.Update(c.d)
		err := x.d.Sync(ctx)
		if !errors.Is(err, c.is) || err != nil && !contains(err.Error(), c.text) {
			t.Errorf("want %q, got %v", c.text, err)
		}
	}
}

// Without the kernel's module its device is refused by name.
func TestNoModule(t *testing.T) {
	if kind, err := ProbeIPIP(); err != nil || kind == KernelIPIP {
		t.Skipf("this kernel has the module ipip (%v)", err)
	}
	x := single(t)
	x.d = New(x.h, Config{IPIP: KernelIPIP})
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = &dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Underlay: adr("10.0.0.1")}
	x.d.Update(d)
	if err := x.d.Sync(ctx); !errors.Is(err, ErrNoIPIP) || !contains(err.Error(), "ipip (CONFIG_NET_IPIP)") {
		t.Errorf("got %v", err)
	}
}

// The choice is the device that stands; else what the probe says.
func TestProbeIPIP(t *testing.T) {
	x := single(t)
	kind, err := ProbeIPIP()
	must(t, err)
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = &dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Addr: adr("10.66.0.1"), Underlay: adr("10.0.0.1")}
	x.d.Update(d)
	x.sync()
	x.quiet()
	if x.d.IPIP() != kind || kindOf(x.get("tunl0")) != kind {
		t.Errorf("the probe says %q, the driver %q, and there is a %s", kind, x.d.IPIP(), x.get("tunl0").Type())
	}
	if _, err := x.h.LinkByName("probe"); !netlink.IsNoLink(err) {
		t.Errorf("the probe left its device: %v", err)
	}
}
