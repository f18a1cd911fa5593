package route

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run the random tests with this seed only")

	ctx = context.Background()
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a namespace with eth0 (10.0.0.1/24 and fd00::1/64), two pods' interfaces and a
// device of the name of a tunnel. The far ends of all are in the namespace too.
type host struct {
	t  *testing.T
	ns int
	h  *netlink.Handle
	d  *Driver
}

func newHost(t *testing.T) *host {
	t.Helper()
	ns := nstest.New(t)
	h, err := netlink.Open(ns)
	must(t, err)
	t.Cleanup(h.Close)
	x := &host{t: t, ns: ns, h: h, d: New(h)}
	for i, name := range []string{"eth0", "cali1", "cali2", dataplane.DeviceVXLAN} {
		x.link(name, fmt.Sprintf("far%d", i))
	}
	x.addr("eth0", "10.0.0.1/24")
	x.addr("eth0", "fd00::1/64")
	return x
}

func (x *host) link(name, far string) {
	x.t.Helper()
	must(x.t, x.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: name}, PeerName: far}))
	x.up(far)
	x.up(name)
}

func (x *host) up(name string) { x.t.Helper(); must(x.t, x.h.LinkSetUp(x.get(name))) }

func (x *host) get(name string) vnl.Link {
	x.t.Helper()
	l, err := x.h.LinkByName(name)
	must(x.t, err)
	return l
}

func (x *host) addr(link, p string) {
	x.t.Helper()
	must(x.t, x.h.AddrAdd(x.get(link), &vnl.Addr{IPNet: netlink.IPNet(pfx(p)), Flags: unix.IFA_F_NODAD}))
}

// want hands the Driver routes: "cali1", "10.65.0.1@vxlan.calico", "10.0.0.2", "blackhole",
// or "" for none.
func (x *host) want(routes map[string]string) {
	d := dataplane.NewDelta()
	for dst, s := range routes {
		d.Routes[pfx(dst)] = parse(s)
	}
	x.d.Update(d)
}

func parse(s string) *dataplane.Route {
	gw, dev, both := strings.Cut(s, "@")
	a, err := netip.ParseAddr(gw)
	switch {
	case s == "":
		return nil
	case s == "blackhole":
		return &dataplane.Route{Kind: dataplane.RouteBlackhole}
	case both:
		return &dataplane.Route{Kind: dataplane.RouteTunnel, Gateway: a, Device: dev}
	case err == nil:
		return &dataplane.Route{Kind: dataplane.RouteDirect, Gateway: a}
	default:
		return &dataplane.Route{Kind: dataplane.RouteWorkload, Device: s}
	}
}

func (x *host) sync() { x.t.Helper(); must(x.t, x.d.Sync(ctx)) }

// table is the main table but for the kernel's own routes, as `ip route` would have it.
func (x *host) table() []string {
	x.t.Helper()
	var all []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := x.h.RouteListFiltered(family, &vnl.Route{Table: unix.RT_TABLE_MAIN}, vnl.RT_FILTER_TABLE)
		must(x.t, err)
		for _, r := range rs {
			if r.Protocol != unix.RTPROT_KERNEL {
				all = append(all, x.print(r))
			}
		}
	}
	slices.Sort(all)
	return all
}

func (x *host) print(r vnl.Route) string {
	s := r.Dst.String()
	if r.Type == unix.RTN_BLACKHOLE {
		s = "blackhole " + s
	}
	if r.Gw != nil {
		s += " via " + r.Gw.String()
	}
	if l, err := x.h.LinkByIndex(r.LinkIndex); err == nil && r.Type == unix.RTN_UNICAST {
		s += " dev " + l.Attrs().Name
	}
	s += fmt.Sprintf(" proto %d", r.Protocol)
	if r.Scope == vnl.SCOPE_LINK {
		s += " link"
	}
	if r.Flags&unix.RTNH_F_ONLINK != 0 {
		s += " onlink"
	}
	if r.Priority != 0 && !(r.Family == unix.AF_INET6 && r.Priority == 1024) {
		s += fmt.Sprintf(" metric %d", r.Priority)
	}
	if r.MTU != 0 {
		s += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return s
}

func (x *host) check(want ...string) {
	x.t.Helper()
	slices.Sort(want)
	if got := x.table(); !slices.Equal(got, want) {
		x.t.Fatalf("the kernel has\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// quiet checks that a sync, with the kernel read back, writes nothing.
func (x *host) quiet() {
	x.t.Helper()
	before := x.d.Stats().Writes
	x.d.Resync()
	x.sync()
	if n := x.d.Stats().Writes - before; n != 0 {
		x.t.Fatalf("a second sync wrote %d times", n)
	}
}

var all = map[string]string{
	"10.65.1.2/32":     "cali1",
	"10.65.2.0/26":     "10.65.2.1@vxlan.calico",
	"10.65.3.0/26":     "10.0.0.2",
	"10.65.1.0/26":     "blackhole",
	"fd65:1::2/128":    "cali1",
	"fd65:1:0:2::/122": "fd65:1:0:2::1@vxlan.calico",
	"fd65:1:0:3::/122": "fd00::2",
	"fd65:1::/122":     "blackhole",
}

var allPrinted = []string{
	"10.65.1.2/32 dev cali1 proto 3 link",
	"10.65.2.0/26 via 10.65.2.1 dev vxlan.calico proto 80 onlink",
	"10.65.3.0/26 via 10.0.0.2 dev eth0 proto 80",
	"blackhole 10.65.1.0/26 proto 80",
	"fd65:1::2/128 dev cali1 proto 3",
	"fd65:1:0:2::/122 via fd65:1:0:2::1 dev vxlan.calico proto 80 onlink",
	"fd65:1:0:3::/122 via fd00::2 dev eth0 proto 80",
	"blackhole fd65:1::/122 proto 80",
}

func TestKinds(t *testing.T) {
	x := newHost(t)
	x.want(all)
	x.sync()
	x.check(allPrinted...)
	x.quiet()
	if s := x.d.Stats(); s.Routes != 8 || s.Writes != 8 || s.Lists != 2 || s.Failed != 0 {
		t.Errorf("stats %+v", s)
	}
	none := map[string]string{}
	for dst := range all {
		none[dst] = ""
	}
	x.want(none)
	x.sync()
	x.check()
	x.quiet()
}

// Any kind can become any other, and there is a route at every moment: the kernel tells of
// no deletion.
func TestChangeOfKind(t *testing.T) {
	for _, v := range [][]string{
		{"10.65.3.0/26", "10.65.2.1@vxlan.calico", "10.0.0.2", "blackhole", "cali1", "10.0.0.3"},
		{"fd65::/122", "fd65::1@vxlan.calico", "fd00::2", "blackhole", "cali1", "fd00::3"},
	} {
		x := newHost(t)
		deleted := x.deletions()
		for _, from := range v[1:] {
			for _, to := range v[1:] {
				x.want(map[string]string{v[0]: from})
				x.sync()
				writes := x.d.Stats().Writes
				deleted()
				x.want(map[string]string{v[0]: to})
				x.sync()
				if got := x.table(); len(got) != 1 {
					t.Fatalf("%s to %s left %q", from, to, got)
				}
				bridges := 0 // see batch.bridged
				n := x.d.Stats().Writes - writes
				if n == 3 && strings.Contains(to, "fd65::1@") {
					bridges = 1
				} else if from != to && n != 1 {
					t.Fatalf("%s to %s took %d writes", from, to, n)
				}
				if n := deleted(); n != bridges {
					t.Fatalf("%s to %s deleted %d routes", from, to, n)
				}
				x.quiet()
			}
		}
	}
}

// deletions watches routes; the function returned says how many were deleted since it was
// last called.
func (x *host) deletions() func() int {
	m, err := netlink.NewMonitor(x.ns, netlink.KindRoute)
	must(x.t, err)
	x.t.Cleanup(func() { m.Close() })
	events := make(chan netlink.Event, 1000)
	go m.Run(ctx, func(e netlink.Event) { events <- e })
	fence := &vnl.Route{Dst: netlink.IPNet(pfx("203.0.113.0/24")), Type: unix.RTN_BLACKHOLE, Protocol: 99}
	return func() int {
		must(x.t, x.h.RouteAdd(fence))
		must(x.t, x.h.RouteDel(fence))
		for n := 0; ; {
			e := <-events
			switch {
			case e.Deleted && e.Protocol == 99:
				return n
			case e.Deleted:
				n++
			}
		}
	}
}

func TestDriftIsRepaired(t *testing.T) {
	x := newHost(t)
	x.want(all)
	x.sync()
	eth0, cali2 := x.get("eth0").Attrs().Index, x.get("cali2").Attrs().Index
	for name, meddle := range map[string]func(){
		"a route is gone":       func() { must(t, x.h.RouteDel(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.2.0/26")), Protocol: 80})) },
		"an IPv6 route is gone": func() { must(t, x.h.RouteDel(&vnl.Route{Dst: netlink.IPNet(pfx("fd65:1::2/128"))})) },
		"a blackhole is gone": func() {
			must(t, x.h.RouteDel(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.1.0/26")), Type: unix.RTN_BLACKHOLE}))
		},
		"a route goes elsewhere": func() {
			must(t, x.h.RouteReplace(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.1.2/32")), LinkIndex: cali2, Scope: vnl.SCOPE_LINK}))
		},
		"a route has an MTU": func() {
			must(t, x.h.RouteReplace(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.1.2/32")), LinkIndex: x.get("cali1").Attrs().Index, Scope: vnl.SCOPE_LINK, Protocol: 3, MTU: 1000}))
		},
		"a direct route goes elsewhere": func() {
			must(t, x.h.RouteReplace(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.3.0/26")), LinkIndex: cali2, Gw: netlink.IP(adr("10.0.0.2")), Protocol: 80, Flags: unix.RTNH_F_ONLINK}))
		},
		"a route of protocol 80 too many": func() {
			must(t, x.h.RouteAdd(&vnl.Route{Dst: netlink.IPNet(pfx("10.66.0.0/26")), LinkIndex: eth0, Scope: vnl.SCOPE_LINK, Protocol: 80}))
		},
		"a route to a pod too many": func() { must(t, x.h.RouteAdd(&vnl.Route{Dst: netlink.IPNet(pfx("fd66::1/128")), LinkIndex: cali2})) },
		"another metric": func() {
			must(t, x.h.RouteAdd(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.1.2/32")), LinkIndex: cali2, Scope: vnl.SCOPE_LINK, Priority: 7}))
		},
		"an appended duplicate": func() {
			must(t, x.h.RouteAppend(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.1.2/32")), LinkIndex: cali2, Scope: vnl.SCOPE_LINK, Protocol: 3}))
		},
		"the pod's interface is new": func() {
			must(t, x.h.LinkDel(x.get("cali1")))
			x.link("cali1", "far1")
		},
		"an interface was down": func() {
			must(t, x.h.LinkSetDown(x.get("cali1")))
			x.up("cali1")
		},
	} {
		meddle()
		x.d.Resync()
		x.sync()
		if got := x.table(); len(got) != len(allPrinted) {
			t.Errorf("%s: %q", name, got)
		}
		x.check(allPrinted...)
		x.quiet()
	}
}

func TestForeignRoutesAreLeftAlone(t *testing.T) {
	x := newHost(t)
	eth0, cali1, tun := x.get("eth0").Attrs().Index, x.get("cali1").Attrs().Index, x.get(dataplane.DeviceVXLAN).Attrs().Index
	for _, r := range []*vnl.Route{
		{Dst: netlink.IPNet(pfx("192.168.0.0/16")), LinkIndex: eth0, Gw: netlink.IP(adr("10.0.0.9"))},
		{Dst: netlink.IPNet(pfx("10.65.3.0/26")), LinkIndex: eth0, Gw: netlink.IP(adr("10.0.0.9")), Protocol: 4},
		{Dst: netlink.IPNet(pfx("fd65:1:0:3::/122")), LinkIndex: eth0, Gw: netlink.IP(adr("fd00::9")), Protocol: 4},
		{Dst: netlink.IPNet(pfx("10.65.1.0/26")), Type: unix.RTN_BLACKHOLE, Protocol: 4},
		{Dst: netlink.IPNet(pfx("10.99.0.0/24")), Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BIRD},
		{Dst: netlink.IPNet(pfx("10.99.1.0/24")), LinkIndex: cali1, Scope: vnl.SCOPE_LINK, Protocol: unix.RTPROT_BIRD},
		{Dst: netlink.IPNet(pfx("10.99.2.0/24")), LinkIndex: tun, Scope: vnl.SCOPE_LINK, Protocol: unix.RTPROT_BIRD},
		{Dst: netlink.IPNet(pfx("10.99.3.0/24")), LinkIndex: cali1, Scope: vnl.SCOPE_LINK, Table: 100},
		{Dst: netlink.IPNet(pfx("10.99.4.0/24")), LinkIndex: eth0, Scope: vnl.SCOPE_LINK, Protocol: 80, Table: 100},
	} {
		must(t, x.h.RouteAdd(r))
	}
	before := x.table()
	x.want(all)
	err := x.d.Sync(ctx)
	failed := failures(t, err)
	blocked := []string{"10.65.1.0/26", "10.65.3.0/26", "fd65:1:0:3::/122"}
	if got := slices.Sorted(maps.Keys(failed)); !slices.Equal(got, blocked) {
		t.Fatalf("failed %q: %v", got, err)
	}
	if e := failed["10.65.3.0/26"]; !errors.Is(e, ErrForeign) || e.Error() != "route 10.65.3.0/26 via 10.0.0.2: a route that is not ours stands in the way: via 10.0.0.9 dev eth0 proto 4" {
		t.Errorf("got %v", e)
	}
	var kept []string
	for _, r := range allPrinted {
		if !slices.ContainsFunc(blocked, func(b string) bool { return strings.Contains(r, b) }) {
			kept = append(kept, r)
		}
	}
	x.check(append(kept, before...)...)
	for _, table := range []int{100} {
		rs, err := x.h.RouteListFiltered(unix.AF_INET, &vnl.Route{Table: table}, vnl.RT_FILTER_TABLE)
		if err != nil || len(rs) != 2 {
			t.Errorf("table %d has %v, %v", table, rs, err)
		}
	}
	// It goes away, and the next attempt succeeds.
	must(t, x.h.RouteDel(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.3.0/26")), Protocol: 4}))
	if failed := failures(t, x.d.Sync(ctx)); len(failed) != 2 || failed["10.65.3.0/26"] != nil {
		t.Errorf("failed %v", failed)
	}
	// One comes beside ours: to change ours would hit it.
	must(t, x.h.RouteAppend(&vnl.Route{Dst: netlink.IPNet(pfx("10.65.1.2/32")), LinkIndex: eth0, Scope: vnl.SCOPE_LINK, Protocol: 4}))
	x.want(map[string]string{"10.65.1.2/32": "cali2"})
	x.d.Resync()
	if failed := failures(t, x.d.Sync(ctx)); len(failed) != 3 || !errors.Is(failed["10.65.1.2/32"], ErrForeign) {
		t.Errorf("failed %v", failed)
	}
}

// failures are those that a partial error names.
func failures(t *testing.T, err error) map[string]error {
	t.Helper()
	var some interface{ Failed() map[string]error }
	if !errors.Is(err, reconcile.ErrPartial) || !errors.As(err, &some) {
		t.Fatalf("want an error about single routes, got %v", err)
	}
	return some.Failed()
}

func TestErrorsNameTheRoute(t *testing.T) {
	x := newHost(t)
	must(t, x.h.RouteAdd(&vnl.Route{Dst: netlink.IPNet(pfx("10.9.0.0/24")), LinkIndex: x.get("eth0").Attrs().Index, Gw: netlink.IP(adr("10.0.0.9"))}))
	must(t, x.h.LinkSetDown(x.get("cali2")))
	x.want(map[string]string{
		"10.1.0.1/32": "cali9",
		"10.1.0.2/32": "cali2",
		"10.1.0.3/32": "a-name-that-is-far-too-long",
		"10.2.0.0/26": "10.0.0.1",
		"10.2.1.0/26": "10.8.0.1",
		"10.2.2.0/26": "10.9.0.1",
		"10.2.3.0/26": "fd00::2",
		"10.2.4.1/26": "10.0.0.2",
		"10.2.5.0/26": "10.0.0.2",
		"fd01::/122":  "fd08::1",
		"10.2.6.0/26": "10.65.0.1@tunl0",
	})
	failed := failures(t, x.d.Sync(ctx))
	for dst, c := range map[string]struct {
		is   error
		text string
	}{
		"10.1.0.1/32": {ErrNoInterface, "route 10.1.0.1/32 dev cali9: the interface does not exist (yet)"},
		"10.1.0.2/32": {ErrDown, "route 10.1.0.2/32 dev cali2: the interface is down"},
		"10.1.0.3/32": {ErrInvalid, "route 10.1.0.3/32 dev a-name-that-is-far-too-long: invalid route: the name of its device is too long"},
		"10.2.0.0/26": {ErrGateway, "route 10.2.0.0/26 via 10.0.0.1: the gateway cannot be reached directly: it is an address of this node"},
		"10.2.1.0/26": {unix.ENETUNREACH, "route 10.2.1.0/26 via 10.8.0.1: the gateway cannot be reached directly: network is unreachable"},
		"10.2.2.0/26": {ErrGateway, "route 10.2.2.0/26 via 10.9.0.1: the gateway cannot be reached directly: it is not on a network of this node, but behind 10.0.0.9"},
		"10.2.3.0/26": {ErrInvalid, "route 10.2.3.0/26 via fd00::2: invalid route: its gateway fd00::2 is of the other family"},
		"10.2.4.1/26": {ErrInvalid, `route 10.2.4.1/26 via 10.0.0.2: invalid route: "10.2.4.1/26" is not a network`},
		"fd01::/122":  {ErrGateway, "route fd01::/122 via fd08::1: the gateway cannot be reached directly: network is unreachable"},
		"10.2.6.0/26": {ErrNoInterface, "route 10.2.6.0/26 via 10.65.0.1 dev tunl0: the interface does not exist (yet)"},
	} {
		err := failed[dst]
		var e *Error
		if !errors.Is(err, c.is) || !errors.As(err, &e) || e.Dst != pfx(dst) || err.Error() != c.text {
			t.Errorf("%s: got %v", dst, err)
		}
	}
	if len(failed) != 10 {
		t.Errorf("%d failed", len(failed))
	}
	x.check("10.2.5.0/26 via 10.0.0.2 dev eth0 proto 80", "10.9.0.0/24 via 10.0.0.9 dev eth0 proto 3")
}

// A pending route is set once its interface is there, and the others are left alone.
func TestPendingInterface(t *testing.T) {
	x := newHost(t)
	x.want(map[string]string{"10.1.0.1/32": "cali9", "10.1.0.2/32": "cali1"})
	failures(t, x.d.Sync(ctx))
	if w := x.d.Stats().Writes; w != 1 {
		t.Errorf("%d writes", w)
	}
	failures(t, x.d.Sync(ctx))
	x.link("cali9", "far9")
	x.sync()
	x.check("10.1.0.1/32 dev cali9 proto 3 link", "10.1.0.2/32 dev cali1 proto 3 link")
	if s := x.d.Stats(); s.Writes != 2 || s.Lists != 1 {
		t.Errorf("stats %+v", s)
	}
	// Gone with its interface, and no longer wanted: nothing to do, no error.
	must(t, x.h.LinkDel(x.get("cali9")))
	x.want(map[string]string{"10.1.0.1/32": ""})
	x.sync()
	x.check("10.1.0.2/32 dev cali1 proto 3 link")
}

// When the underlay moves to another device direct routes follow.
func TestDirectFollowsTheUnderlay(t *testing.T) {
	x := newHost(t)
	x.want(map[string]string{"10.65.3.0/26": "10.0.0.2", "fd65::/122": "fd00::2"})
	x.sync()
	x.link("eth1", "far5")
	must(t, x.h.AddrDel(x.get("eth0"), &vnl.Addr{IPNet: netlink.IPNet(pfx("10.0.0.1/24"))}))
	must(t, x.h.AddrDel(x.get("eth0"), &vnl.Addr{IPNet: netlink.IPNet(pfx("fd00::1/64"))}))
	x.addr("eth1", "10.0.0.1/24")
	x.addr("eth1", "fd00::1/64")
	x.d.Resync()
	x.sync()
	x.check("10.65.3.0/26 via 10.0.0.2 dev eth1 proto 80", "fd65::/122 via fd00::2 dev eth1 proto 80")
	x.quiet()
}

func TestInterfacePrefixes(t *testing.T) {
	x := newHost(t)
	x.link("pod1", "far5")
	x.want(map[string]string{"10.1.0.1/32": "cali1"})
	must(t, x.h.RouteAdd(&vnl.Route{Dst: netlink.IPNet(pfx("10.1.0.9/32")), LinkIndex: x.get("pod1").Attrs().Index, Scope: vnl.SCOPE_LINK}))
	x.sync()
	x.check("10.1.0.1/32 dev cali1 proto 3 link", "10.1.0.9/32 dev pod1 proto 3 link")
	d := dataplane.NewDelta()
	s := dataplane.DefaultSettings()
	s.InterfacePrefixes = []string{"pod", "cali"}
	d.Settings = &s
	x.d.Update(d)
	x.sync()
	x.check("10.1.0.1/32 dev cali1 proto 3 link")
}

// Random wanted routes, meddling and restarts of the driver end where the last wish says.
func TestRandom(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 1))
	x := newHost(t)
	want := map[string]string{}
	dsts := slices.Sorted(maps.Keys(all))
	wishes := map[bool][]string{
		true:  {"cali1", "cali2", "10.65.2.1@vxlan.calico", "10.0.0.2", "10.0.0.3", "blackhole", ""},
		false: {"cali1", "cali2", "fd65::1@vxlan.calico", "fd00::2", "fd00::3", "blackhole", ""},
	}
	for range 150 {
		for range 1 + r.IntN(4) {
			dst := dsts[r.IntN(len(dsts))]
			w := wishes[pfx(dst).Addr().Is4()]
			want[dst] = w[r.IntN(len(w))]
			x.want(map[string]string{dst: want[dst]})
		}
		switch r.IntN(6) {
		case 0:
			x.meddle(pfx(dsts[r.IntN(len(dsts))]))
			x.d.Resync()
		case 1:
			x.d = New(x.h)
			x.want(want)
		}
		x.sync()
		got := x.table()
		fresh := newPrinter(want)
		if !slices.Equal(got, fresh) {
			t.Fatalf("seed %d: kernel has\n\t%s\nwant\n\t%s", seed, strings.Join(got, "\n\t"), strings.Join(fresh, "\n\t"))
		}
	}
	x.quiet()
}

// meddle deletes the routes of a prefix.
func (x *host) meddle(dst netip.Prefix) {
	family := unix.AF_INET
	if dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	rs, err := x.h.RouteListFiltered(family, &vnl.Route{Table: unix.RT_TABLE_MAIN, Dst: netlink.IPNet(dst)}, vnl.RT_FILTER_TABLE|vnl.RT_FILTER_DST)
	must(x.t, err)
	for i := range rs {
		must(x.t, x.h.RouteDel(&rs[i]))
	}
}

// newPrinter says how the table is printed that has just the routes wanted.
func newPrinter(want map[string]string) []string {
	var all []string
	for dst, w := range want {
		v4 := pfx(dst).Addr().Is4()
		gw, dev, both := strings.Cut(w, "@")
		_, err := netip.ParseAddr(gw)
		switch {
		case w == "":
		case w == "blackhole":
			all = append(all, "blackhole "+dst+" proto 80")
		case both:
			all = append(all, dst+" via "+gw+" dev "+dev+" proto 80 onlink")
		case err == nil:
			all = append(all, dst+" via "+gw+" dev eth0 proto 80")
		case v4:
			all = append(all, dst+" dev "+w+" proto 3 link")
		default:
			all = append(all, dst+" dev "+w+" proto 3")
		}
	}
	slices.Sort(all)
	return all
}

func BenchmarkSync10kRoutes(b *testing.B) {
	ns := nstest.New(b)
	h, err := netlink.Open(ns)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	d := New(h)
	for b.Loop() {
		for _, r := range []*dataplane.Route{{Kind: dataplane.RouteBlackhole}, nil} {
			delta := dataplane.NewDelta()
			for i := range 10000 {
				delta.Routes[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)] = r
			}
			d.Update(delta)
			if err := d.Sync(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/20000, "µs/write")
}

// Many devices are looked up in one go, those that are missing among them.
func TestManyInterfaces(t *testing.T) {
	x := newHost(t)
	want := map[string]string{"10.1.1.99/32": "cali999"}
	var printed []string
	for i := range 2 * fewDevices {
		name := fmt.Sprintf("cali%d", 100+i)
		x.link(name, fmt.Sprintf("far%d", 100+i))
		dst := fmt.Sprintf("10.1.0.%d/32", i)
		want[dst] = name
		printed = append(printed, dst+" dev "+name+" proto 3 link")
	}
	x.want(want)
	if failed := failures(t, x.d.Sync(ctx)); len(failed) != 1 || !errors.Is(failed["10.1.1.99/32"], ErrNoInterface) {
		t.Fatalf("failed %v", failed)
	}
	x.check(printed...)
	x.want(map[string]string{"10.1.1.99/32": ""})
	x.sync()
	x.quiet()
}
