package conntrack_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/calicogo/calico/conntrack"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/iptables"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
)

// world is a node with pods, each in a namespace of its own, and a host beyond its uplink.
type world struct {
	t       testing.TB
	node    int
	pods    map[int]int // namespaces
	outside int
	state   *dataplane.State
	open    opener
	rules   backend
	flows   *conntrack.Driver
	table   *netlink.Conntrack // to look at
}

var ctx = context.Background()

// backend is what holds the rules in the kernel.
type backend interface {
	dataplane.Driver
	Compilers() []*filter.Compiler
	Close()
}

// opener makes a backend of a namespace.
type opener func(ns int) (backend, error)

// backends are those that there are, by name.
var backends = map[string]opener{
	"nft":             func(ns int) (backend, error) { return nft.New(ns, nft.Config{}) },
	"iptables-nft":    func(ns int) (backend, error) { return iptables.New(ns, iptables.Config{Variant: iptables.NFT}) },
	"iptables-legacy": func(ns int) (backend, error) { return iptables.New(ns, iptables.Config{Variant: iptables.Legacy}) },
}

func newWorld(t testing.TB, pods ...int) *world {
	t.Helper()
	return newWorldOf(t, "nft", pods...)
}

// newWorldOf is newWorld with the named backend.
func newWorldOf(t testing.TB, name string, pods ...int) *world {
	t.Helper()
	for _, tool := range map[string][]string{"iptables-nft": {"iptables-nft-save", "ipset"}, "iptables-legacy": {"iptables-legacy-save", "ipset"}}[name] {
		nstest.RequireTool(t, tool)
	}
	nstest.RequireTool(t, "ip")
	w := &world{t: t, open: backends[name], node: nstest.New(t), outside: nstest.New(t), pods: map[int]int{}, state: dataplane.NewState()}
	w.sh(w.node, `sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.default.accept_dad=0`)
	for _, n := range pods {
		w.pod(n)
	}
	w.uplink()
	w.state.Sets[dataplane.SetAllPools] = members("10.65.0.0/16", "fd00:65::/64")
	w.state.Sets[dataplane.SetMasqPools] = members("10.65.0.0/16", "fd00:65::/64")
	w.start()
	var err error
	if w.table, err = netlink.OpenConntrack(w.node); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.table.Close)
	return w
}

func members(list ...string) dataplane.Members {
	m := dataplane.Members{}
	for _, s := range list {
		m[dataplane.Member{Prefix: netip.MustParsePrefix(s)}] = struct{}{}
	}
	return m
}

// start begins as a process does that knows nothing of an earlier one.
func (w *world) start() {
	w.t.Helper()
	h, err := netlink.Open(w.node)
	w.must(err)
	w.t.Cleanup(h.Close)
	w.rules, err = w.open(w.node)
	w.must(err)
	w.t.Cleanup(w.rules.Close)
	w.flows, err = conntrack.New(h, w.rules.Compilers)
	w.must(err)
	w.t.Cleanup(w.flows.Close)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sh(ns int, script string) {
	w.t.Helper()
	err := netlink.Do(ns, func() error {
		out, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	w.must(err)
}

func podAddr(n int, f dataplane.Family) netip.Addr {
	if f == dataplane.IPv4 {
		return netip.AddrFrom4([4]byte{10, 65, 0, byte(n)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:65::%x", n))
}

func iface(n int) dataplane.Interface { return dataplane.Interface(fmt.Sprint("cali", n)) }

// pod adds a pod with the n-th addresses, which everything is allowed to that no policy governs.
func (w *world) pod(n int) {
	w.t.Helper()
	ns := nstest.New(w.t)
	w.pods[n] = ns
	h, err := netlink.Open(w.node)
	w.must(err)
	defer h.Close()
	mac := fmt.Sprintf("02:00:00:00:00:%02x", n)
	w.sh(w.node, fmt.Sprintf(`ip link add cali%[1]d address ee:ee:ee:ee:ee:ee type veth peer name pod%[1]d address %[2]s
		ip link set cali%[1]d up
		for a in %[3]s %[4]s; do ip route add $a dev cali%[1]d; ip neigh add $a lladdr %[2]s nud permanent dev cali%[1]d; done`,
		n, mac, podAddr(n, 4), podAddr(n, 6)))
	l, err := h.LinkByName(fmt.Sprint("pod", n))
	w.must(err)
	w.must(h.LinkSetNsFd(l, ns))
	w.sh(ns, fmt.Sprintf(`sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.pod%[1]d.accept_dad=0
		ip link set pod%[1]d up; ip addr add %[2]s/32 dev pod%[1]d; ip -6 addr add %[3]s/128 dev pod%[1]d nodad
		ip route add 169.254.1.1 dev pod%[1]d; ip route add default via 169.254.1.1
		ip -6 route add fe80::1 dev pod%[1]d; ip -6 route add default via fe80::1 dev pod%[1]d
		for a in 169.254.1.1 fe80::1; do ip neigh add $a lladdr ee:ee:ee:ee:ee:ee nud permanent dev pod%[1]d; done`, n, podAddr(n, 4), podAddr(n, 6)))
	w.state.Endpoints[iface(n)] = w.endpoint(n)
	w.state.Policies[open] = &dataplane.Policy{ID: open, Ingress: rules(dataplane.Allow), Egress: rules(dataplane.Allow)}
}

// open is a profile that allows everything.
var open = dataplane.PolicyID{Kind: "Profile", Name: "open"}

func rules(a ...dataplane.Action) (out []dataplane.Rule) {
	for _, x := range a {
		out = append(out, dataplane.Rule{Action: x})
	}
	return out
}

func (w *world) endpoint(n int) *dataplane.Endpoint {
	return &dataplane.Endpoint{
		Interface: iface(n), Addrs: []netip.Addr{podAddr(n, 4), podAddr(n, 6)}, Profiles: []dataplane.PolicyID{open},
	}
}

func (w *world) uplink() {
	h, err := netlink.Open(w.node)
	w.must(err)
	defer h.Close()
	w.sh(w.node, `ip link add eth0 type veth peer name up0; ip link set eth0 up
		ip addr add 192.168.7.1/24 dev eth0; ip -6 addr add fd00:7::1/64 dev eth0 nodad`)
	l, err := h.LinkByName("up0")
	w.must(err)
	w.must(h.LinkSetNsFd(l, w.outside))
	w.sh(w.outside, `ip link set up0 up; ip addr add 192.168.7.9/24 dev up0; ip -6 addr add fd00:7::9/64 dev up0 nodad
		ip route add 10.65.0.0/16 via 192.168.7.1; ip -6 route add fd00:65::/64 via fd00:7::1`)
}

// apply makes the change, from datastore to flows.
func (w *world) apply(change func(*dataplane.Delta)) {
	w.t.Helper()
	d := dataplane.NewDelta()
	change(d)
	w.applyRules(d)
	w.must(w.flows.Sync(ctx))
}

// applyRules makes the change as an agent would that dies before it comes to the flows.
func (w *world) applyRules(d *dataplane.Delta) {
	w.t.Helper()
	w.state.Apply(d)
	w.rules.Update(d)
	w.flows.Update(d)
	w.must(w.rules.Sync(ctx))
}

func (w *world) applyAll() {
	w.t.Helper()
	w.applyRules(w.state.Delta())
	w.must(w.flows.Sync(ctx))
}

// flow is an exchange between two ends.
type flow struct {
	name     string
	network  string // tcp4, …
	server   net.Conn
	client   net.Conn
	src, dst netip.Addr // as the filter sees them
	dead     bool       // it is TCP's, and was cut
}

// connect opens a flow from one namespace to a listener in another, by the address dial.
func (w *world) connect(name, network string, from, to int, listen, dial string) *flow {
	w.t.Helper()
	f := &flow{name: name, network: network}
	deadline := time.Now().Add(10 * time.Second)
	if network[:3] == "tcp" {
		var l net.Listener
		w.must(netlink.Do(to, func() (err error) { l, err = net.Listen(network, listen); return err }))
		defer l.Close()
		w.must(netlink.Do(from, func() (err error) {
			f.client, err = (&net.Dialer{Deadline: deadline}).Dial(network, dial)
			return err
		}))
		_ = l.(*net.TCPListener).SetDeadline(deadline)
		var err error
		f.server, err = l.Accept()
		w.must(err)
	} else {
		var l *net.UDPConn
		at := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(listen))
		w.must(netlink.Do(to, func() (err error) { l, err = net.ListenUDP(network, at); return err }))
		w.must(netlink.Do(from, func() (err error) { f.client, err = net.Dial(network, dial); return err }))
		_, err := f.client.Write([]byte("first"))
		w.must(err)
		_ = l.SetReadDeadline(deadline)
		_, peer, err := l.ReadFromUDPAddrPort(make([]byte, 64))
		w.must(err)
		f.server = &answering{l, peer}
	}
	w.t.Cleanup(func() { f.client.Close(); f.server.Close() })
	if err := f.exchange(10 * time.Second); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return f
}

// answering is a listener of datagrams as a connection with one peer.
type answering struct {
	*net.UDPConn
	peer netip.AddrPort
}

func (a *answering) Write(b []byte) (int, error) { return a.WriteToUDPAddrPort(b, a.peer) }

// exchange sends a few bytes both ways.
func (f *flow) exchange(limit time.Duration) error {
	for _, way := range [][2]net.Conn{{f.client, f.server}, {f.server, f.client}} {
		if _, err := way[0].Write([]byte("hello")); err != nil {
			return err
		}
		_ = way[1].SetReadDeadline(time.Now().Add(limit))
		if _, err := way[1].Read(make([]byte, 64)); err != nil {
			return err
		}
	}
	return nil
}

// cut lists the flows whose mark has the bit, by source, destination and protocol.
func (w *world) cut() map[string]bool {
	w.t.Helper()
	_, bit, _ := filter.Marks(w.state.Settings.MarkMask)
	out := map[string]bool{}
	w.must(w.table.Each(netlink.Query{}, func(f *netlink.Flow) error {
		if f.Mark&bit != 0 {
			out[key(f.Source(), f.Destination(), f.Original.Protocol, f.Reply.SrcPort)] = true
		}
		return nil
	}))
	return out
}

func key(src, dst netip.Addr, protocol uint8, port uint16) string {
	return fmt.Sprintf("%v→%v/%d:%d", src, dst, protocol, port)
}
