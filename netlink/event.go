package netlink

import (
	"encoding/binary"
	"net"

	mnl "github.com/mdlayher/netlink"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// eventOf decodes a notification (rtnetlink(7)); what it does not understand is no event.
func eventOf(m mnl.Message) (Event, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return linkEvent(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return addrEvent(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return routeEvent(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return neighEvent(m)
	case unix.RTM_NEWNETCONF:
		return forwardingEvent(m)
	case unix.RTM_DELQDISC, unix.RTM_DELTFILTER:
		return filterEvent(m)
	}
	return Event{}, false
}

const sizeofNfgenmsg = 4

func linkEvent(m mnl.Message) (Event, bool) {
	// Of a family are messages about a bridge's ports: a link that is no longer one is not deleted.
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return Event{}, false
	}
	e := Event{Kind: KindLink, Deleted: m.Header.Type == unix.RTM_DELLINK}
	e.Link = int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	e.Up = binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
	err := attributes(m.Data[unix.SizeofIfInfomsg:], func(ad *mnl.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			e.Name = ad.String()
		case unix.IFLA_MTU:
			e.MTU = int(ad.Uint32())
		case unix.IFLA_ADDRESS:
			e.MAC = string(ad.Bytes())
		}
	})
	return e, err == nil
}

func addrEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return Event{}, false
	}
	return Event{
		Kind: KindAddr, Deleted: m.Header.Type == unix.RTM_DELADDR, Global: m.Data[3] < unix.RT_SCOPE_LINK,
		IPv4: m.Data[0] == unix.AF_INET, Link: int(binary.NativeEndian.Uint32(m.Data[4:])),
	}, true
}

func routeEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofRtMsg {
		return Event{}, false
	}
	b := m.Data
	r := &vnl.Route{
		Family: int(b[0]), Tos: int(b[3]), Table: int(b[4]), Protocol: vnl.RouteProtocol(b[5]),
		Scope: vnl.Scope(b[6]), Type: int(b[7]), Flags: int(binary.NativeEndian.Uint32(b[8:])),
	}
	err := attributes(b[unix.SizeofRtMsg:], func(ad *mnl.AttributeDecoder) { routeAttribute(r, int(b[1]), ad) })
	e := Event{Kind: KindRoute, Deleted: m.Header.Type == unix.RTM_DELROUTE, Protocol: int(b[5]), Link: r.LinkIndex, Route: r}
	return e, err == nil && r.Flags&unix.RTM_F_CLONED == 0
}

const rtaNextHop = 30 // RTA_NH_ID (linux/rtnetlink.h)

// routeAttribute reads an attribute of a route to a network of that many bits.
func routeAttribute(r *vnl.Route, bits int, ad *mnl.AttributeDecoder) {
	switch ad.Type() {
	case unix.RTA_TABLE:
		r.Table = int(ad.Uint32())
	case unix.RTA_DST:
		ip := ad.Bytes()
		r.Dst = &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, 8*len(ip))}
	case unix.RTA_OIF:
		r.LinkIndex = int(ad.Uint32())
	case unix.RTA_GATEWAY:
		r.Gw = ad.Bytes()
	case unix.RTA_PRIORITY:
		r.Priority = int(ad.Uint32())
	case unix.RTA_PREFSRC:
		r.Src = ad.Bytes()
	case unix.RTA_VIA:
		r.Via = &vnl.Via{}
	case unix.RTA_MULTIPATH, unix.RTA_ENCAP, rtaNextHop: // that it has one is enough to know
		r.MultiPath = []*vnl.NexthopInfo{{}}
	case unix.RTA_METRICS:
		ad.Nested(func(n *mnl.AttributeDecoder) error {
			for n.Next() {
				switch n.Type() {
				case unix.RTAX_MTU:
					r.MTU = int(n.Uint32())
				case unix.RTAX_ADVMSS:
					r.AdvMSS = int(n.Uint32())
				}
			}
			return nil
		})
	}
}

func neighEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofNdMsg {
		return Event{}, false
	}
	b := m.Data
	n := &vnl.Neigh{
		Family: int(b[0]), LinkIndex: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		State: int(binary.NativeEndian.Uint16(b[8:])), Flags: int(b[10]), Type: int(b[11]),
	}
	err := attributes(b[unix.SizeofNdMsg:], func(ad *mnl.AttributeDecoder) {
		switch ad.Type() {
		case unix.NDA_DST:
			n.IP = ad.Bytes()
		case unix.NDA_LLADDR:
			n.HardwareAddr = ad.Bytes()
		}
	})
	return Event{Kind: KindNeigh, Deleted: m.Header.Type == unix.RTM_DELNEIGH, Link: n.LinkIndex, Neigh: n}, err == nil
}

// filterEvent tells that a filter is gone, or a qdisc with all its filters (struct tcmsg,
// linux/rtnetlink.h).
func filterEvent(m mnl.Message) (Event, bool) {
	const size, ifindex = 20, 4
	if len(m.Data) < size {
		return Event{}, false
	}
	return Event{Kind: KindFilter, Deleted: true, Link: int(int32(binary.NativeEndian.Uint32(m.Data[ifindex:])))}, true
}

// forwardingEvent tells that a family is no longer forwarded, by a link or at all
// (linux/netconf.h).
func forwardingEvent(m mnl.Message) (Event, bool) {
	const header, ifindex, forwarding, all = 4, 1, 2, -1
	if len(m.Data) < header {
		return Event{}, false
	}
	link, on := int32(0), int32(1)
	err := attributes(m.Data[header:], func(ad *mnl.AttributeDecoder) {
		switch ad.Type() {
		case ifindex:
			link = ad.Int32()
		case forwarding:
			on = ad.Int32()
		}
	})
	e := Event{Kind: KindForwarding, Deleted: true}
	if link != all {
		e.Link = int(link)
	}
	return e, err == nil && on == 0 && (link == all || link > 0)
}

func attributes(b []byte, f func(*mnl.AttributeDecoder)) error {
	ad, err := mnl.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		f(ad)
	}
	return ad.Err()
}
