package ipam

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
)

// maxHostBits bounds the size of a block: /20 in IPv4 and /116 in IPv6, as upstream.
const maxHostBits = 12

// capacity is the number of addresses of a block.
func capacity(cidr netip.Prefix) int { return 1 << (cidr.Addr().BitLen() - cidr.Bits()) }

// addrAt returns the address of cidr with the given ordinal.
func addrAt(cidr netip.Prefix, ordinal int) netip.Addr {
	return add(cidr.Addr(), 0, uint64(ordinal))
}

// ordinalOf returns the distance of a, an address of cidr, from the first.
func ordinalOf(cidr netip.Prefix, a netip.Addr) int {
	b := a.As16()
	return int(binary.BigEndian.Uint16(b[14:])) & (capacity(cidr) - 1)
}

// add returns a + hi·2⁶⁴ + lo.
func add(a netip.Addr, hi, lo uint64) netip.Addr {
	b := a.As16()
	l, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), lo, 0)
	h, _ := bits.Add64(binary.BigEndian.Uint64(b[:8]), hi, carry)
	binary.BigEndian.PutUint64(b[8:], l)
	binary.BigEndian.PutUint64(b[:8], h)
	if a.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

// blockAt returns the i-th block of the given prefix length within pool.
func blockAt(pool netip.Prefix, length int, i uint64) netip.Prefix {
	host := pool.Addr().BitLen() - length
	return netip.PrefixFrom(add(pool.Addr(), i>>(64-host), i<<host), length)
}

// blockCount is the number of blocks of the given length in pool, 2⁶² at most: a larger
// number is never used up.
func blockCount(pool netip.Prefix, length int) uint64 {
	return 1 << min(length-pool.Bits(), 62)
}

// parseBlockCIDR parses the CIDR of a block and checks that it can be one.
func parseBlockCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s has host bits set", s)
	}
	if p.Addr().BitLen()-p.Bits() > maxHostBits {
		return p, fmt.Errorf("%s is larger than %d addresses", s, 1<<maxHostBits)
	}
	return p, nil
}

var dashes = strings.NewReplacer(".", "-", ":", "-", "/", "-")

// BlockName is the name of the IPAMBlock of cidr: 10-10-72-0-26, as upstream.
func BlockName(cidr netip.Prefix) string { return dashes.Replace(cidr.String()) }

// AffinityName is the name of node's BlockAffinity to cidr: node1-10-10-72-0-26, as
// upstream.
func AffinityName(node string, cidr netip.Prefix) string { return node + "-" + BlockName(cidr) }
