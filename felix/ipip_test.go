package felix

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/tunnel"
)

var (
	thisNode, otherNode, stranger = netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.0.66")
	thisTunnel, otherPod          = netip.MustParseAddr("10.65.0.64"), netip.MustParseAddr("10.65.1.5")
)

// wantedIPIP is what another node behind an IPIP tunnel takes.
func wantedIPIP() *dataplane.Delta {
	s := dataplane.NewState()
	s.Sets[dataplane.SetNodes] = dataplane.Members{{Prefix: prefix("192.168.0.2/32")}: {}}
	s.Tunnels[dataplane.DeviceIPIP] = dataplane.Tunnel{Encap: dataplane.IPIP, Family: dataplane.IPv4, Addr: thisTunnel, Underlay: thisNode}
	s.VTEPs[dataplane.VTEPKey{Device: dataplane.DeviceIPIP, Node: "n2"}] = dataplane.VTEP{Underlay: otherNode, Addr: netip.MustParseAddr("10.65.1.0")}
	s.Routes[prefix("10.65.1.0/26")] = dataplane.Route{Kind: dataplane.RouteTunnel, Device: dataplane.DeviceIPIP, Gateway: otherNode}
	return s.Delta()
}

// What others do to tunl0, and to what belongs to it, is put right; the MTU follows the route.
func TestIPIPDriftIsMended(t *testing.T) {
	t.Parallel() // it waits most of its time
	nstest.RequireTool(t, "tc")
	w := newWorldOf(t, wantedIPIP)
	if w.tunnels.IPIP() != tunnel.EBPFIPIP {
		t.Skip("this kernel has the module ipip: package tunnel tests its device")
	}
	state := func() string {
		return sh(t, w.ns, `
			ip -br link show dev tunl0 2>&1 | sed 's/@.*//'; ip -br addr show dev tunl0 2>&1 | sed 's/@[^ ]*//' || true
			ip link show dev tunl0 2>&1 | grep -o 'mtu [0-9]*' || true; ip route show dev tunl0 2>&1 || true
			for l in eth0 tunl0p docker0; do tc filter show dev $l ingress 2>&1 | grep -o 'calico_[a-z_]*' || true; done`)
	}
	want := state()
	if strings.Count(want, "calico_ipip") != 2 || !strings.Contains(want, "mtu 1480") {
		t.Fatalf("got\n%s", want)
	}
	for _, c := range []struct{ name, script, was, is string }{
		{"no qdisc on the underlay", "tc qdisc del dev eth0 clsact", "", ""},
		{"no qdisc on the peer", "tc qdisc del dev tunl0p clsact", "", ""},
		{"no filter on the underlay", "tc filter del dev eth0 ingress", "", ""},
		{"tunl0 is down", "ip link set tunl0 down", "", ""},
		{"the peer is down", "ip link set tunl0p down", "", ""},
		{"no address", "ip addr del 10.65.0.64/32 dev tunl0", "", ""},
		{"no device", "ip link del tunl0", "", ""},
		{"no peer", "ip link del tunl0p", "", ""},
		{"another MTU", "ip link set tunl0 mtu 1300", "", ""},
		{"another link to the node", "ip route add 192.168.0.2 dev docker0 mtu 1400", "mtu 1480", "mtu 1380"},
		{"the same link again", "ip route del 192.168.0.2 dev docker0", "mtu 1380", "mtu 1480"},
	} {
		want := want
		if c.is == "mtu 1380" {
			want = strings.Replace(want, c.was, c.is, 1) + "calico_ipip_in\n" // on docker0 too
		}
		w.t = t
		sh(t, w.ns, c.script)
		got := ""
		defer func() {
			if t.Failed() {
				t.Logf("%s: got\n%s\nwant\n%s", c.name, got, want)
			}
		}()
		w.until(c.name, func() bool { got = state(); return got == want })
	}
}

// packets is a packet socket at the far end of the underlay.
type packets struct {
	t  *testing.T
	fd int
}

func farEnd(t *testing.T, ns int) *packets {
	t.Helper()
	p := &packets{t: t}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	err := netlink.Do(ns, func() (err error) {
		link, err := net.InterfaceByName("eth0p")
		if err != nil {
			return err
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		return errors.Join(unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
			unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p.fd) })
	return p
}

// sends puts an IPIP packet with a datagram for port 99 of this node's tunnel address on the wire.
func (p *packets) sends(from netip.Addr, text string) {
	p.t.Helper()
	udp := append([]byte{0, 9, 0, 99, 0, byte(8 + len(text)), 0, 0}, text...)
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, // eth0 has this MAC
		header(unix.IPPROTO_IPIP, from, thisNode, 20+len(udp))...)
	frame = append(append(frame, header(unix.IPPROTO_UDP, otherPod, thisTunnel, len(udp))...), udp...)
	if _, err := unix.Write(p.fd, frame); err != nil {
		p.t.Fatal(err)
	}
}

// header is an IPv4 header.
func header(proto byte, src, dst netip.Addr, payload int) []byte {
	h := make([]byte, 20)
	h[0], h[3], h[8], h[9] = 0x45, byte(20+payload), 64, proto
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum&0xffff+sum>>16))
	return h
}

// inner returns the addresses, outer and inner, of the next IPIP packet that carries text.
func (p *packets) inner(text string) (outer, inner [2]netip.Addr) {
	p.t.Helper()
	buf := make([]byte, 2000)
	for {
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			p.t.Fatalf("no packet with %q came: %v", text, err)
		}
		if n < 14+40 || buf[12] != 8 || buf[14+9] != unix.IPPROTO_IPIP || !strings.HasSuffix(string(buf[:n]), text) {
			continue
		}
		pair := func(b []byte) [2]netip.Addr {
			return [2]netip.Addr{netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))}
		}
		return pair(buf[14:]), pair(buf[34:])
	}
}

// Rules and tunnel together, with the kernel's device or what stands in for it: IPIP from an
// address that is no node's is refused; what the node itself sends to another's pod carries
// the tunnel's address, whatever address it was sent from.
func TestIPIPAddresses(t *testing.T) {
	w := newWorldOf(t, wantedIPIP)
	if os.Getenv("INVM") != "" && w.tunnels.IPIP() != tunnel.KernelIPIP {
		t.Fatalf("tunl0 is of kind %q", w.tunnels.IPIP())
	}
	sh(t, w.ns, `ip link set eth0 address 02:00:00:00:00:01; ip neigh replace 192.168.0.2 lladdr 02:00:00:00:00:02 dev eth0`)
	far := farEnd(t, w.ns)
	var c net.PacketConn
	listen := func(at string) net.PacketConn {
		if err := netlink.Do(w.ns, func() (err error) { c, err = net.ListenPacket("udp4", at); return err }); err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c
	}
	at := listen(thisTunnel.String() + ":99")
	for range 3 {
		far.sends(stranger, "bad")
		far.sends(otherNode, "good")
		buf := make([]byte, 100)
		n, _, err := at.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "good" {
			t.Fatalf("%q came, %v", buf[:n], err)
		}
	}
	for _, from := range []string{"0.0.0.0:0", thisNode.String() + ":0", thisTunnel.String() + ":0"} {
		text := "from " + from
		if _, err := listen(from).WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.AddrPortFrom(otherPod, 7))); err != nil {
			t.Fatal(err)
		}
		outer, inner := far.inner(text)
		if outer != [2]netip.Addr{thisNode, otherNode} || inner != [2]netip.Addr{thisTunnel, otherPod} {
			t.Errorf("%s: %v carries %v", text, outer, inner)
		}
	}
}
