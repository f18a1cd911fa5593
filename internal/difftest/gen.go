// Package difftest makes random node states and packets, and holds that every
// implementation of policy gives them one verdict: dataplane.Eval, filter's Trace, and in a real
// kernel nftables and both variants of iptables. A [Coverage] counts which condition of a rule has
// decided what. Command faults beside it plants mistakes that the test must find.
package difftest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
)

// Seed returns the seed of a random test: that of the environment's DIFFTEST_SEED, or one
// of the clock. It is printed if the test fails.
func Seed(t testing.TB) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DIFFTEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("DIFFTEST_SEED=%q: not a number", s)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with DIFFTEST_SEED=%d", seed)
		}
	})
	return seed
}

// Count is the number of rounds: that of the environment's variable, or n.
func Count(t testing.TB, variable string, n int) int {
	s := os.Getenv(variable)
	if s == "" {
		return n
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%q: not a number", variable, s)
	}
	return n
}

// Gen makes random states and packets. They are of a small world, so that rules and
// packets meet: some pods, some addresses outside, few ports and protocols.
type Gen struct {
	*rand.Rand
	id uint16 // for fresh ports
}

// NewGen returns a Gen; equal seeds give equal sequences.
func NewGen(seed uint64) *Gen { return &Gen{Rand: rand.New(rand.NewPCG(seed, 1))} }

// Pods is the number of pods' interfaces in a world. The last ones are known in no state.
const (
	Pods    = 6
	Unknown = 1
)

// Iface is the interface of pod i.
func Iface(i int) dataplane.Interface { return dataplane.Interface(fmt.Sprintf("cali%d", i)) }

// Uplink is the device to the world outside, Tunnel one that looks like a tunnel's.
const (
	Uplink = "eth0"
	Tunnel = dataplane.DeviceVXLAN
)

// PodAddr is the address of pod i.
func PodAddr(i int, f dataplane.Family) netip.Addr {
	if f == dataplane.IPv4 {
		return netip.AddrFrom4([4]byte{10, 65, byte(i / 2), byte(10 + i)})
	}
	a := [16]byte{0xfd, 0, 0, 0x65}
	a[13], a[15] = byte(i/2), byte(10+i)
	return netip.AddrFrom16(a)
}

// NodeAddr is the address of the node on the uplink; TunnelAddr that of its tunnel.
func NodeAddr(f dataplane.Family) netip.Addr {
	return pick2(f, "192.168.7.1", "fd00:7::1")
}

func TunnelAddr(f dataplane.Family) netip.Addr { return pick2(f, "10.65.9.1", "fd00:65::9:1") }

// tunnelled is an address beyond the tunnel.
func tunnelled(f dataplane.Family) netip.Addr { return pick2(f, "10.66.0.1", "fd00:66::1") }

func pick2(f dataplane.Family, four, six string) netip.Addr {
	if f == dataplane.IPv4 {
		return netip.MustParseAddr(four)
	}
	return netip.MustParseAddr(six)
}

// outside are addresses beyond the uplink: other nodes, pods there, the world.
var outside = map[dataplane.Family][]netip.Addr{
	dataplane.IPv4: addrs("192.168.7.2", "192.168.7.3", "10.65.200.5", "10.65.200.6", "10.65.77.1", "8.8.8.8", "172.16.3.4", "10.65.255.255"),
	dataplane.IPv6: addrs("fd00:7::2", "fd00:7::3", "fd00:65::200:5", "fd00:65::200:6", "fd00:65::77:1", "2001:db8::8", "2001:db8:1::4"),
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// Of returns one of xs.
func Of[T any](g *Gen, xs ...T) T { return xs[g.IntN(len(xs))] }

// some returns up to n values of f, and often none.
func some[T any](g *Gen, n int, f func() T) (out []T) {
	if g.IntN(3) > 0 {
		return nil
	}
	for range 1 + g.IntN(n) {
		out = append(out, f())
	}
	return out
}

// odds is true once in n.
func (g *Gen) odds(n int) bool { return g.IntN(n) == 0 }

var (
	setNames   = []dataplane.SetID{"s:a", "s:b", "s:c"}
	tripleSets = []dataplane.SetID{"p:http", "p:dns"}
	ports      = []uint16{1, 53, 80, 81, 83, 443, 4789, 8080, 65535}
	allProtos  = []dataplane.Protocol{
		dataplane.TCP, dataplane.TCP, dataplane.UDP, dataplane.UDP, dataplane.SCTP, dataplane.UDPLite, 4, 89, 253,
	}
)
