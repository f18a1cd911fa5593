package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Conntrack reads and changes the flows that the kernel tracks in one network namespace, by
// nfnetlink's conntrack subsystem (linux/netfilter/nfnetlink_conntrack.h). It is for one
// goroutine at a time.
type Conntrack struct{ sock *nfSocket }

// ErrNoConntrack: the kernel tracks no flows, or has no way to tell of them.
var ErrNoConntrack = errors.New("the kernel has no netlink interface to connection tracking (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink)")

// Tuple is what tells the packets of one direction of a flow, as they come in.
type Tuple struct {
	Src, Dst         netip.Addr
	Protocol         uint8
	SrcPort, DstPort uint16 // where the protocol has ports
	Type, Code       uint8  // of ICMP and ICMPv6
}

// Flow is what the kernel tracks of a connection. The source of its packets is Original's, the
// destination that they are given by translation is Reply's source.
type Flow struct {
	Original, Reply Tuple
	Mark            uint32

	id  uint32
	key []byte // attributes that name the flow, as the kernel gave them
}

// Source is the end that opened the flow.
func (f *Flow) Source() netip.Addr { return f.Original.Src }

// Destination is the end that it was opened to, after translation.
func (f *Flow) Destination() netip.Addr { return f.Reply.Src }

// Keep returns a copy that stays as it is.
func (f *Flow) Keep() Flow {
	var out Flow
	f.KeepIn(&out)
	return out
}

// KeepIn makes out a copy that stays as it is, in the room that out has.
func (f *Flow) KeepIn(out *Flow) {
	key := append(out.key[:0], f.key...)
	*out = *f
	out.key = key
}

// Query selects flows: of an address family, and with these ends, where they are given.
type Query struct {
	Family      uint8 // unix.AF_INET or AF_INET6
	Source      netip.Addr
	Destination netip.Addr // after translation
}

// OpenConntrack opens a Conntrack in the namespace of descriptor ns, or Current, which may be
// closed afterwards. It fails with ErrNoConntrack where the kernel lacks it.
func OpenConntrack(ns int) (*Conntrack, error) {
	s, err := openNF(ns)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, ErrNoConntrack
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conntrack{s}
	if _, err := c.Len(); err != nil {
		s.close()
		return nil, err
	}
	return c, nil
}

// Close closes the socket.
func (c *Conntrack) Close() { c.sock.close() }

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctGet    = ctNew | 1
	ctDelete = ctNew | 2
	ctStats  = ctNew | 5

	ctaStatsEntries = 1

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaMark       = 8
	ctaID         = 12
	ctaZone       = 18
	ctaMarkMask   = 21
	ctaFilter     = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaV4Src = 1
	ctaV4Dst = 2
	ctaV6Src = 3
	ctaV6Dst = 4

	ctaProtoNum  = 1
	ctaSrcPort   = 2
	ctaDstPort   = 3
	ctaICMPType  = 5
	ctaICMPCode  = 6
	ctaICMP6Type = 8
	ctaICMP6Code = 9

	ctaFilterOrig  = 1
	ctaFilterReply = 2
	filterSource   = 1 << 0 // in the flags of either
)

// Len is the number of flows in the namespace; it costs next to nothing.
func (c *Conntrack) Len() (n int, err error) {
	if err := c.sock.send(ctStats, 0, unix.NLM_F_REQUEST, nil); err != nil {
		return 0, fmt.Errorf("count flows: %w", err)
	}
	err = c.sock.answers(false, func(_ uint8, b []byte) error {
		eachAttr(b, func(kind uint16, v []byte) {
			if kind == ctaStatsEntries && len(v) == 4 {
				n = int(binary.BigEndian.Uint32(v))
			}
		})
		return nil
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, ErrNoConntrack
	}
	if err != nil {
		return 0, fmt.Errorf("count flows: %w", err)
	}
	return n, nil
}

// Each calls f with every flow that q selects, some maybe twice; it is f's until f returns. A
// flow that began after Each did may be left out. The kernel lists as it is read, so that f may take its time; an
// error of f's ends it and is returned, and then the Conntrack is of no more use. Whatever q says, the kernel walks its
// whole table, but what is not selected by an address of IPv4 costs a quarter (Linux 5.8 and later; before
// that it costs all the same).
func (c *Conntrack) Each(q Query, f func(*Flow) error) error {
	if err := c.sock.send(ctGet, q.Family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, q.attributes()); err != nil {
		return fmt.Errorf("list flows: %w", err)
	}
	var flow Flow
	err := c.sock.answers(true, func(_ uint8, b []byte) error {
		if flow.parse(b) && q.selects(&flow) {
			return f(&flow)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list flows: %w", err)
	}
	return nil
}

func (q *Query) selects(f *Flow) bool {
	return (!q.Source.IsValid() || q.Source == f.Source()) && (!q.Destination.IsValid() || q.Destination == f.Destination())
}

// attributes have the kernel select what it can: by addresses of IPv6 it cannot, for up to Linux 6.18 at least it
// leaves out the very flows that have them (ctnetlink_filter_match_tuple).
func (q *Query) attributes() []byte {
	var b, flags []byte
	for _, x := range []struct {
		addr        netip.Addr
		tuple, flag uint16
	}{{q.Source, ctaTupleOrig, ctaFilterOrig}, {q.Destination, ctaTupleReply, ctaFilterReply}} {
		if !x.addr.Is4() {
			continue
		}
		ip := appendAttr(nil, ctaTupleIP|unix.NLA_F_NESTED, appendAttr(nil, ctaV4Src, x.addr.AsSlice()))
		b = appendAttr(b, x.tuple|unix.NLA_F_NESTED, ip)
		flags = appendAttr(flags, x.flag, binary.NativeEndian.AppendUint32(nil, filterSource))
	}
	if len(flags) > 0 {
		b = appendAttr(b, ctaFilter|unix.NLA_F_NESTED, flags)
	}
	return b
}

// FlowChange gives the bits of Mask in a flow's mark the values that they have in Mark, or
// deletes the flow.
type FlowChange struct {
	Flow       *Flow
	Mark, Mask uint32
	Delete     bool
}

// changesAtOnce bounds a batch, so that the answers fit the socket's buffer if all are refused.
const changesAtOnce = 256

// Change makes the changes, and returns the first error that is not that the flow is there no more.
// The others are made nevertheless.
func (c *Conntrack) Change(changes []FlowChange) error {
	var first error
	for len(changes) > 0 {
		n := min(len(changes), changesAtOnce)
		if err := c.batch(changes[:n]); err != nil && first == nil {
			first = err
		}
		changes = changes[n:]
	}
	return first
}

func (c *Conntrack) batch(changes []FlowChange) error {
	var b []byte
	first := c.sock.seq + 1
	for i := range changes {
		x := &changes[i]
		if len(x.Flow.key) == 0 {
			return errors.New("change a flow that the kernel has not named") // it would take a deletion as one of all flows
		}
		flags := uint16(unix.NLM_F_REQUEST)
		if i == len(changes)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = c.sock.append(b, x.kind(), x.Flow.family(), flags, x.attributes())
	}
	if err := c.sock.write(b); err != nil {
		return fmt.Errorf("change flows: %w", err)
	}
	return c.sock.acknowledged(first, func(i int, errno unix.Errno) error {
		if errno == unix.ENOENT {
			return nil
		}
		f := changes[i].Flow
		return fmt.Errorf("change the flow from %v to %v, protocol %d: %w", f.Source(), f.Destination(), f.Original.Protocol, errno)
	})
}

func (x *FlowChange) kind() uint16 {
	if x.Delete {
		return ctDelete
	}
	return ctNew
}

func (x *FlowChange) attributes() []byte {
	if x.Delete { // of this flow, and not of one that came in its place, unless that has its very memory
		return appendAttr(bytes.Clone(x.Flow.key), ctaID, binary.BigEndian.AppendUint32(nil, x.Flow.id))
	}
	b := appendAttr(bytes.Clone(x.Flow.key), ctaMark, binary.BigEndian.AppendUint32(nil, x.Mark&x.Mask))
	return appendAttr(b, ctaMarkMask, binary.BigEndian.AppendUint32(nil, x.Mask))
}

func (f *Flow) family() uint8 {
	if f.Original.Src.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// parse reads a message of the kernel's; false: it lacks what a flow has.
func (f *Flow) parse(b []byte) bool {
	key := f.key[:0]
	*f = Flow{}
	eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case ctaTupleOrig:
			f.Original.parse(v)
			key = appendAttr(key, kind|unix.NLA_F_NESTED, v)
		case ctaTupleReply:
			f.Reply.parse(v)
		case ctaZone:
			key = appendAttr(key, kind, v)
		case ctaMark:
			f.Mark = beUint32(v)
		case ctaID:
			f.id = beUint32(v)
		}
	})
	f.key = key
	return f.Original.Src.IsValid() && f.Original.Dst.IsValid() && f.Reply.Src.IsValid() && len(key) > 0
}

func (t *Tuple) parse(b []byte) {
	eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case ctaTupleIP:
			eachAttr(v, t.parseAddr)
		case ctaTupleProto:
			eachAttr(v, t.parseProto)
		}
	})
}

func (t *Tuple) parseAddr(kind uint16, v []byte) {
	a, ok := netip.AddrFromSlice(v)
	switch {
	case !ok:
	case kind == ctaV4Src || kind == ctaV6Src:
		t.Src = a
	case kind == ctaV4Dst || kind == ctaV6Dst:
		t.Dst = a
	}
}

func (t *Tuple) parseProto(kind uint16, v []byte) {
	switch {
	case kind == ctaSrcPort && len(v) == 2:
		t.SrcPort = binary.BigEndian.Uint16(v)
	case kind == ctaDstPort && len(v) == 2:
		t.DstPort = binary.BigEndian.Uint16(v)
	case len(v) != 1:
	case kind == ctaProtoNum:
		t.Protocol = v[0]
	case kind == ctaICMPType || kind == ctaICMP6Type:
		t.Type = v[0]
	case kind == ctaICMPCode || kind == ctaICMP6Code:
		t.Code = v[0]
	}
}

func beUint32(v []byte) uint32 {
	if len(v) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}
