package netlink_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

func open(t *testing.T, ns int) *netlink.Handle {
	t.Helper()
	h, err := netlink.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// watch runs a monitor and returns its events.
func watch(t *testing.T, ns int, kinds ...netlink.Kind) <-chan netlink.Event {
	t.Helper()
	m, err := netlink.NewMonitor(ns, kinds...)
	must(t, err)
	return run(t, m)
}

func run(t *testing.T, m *netlink.Monitor) <-chan netlink.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan netlink.Event, 1000)
	done := make(chan error)
	go func() { done <- m.Run(ctx, func(e netlink.Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return events
}

// await waits for an event that ok takes.
func await(t *testing.T, events <-chan netlink.Event, what string, ok func(netlink.Event) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-events:
			if ok(e) {
				return
			}
		case <-deadline:
			t.Fatalf("no event: %s", what)
		}
	}
}

func TestMonitor(t *testing.T) {
	ns := nstest.New(t)
	h := open(t, ns)
	events := watch(t, ns, netlink.KindLink, netlink.KindAddr, netlink.KindRoute, netlink.KindNeigh)

	link := &vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "cali1"}, PeerName: "peer1"}
	must(t, h.LinkAdd(link))
	peer, err := h.LinkByName("peer1")
	must(t, err)
	must(t, h.LinkSetUp(peer))
	must(t, h.LinkSetUp(link))
	l, err := h.LinkByName("cali1")
	must(t, err)
	index := l.Attrs().Index
	await(t, events, "link up", func(e netlink.Event) bool {
		return e.Kind == netlink.KindLink && e.Name == "cali1" && e.Link == index && e.Up && e.Undoes()
	})
	must(t, h.AddrAdd(l, &vnl.Addr{IPNet: netlink.IPNet(netip.MustParsePrefix("10.0.0.1/24"))}))
	await(t, events, "address", func(e netlink.Event) bool {
		return e.Kind == netlink.KindAddr && e.Link == index && !e.Deleted && !e.Undoes()
	})
	r := &vnl.Route{LinkIndex: index, Dst: netlink.IPNet(netip.MustParsePrefix("10.1.0.0/24")), Protocol: 80, Scope: vnl.SCOPE_LINK}
	must(t, h.RouteAdd(r))
	await(t, events, "route", func(e netlink.Event) bool {
		return e.Kind == netlink.KindRoute && e.Link == index && e.Protocol == 80 && !e.Undoes()
	})
	must(t, h.RouteDel(r))
	await(t, events, "route gone", func(e netlink.Event) bool {
		return e.Kind == netlink.KindRoute && e.Protocol == 80 && e.Deleted && e.Undoes()
	})
	n := &vnl.Neigh{LinkIndex: index, State: vnl.NUD_PERMANENT, IP: netlink.IP(netip.MustParseAddr("10.0.0.9")), HardwareAddr: []byte{2, 0, 0, 0, 0, 9}}
	must(t, h.NeighSet(n))
	await(t, events, "neighbour", func(e netlink.Event) bool { return e.Kind == netlink.KindNeigh && e.Link == index && !e.Deleted })
	must(t, h.LinkDel(l))
	await(t, events, "link gone", func(e netlink.Event) bool {
		return e.Kind == netlink.KindLink && e.Name == "cali1" && e.Deleted
	})
}

// A monitor that is not listened to says that it lost changes, and goes on.
func TestMonitorOverflow(t *testing.T) {
	ns := nstest.New(t)
	h := open(t, ns)
	m, err := netlink.NewMonitor(ns, netlink.KindRoute)
	must(t, err)
	lo, err := h.LinkByName("lo")
	must(t, err)
	r := &vnl.Route{LinkIndex: lo.Attrs().Index, Dst: netlink.IPNet(netip.MustParsePrefix("10.1.0.0/24")), Scope: vnl.SCOPE_LINK}
	for range 12000 { // 2 × 12000 messages of at least 400 bytes, accounted by the kernel
		must(t, h.RouteAdd(r))
		must(t, h.RouteDel(r))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lost := false
	var changes sync.WaitGroup
	err = m.Run(ctx, func(e netlink.Event) {
		if e.Lost {
			lost = true
			changes.Go(func() { // one more change must still be told
				if err := h.RouteReplace(r); err != nil {
					t.Error(err)
				}
			})
		} else if lost {
			cancel()
		}
	})
	changes.Wait()
	if !errors.Is(err, context.Canceled) || !lost {
		t.Fatalf("lost %v: %v", lost, err)
	}
}

func TestMonitorClose(t *testing.T) {
	m, err := netlink.NewMonitor(nstest.New(t), netlink.KindLink)
	must(t, err)
	must(t, m.Close())
	if err := m.Run(context.Background(), func(netlink.Event) {}); err != nil {
		t.Fatal(err)
	}
}

func TestEnableForwarding(t *testing.T) {
	ns := nstest.New(t)
	files := []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"}
	read := func() string {
		var all []string
		must(t, netlink.Do(ns, func() error {
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				all = append(all, strings.TrimSpace(string(b)))
			}
			return nil
		}))
		return strings.Join(all, " ")
	}
	if got := read(); got == "1 1" {
		t.Fatal("a new namespace forwards already: this test shows nothing")
	}
	must(t, netlink.EnableForwarding(ns))
	if got := read(); got != "1 1" {
		t.Fatalf("got %s", got)
	}
	err := netlink.SetSysctls(ns, netlink.Sysctl{Name: "net/ipv4/no_such", Value: "1"})
	if err == nil || !strings.Contains(err.Error(), "net/ipv4/no_such") {
		t.Errorf("of an unknown sysctl: %v", err)
	}
	must(t, netlink.SetSysctls(ns, netlink.Sysctl{Name: "net/ipv4/no_such", Value: "1", IfPresent: true}))
}

func TestLinks(t *testing.T) {
	h := open(t, nstest.New(t))
	all, err := h.Links()
	must(t, err)
	if len(all) == 0 || all[1] == nil || all[1].Attrs().Name != "lo" {
		t.Errorf("got %v", all)
	}
	if _, err := h.LinkByName("none"); !netlink.IsNoLink(err) {
		t.Errorf("got %v", err)
	}
}

func TestDump(t *testing.T) {
	n := 0
	got, err := netlink.Dump(func() ([]int, error) {
		if n++; n < 3 {
			return nil, vnl.ErrDumpInterrupted
		}
		return []int{n}, nil
	})
	if err != nil || len(got) != 1 || got[0] != 3 {
		t.Errorf("got %v, %v", got, err)
	}
	n = -1000
	if _, err := netlink.Dump(func() ([]int, error) { n++; return []int{1}, vnl.ErrDumpInterrupted }); err == nil {
		t.Error("a dump that is always interrupted is no success")
	}
}

func TestConvert(t *testing.T) {
	for _, s := range []string{"10.1.2.0/24", "0.0.0.0/0", "fd00::/64", "::/0"} {
		p := netip.MustParsePrefix(s)
		if got := netlink.Prefix(netlink.IPNet(p)); got != p {
			t.Errorf("%v became %v", p, got)
		}
		if got := netlink.Addr(netlink.IP(p.Addr())); got != p.Addr() {
			t.Errorf("%v became %v", p.Addr(), got)
		}
	}
	if netlink.IPNet(netip.Prefix{}) != nil || netlink.IP(netip.Addr{}) != nil || netlink.Prefix(nil).IsValid() || netlink.Addr(nil).IsValid() {
		t.Error("nothing became something")
	}
}
