package lab_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	mnl "github.com/mdlayher/netlink"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/lab"
	"github.com/calicogo/calico/lab/labtest"
	"github.com/calicogo/calico/netlink"
)

// writes collects what is written to the links, routes, permanent neighbours and
// nftables of one network namespace.
type writes struct {
	mu   sync.Mutex
	seen []string
}

func watchWrites(t *testing.T, ns *os.File) *writes {
	t.Helper()
	w := &writes{}
	w.follow(t, ns, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	w.follow(t, ns, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	return w
}

func (w *writes) follow(t *testing.T, ns *os.File, family int, groups ...uint32) {
	t.Helper()
	conn, err := mnl.Dial(family, &mnl.Config{NetNS: int(ns.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if err := conn.JoinGroup(g); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			messages, err := conn.Receive()
			if err != nil {
				return
			}
			for _, m := range messages {
				w.add(family, m)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

func (w *writes) add(family int, m mnl.Message) {
	text := fmt.Sprintf("nftables message %d", m.Header.Type)
	if family == unix.NETLINK_ROUTE {
		text = routeMessage(m)
	}
	if text == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, text)
}

func routeMessage(m mnl.Message) string {
	switch m.Header.Type {
	case unix.RTM_NEWROUTE:
		return "route added"
	case unix.RTM_DELROUTE:
		return "route deleted"
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return fmt.Sprintf("link message %d", m.Header.Type)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		// ndmsg: the state is at offset 8. Others than permanent ones come and go.
		if len(m.Data) >= 10 && binary.NativeEndian.Uint16(m.Data[8:])&unix.NUD_PERMANENT != 0 {
			return fmt.Sprintf("neighbour message %d", m.Header.Type)
		}
	}
	return ""
}

func (w *writes) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.seen...)
}

// nodeNamespace opens the network namespace of a node.
func nodeNamespace(t *testing.T, l *labtest.Lab, node string) *os.File {
	t.Helper()
	// A process inside tells its pid as the machine sees it, by its place in /proc.
	pid := l.PidInside(t, node)
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// An agent writes what differs and nothing else: a route that was deleted by hand comes
// back alone, and a restarted agent touches no link, route or neighbour.
func TestReconcileWritesOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	for encap, device := range map[string]string{lab.EncapIPIP: "tunl0", lab.EncapVXLAN: "vxlan.calico"} {
		t.Run(encap, func(t *testing.T) {
			t.Parallel()
			reconcileWritesOnlyWhatDiffers(t, encap, device)
		})
	}
}

func reconcileWritesOnlyWhatDiffers(t *testing.T, encap, device string) {
	l := labtest.New(t)
	l.Must(t, "up", "--nodes", "2", "--encap", encap)
	for _, pod := range []string{"a", "b", "c", "d"} {
		l.Must(t, "run", pod)
	}
	ns := nodeNamespace(t, l, "node1")
	h, err := netlink.Open(int(ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	// Once more than needed: what was still under way is done by the end of the first.
	repair(t, h, device)
	w := watchWrites(t, ns)
	repair(t, h, device)
	repair(t, h, device) // whatever else the first one brought is written by now
	await(t, "all is told", func() bool { return len(w.list()) >= 4 })
	want := "route deleted,route added,route deleted,route added"
	if got := strings.Join(w.list(), ","); got != want {
		t.Errorf("after two routes were deleted the kernel saw %s", got)
	}

	before := len(w.list())
	l.Must(t, "node", "kill", "node1")
	waitReady(t, l, "node1")
	repair(t, h, device)
	restored := func() bool {
		return strings.HasSuffix(strings.Join(w.list()[before:], ","), "route deleted,route added")
	}
	await(t, "the repair is told", restored)
	for _, s := range w.list()[before:] {
		if !strings.HasPrefix(s, "nftables") && !strings.HasPrefix(s, "route") {
			t.Errorf("the restarted agent wrote: %s", s)
		}
	}
	routes := strings.Count(strings.Join(w.list()[before:], ","), "route")
	if routes != 2 {
		t.Errorf("the restarted agent wrote routes: %v", w.list()[before:])
	}
}

// repair deletes a route on the device and waits until the agent has put it back.
func repair(t *testing.T, h *netlink.Handle, device string) {
	t.Helper()
	link, err := h.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	find := func() *vnl.Route {
		routes, err := h.RouteList(link, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Gw != nil {
				return &r
			}
		}
		return nil
	}
	r := find()
	if r == nil {
		t.Fatalf("no route by %s", device)
	}
	if err := h.RouteDel(&vnl.Route{Dst: &net.IPNet{IP: r.Dst.IP, Mask: r.Dst.Mask}, LinkIndex: link.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	await(t, "the route comes back", func() bool { return find() != nil })
}

func waitReady(t *testing.T, l *labtest.Lab, node string) {
	t.Helper()
	await(t, node+" is ready", func() bool {
		for line := range strings.Lines(l.Must(t, "status")) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == node && f[1] == "yes" {
				return true
			}
		}
		return false
	})
}

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}
