package netlink

import (
	"encoding/binary"

	mnl "github.com/mdlayher/netlink"
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
	}
	return Event{}, false
}

const sizeofNfgenmsg = 4

func linkEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return Event{}, false
	}
	e := Event{Kind: KindLink, Deleted: m.Header.Type == unix.RTM_DELLINK}
	e.Link = int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	e.Up = binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
	err := attributes(m.Data[unix.SizeofIfInfomsg:], func(ad *mnl.AttributeDecoder) {
		if ad.Type() == unix.IFLA_IFNAME {
			e.Name = ad.String()
		}
	})
	return e, err == nil
}

func addrEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return Event{}, false
	}
	return Event{
		Kind: KindAddr, Deleted: m.Header.Type == unix.RTM_DELADDR,
		Link: int(binary.NativeEndian.Uint32(m.Data[4:])),
	}, true
}

func routeEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofRtMsg {
		return Event{}, false
	}
	e := Event{Kind: KindRoute, Deleted: m.Header.Type == unix.RTM_DELROUTE, Protocol: int(m.Data[5])}
	err := attributes(m.Data[unix.SizeofRtMsg:], func(ad *mnl.AttributeDecoder) {
		if ad.Type() == unix.RTA_OIF {
			e.Link = int(ad.Uint32())
		}
	})
	return e, err == nil
}

func neighEvent(m mnl.Message) (Event, bool) {
	if len(m.Data) < unix.SizeofNdMsg {
		return Event{}, false
	}
	return Event{
		Kind: KindNeigh, Deleted: m.Header.Type == unix.RTM_DELNEIGH,
		Link: int(int32(binary.NativeEndian.Uint32(m.Data[4:]))),
	}, true
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
