package conntrack

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// TestFollow holds that, whatever changes come and however they meet the passes, in the end exactly the flows are marked that
// Eval denies, and exactly those are gone whose pod went. The flows are entries of the kernel's table; rules do not enter.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newFollowing(t)
	for round := range difftest.Count(t, "FOLLOW_ROUNDS", 5) {
		w.fresh()
		for range 25 {
			w.change()
			if w.g.IntN(2) == 0 {
				w.settle()
				w.compare(round)
			}
		}
		w.settle()
		w.compare(round)
	}
	t.Log(w.seen, w.d.Stats())
	for _, what := range []string{"denied", "allowed", "deleted", "another's", "under way", "failed", "refused"} {
		if w.seen[what] < 1 {
			t.Errorf("never: %s", what)
		}
	}
}

// following is a table of flows and the driver that marks them.
type following struct {
	t         *testing.T
	g         *difftest.Gen
	d         *Driver
	make      *vnl.Handle
	table     *netlink.Conntrack
	compilers []*filter.Compiler
	state     *dataplane.State
	flows     map[string]dataplane.Packet
	gone      map[netip.Addr]bool // pods had them, and then not
	seen      map[string]int
	next      int // of the flows' services

	pass  *Pass
	ended chan error
	stop  context.CancelFunc
}

func newFollowing(t *testing.T) *following {
	ns := nstest.New(t)
	w := &following{
		t: t, g: difftest.NewGen(difftest.Seed(t)), state: dataplane.NewState(), flows: map[string]dataplane.Packet{},
		gone: map[netip.Addr]bool{}, seen: map[string]int{}, ended: make(chan error, 1),
		compilers: []*filter.Compiler{filter.NewCompiler(dataplane.IPv4), filter.NewCompiler(dataplane.IPv6)},
	}
	h, err := netlink.Open(ns)
	w.must(err)
	t.Cleanup(h.Close)
	lo, err := h.LinkByName("lo")
	w.must(err)
	for _, f := range dataplane.Families {
		for _, a := range []netip.Addr{difftest.NodeAddr(f), difftest.TunnelAddr(f)} {
			w.must(h.AddrAdd(lo, &vnl.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}))
		}
	}
	w.make, err = vnl.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_NETFILTER)
	w.must(err)
	t.Cleanup(w.make.Close)
	w.table, err = netlink.OpenConntrack(ns)
	w.must(err)
	t.Cleanup(w.table.Close)
	w.d, err = New(h, func() []*filter.Compiler { return w.compilers })
	w.must(err)
	t.Cleanup(w.d.Close)
	t.Cleanup(func() {
		if w.pass != nil {
			w.stop()
			<-w.ended
		}
	})
	return w
}

func (w *following) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// fresh has flows of another state.
func (w *following) fresh() {
	w.settle()
	w.d.few = w.g.IntN(3) / 2 * fewFlows
	next := w.g.State()
	d := difftest.Between(w.state, next)
	w.hadAddrs(d)
	w.state = next
	w.step(d, false)
	w.settle()
	w.must(w.make.ConntrackTableFlush(vnl.ConntrackTable))
	clear(w.flows)
	clear(w.gone)
	for _, p := range w.g.Probes(w.state, 400) {
		p.Conn, p.Cut, p.Fragment = dataplane.ConnNew, false, false
		w.flow(p.Packet)
	}
	w.d.Resync()
	w.step(dataplane.NewDelta(), false)
	w.settle()
}

// flow has an entry made of the flow that the packet opens, which comes from where its source is.
func (w *following) flow(p dataplane.Packet) {
	if p.Protocol != dataplane.TCP && p.Protocol != dataplane.UDP || p.Src.IsMulticast() || p.Dst.IsMulticast() || p.SrcPort == 0 || p.DstPort == 0 {
		return
	}
	w.next++
	service := netip.AddrFrom4([4]byte{10, 96, byte(w.next >> 8), byte(w.next)})
	family := vnl.InetFamily(unix.AF_INET)
	if p.Src.Is6() {
		service, family = netip.MustParseAddr(fmt.Sprintf("fd00:96::%x", w.next)), unix.AF_INET6
	}
	ip := func(a netip.Addr) net.IP { return net.IP(a.AsSlice()) }
	err := w.make.ConntrackCreate(vnl.ConntrackTable, family, &vnl.ConntrackFlow{
		FamilyType: uint8(family),
		Forward:    vnl.IPTuple{SrcIP: ip(p.Src), DstIP: ip(service), SrcPort: p.SrcPort, DstPort: 1, Protocol: uint8(p.Protocol)},
		Reverse:    vnl.IPTuple{SrcIP: ip(p.Dst), DstIP: ip(p.Src), SrcPort: p.DstPort, DstPort: p.SrcPort, Protocol: uint8(p.Protocol)},
		TimeOut:    600,
	})
	if err != nil {
		w.t.Fatalf("%+v: %v", p, err)
	}
	w.flows[service.String()] = p
}

// change makes a change, or brings back what a pass has found out so far.
func (w *following) change() {
	d := w.g.Delta(w.state)
	if w.g.IntN(8) == 0 { // a pod has the address of another
		ep := w.g.Endpoint(w.g.IntN(4))
		ep.Addrs = append(ep.Addrs, difftest.PodAddr(w.g.IntN(4), difftest.Of(w.g, dataplane.Families[:]...)))
		d.Endpoints[ep.Interface] = ep
	}
	w.hadAddrs(d)
	w.state.Apply(d)
	refused := w.g.IntN(8) == 0
	if refused {
		w.seen["refused"]++
	}
	w.step(d, refused)
	if w.pass != nil && w.g.IntN(10) == 0 {
		w.stop()
	}
}

func (w *following) hadAddrs(d *dataplane.Delta) {
	for id := range d.Endpoints {
		if ep := w.state.Endpoints[id]; ep != nil {
			for _, a := range ep.Addrs {
				w.gone[a] = true
			}
		}
	}
}

// step is one of an agent's. What the kernel refuses leaves the rules as they were.
func (w *following) step(d *dataplane.Delta, refused bool) {
	for _, c := range w.compilers {
		c.Update(d)
	}
	w.d.Update(d)
	if refused {
		return
	}
	w.d.Hold()
	for _, c := range w.compilers {
		w.must(c.Settle())
	}
	if w.pass != nil {
		select {
		case err := <-w.ended:
			w.end(err)
		default:
			w.seen["under way"]++
		}
	}
	if w.pass == nil {
		w.begin()
	}
	w.d.Release()
}

func (w *following) begin() {
	w.d.budget = budget{}
	p, _ := w.d.Begin()
	if p == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	w.pass, w.stop = p, stop
	go func() { w.ended <- p.Run(ctx) }()
}

func (w *following) end(err error) {
	if err != nil {
		w.seen["failed"]++
	}
	w.stop()
	w.d.End(w.pass, err)
	w.pass = nil
}

// settle goes on until there is nothing left to do.
func (w *following) settle() {
	for w.step(dataplane.NewDelta(), false); w.pass != nil; w.step(dataplane.NewDelta(), false) {
		w.end(<-w.ended)
	}
}

// compare holds that the table is as it must be.
func (w *following) compare(round int) {
	w.t.Helper()
	_, bit, _ := filter.Marks(w.state.Settings.MarkMask)
	left := map[string]uint32{}
	w.must(w.table.Each(netlink.Query{}, func(f *netlink.Flow) error {
		left[f.Original.Dst.String()] = f.Mark
		return nil
	}))
	for name, p := range w.flows {
		mark, is := left[name]
		in, out := w.owners(p.Src), w.owners(p.Dst)
		lost := w.gone[p.Src] && len(in) == 0 || w.gone[p.Dst] && len(out) == 0
		switch {
		case !is && lost:
			w.seen["deleted"]++
			delete(w.flows, name)
		case !is && !w.gone[p.Src] && !w.gone[p.Dst]:
			w.t.Fatalf("round %d: %+v: deleted, though no pod of its went", round, p)
		case !is: // it went while the pod was not there
			delete(w.flows, name)
		case lost:
			w.t.Fatalf("round %d: %+v: still there, though its pod is not", round, p)
		case len(in)+len(out) == 0:
			w.seen["another's"]++
			if mark != 0 {
				w.t.Fatalf("round %d: %+v: mark %#x, though it is no pod's", round, p, mark)
			}
		default:
			w.marked(round, p, mark&bit != 0)
		}
	}
}

func (w *following) marked(round int, p dataplane.Packet, is bool) {
	w.t.Helper()
	denied := false
	for _, p.In = range w.devices(p.Src) {
		for _, p.Out = range w.devices(p.Dst) {
			v := dataplane.Eval(w.state, p).Verdict
			denied = denied || v != dataplane.Accept && v != dataplane.Return
		}
	}
	if denied != is {
		w.t.Fatalf("round %d: %+v: marked as denied %v, want %v\n%s", round, p, is, denied, difftest.Describe(w.state))
	}
	w.seen[map[bool]string{true: "denied", false: "allowed"}[denied]]++
}

func (w *following) owners(a netip.Addr) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(w.state.Endpoints)) {
		if slices.Contains(w.state.Endpoints[id].Addrs, a) {
			out = append(out, string(id))
		}
	}
	return out
}

// devices are those that packets with the address at this end pass.
func (w *following) devices(a netip.Addr) []string {
	if pods := w.owners(a); len(pods) > 0 {
		return pods
	}
	f := dataplane.FamilyOf(a)
	if a == difftest.NodeAddr(f) || a == difftest.TunnelAddr(f) {
		return []string{""}
	}
	return []string{difftest.Uplink}
}
