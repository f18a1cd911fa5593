package route

import (
	"context"
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
	"github.com/calicogo/calico/netlink"
)

// watcher hands a Driver the kernel's notifications, as late as a test likes.
type watcher struct {
	*host
	events chan netlink.Event
	names  map[int]string // of links that are up
	marks  int
}

func newWatcher(t *testing.T, x *host) *watcher {
	t.Helper()
	w := &watcher{host: x, events: make(chan netlink.Event, 100_000), names: map[int]string{}}
	m, err := netlink.NewMonitor(x.ns, netlink.KindLink, netlink.KindRoute)
	must(t, err)
	links, err := x.h.Links()
	must(t, err)
	for i, l := range links {
		w.names[i] = l.Attrs().Name
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- m.Run(ctx, func(e netlink.Event) { w.events <- e }) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// some takes in up to n notifications that have come.
func (w *watcher) some(n int) {
	for range n {
		select {
		case e := <-w.events:
			w.saw(e)
		default:
			return
		}
	}
}

// all takes in the notifications of all that has happened. It reports whether there was news.
func (w *watcher) all() (news bool) {
	w.t.Helper()
	const table = 99
	w.marks++
	mark := &vnl.Route{Table: table, Type: unix.RTN_BLACKHOLE, Dst: netlink.IPNet(netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(w.marks >> 8), byte(w.marks), 0}), 24))}
	must(w.t, w.h.RouteAdd(mark))
	for e := range w.events {
		if e.Lost {
			w.t.Fatal("notifications were lost")
		}
		if e.Kind == netlink.KindRoute && e.Route.Table == table && e.Route.Dst.String() == mark.Dst.String() {
			break
		}
		news = w.saw(e) || news
	}
	return news
}

// saw does as package felix does.
func (w *watcher) saw(e netlink.Event) (news bool) {
	old := w.names[e.Link]
	switch e.Kind {
	case netlink.KindRoute:
		return w.d.Saw(e.Route, old, e.Deleted)
	case netlink.KindLink:
		if old != "" && (e.Deleted || !e.Up) {
			news = w.d.SawLink(old, true)
		}
		delete(w.names, e.Link)
		if !e.Deleted {
			news = w.d.SawLink(e.Name, false) || news
			if e.Up {
				w.names[e.Link] = e.Name
			}
		}
	}
	return news
}

// Whatever others do with routes and links, and however late the driver hears of it, once it has heard
// all it knows what a read-back would tell it.
func TestSawIsAsGoodAsAReadBack(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 2))
	x := newHost(t)
	w := newWatcher(t, x)
	want := maps.Clone(all)
	dsts := slices.Sorted(maps.Keys(all))
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	for round := range 100 {
		for range 1 + r.IntN(5) {
			dst := pfx(dsts[r.IntN(len(dsts))])
			switch r.IntN(8) {
			case 0:
				x.meddle(dst)
			case 1, 2:
				x.usurp(r, dst)
			case 3:
				l := x.get(one("cali1", "cali2", dataplane.DeviceVXLAN))
				must(t, x.h.LinkSetDown(l))
				must(t, x.h.LinkSetUp(l))
			case 4:
				l := x.get("cali1")
				must(t, x.h.LinkDel(l))
				x.link("cali1", "far1")
			case 5:
				wishes := []string{"cali1", "cali2", "10.65.2.1@vxlan.calico", "10.0.0.2", "10.0.0.3", "blackhole", ""}
				if dst.Addr().Is6() {
					wishes = []string{"cali1", "cali2", "fd65::1@vxlan.calico", "fd00::2", "fd00::3", "blackhole", ""}
				}
				want[dst.String()] = one(wishes...)
				x.want(map[string]string{dst.String(): want[dst.String()]})
			case 6:
				w.some(r.IntN(20))
			case 7:
				w.some(r.IntN(20))
				_ = x.d.Sync(ctx) // it may fail, of what is no more
			}
		}
		if round == 0 {
			x.want(want)
		}
		for tries := 0; ; tries++ { // what a Sync does is told too, and is no news in the end
			w.all()
			x.sync()
			if !w.all() {
				break
			}
			if tries == 5 {
				t.Fatalf("seed %d, round %d: its own work is always news", seed, round)
			}
		}
		if got, fresh := x.table(), newPrinter(want); !slices.Equal(got, fresh) {
			t.Fatalf("seed %d, round %d: kernel has\n\t%s\nwant\n\t%s", seed, round, strings.Join(got, "\n\t"), strings.Join(fresh, "\n\t"))
		}
		if r.IntN(4) == 0 {
			x.quiet()
		}
	}
	t.Logf("seed %d: %+v", seed, x.d.Stats())
}

// usurp makes a route of the driver's marks: in the place of the one to dst, beside it or elsewhere.
func (x *host) usurp(r *rand.Rand, dst netip.Prefix) {
	route := &vnl.Route{Dst: netlink.IPNet(dst), Protocol: protoCalico, Table: unix.RT_TABLE_MAIN}
	if r.IntN(4) == 0 {
		route.Dst = netlink.IPNet(netip.MustParsePrefix(fmt.Sprintf("10.67.%d.0/24", r.IntN(3))))
		dst = netlink.Prefix(route.Dst)
	}
	switch r.IntN(3) {
	case 0:
		route.Type = unix.RTN_BLACKHOLE
	case 1:
		route.LinkIndex = x.get("cali2").Attrs().Index
	case 2:
		route.Gw = netlink.IP(adr(map[bool]string{true: "10.0.0.7", false: "fd00::7"}[dst.Addr().Is4()]))
		route.LinkIndex = x.get("eth0").Attrs().Index
	}
	if r.IntN(3) == 0 {
		route.Priority = 7
	}
	switch r.IntN(3) {
	case 0:
		_ = x.h.RouteAdd(route)
	case 1:
		_ = x.h.RouteAppend(route)
	case 2:
		_ = x.h.RouteReplace(route)
	}
}
