package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
)

// runPath measures round trips between the world and a pod through the rules of so many endpoints and
// policies, beside those through a machine that tracks connections and has no rules. One thread is both ends, so
// that nothing is measured but the path.
func runPath(ctx context.Context, b *bench) error {
	p, bare := b.newPath(0, "10.65.0.0"), b.newPath(1, "10.64.0.0")
	must(b.nfnetlinkIn(bare.machine.netns).commit(newTable(), forwardChain("forward"), newRule("forward", connState())))
	for _, endpoints := range []int{0, 1, 100, 1000} {
		b.path(ctx, endpoints, p, bare)
	}
	return nil
}

// connState loads the state of connection tracking, which the kernel begins with that.
func connState() []byte {
	const state = 0
	return expression("ct", attr(unix.NFTA_CT_DREG, be32(unix.NFT_REG_1)), attr(unix.NFTA_CT_KEY, be32(state)))
}

// path is a machine with a pod, whose device is cali0.
type path struct {
	machine *machine
	pod     *netns
	world   netip.Addr // by which the pod knows the world
	addr    netip.Addr
}

func (b *bench) newPath(i int, addr string) *path {
	p := &path{machine: got(newMachine(i)), pod: got(newNS()), addr: netip.MustParseAddr(addr)}
	b.cleanup(p.machine.close)
	b.cleanup(p.pod.close)
	must(bareWire(p.machine, p.pod, "cali0", p.addr))
	p.world = netip.AddrFrom4([4]byte{172, byte(30 + i), 0, 1})
	h := got(netlink.Open(netlink.Current))
	defer h.Close()
	must(h.RouteReplace(&vnl.Route{Dst: single(p.addr), Gw: netlink.IP(p.machine.addr)}))
	return p
}

// path measures with so many endpoints of ten policies each; 0: one endpoint without policies.
func (b *bench) path(ctx context.Context, endpoints int, p, bare *path) {
	d := got(nft.New(int(p.machine.Fd()), nft.Config{}))
	defer d.Close()
	d.Update(pathState(endpoints, p.world).Delta())
	must(d.Sync(ctx))
	for _, kind := range []string{"UDP, new flow", "UDP", "TCP"} {
		var ours, floor samples
		a, c := newTrip(p, kind), newTrip(bare, kind)
		for range b.n(3000, 20_000) {
			ours.add(a.once())
			floor.add(c.once())
		}
		a.close()
		c.close()
		b.report(result{What: fmt.Sprintf("%s, round trip, nft, %d policies, %d endpoints", kind, endpoints*rulesEach, max(1, endpoints)), Unit: "µs", Ours: ours, Floor: floor})
	}
	must(netlink.Do(int(p.machine.Fd()), flushTables))
}

// pathState lets in what comes from the world by the last of the policies of the first endpoint.
func pathState(endpoints int, world netip.Addr) *dataplane.State {
	s := rulesState(max(1, endpoints), max(1, endpoints))
	ep := s.Endpoints[rulesEndpoint(0).Interface]
	all := dataplane.PolicyID{Kind: "Profile", Name: "all"}
	s.Policies[all] = &dataplane.Policy{ID: all, Ingress: []dataplane.Rule{{Action: dataplane.Allow}}, Egress: []dataplane.Rule{{Action: dataplane.Allow}}}
	ep.Profiles = []dataplane.PolicyID{all}
	if endpoints == 0 {
		ep.Ingress = nil
		return s
	}
	for i := range rulesEach {
		r := &s.Policies[rulesPolicy(i)].Ingress[0]
		r.Protocol, r.Dst.Ports = 0, []dataplane.PortRange{{Min: tripPort, Max: tripPort}}
	}
	s.Sets[rulesSet(rulesEach-1)][dataplane.Member{Prefix: netip.PrefixFrom(world, 32)}] = struct{}{}
	return s
}

const tripPort = 7000

// trip is a pair of sockets, of the world's and of the pod's.
type trip struct {
	path      *path
	kind      string
	near, far int
	buf       [64]byte
	everyTime bool // a new near socket for each
}

func newTrip(p *path, kind string) *trip {
	t := &trip{path: p, kind: kind, near: -1, everyTime: kind == "UDP, new flow"}
	sort := unix.SOCK_DGRAM
	if kind == "TCP" {
		sort = unix.SOCK_STREAM
	}
	must(netlink.Do(int(p.pod.Fd()), func() (err error) {
		if t.far, err = unix.Socket(unix.AF_INET, sort|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(t.far, &unix.SockaddrInet4{Port: tripPort})
	}))
	if kind == "TCP" {
		must(unix.Listen(t.far, 1))
	}
	t.dial(sort)
	if kind == "TCP" {
		fd, _, err := unix.Accept(t.far)
		must(err)
		unix.Close(t.far)
		t.far = fd
		for _, fd := range []int{t.near, t.far} {
			must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
		}
	}
	return t
}

func (t *trip) dial(sort int) {
	if t.near >= 0 {
		unix.Close(t.near)
	}
	t.near = got(unix.Socket(unix.AF_INET, sort|unix.SOCK_CLOEXEC, 0))
	for _, fd := range []int{t.near, t.far} {
		must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	}
	must(unix.Connect(t.near, &unix.SockaddrInet4{Port: tripPort, Addr: t.path.addr.As4()}))
}

// once sends there and back and returns how many microseconds it took.
func (t *trip) once() float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if t.everyTime {
		t.dial(unix.SOCK_DGRAM)
	}
	start := time.Now()
	must(unix.Sendto(t.near, t.buf[:32], 0, nil))
	_, from, err := unix.Recvfrom(t.far, t.buf[:], 0)
	must(err)
	if t.kind == "TCP" {
		from = nil
	}
	must(unix.Sendto(t.far, t.buf[:32], 0, from))
	_, _, err = unix.Recvfrom(t.near, t.buf[:], 0)
	must(err)
	return float64(time.Since(start)) / float64(time.Microsecond)
}

func (t *trip) close() {
	unix.Close(t.near)
	unix.Close(t.far)
}
