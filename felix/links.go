package felix

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/route"
	"github.com/calicogo/calico/tunnel"
)

// links follows the links of a namespace and tells the drivers what of theirs others have
// changed. It is for one goroutine.
type links struct {
	a       *Agent
	h       *netlink.Handle
	routes  *route.Driver
	tunnels *tunnel.Driver
	known   map[int]link // by index
}

// link is what matters of a link.
type link struct {
	name   string
	up     bool
	mtu    int
	mac    string
	global bool // it has, or had, an address that others may reach: a way to other nodes
}

// tunnelNames are the links that the tunnels' driver makes.
var tunnelNames = []string{dataplane.DeviceVXLAN, dataplane.DeviceVXLANv6, dataplane.DeviceIPIP, dataplane.DeviceIPIP + "p"}

// watchLinks has tunnels, routes and forwarding put right when others changed them.
func (a *Agent) watchLinks(ctx context.Context, ns int) error {
	l := &links{a: a}
	var haveRoutes, haveTunnels bool
	l.routes, haveRoutes = driver[*route.Driver](a)
	l.tunnels, haveTunnels = driver[*tunnel.Driver](a)
	if !haveRoutes || !haveTunnels {
		return nil
	}
	m, err := netlink.NewMonitor(ns, netlink.KindLink, netlink.KindAddr, netlink.KindRoute, netlink.KindNeigh, netlink.KindForwarding, netlink.KindFilter)
	if err != nil {
		return err
	}
	if l.h, err = netlink.Open(ns); err != nil {
		m.Close()
		return err
	}
	defer l.h.Close()
	if err := l.read(); err != nil {
		m.Close()
		return err
	}
	a.Resync(DriverForwarding, DriverTunnels, DriverRoutes) // nothing, unless they were read before there was a monitor
	swarm := swarm{flush: func() { a.Resync() }}
	defer swarm.stop()
	return m.Run(ctx, func(e netlink.Event) {
		if l.saw(e) {
			swarm.add(time.Now())
		}
	})
}

// read learns the links that there are.
func (l *links) read() error {
	all, err := l.h.Links()
	if err != nil {
		return err
	}
	global, err := l.h.Addressed()
	if err != nil {
		return err
	}
	l.known = make(map[int]link, len(all))
	for i, x := range all {
		a := x.Attrs()
		l.known[i] = link{a.Name, a.Flags&net.FlagUp != 0, a.MTU, string(a.HardwareAddr), global[i]}
	}
	return nil
}

func (l *links) global(index int) {
	if x, ok := l.known[index]; ok {
		x.global = true
		l.known[index] = x
	}
}

// saw passes on what happened and reports whether the drivers have something to do.
func (l *links) saw(e netlink.Event) bool {
	switch {
	case e.Lost:
		if err := l.read(); err != nil {
			l.a.cfg.Log.Warn("changes in the kernel went by unseen", "error", err)
		}
		l.distrust()
		l.forwarding()
		return true
	case e.Kind == netlink.KindLink:
		return l.link(e)
	case e.Kind == netlink.KindAddr:
		return l.addr(e)
	case e.Kind == netlink.KindRoute:
		news := l.tunnels.SawRoute(netlink.Prefix(e.Route.Dst), l.known[e.Link].name)
		return l.routes.Saw(e.Route, l.known[e.Link].name, e.Deleted) || news
	case e.Kind == netlink.KindFilter:
		return l.tunnels.SawFilter()
	case e.Kind == netlink.KindNeigh:
		return l.tunnels.Saw(e.Neigh, l.known[e.Link].name, e.Deleted)
	case e.Kind == netlink.KindForwarding:
		f, ok := driver[*forwarding](l.a)
		return ok && (e.Link == 0 || l.known[e.Link].name != "") && f.saw(l.known[e.Link].name)
	}
	return false
}

// forwarding has the sysctls looked at.
func (l *links) forwarding() {
	if f, ok := driver[*forwarding](l.a); ok {
		f.Resync()
	}
}

// distrust has routes and tunnels read back.
func (l *links) distrust() {
	l.routes.Resync()
	l.tunnels.Resync()
}

func (l *links) link(e netlink.Event) bool {
	old, had := l.known[e.Link]
	now := link{e.Name, e.Up, e.MTU, e.MAC, old.global}
	if e.Deleted {
		delete(l.known, e.Link)
	} else {
		l.known[e.Link] = now
	}
	if had && !e.Deleted && old == now {
		return false
	}
	lost := had && (e.Deleted || old.up && !now.up || old.name != now.name)
	switch {
	case slices.Contains(tunnelNames, e.Name) || slices.Contains(tunnelNames, old.name):
		l.tunnels.Resync()
		if lost {
			l.routes.SawLink(old.name, true)
		}
		return true
	case l.routes.Owns(e.Name) || l.routes.Owns(old.name):
		news := lost && l.routes.SawLink(old.name, true)
		return l.routes.SawLink(e.Name, false) || news
	case now.global:
		l.distrust()
		return true
	}
	return false
}

func (l *links) addr(e netlink.Event) bool {
	name := l.known[e.Link].name
	bare := e.Deleted && e.IPv4 // with a link's last address of IPv4 its routes go, without a word
	if bare {
		l.routes.Resync()
	}
	switch {
	case slices.Contains(tunnelNames, name):
		l.tunnels.Resync()
		return true
	case e.Global && !l.routes.Owns(name):
		l.global(e.Link)
		l.distrust()
		return true
	}
	return bare
}
