package difftest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	mdl "github.com/mdlayher/netlink"
	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// world is a node with pods, an uplink and a tunnel device, whose far ends are all in one
// other namespace. Frames are put on the far ends; what passes the node's hooks is seen
// by a table of the test's own, which logs after ours.
type world struct {
	t         *testing.T
	node, far int
	ct        *vnl.Handle
	frames    int             // AF_PACKET, at the far ends
	raw       map[byte]int    // raw sockets of the node, by IP version
	ends      map[string]link // by the node's device
	log       *mdl.Conn
	flows     *mdl.Conn
	id        uint32
	cpu       int // which of those it may use it sends from
}

var worlds atomic.Int32 // made so far

type link struct {
	far  int              // index of the far end
	node net.HardwareAddr // of the node's device
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, node: nstest.New(t), far: nstest.New(t), raw: map[byte]int{}, ends: map[string]link{}}
	w.id = 0xca110000 // no other packet ends so
	w.cpu = int(worlds.Add(1))
	w.sysctls()
	w.devices()
	w.addresses()
	w.sockets()
	w.observers()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// set writes sysctls of net in a namespace.
func (w *world) set(ns int, values map[string]string) {
	w.t.Helper()
	w.must(netlink.Do(ns, func() error {
		for k, v := range values {
			if err := os.WriteFile("/proc/sys/net/"+k, []byte(v), 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (w *world) sysctls() {
	w.set(w.node, map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0", "ipv4/conf/all/send_redirects": "0",
		"ipv6/conf/default/addr_gen_mode": "1", "ipv6/conf/default/accept_dad": "0",
		"ipv4/icmp_ratemask": "0", "ipv6/icmp/ratelimit": "0", "ipv6/icmp/ratemask": "", // every refusal is told
	})
	w.set(w.far, map[string]string{"ipv6/conf/default/disable_ipv6": "1", "ipv6/conf/all/disable_ipv6": "1"})
}

func (w *world) devices() {
	h, err := vnl.NewHandleAt(netns.NsHandle(w.node), unix.NETLINK_ROUTE)
	w.must(err)
	defer h.Close()
	far, err := vnl.NewHandleAt(netns.NsHandle(w.far), unix.NETLINK_ROUTE)
	w.must(err)
	defer far.Close()
	names := []string{Uplink, Tunnel}
	for i := range Pods {
		names = append(names, string(Iface(i)))
	}
	for i, name := range names {
		peer := fmt.Sprint("far", i)
		attrs := vnl.NewLinkAttrs()
		attrs.Name = name
		w.must(h.LinkAdd(&vnl.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: vnl.NsFd(w.far)}))
		near, err := h.LinkByName(name)
		w.must(err)
		w.must(h.LinkSetUp(near))
		end, err := far.LinkByName(peer)
		w.must(err)
		w.must(far.LinkSetARPOff(end))
		w.must(far.LinkSetUp(end))
		w.ends[name] = link{far: end.Attrs().Index, node: near.Attrs().HardwareAddr}
	}
}

func (w *world) addresses() {
	h, err := vnl.NewHandleAt(netns.NsHandle(w.node), unix.NETLINK_ROUTE)
	w.must(err)
	defer h.Close()
	for _, f := range dataplane.Families {
		w.address(h, Uplink, NodeAddr(f))
		w.address(h, Tunnel, TunnelAddr(f))
		w.route(h, Uplink, netip.PrefixFrom(netip.IPv4Unspecified(), 0), f)
		w.route(h, Tunnel, netip.PrefixFrom(pick2(f, "10.66.0.0", "fd00:66::"), map[dataplane.Family]int{4: 16, 6: 32}[f]), f)
		w.neighbour(h, Tunnel, tunnelled(f))
		for _, a := range outside[f] {
			w.neighbour(h, Uplink, a)
		}
		for i := range Pods {
			a := PodAddr(i, f)
			w.route(h, string(Iface(i)), netip.PrefixFrom(a, a.BitLen()), f)
			w.neighbour(h, string(Iface(i)), a)
		}
	}
}

func (w *world) index(h *vnl.Handle, name string) int {
	l, err := h.LinkByName(name)
	w.must(err)
	return l.Attrs().Index
}

func (w *world) address(h *vnl.Handle, dev string, a netip.Addr) {
	l, err := h.LinkByName(dev)
	w.must(err)
	n := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	w.must(h.AddrAdd(l, &vnl.Addr{IPNet: n, Flags: unix.IFA_F_NODAD}))
}

// route leads p to the device; a default route is made of the family.
func (w *world) route(h *vnl.Handle, dev string, p netip.Prefix, f dataplane.Family) {
	addr := p.Addr()
	if p.Bits() == 0 {
		addr = pick2(f, "0.0.0.0", "::")
	}
	dst := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(p.Bits(), addr.BitLen())}
	w.must(h.RouteAdd(&vnl.Route{LinkIndex: w.index(h, dev), Dst: dst, Scope: vnl.SCOPE_LINK}))
}

func (w *world) neighbour(h *vnl.Handle, dev string, a netip.Addr) {
	w.must(h.NeighSet(&vnl.Neigh{
		LinkIndex: w.index(h, dev), IP: a.AsSlice(), State: vnl.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	}))
}

func (w *world) sockets() {
	open := func(ns int, domain, proto int) int {
		fd := -1
		w.must(netlink.Do(ns, func() (err error) {
			fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
			return err
		}))
		w.t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	w.frames = open(w.far, unix.AF_PACKET, 0)
	w.raw[4] = open(w.node, unix.AF_INET, unix.IPPROTO_RAW)
	w.raw[6] = open(w.node, unix.AF_INET6, unix.IPPROTO_RAW)
	var err error
	w.flows, err = mdl.Dial(unix.NETLINK_NETFILTER, &mdl.Config{NetNS: w.node})
	w.must(err)
	w.t.Cleanup(func() { w.flows.Close() })
	w.ct, err = vnl.NewHandleAt(netns.NsHandle(w.node), unix.NETLINK_NETFILTER)
	w.must(err)
	w.t.Cleanup(w.ct.Close)
}

// send puts the packets on the wire, a marker behind them, and returns where each was
// seen. All are sent from one CPU, and its queue is worked off in order; so when the
// marker is seen all others have been through. Flows that are to stand are made before.
func (w *world) send(probes []Probe) ([]sight, error) {
	first := w.id + 1
	w.id += uint32(len(probes)) + 1
	if err := w.makeFlows(probes, first); err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is bound to a CPU, ends
		sent <- w.sendAll(probes, first)
	}()
	if err := <-sent; err != nil {
		return nil, err
	}
	return w.watch(first, len(probes))
}

func (w *world) sendAll(probes []Probe, first uint32) error {
	if err := bind(w.cpu); err != nil {
		return err
	}
	for i := range probes {
		if err := w.sendOne(&probes[i].Packet, first+uint32(i)); err != nil {
			return fmt.Errorf("send %+v: %w", probes[i].Packet, err)
		}
	}
	marker := dataplane.Packet{In: Uplink, Src: outside[4][0], Dst: NodeAddr(4), Protocol: 254}
	return w.sendOne(&marker, first+uint32(len(probes)))
}

// bind binds the thread to one of the CPUs that it may use, the nth or, if there are fewer, from
// the first on again.
func bind(n int) error {
	var cpus, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return err
	}
	n %= cpus.Count()
	for i := 0; one.Count() == 0; i++ {
		if !cpus.IsSet(i) {
			continue
		}
		if n == 0 {
			one.Set(i)
		}
		n--
	}
	return unix.SchedSetaffinity(0, &one)
}

func (w *world) sendOne(p *dataplane.Packet, id uint32) error {
	b := datagram(p, id)
	if p.In == "" {
		if p.Family() == dataplane.IPv4 {
			return allowed(unix.Sendto(w.raw[4], b, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()}))
		}
		return allowed(unix.Sendto(w.raw[6], b, 0, &unix.SockaddrInet6{Addr: p.Dst.As16()}))
	}
	l := w.ends[p.In]
	etherType := map[dataplane.Family]uint16{dataplane.IPv4: unix.ETH_P_IP, dataplane.IPv6: unix.ETH_P_IPV6}[p.Family()]
	frame := append(append([]byte{}, l.node...), 2, 0, 0, 0, 0, 1)
	frame = append(binary.BigEndian.AppendUint16(frame, etherType), b...)
	return unix.Sendto(w.frames, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.far})
}

// allowed passes over the error that a drop on the way out gives.
func allowed(err error) error {
	if err == unix.EPERM {
		return nil
	}
	return err
}

// forget makes every flow new again.
func (w *world) forget() error { return w.ct.ConntrackTableFlush(vnl.ConntrackTable) }
