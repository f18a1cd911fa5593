package nft

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// rawElement is an element of a set as the kernel tells it. An interval of a set without
// concatenation, which the kernel tells as two, is one: its end is the first key beyond.
type rawElement struct {
	key, end [maxKey]byte
	keyLen   uint8 // 0: it has no start
	endLen   uint8 // 0: it has no end
	chain    string
}

// maxKey is the longest key of a set of ours: a number, an IPv6 address, protocol and port.
const maxKey = len(setNumber{}) + 16 + 8

// Attributes of elements that ours never have, and which change what a lookup finds
// (linux/netfilter/nf_tables.h).
const (
	elemKeyEnd   = 10
	elemUserdata = 6
)

// oddSet: a set has elements of a sort that no program makes.
type oddSet struct{ why string }

func (e *oddSet) Error() string { return e.why }

// listElements returns the elements of a set, in the memory of buf. The error is an *oddSet if
// there are some that cannot be told apart or taken out one by one; then the list is empty.
func (s *socket) listElements(family byte, name string, im *setImage, buf []rawElement) ([]rawElement, error) {
	buf = buf[:0]
	plain := im.flags&unix.NFT_SET_INTERVAL != 0 && im.flags&nftables.NFT_SET_CONCAT == 0
	err := s.eachElement(family, name, plain, func(e *rawElement) { buf = append(buf, *e) })
	var odd *oddSet
	if errors.As(err, &odd) {
		return buf[:0], odd
	}
	if plain {
		var err error
		if buf, err = pairs(buf); err != nil {
			return buf, err
		}
	}
	return buf, err
}

// eachElement calls f with each element of a set; of one of plain intervals these are starts,
// and ends alone. What f is given is its own until it returns. The error is an *oddSet if
// there is one that cannot be read.
func (s *socket) eachElement(family byte, name string, plain bool, f func(*rawElement)) error {
	var odd error
	attrs := []mdl.Attribute{tableAttr(), {Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(name + "\x00")}}
	var e rawElement
	err := s.get(unix.NFT_MSG_GETSETELEM, family, mdl.Dump, attrs, func(b []byte) {
		for _, x := range attributes(attribute(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if odd != nil {
				return
			}
			if e, odd = element(x, plain); odd == nil {
				f(&e)
			}
		}
	})
	if odd != nil {
		return odd
	}
	return err
}

// element reads one element; of a set of plain intervals a start, or an end alone.
func element(b []byte, plain bool) (e rawElement, err error) {
	var flags uint32
	for kind, v := range attributes(b) {
		ok := true
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.keyLen, ok = keep(&e.key, v)
		case elemKeyEnd:
			e.endLen, ok = keep(&e.end, v)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = number(v)
		case unix.NFTA_SET_ELEM_DATA:
			e.chain = verdictChain(v)
		case elemUserdata: // a comment
		default:
			ok = false
		}
		if !ok {
			return e, &oddSet{fmt.Sprintf("an element with attribute %d", kind)}
		}
	}
	switch {
	case e.keyLen == 0:
		return e, &oddSet{"an element without key"}
	case plain && flags == unix.NFT_SET_ELEM_INTERVAL_END:
		e.end, e.endLen, e.keyLen = e.key, e.keyLen, 0
		return e, nil
	case flags != 0:
		return e, &oddSet{fmt.Sprintf("an element with flags %#x", flags)}
	}
	return e, nil
}

// keep copies the bytes of a data attribute.
func keep(to *[maxKey]byte, v []byte) (uint8, bool) {
	b := attribute(v, unix.NFTA_DATA_VALUE)
	return uint8(copy(to[:], b)), len(b) > 0 && len(b) <= maxKey
}

// verdictChain is the chain of a map element's jump; any other verdict differs from it.
func verdictChain(v []byte) string {
	verdict := attribute(v, unix.NFTA_DATA_VERDICT)
	code := int32(number(attribute(verdict, unix.NFTA_VERDICT_CODE)))
	chain := text(attribute(verdict, unix.NFTA_VERDICT_CHAIN))
	if code != unix.NFT_JUMP {
		return fmt.Sprintf("verdict %d %s", code, chain)
	}
	return chain
}

// bound is the key of a start or an end alone.
func (e *rawElement) bound() []byte {
	if e.keyLen == 0 {
		return e.end[:e.endLen]
	}
	return e.key[:e.keyLen]
}

// pairs joins starts and ends, in the memory of both. An end where nothing has begun, which the nft tool
// puts before the first interval, stays alone.
func pairs(all []rawElement) ([]rawElement, error) {
	slices.SortFunc(all, func(a, b rawElement) int {
		if c := bytes.Compare(a.bound(), b.bound()); c != 0 {
			return c
		}
		return int(a.keyLen) - int(b.keyLen) // an end before the start of the next
	})
	n, open := 0, false
	for _, e := range all {
		switch {
		case e.keyLen == 0 && open:
			all[n-1].end, all[n-1].endLen = e.end, e.endLen
			open = false
			continue
		case e.keyLen > 0 && open:
			return all[:0], &oddSet{"an interval without end"}
		case e.keyLen > 0:
			open = true
		}
		all[n] = e
		n++
	}
	return all[:n], nil
}

// messages returns e as the elements by which it is taken out.
func (e *rawElement) messages(plain bool) []nftables.SetElement {
	key, end := slices.Clone(e.key[:e.keyLen]), slices.Clone(e.end[:e.endLen])
	if !plain {
		return []nftables.SetElement{{Key: key, KeyEnd: end}}
	}
	var out []nftables.SetElement
	if len(key) > 0 {
		out = append(out, nftables.SetElement{Key: key})
	}
	if len(end) > 0 {
		out = append(out, nftables.SetElement{Key: end, IntervalEnd: true})
	}
	return out
}

// iface returns the device that is e's whole key, of a map or set of those.
func (e *rawElement) iface() (string, bool) {
	name := text(e.key[:min(e.keyLen, ifNameLen)])
	return name, e.keyLen == ifNameLen && e.endLen == 0 && bytes.Count(e.key[len(name):ifNameLen], []byte{0}) == ifNameLen-len(name)
}

// element returns e as an element of the program's set, which shares none; false: no program
// has such a one.
func (e *rawElement) element(k filter.SetKind, f dataplane.Family) (filter.Element, bool) {
	n := f.Bits() / 8
	key, end := e.key[:e.keyLen], e.end[:e.endLen]
	switch k {
	case filter.Nets:
		p, ok := prefixOf(key, end, n)
		return filter.Element{Prefix: p}, ok
	case filter.PortRanges:
		return portsOf(key, end)
	case filter.Ifaces:
		name, ok := e.iface()
		return filter.Element{Iface: name}, ok
	case filter.IfaceAddrs, filter.IfaceNets:
		return e.ifaceNet(k, n)
	}
	return filter.Element{}, false
}

// prefixOf returns the prefix that is [from, beyond), of addresses of n bytes.
func prefixOf(from, beyond []byte, n int) (netip.Prefix, bool) {
	if len(from) != n || len(beyond) != 0 && len(beyond) != n {
		return netip.Prefix{}, false
	}
	var last [16]byte
	copy(last[:n], beyond)
	for i := n - 1; i >= 0; i-- { // one less; of none at all: the highest
		last[i]--
		if last[i] != 0xff {
			break
		}
	}
	return span(from, last[:n])
}

// span returns the prefix whose lowest and highest addresses these are.
func span(from, to []byte) (netip.Prefix, bool) {
	length := 8 * len(from)
	for i := range from {
		if x := from[i] ^ to[i]; x != 0 {
			length = 8*i + bits.LeadingZeros8(x)
			break
		}
	}
	a, _ := netip.AddrFromSlice(from)
	p := netip.PrefixFrom(a, length)
	return p, p.Masked().Addr() == a && bytes.Equal(last(p).AsSlice(), to)
}

func portsOf(from, beyond []byte) (filter.Element, bool) {
	if len(from) != 2 || len(beyond) != 0 && len(beyond) != 2 {
		return filter.Element{}, false
	}
	var to uint16
	if len(beyond) == 2 {
		to = uint16(beyond[0])<<8 | uint16(beyond[1])
	}
	return filter.Element{Ports: dataplane.PortRange{Min: uint16(from[0])<<8 | uint16(from[1]), Max: to - 1}}, true
}

// memberOf reads what follows the number in the key of a set that is shared, with addresses of n bytes.
func memberOf(k filter.SetKind, key []byte, n int) (filter.Element, bool) {
	if len(key) < n {
		return filter.Element{}, false
	}
	a, _ := netip.AddrFromSlice(key[:n])
	if k == filter.Addrs {
		return filter.Element{Prefix: netip.PrefixFrom(a, 8*n)}, len(key) == n
	}
	if len(key) != n+8 {
		return filter.Element{}, false
	}
	port := uint16(key[n+4])<<8 | uint16(key[n+5])
	return filter.Element{
		Prefix: netip.PrefixFrom(a, 8*n), Protocol: dataplane.Protocol(key[n]),
		Ports: dataplane.PortRange{Min: port, Max: port},
	}, true
}

// ifaceNet reads an interface and an address, or prefix, of n bytes.
func (e *rawElement) ifaceNet(k filter.SetKind, n int) (filter.Element, bool) {
	key, end := e.key[:e.keyLen], e.end[:e.endLen]
	if len(key) != ifNameLen+n {
		return filter.Element{}, false
	}
	if len(end) == 0 {
		end = key
	}
	if len(end) != len(key) || !bytes.Equal(key[:ifNameLen], end[:ifNameLen]) {
		return filter.Element{}, false
	}
	p, ok := span(key[ifNameLen:], end[ifNameLen:])
	return filter.Element{Iface: text(key[:ifNameLen]), Prefix: p}, ok && (k == filter.IfaceNets || p.IsSingleIP())
}
