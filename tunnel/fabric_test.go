package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// member is a node with IPIP and a pod behind it: node n has 10.0.0.n, the tunnel address
// 10.66.n.1, which its pods have as gateway too, and the pod 10.66.n.2.
type member struct {
	*node
	kind IPIPKind
	addr netip.Addr // of the node
	pod  int        // the pod's namespace
	ph   *netlink.Handle
}

func (m *member) podAddr() netip.Addr  { return adr(fmt.Sprintf("10.66.%d.2", m.n)) }
func (m *member) tunlAddr() netip.Addr { return adr(fmt.Sprintf("10.66.%d.1", m.n)) }

// pairsOf are the kinds of two nodes that talk.
var pairsOf = [][2]IPIPKind{{EBPFIPIP, EBPFIPIP}, {KernelIPIP, EBPFIPIP}, {EBPFIPIP, KernelIPIP}, {KernelIPIP, KernelIPIP}}

// eachPair runs f with two nodes of each pair of kinds.
func eachPair(t *testing.T, f func(t *testing.T, a, b *member)) {
	for _, kinds := range pairsOf {
		t.Run(fmt.Sprintf("%s-%s", kinds[0], kinds[1]), func(t *testing.T) {
			a, b := twoMembers(t, kinds[0], kinds[1])
			f(t, a, b)
		})
	}
}

// needKind skips the test if there can be no device of a kind in a new namespace; where INVM
// is set, which says that this kernel was chosen because there can, it fails.
func needKind(t testing.TB, kind IPIPKind) {
	t.Helper()
	nstest.RequireRoot(t)
	why := ""
	switch got, err := ProbeIPIP(); {
	case kind == KernelIPIP && (err != nil || got != KernelIPIP):
		why = "this kernel has no module ipip: `make vm` runs this test where there is one"
	case kind == EBPFIPIP && fallback(t):
		why = "the kernel makes a tunl0 of its own in each namespace (net.core.fb_tunnels_only_for_init_net is 0)"
	}
	if why != "" && os.Getenv("INVM") != "" {
		t.Fatal(why)
	}
	if why != "" {
		t.Skip(why)
	}
}

// fallback tells whether the kernel makes a tunl0 of its own in each namespace.
func fallback(t testing.TB) bool {
	t.Helper()
	h, err := netlink.Open(nstest.New(t))
	must(t, err)
	defer h.Close()
	_, err = h.LinkByName(dataplane.DeviceIPIP)
	return err == nil
}

func newMember(t testing.TB, n int, kind IPIPKind) *member {
	t.Helper()
	needKind(t, kind)
	m := &member{node: newNode(t, n), kind: kind, addr: adr(fmt.Sprintf("10.0.0.%d", n))}
	m.d = New(m.h, Config{IPIP: kind})
	must(t, netlink.EnableForwarding(m.ns))
	m.pod = nstest.New(t)
	h, err := netlink.Open(m.pod)
	must(t, err)
	t.Cleanup(h.Close)
	m.ph = h
	must(t, m.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "cali0"}, PeerName: "eth0", PeerNamespace: vnl.NsFd(m.pod)}))
	must(t, m.h.LinkSetUp(m.get("cali0")))
	m.addr1("cali0", fmt.Sprintf("10.66.%d.1/24", n))
	p := &node{t: t, h: m.ph}
	must(t, m.ph.LinkSetUp(p.get("eth0")))
	p.addr("eth0", m.podAddr().String()+"/24")
	must(t, m.ph.RouteAdd(&vnl.Route{Gw: netlink.IP(m.tunlAddr())}))
	return m
}

func (m *member) addr1(link, p string) { m.t.Helper(); m.node.addr(link, p) }

// twoMembers are joined by their eth0, and know each other.
func twoMembers(t testing.TB, ka, kb IPIPKind) (*member, *member) {
	t.Helper()
	a, b := newMember(t, 1, ka), newMember(t, 2, kb)
	must(t, a.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: vnl.NsFd(b.ns)}))
	a.eth0()
	b.eth0()
	introduce(t, a, b)
	return a, b
}

// introduce has nodes know each other, and have routes to each other.
func introduce(t testing.TB, ms ...*member) {
	t.Helper()
	for _, m := range ms {
		d := dataplane.NewDelta()
		d.Tunnels[dataplane.DeviceIPIP] = m.ipip()
		for _, o := range ms {
			if o != m {
				d.VTEPs[vtepKey(o.n)] = &dataplane.VTEP{Underlay: o.addr, Addr: o.tunlAddr()}
			}
		}
		m.d.Update(d)
		m.sync()
		m.quiet()
		for _, o := range ms {
			if o != m {
				m.routeTo(o)
			}
		}
	}
}

func vtepKey(n int) dataplane.VTEPKey {
	return dataplane.VTEPKey{Device: dataplane.DeviceIPIP, Node: fmt.Sprint("node", n)}
}

func (m *member) ipip() *dataplane.Tunnel {
	return &dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Addr: m.tunlAddr(), Underlay: m.addr}
}

// routeTo adds the route that package route makes: via NODE dev tunl0 onlink.
func (m *member) routeTo(o *member) {
	m.t.Helper()
	must(m.t, m.h.RouteReplace(&vnl.Route{
		Dst: netlink.IPNet(netip.PrefixFrom(o.podAddr(), 24).Masked()), Gw: netlink.IP(o.addr), Flags: unix.RTNH_F_ONLINK,
		LinkIndex: m.get(dataplane.DeviceIPIP).Attrs().Index,
	}))
}

// udp opens a UDP socket in a namespace.
func udp(t testing.TB, ns int, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	must(t, netlink.Do(ns, func() (err error) { c, err = net.ListenPacket("udp4", at.String()); return err }))
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// echo answers each datagram with itself until the test ends.
func echo(t testing.TB, ns int, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	c := udp(t, ns, at)
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	return netip.AddrPortFrom(at.Addr(), uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

const patience = 10 * time.Second // more than anything takes: no test waits for it that succeeds

// asks sends n bytes with DF to an echo and waits for them.
func asks(c *net.UDPConn, to netip.AddrPort, n int) error {
	msg := make([]byte, n)
	if n >= 8 {
		binary.BigEndian.PutUint64(msg, uint64(time.Now().UnixNano()))
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.WriteToUDPAddrPort(msg, to); err != nil {
		return err
	}
	buf := make([]byte, 65536)
	for {
		got, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		if bytes.Equal(buf[:got], msg) {
			return nil
		}
	}
}

// dontFragment sets DF, and has the kernel keep to the path MTU that it learns.
func dontFragment(t *testing.T, c *net.UDPConn, mode int) {
	t.Helper()
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode) })
}

func control(t testing.TB, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	var inner error
	must(t, raw.Control(func(fd uintptr) { inner = f(int(fd)) }))
	must(t, inner)
}

// stream sends n bytes over TCP from one namespace to another, and checks what arrives.
func stream(t testing.TB, from, to int, at netip.Addr, n int) error {
	t.Helper()
	var l net.Listener
	must(t, netlink.Do(to, func() (err error) { l, err = net.Listen("tcp4", netip.AddrPortFrom(at, 0).String()); return err }))
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- netlink.Do(from, func() error {
			c, err := net.DialTimeout("tcp4", l.Addr().String(), patience)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(6 * patience))
			_, err = io.Copy(c, &pattern{left: n})
			return err
		})
	}()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		return errors.Join(err, <-sent)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(6 * patience))
	got, want := &pattern{left: n}, make([]byte, 65536)
	buf := make([]byte, 65536)
	for total := 0; ; {
		k, err := c.Read(buf)
		io.ReadFull(got, want[:k])
		if !bytes.Equal(buf[:k], want[:k]) {
			return fmt.Errorf("other bytes than were sent, after %d", total)
		}
		total += k
		if err == io.EOF {
			if total != n {
				err = fmt.Errorf("%d bytes of %d came", total, n)
			} else {
				err = nil
			}
		}
		if err != nil || k == 0 {
			return errors.Join(err, <-sent)
		}
	}
}

// pattern is a reader of bytes that tell their place.
type pattern struct{ at, left int }

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), p.left)
	for i := range b[:n] {
		b[i] = byte(p.at+i) ^ byte((p.at+i)>>8) ^ byte((p.at+i)>>16)
	}
	p.at, p.left = p.at+n, p.left-n
	return n, nil
}

// tap is a packet socket at a link of a namespace.
type tap struct{ fd int }

func newTap(t testing.TB, m *member, link string) *tap {
	t.Helper()
	var fd int
	index := m.get(link).Attrs().Index
	proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}) // as tcpdump: before tc has a say
	must(t, netlink.Do(m.ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20))
	return &tap{fd}
}

// read returns the IP packets seen so far, with what direction they had.
func (c *tap) read(t *testing.T, f func(outgoing bool, ip []byte)) {
	t.Helper()
	buf := make([]byte, 70000)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		must(t, err)
		if n < 14+20 || binary.BigEndian.Uint16(buf[12:]) != unix.ETH_P_IP {
			continue
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		f(ok && ll.Pkttype == unix.PACKET_OUTGOING, bytes.Clone(buf[14:n]))
	}
}

// send puts an IP packet on the wire, to a MAC.
func (c *tap) send(t *testing.T, dst, src net.HardwareAddr, ip []byte) {
	t.Helper()
	frame := append(append(append([]byte{}, dst...), src...), unix.ETH_P_IP>>8, unix.ETH_P_IP&0xff)
	_, err := unix.Write(c.fd, append(frame, ip...))
	must(t, err)
}

// ipv4 makes a packet.
func ipv4(proto byte, src, dst netip.Addr, change func(h []byte), payload []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	if change != nil {
		change(h)
	}
	if h[10] == 0 && h[11] == 0 {
		binary.BigEndian.PutUint16(h[10:], ^sum(0, h))
	}
	return append(h, payload...)
}

// datagram makes a UDP datagram, without checksum.
func datagram(src, dst uint16, payload string) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

// sum is the Internet checksum's sum (RFC 1071), 0xffff of what bears its checksum.
func sum(start uint32, b []byte) uint16 {
	s := start
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// statsIn is a node's counts of what came in.
type statsIn = struct {
	Packets, Bytes uint64
	Foreign        uint64
	Fragment       uint64
	Malformed      uint64
	Congested      uint64
	Failed         uint64
}

func (m *member) stats() statsIn {
	m.t.Helper()
	s, ok, err := m.d.IPIPStats()
	must(m.t, err)
	if !ok {
		m.t.Fatal("no stats")
	}
	return s.In
}

// receive returns the next datagram's text.
func receive(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	buf := make([]byte, 2000)
	c.SetReadDeadline(time.Now().Add(patience))
	n, _, err := c.ReadFromUDPAddrPort(buf)
	must(t, err)
	return string(buf[:n])
}

// via routes a prefix to a gateway on a link.
func (m *member) via(dst string, gw netip.Addr, link string) {
	m.t.Helper()
	must(m.t, m.h.RouteAdd(&vnl.Route{
		Dst: netlink.IPNet(pfx(dst)), Gw: netlink.IP(gw), Flags: unix.RTNH_F_ONLINK, LinkIndex: m.get(link).Attrs().Index,
	}))
}

// viaMTU gives the route to the other nodes an MTU.
func (m *member) viaMTU(mtu int) {
	m.t.Helper()
	must(m.t, m.h.RouteAdd(&vnl.Route{
		Dst: netlink.IPNet(pfx("10.0.0.2/32")), LinkIndex: m.get("eth0").Attrs().Index, MTU: mtu, Scope: vnl.SCOPE_LINK,
	}))
}

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !so() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s did not come", what)
		}
	}
}

func contains(s, sub string) bool { return strings.Contains(s, sub) }
