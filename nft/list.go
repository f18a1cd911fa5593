package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/filter"
)

// elementList encodes elements of one set into as few messages as hold them. It is written
// here and not by the library, which takes ten times as long: a set may have 100,000.
type elementList struct {
	kind     uint16 // NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM
	family   byte
	set      string
	head     []byte // of every message: what set; nil until there is an element
	msgs     []mdl.Message
	out      []byte // the message that is being written
	key, end []byte // for use again
	marks    []mark // of the message that is being written
	marked   [][]mark
}

// mark says that from a place in a message on the elements are of one of the program's sets.
type mark struct {
	at  int // from the message's body on
	set string
}

// of marks the elements that come as those of a set that shares the kernel's.
func (l *elementList) of(set string) {
	at := len(l.out)
	if n := len(l.marks); n > 0 && l.marks[n-1].at == at {
		l.marks = l.marks[:n-1] // which has none
	}
	l.marks = append(l.marks, mark{at, set})
}

func newElementList(kind uint16, family byte, set string) *elementList {
	return &elementList{kind: kind, family: family, set: set}
}

// begin begins a message.
func (l *elementList) begin() {
	if l.head == nil {
		l.head = append(make([]byte, 0, 64), l.family, unix.NFNETLINK_V0, 0, 0)
		l.head = appendAttr(l.head, unix.NFTA_SET_ELEM_LIST_TABLE, []byte(tableName+"\x00"))
		l.head = appendAttr(l.head, unix.NFTA_SET_ELEM_LIST_SET, append([]byte(l.set), 0))
		l.head = appendAttr(l.head, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS, nil)
	}
	room := len(l.head) + 256
	if len(l.msgs) > 0 {
		room = len(l.head) + maxBytes + 512 // one more than full
	}
	l.out = append(make([]byte, 0, room), l.head...)
}

// maxBytes bounds the elements of one message: a netlink attribute's length has 16 bits,
// and what is beyond is lost without an error.
const maxBytes = 48 << 10

// messages returns what was added, encoded.
func (l *elementList) messages() []mdl.Message {
	l.next()
	return l.msgs
}

// next ends the message that is being written.
func (l *elementList) next() {
	if len(l.out) == 0 {
		return
	}
	list := len(l.head) - attrHeader
	binary.NativeEndian.PutUint16(l.out[list:], uint16(len(l.out)-list))
	l.msgs = append(l.msgs, mdl.Message{
		Header: mdl.Header{Type: mdl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | l.kind), Flags: mdl.Request | mdl.Create},
		Data:   l.out,
	})
	l.marked = append(l.marked, l.marks)
	if n := len(l.marks); n > 0 {
		l.marks = []mark{{0, l.marks[n-1].set}} // goes on in the next
	}
	l.out = nil
}

const attrHeader = 4

// raw adds an element in the kernel's terms.
func (l *elementList) raw(key, end []byte, flags uint32, chain string) {
	if len(l.out) > maxBytes {
		l.next()
	}
	if len(l.out) == 0 {
		l.begin()
	}
	start := l.open(unix.NFTA_LIST_ELEM)
	if flags != 0 {
		l.out = appendAttr(l.out, unix.NFTA_SET_ELEM_FLAGS, binary.BigEndian.AppendUint32(nil, flags))
	}
	l.value(unix.NFTA_SET_ELEM_KEY, key)
	if len(end) > 0 {
		l.value(elemKeyEnd, end)
	}
	if chain != "" {
		l.jump(chain)
	}
	l.close(start)
}

// open begins a nested attribute, whose length close writes.
func (l *elementList) open(kind uint16) (start int) {
	start = len(l.out)
	l.out = binary.NativeEndian.AppendUint16(l.out, 0)
	l.out = binary.NativeEndian.AppendUint16(l.out, unix.NLA_F_NESTED|kind)
	return start
}

func (l *elementList) close(start int) {
	binary.NativeEndian.PutUint16(l.out[start:], uint16(len(l.out)-start))
}

func (l *elementList) value(kind uint16, v []byte) {
	start := l.open(kind)
	l.out = appendAttr(l.out, unix.NFTA_DATA_VALUE, v)
	l.close(start)
}

func (l *elementList) jump(chain string) {
	data := l.open(unix.NFTA_SET_ELEM_DATA)
	verdict := l.open(unix.NFTA_DATA_VERDICT)
	jump := int32(unix.NFT_JUMP)
	l.out = appendAttr(l.out, unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, uint32(jump)))
	l.out = appendAttr(l.out, unix.NFTA_VERDICT_CHAIN, append([]byte(chain), 0))
	l.close(verdict)
	l.close(data)
}

// member adds an element of a set that shares the kernel's.
func (l *elementList) member(k filter.SetKind, n setNumber, x *filter.Element) {
	l.key = appendAddr(append(l.key[:0], n[:]...), x.Prefix.Addr())
	if k == filter.Triples {
		l.key = append(l.key, byte(x.Protocol), 0, 0, 0)
		l.key = append(binary.BigEndian.AppendUint16(l.key, x.Ports.Min), 0, 0)
	}
	l.raw(l.key, nil, 0, "")
}

// element adds one of a set of its own: an interval is two of the kernel's.
func (l *elementList) element(k filter.SetKind, x *filter.Element) {
	switch k {
	case filter.Nets:
		l.key, l.end = appendAddr(l.key[:0], x.Prefix.Addr()), appendAddr(l.end[:0], last(x.Prefix))
		l.interval()
	case filter.PortRanges:
		l.key = binary.BigEndian.AppendUint16(l.key[:0], x.Ports.Min)
		l.end = binary.BigEndian.AppendUint16(l.end[:0], x.Ports.Max)
		l.interval()
	case filter.Ifaces:
		l.raw(ifName(x.Iface), nil, 0, "")
	case filter.IfaceAddrs:
		l.key = appendAddr(append(l.key[:0], ifName(x.Iface)...), x.Prefix.Addr())
		l.raw(l.key, nil, 0, "")
	case filter.IfaceNets:
		l.key = appendAddr(append(l.key[:0], ifName(x.Iface)...), x.Prefix.Addr())
		l.end = appendAddr(append(l.end[:0], ifName(x.Iface)...), last(x.Prefix))
		l.raw(l.key, l.end, 0, "")
	}
}

// interval adds [key, end]: the second element says where it has ended. An interval up to
// the highest value has no end.
func (l *elementList) interval() {
	l.raw(l.key, nil, 0, "")
	for i := len(l.end) - 1; i >= 0; i-- {
		l.end[i]++
		if l.end[i] != 0 {
			l.raw(l.end, nil, unix.NFT_SET_ELEM_INTERVAL_END, "")
			return
		}
	}
}

// kernel adds one that was read from the kernel.
func (l *elementList) kernel(e *nftables.SetElement) {
	var flags uint32
	if e.IntervalEnd {
		flags = unix.NFT_SET_ELEM_INTERVAL_END
	}
	l.raw(e.Key, e.KeyEnd, flags, "")
}

func appendAddr(out []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(out, b[:]...)
	}
	b := a.As16()
	return append(out, b[:]...)
}

// last returns the highest address of p.
func last(p netip.Prefix) netip.Addr {
	if a := p.Addr(); a.Is4() {
		b := a.As4()
		fill(b[:], p.Bits())
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	fill(b[:], p.Bits())
	return netip.AddrFrom16(b)
}

// fill sets all bits from the given one on.
func fill(b []byte, from int) {
	for i := from; i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
}
