package iptables

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// setType is ipset's type for a kind of set. Single addresses are in hash:net, because hash:ip does not take
// 0.0.0.0. The empty string: the kind is in no set of the kernel's, but a tree (treeID says why).
func setType(k filter.SetKind) string {
	return map[filter.SetKind]string{
		filter.Nets: "hash:net", filter.Addrs: "hash:net", filter.Triples: "hash:ip,port",
		filter.IfaceAddrs: "hash:net,iface",
	}[k]
}

// create is the line that makes a set for so many members.
func create(name string, k filter.SetKind, f dataplane.Family, most int) string {
	family := map[dataplane.Family]string{dataplane.IPv4: "inet", dataplane.IPv6: "inet6"}[f]
	return fmt.Sprintf("create %s %s family %s maxelem %d\n", name, setType(k), family, most)
}

// room is the size of a set that is to take n members: the configured one, or what n needs.
func room(configured, n int) int {
	if n <= configured {
		return configured
	}
	return 1 << bits.Len(uint(n-1))
}

// members returns the element as ipset writes it: one text, or two where hash:net does not take all of a
// family, or none where no packet fits it.
func members(k filter.SetKind, e filter.Element) []string {
	switch k {
	case filter.Nets, filter.Addrs:
		if e.Prefix.Bits() == 0 {
			a, b := splitAll(e.Prefix)
			return []string{a.String(), b.String()}
		}
		return []string{prefixText(e.Prefix)}
	case filter.Triples:
		if e.Prefix.Addr().IsUnspecified() {
			return nil
		}
		return []string{e.Prefix.Addr().String() + "," + protocolName(e.Protocol) + ":" + strconv.Itoa(int(e.Ports.Min))}
	}
	return []string{prefixText(e.Prefix) + "," + e.Iface}
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// splitAll returns the halves of a prefix of no bits.
func splitAll(p netip.Prefix) (a, b netip.Prefix) {
	high := p.Addr().AsSlice()
	high[0] = 0x80
	upper, _ := netip.AddrFromSlice(high)
	return netip.PrefixFrom(p.Addr(), 1), netip.PrefixFrom(upper, 1)
}

var protocolNames = map[dataplane.Protocol]string{
	dataplane.TCP: "tcp", dataplane.UDP: "udp", dataplane.SCTP: "sctp", dataplane.UDPLite: "udplite",
}

func protocolName(p dataplane.Protocol) string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}

// parseMember reads a member as ipset writes it. false: no set of ours holds such.
func parseMember(k filter.SetKind, s string) (filter.Element, bool) {
	first, second, pair := strings.Cut(s, ",")
	switch k {
	case filter.Nets, filter.Addrs:
		p, ok := parsePrefix(s)
		return filter.Element{Prefix: p}, ok
	case filter.Triples:
		return parseTriple(first, second)
	}
	p, ok := parsePrefix(first)
	return filter.Element{Prefix: p, Iface: second}, ok && pair
}

func parseTriple(addr, port string) (e filter.Element, ok bool) {
	p, ok := parsePrefix(addr)
	name, number, both := strings.Cut(port, ":")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || !both || err != nil {
		return e, false
	}
	e = filter.Element{Prefix: p, Ports: dataplane.PortRange{Min: uint16(n), Max: uint16(n)}}
	for p, s := range protocolNames {
		if s == name {
			e.Protocol = p
			return e, true
		}
	}
	return e, false
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p, err == nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// setEdit is a list of lines for ipset restore, and of those that lead back, the last first.
type setEdit struct {
	do, undo []string
}

func (e *setEdit) line(do, undo string) {
	e.do, e.undo = append(e.do, do), append(e.undo, undo)
}

func (e *setEdit) empty() bool { return len(e.do) == 0 }

func (e *setEdit) input() []byte { return []byte(strings.Join(e.do, "")) }

// back is the way back.
func (e *setEdit) back() []byte {
	var b strings.Builder
	for i := len(e.undo) - 1; i >= 0; i-- {
		b.WriteString(e.undo[i])
	}
	return []byte(b.String())
}

// change adds to a set and then removes from it, so that what comes in place of something else is there
// before that goes. What is a member before and after, as half of all addresses is, stays.
func (e *setEdit) change(name string, k filter.SetKind, add, remove []filter.Element) {
	come, leave := texts(k, add), texts(k, remove)
	both := map[string]bool{}
	if k == filter.Nets && len(come) > 0 && len(leave) > 0 {
		going := map[string]bool{}
		for _, m := range leave {
			going[m] = true
		}
		for _, m := range come {
			both[m] = going[m]
		}
	}
	for _, m := range come {
		if !both[m] {
			e.line("add "+name+" "+m+"\n", "del "+name+" "+m+"\n")
		}
	}
	for _, m := range leave {
		if !both[m] {
			e.line("del "+name+" "+m+"\n", "add "+name+" "+m+"\n")
		}
	}
}

// texts are the members for elements. Where the kernel may not take all, it is always the same that it does not.
func texts(k filter.SetKind, elements []filter.Element) (out []string) {
	for _, x := range elements {
		out = append(out, members(k, x)...)
	}
	if k == filter.IfaceAddrs {
		slices.Sort(out)
	}
	return out
}

// make makes a set and fills it.
func (e *setEdit) make(name string, k filter.SetKind, f dataplane.Family, most int, elements []filter.Element) {
	e.line(create(name, k, f, most), "destroy "+name+"\n")
	e.fill(name, k, elements)
}

// fill adds to a set that is destroyed on the way back.
func (e *setEdit) fill(name string, k filter.SetKind, elements []filter.Element) {
	var b []byte
	for _, m := range texts(k, elements) {
		b = append(append(append(append(append(b, "add "...), name...), ' '), m...), '\n')
	}
	e.line(string(b), "")
}
