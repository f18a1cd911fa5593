package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"

	mnl "github.com/mdlayher/netlink"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kind is a kind of kernel object that a [Monitor] tells of.
type Kind uint8

const (
	KindLink Kind = iota + 1
	KindAddr
	KindRoute
	KindNeigh      // neighbours, and FDB entries
	KindForwarding // the sysctls that make the namespace a router: told when one is off
	KindFilter     // filters and qdiscs of traffic control: told when one is deleted
)

func (k Kind) String() string {
	return [...]string{"none", KindLink: "link", KindAddr: "address", KindRoute: "route", KindNeigh: "neighbour", KindForwarding: "forwarding", KindFilter: "filter"}[k]
}

// groups are the multicast groups of each kind (rtnetlink(7)).
var groups = map[Kind][]uint32{
	KindLink:       {unix.RTNLGRP_LINK},
	KindAddr:       {unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
	KindRoute:      {unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE},
	KindNeigh:      {unix.RTNLGRP_NEIGH},
	KindForwarding: {unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF},
	KindFilter:     {unix.RTNLGRP_TC},
}

// Event is a change of an object in the kernel, whoever made it.
type Event struct {
	// Lost says that changes went by untold, because more came than the socket holds:
	// read everything back. The other fields are empty then.
	Lost     bool
	Kind     Kind
	Deleted  bool
	Link     int        // index of the link that it concerns; 0: none
	Name     string     // of the link, where Kind is KindLink
	Up       bool       // the link is up, where Kind is KindLink
	MTU      int        // of the link, where Kind is KindLink
	MAC      string     // of the link, its bytes, where Kind is KindLink
	Global   bool       // the address is of more than its link, where Kind is KindAddr
	IPv4     bool       // the address is of IPv4, where Kind is KindAddr
	Route    *vnl.Route // where Kind is KindRoute: what tells routes apart; multipath, encap and nexthop objects as one empty hop
	Neigh    *vnl.Neigh // where Kind is KindNeigh
	Protocol int        // of the route, where Kind is KindRoute
}

// Undoes tells whether the change may have undone what a driver wrote before: something
// was deleted, or a link appeared or changed (the kernel takes the IPv4 routes of a link
// that goes down away without a word), or changes were lost.
func (e Event) Undoes() bool { return e.Lost || e.Deleted || e.Kind == KindLink }

// monitorBuffer is the size of a Monitor's receive buffer in bytes.
const monitorBuffer = 4 << 20

// Monitor tells of changes in a network namespace.
type Monitor struct{ conn *mnl.Conn }

// NewMonitor opens a Monitor of the kinds given in the namespace of
// descriptor ns, or Current. What changes from now on is told by [Monitor.Run]. The
// descriptor may be closed afterwards.
func NewMonitor(ns int, kinds ...Kind) (*Monitor, error) {
	var all []uint32
	for _, k := range kinds {
		all = append(all, groups[k]...)
	}
	return newMonitor(ns, unix.NETLINK_ROUTE, all)
}

func newMonitor(ns, family int, groups []uint32) (*Monitor, error) {
	var m *Monitor
	err := Do(ns, func() error {
		conn, err := mnl.Dial(family, nil)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := conn.JoinGroup(g); err != nil {
				conn.Close()
				return fmt.Errorf("join group %d: %w", g, err)
			}
		}
		// A larger buffer only makes Lost rarer: what the kernel refuses is done without.
		_ = conn.SetReadBuffer(monitorBuffer)
		m = &Monitor{conn}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink monitor: %w", err)
	}
	return m, nil
}

// Run calls f for each change until ctx ends or the Monitor is closed, then closes it. f
// should be quick: ring a bell, and leave the work to another.
func (m *Monitor) Run(ctx context.Context, f func(Event)) error {
	defer m.conn.Close()
	defer context.AfterFunc(ctx, func() { m.conn.Close() })()
	for {
		msgs, err := m.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			f(Event{Lost: true})
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, os.ErrClosed), errors.Is(err, unix.EBADF):
			return nil
		case err != nil:
			return fmt.Errorf("netlink monitor: %w", err)
		}
		for _, msg := range msgs {
			if e, ok := eventOf(msg); ok {
				f(e)
			}
		}
	}
}

// Close ends [Monitor.Run].
func (m *Monitor) Close() error { return m.conn.Close() }
