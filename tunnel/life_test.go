package tunnel

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/bpf"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Three nodes in a triangle, one of them behind a router: node 1 has a link to each, and the
// programs stand on both.
func TestSeveralNodes(t *testing.T) {
	a, b := newMember(t, 1, EBPFIPIP), newMember(t, 2, EBPFIPIP)
	c, r := newMember(t, 3, EBPFIPIP), newNode(t, 9)
	must(t, netlink.EnableForwarding(r.ns))
	join := func(x *node, name, addr string, y *node, peer, peerAddr string) {
		must(t, x.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: vnl.NsFd(y.ns)}))
		must(t, x.h.LinkSetUp(x.get(name)))
		must(t, y.h.LinkSetUp(y.get(peer)))
		x.addr(name, addr)
		y.addr(peer, peerAddr)
	}
	join(a.node, "eth0", "10.0.0.1/24", b.node, "eth0", "10.0.0.2/24")
	join(a.node, "eth1", "10.0.1.1/24", r, "eth0", "10.0.1.9/24")
	join(r, "eth1", "10.0.2.9/24", c.node, "eth0", "10.0.2.3/24")
	must(t, r.h.LinkSetMTU(r.get("eth1"), 1400))
	c.addr = adr("10.0.2.3")
	via := func(x *node, dst, gw string, mtu int) {
		must(t, x.h.RouteAdd(&vnl.Route{Dst: netlink.IPNet(pfx(dst)), Gw: netlink.IP(adr(gw)), MTU: mtu}))
	}
	via(a.node, "10.0.2.0/24", "10.0.1.9", 1400)
	via(b.node, "10.0.2.0/24", "10.0.0.1", 1400) // node 1 is a router too
	via(c.node, "10.0.0.0/23", "10.0.2.9", 1400)
	via(r, "10.0.0.0/24", "10.0.1.1", 0)
	all := []*member{a, b, c}
	introduce(t, all...)
	for _, to := range all {
		at := echo(t, to.pod, netip.AddrPortFrom(to.podAddr(), 7))
		for _, from := range all {
			if from == to {
				continue
			}
			s := udp(t, from.pod, netip.AddrPortFrom(from.podAddr(), 0))
			dontFragment(t, s, unix.IP_PMTUDISC_PROBE)
			if err := asks(s, at, 1400-20-28); err != nil {
				t.Errorf("from %d to %d: %v", from.n, to.n, err)
			}
			if err := stream(t, from.pod, to.pod, to.podAddr(), 100_000); err != nil {
				t.Errorf("stream from %d to %d: %v", from.n, to.n, err)
			}
		}
	}
	for _, m := range all {
		if mtu := m.get("tunl0").Attrs().MTU; mtu != 1380 {
			t.Errorf("node %d has the MTU %d", m.n, mtu)
		}
	}
	a.standsAt("eth0", "eth1", "tunl0p")

	// The node behind the router goes: so does the program on the way to it.
	d := dataplane.NewDelta()
	d.VTEPs[vtepKey(3)] = nil
	a.d.Update(d)
	a.sync()
	a.quiet()
	a.standsAt("eth0", "tunl0p")
	if known := a.known(); known != "10.0.0.2" {
		t.Errorf("knows %s", known)
	}
}

// standsAt checks which links have filters of ours.
func (m *member) standsAt(want ...string) {
	m.t.Helper()
	links, err := bpf.Leftovers(m.h)
	must(m.t, err)
	var got []string
	for _, index := range links {
		l, err := m.h.LinkByIndex(index)
		must(m.t, err)
		got = append(got, l.Attrs().Name)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		m.t.Errorf("programs stand at %v, not %v", got, want)
	}
}

// known is whom the programs know.
func (m *member) known() string {
	m.t.Helper()
	e, err := bpf.Open(m.h)
	must(m.t, err)
	defer e.Close()
	nodes, err := e.Nodes()
	must(m.t, err)
	var s []string
	for a := range maps.Keys(nodes) {
		s = append(s, a.String())
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

// flood sends numbered datagrams from a's pod to b's, one when the one before has come back
// or a moment after, until stop is called, which tells how many were sent and which are missing.
func flood(t *testing.T, a, b *member) (stop func() (sent int, lost []uint64)) {
	t.Helper()
	at := echo(t, b.pod, netip.AddrPortFrom(b.podAddr(), 7))
	c := udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 0))
	must(t, asks(c, at, 100))
	c.SetDeadline(time.Time{})
	end, done := make(chan struct{}), make(chan struct{})
	missing, n := map[uint64]bool{}, uint64(0)
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		read := func(d time.Duration) bool {
			c.SetReadDeadline(time.Now().Add(d))
			k, _, err := c.ReadFromUDPAddrPort(buf)
			if err == nil && k == 8 {
				delete(missing, binary.BigEndian.Uint64(buf))
			}
			return err == nil
		}
		for {
			select {
			case <-end:
				for late := time.Now().Add(patience); len(missing) > 0 && time.Now().Before(late); {
					read(100 * time.Millisecond)
				}
				return
			default:
			}
			missing[n] = true
			if _, err := c.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, n), at); err != nil {
				t.Errorf("send: %v", err)
			}
			n++
			read(10 * time.Millisecond)
		}
	}()
	var once sync.Once
	halt := func() { once.Do(func() { close(end) }); <-done }
	t.Cleanup(halt)
	return func() (int, []uint64) {
		halt()
		return int(n), slices.Sorted(maps.Keys(missing))
	}
}

// A new Driver, as after `kill -9` of the agent, adopts what stands, and loses no packet; nor
// does putting the programs in place once more.
func TestRestart(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *member) {
		before := a.counted()
		stop := flood(t, a, b)
		for range 3 {
			for _, m := range []*member{a, b} {
				m.d = New(m.h, Config{IPIP: m.kind})
				d := dataplane.NewDelta()
				d.Tunnels[dataplane.DeviceIPIP] = m.ipip()
				o := a
				if m == a {
					o = b
				}
				d.VTEPs[vtepKey(o.n)] = &dataplane.VTEP{Underlay: o.addr, Addr: o.tunlAddr()}
				m.d.Update(d)
				m.sync()
				if n := m.d.Stats().Writes; n != 0 {
					t.Errorf("node %d: %d writes after a restart", m.n, n)
				}
				m.replacePrograms()
				m.quiet()
			}
		}
		if sent, lost := stop(); len(lost) > 0 {
			t.Errorf("of %d, lost %v", sent, lost)
		}
		if a.kind == EBPFIPIP && a.counted() <= before {
			t.Errorf("counts did not survive: %d, then %d", before, a.counted())
		}
	})
}

func (m *member) counted() uint64 {
	if m.kind != EBPFIPIP {
		return 0
	}
	return m.stats().Packets
}

// replacePrograms has all programs replaced by their like.
func (m *member) replacePrograms() {
	m.t.Helper()
	if m.kind != EBPFIPIP {
		return
	}
	e, err := bpf.Open(m.h)
	must(m.t, err)
	defer e.Close()
	have, err := e.Filters()
	must(m.t, err)
	for link, role := range have {
		must(m.t, e.Attach(link, role))
	}
}

// Whatever is changed by hand is put right, and packets pass again.
func TestStandInDrift(t *testing.T) {
	a, b := twoMembers(t, EBPFIPIP, EBPFIPIP)
	at := echo(t, b.pod, netip.AddrPortFrom(b.podAddr(), 7))
	c := udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 0))
	must(t, asks(c, at, 100))
	link := func(name string) vnl.Link { return a.get(name) }
	clsact := func(name string) *vnl.Clsact {
		return &vnl.Clsact{QdiscAttrs: vnl.QdiscAttrs{LinkIndex: link(name).Attrs().Index, Handle: vnl.MakeHandle(0xffff, 0), Parent: vnl.HANDLE_CLSACT}}
	}
	enc := func(f func(*bpf.Encapsulator) error) error {
		e, err := bpf.Open(a.h)
		must(t, err)
		defer e.Close()
		return f(e)
	}
	for _, c := range []struct {
		what   string
		meddle func() error
	}{
		{"tunl0 is down", func() error { return a.h.LinkSetDown(link("tunl0")) }},
		{"the peer is down", func() error { return a.h.LinkSetDown(link("tunl0p")) }},
		{"the peer is gone", func() error { return a.h.LinkDel(link("tunl0p")) }},
		{"tunl0 is another pair's", func() error {
			return errors.Join(a.h.LinkDel(link("tunl0")), a.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "tunl0"}, PeerName: "other"}))
		}},
		{"the peer is in another namespace", func() error { return a.h.LinkSetNsFd(link("tunl0p"), a.pod) }},
		{"the address is gone", func() error {
			return a.h.AddrDel(link("tunl0"), &vnl.Addr{IPNet: netlink.IPNet(netip.PrefixFrom(a.tunlAddr(), 32))})
		}},
		{"another address", func() error { return a.h.AddrAdd(link("tunl0"), &vnl.Addr{IPNet: netlink.IPNet(pfx("10.7.7.7/32"))}) }},
		{"another MTU", func() error { return a.h.LinkSetMTU(link("tunl0"), 1000) }},
		{"another MTU of the peer", func() error { return a.h.LinkSetMTU(link("tunl0p"), 1000) }},
		{"ARP", func() error { return a.h.LinkSetARPOn(link("tunl0")) }},
		{"another MAC address", func() error { return a.h.LinkSetHardwareAddr(link("tunl0"), mustMAC(t, "02:00:00:00:00:77")) }},
		{"no qdisc at the peer", func() error { return a.h.QdiscDel(clsact("tunl0p")) }},
		{"no qdisc at the underlay", func() error { return a.h.QdiscDel(clsact("eth0")) }},
		{"no filter at the underlay", func() error { return bpf.Detach(a.h, link("eth0").Attrs().Index) }},
		{"a filter too many", func() error {
			return enc(func(e *bpf.Encapsulator) error { return e.Attach(link("cali0").Attrs().Index, bpf.Decapsulates) })
		}},
		{"the wrong program", func() error {
			return enc(func(e *bpf.Encapsulator) error { return e.Attach(link("eth0").Attrs().Index, bpf.Encapsulates) })
		}},
		{"a node forgotten", func() error { return enc(func(e *bpf.Encapsulator) error { return e.DeleteNode(b.addr) }) }},
		{"a node too many", func() error { return enc(func(e *bpf.Encapsulator) error { return e.AddNode(adr("10.0.0.77")) }) }},
		{"another configuration", func() error {
			return enc(func(e *bpf.Encapsulator) error { return e.SetConfig(bpf.Config{Local: adr("10.0.0.78")}) })
		}},
	} {
		must(t, c.meddle())
		a.d.Resync()
		a.sync()
		a.routeTo(b) // what goes with the device is package route's
		a.carries()
		if err := asks(udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 0)), at, 1400); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		a.standsAt("eth0", "tunl0p")
		if known := a.known(); known != "10.0.0.2" {
			t.Errorf("%s: knows %s", c.what, known)
		}
		if mtu := a.get("tunl0").Attrs().MTU; mtu != 1480 {
			t.Errorf("%s: MTU %d", c.what, mtu)
		}
		if as, err := a.d.kernel.addrs(a.get("tunl0")); err != nil || len(as) != 1 || as[0].Addr() != a.tunlAddr() {
			t.Errorf("%s: addresses %v, %v", c.what, as, err)
		}
		a.quiet()
	}
	if on, err := a.h.Features(a.get("tunl0").Attrs().Index); err != nil || slices.ContainsFunc(notOffloaded, func(n string) bool { return on[n] }) {
		t.Errorf("features %v, %v", on, err)
	}
}

// carries waits until the kernel has noticed that the devices are up, which it does a moment
// after it says so.
func (m *member) carries() {
	m.t.Helper()
	for _, name := range []string{"tunl0", "tunl0p"} {
		waitFor(m.t, name+" going up", func() bool {
			l, err := m.h.LinkByName(name)
			return netlink.IsNoLink(err) || err == nil && l.Attrs().OperState != vnl.OperDown && l.Attrs().OperState != vnl.OperLowerLayerDown
		})
	}
}

// What is not wanted any more leaves nothing; what is somebody else's stays as it was.
func TestRemoval(t *testing.T) {
	a, _ := twoMembers(t, EBPFIPIP, EBPFIPIP)
	eth0 := a.get("eth0").Attrs().Index
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = nil
	d.VTEPs[vtepKey(2)] = nil
	for _, c := range []struct {
		what   string
		driver func() *Driver
	}{
		{"by the same driver", func() *Driver { return a.d }},
		{"by a new one", func() *Driver { return New(a.h, Config{}) }},
	} {
		a.d = c.driver()
		a.d.Update(d)
		a.sync()
		a.quiet()
		for _, name := range []string{"tunl0", "tunl0p"} {
			if _, err := a.h.LinkByName(name); !netlink.IsNoLink(err) {
				t.Errorf("%s: left %s: %v", c.what, name, err)
			}
		}
		qs, err := a.h.QdiscList(a.get("eth0"))
		must(t, err)
		for _, q := range qs {
			if q.Type() == "clsact" {
				t.Errorf("%s: left a qdisc", c.what)
			}
		}
		back := dataplane.NewDelta()
		back.Tunnels[dataplane.DeviceIPIP] = a.ipip()
		back.VTEPs[vtepKey(2)] = &dataplane.VTEP{Underlay: adr("10.0.0.2")}
		a.d.Update(back)
		a.sync()
		a.standsAt("eth0", "tunl0p")
	}

	// Now eth0's qdisc is ours and a filter on it is not: both stay. Then neither is.
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, License: "Dual BSD/GPL",
	})
	must(t, err)
	defer pass.Close()
	foreign := &vnl.BpfFilter{FilterAttrs: vnl.FilterAttrs{
		LinkIndex: eth0, Parent: vnl.HANDLE_MIN_EGRESS, Handle: 1, Priority: 7, Protocol: unix.ETH_P_ALL,
	}, Fd: pass.FD(), Name: "foreign", DirectAction: true}
	must(t, a.h.FilterAdd(foreign))
	for _, what := range []string{"a qdisc of ours", "a qdisc of somebody else's"} {
		a.d.Update(d)
		a.sync()
		a.quiet()
		fs, err := a.h.FilterList(a.get("eth0"), vnl.HANDLE_MIN_EGRESS)
		if err != nil || len(fs) != 1 {
			t.Errorf("%s: the foreign filter is not what it was: %v, %v", what, fs, err)
		}
		a.standsAt()
		back := dataplane.NewDelta()
		back.Tunnels[dataplane.DeviceIPIP] = a.ipip()
		a.d.Update(back)
		a.sync()
	}
	must(t, a.h.FilterDel(foreign))
	a.d.Update(d)
	a.sync()
	qs, err := a.h.QdiscList(a.get("eth0"))
	must(t, err)
	if !slices.ContainsFunc(qs, func(q vnl.Qdisc) bool { return q.Type() == "clsact" }) {
		t.Error("an empty qdisc that we did not make was removed")
	}
}

// A device that is neither kind's is somebody else's.
func TestForeignDevice(t *testing.T) {
	needKind(t, EBPFIPIP)
	x := single(t)
	must(t, x.h.LinkAdd(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "tunl0"}}))
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = &dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Underlay: adr("10.0.0.1")}
	x.d.Update(d)
	if err := x.d.Sync(ctx); !errors.Is(err, ErrForeign) || !contains(err.Error(), "bridge") {
		t.Errorf("got %v", err)
	}
	d.Tunnels[dataplane.DeviceIPIP] = nil
	x.d.Update(d)
	x.sync()
	x.get("tunl0")
}

// The kernel's device: drift is repaired, and one that we made goes.
func TestKernelDevice(t *testing.T) {
	a, b := twoMembers(t, KernelIPIP, EBPFIPIP)
	at := echo(t, b.pod, netip.AddrPortFrom(b.podAddr(), 7))
	for _, c := range []struct {
		what   string
		meddle func(l vnl.Link) error
	}{
		{"down", func(l vnl.Link) error { return a.h.LinkSetDown(l) }},
		{"MTU", func(l vnl.Link) error { return a.h.LinkSetMTU(l, 1000) }},
		{"address", func(l vnl.Link) error { return a.h.AddrAdd(l, &vnl.Addr{IPNet: netlink.IPNet(pfx("10.7.7.7/32"))}) }},
		{"alias", func(l vnl.Link) error { return a.h.LinkSetAlias(l, "") }},
		{"gone", func(l vnl.Link) error { return a.h.LinkDel(l) }},
	} {
		must(t, c.meddle(a.get("tunl0")))
		a.d.Resync()
		a.sync()
		a.quiet()
		a.routeTo(b)
		a.carries()
		if err := asks(udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 0)), at, 1400); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	a.forget()
	if _, err := a.h.LinkByName("tunl0"); !netlink.IsNoLink(err) {
		t.Errorf("left tunl0: %v", err)
	}
}

func (m *member) forget() {
	m.t.Helper()
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = nil
	for n := range 10 {
		d.VTEPs[vtepKey(n)] = nil
	}
	m.d.Update(d)
	m.sync()
	m.quiet()
}

// An explicit choice replaces what stands; the automatic one keeps it.
func TestChangeOfKind(t *testing.T) {
	a, b := twoMembers(t, KernelIPIP, EBPFIPIP)
	at := echo(t, b.pod, netip.AddrPortFrom(b.podAddr(), 7))
	for _, c := range []struct{ choice, want IPIPKind }{
		{AutoIPIP, KernelIPIP}, {EBPFIPIP, EBPFIPIP}, {AutoIPIP, EBPFIPIP}, {KernelIPIP, KernelIPIP}, {AutoIPIP, KernelIPIP},
	} {
		a.d = New(a.h, Config{IPIP: c.choice})
		a.kind = c.choice
		introduce(t, a, b)
		a.carries()
		if got := kindOf(a.get("tunl0")); got != c.want || a.d.IPIP() != c.want {
			t.Errorf("choice %q: %q stands, %q is said", c.choice, got, a.d.IPIP())
		}
		if err := asks(udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 0)), at, 1400); err != nil {
			t.Errorf("choice %q: %v", c.choice, err)
		}
		if c.want == KernelIPIP {
			a.standsAt()
		}
	}
}

// Where the kernel makes a tunl0 of its own it is adopted, never removed, and left as it was.
func TestFallback(t *testing.T) {
	if !fallback(t) {
		t.Skip("the kernel makes no tunl0 of its own in new namespaces")
	}
	a, b := twoMembers(t, AutoIPIP, AutoIPIP)
	at := echo(t, b.pod, netip.AddrPortFrom(b.podAddr(), 7))
	must(t, asks(udp(t, a.pod, netip.AddrPortFrom(a.podAddr(), 0)), at, 1400))
	index := a.get("tunl0").Attrs().Index
	a.d = New(a.h, Config{})
	a.forget()
	l := a.get("tunl0")
	if at := l.Attrs(); at.Index != index || at.Alias != "" || at.Flags&1 != 0 {
		t.Errorf("left %+v", at)
	}
	if as, err := a.d.kernel.addrs(l); err != nil || len(as) > 0 {
		t.Errorf("left the addresses %v, %v", as, err)
	}
	a.d = New(a.h, Config{IPIP: EBPFIPIP})
	d := dataplane.NewDelta()
	d.Tunnels[dataplane.DeviceIPIP] = a.ipip()
	a.d.Update(d)
	if err := a.d.Sync(ctx); err == nil || !contains(err.Error(), "cannot be removed") {
		t.Errorf("the stand-in beside the kernel's tunl0: %v", err)
	}
}
