package filter_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
)

// FuzzCompile reads its input as the choices that a difftest.Gen makes, one byte each: some
// changes of a small node, each followed by packets. After every change Eval, the program
// that Compile makes and the one that two Compilers have come to by deltas agree on each
// packet, and the programs are equal.
func FuzzCompile(f *testing.F) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 2))
		data := make([]byte, 100+r.IntN(400))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const longest = 2000
		src := &choices{data: data[:min(len(data), longest)]}
		g := &difftest.Gen{Rand: rand.New(src)}
		n := newFuzzNode()
		for len(src.data) > 0 {
			n.change(g)
			n.compile(t)
			for range 1 + g.IntN(6) {
				n.check(t, anyConn(g, wildPacket(g)))
			}
		}
	})
}

// fuzzNode is a state, and what has been made of it.
type fuzzNode struct {
	state     *dataplane.State
	compilers map[dataplane.Family]*filter.Compiler
	programs  map[dataplane.Family]*filter.Program
}

func newFuzzNode() *fuzzNode {
	n := &fuzzNode{state: dataplane.NewState(), compilers: map[dataplane.Family]*filter.Compiler{}, programs: map[dataplane.Family]*filter.Program{}}
	for _, f := range dataplane.Families {
		n.compilers[f] = filter.NewCompiler(f)
	}
	return n
}

func (n *fuzzNode) change(g *difftest.Gen) {
	d := g.Delta(n.state)
	for id, p := range d.Policies {
		if p != nil && g.IntN(2) == 0 {
			d.Policies[id] = wildPolicy(g, p)
		}
	}
	n.state.Apply(d)
	for _, f := range dataplane.Families {
		n.compilers[f].Update(d)
	}
}

func (n *fuzzNode) compile(t *testing.T) {
	for _, f := range dataplane.Families {
		want, err := filter.Compile(n.state, f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.compilers[f].Changes(); err != nil {
			t.Fatal(err)
		}
		if n.programs[f] = want; !reflect.DeepEqual(want, n.compilers[f].Program()) {
			t.Fatalf("%v: the Compiler's program is not Compile's\n%s", f, difftest.Describe(n.state))
		}
	}
}

func (n *fuzzNode) check(t *testing.T, p dataplane.Packet) {
	want := dataplane.Eval(n.state, p)
	for name, prog := range map[string]*filter.Program{"Compile": n.programs[p.Family()], "the Compiler": n.compilers[p.Family()].Program()} {
		got := prog.Trace(p)
		if want.Verdict != got.Verdict || want.Masquerade != got.Masquerade || difftest.Logs(want) != len(got.Logs) {
			t.Fatalf("packet %+v\nEval  %+v\nTrace of %s %+v\n%s", p, want, name, got, difftest.Describe(n.state))
		}
	}
}

// wildPolicy is the policy with some conditions that no one would write.
func wildPolicy(g *difftest.Gen, p *dataplane.Policy) *dataplane.Policy {
	q := &dataplane.Policy{ID: p.ID}
	for _, r := range p.Ingress {
		q.Ingress = append(q.Ingress, wildRule(g, r))
	}
	for _, r := range p.Egress {
		q.Egress = append(q.Egress, wildRule(g, r))
	}
	return q
}

func wildRule(g *difftest.Gen, r dataplane.Rule) dataplane.Rule {
	peer := difftest.Of(g, &r.Src, &r.Dst)
	switch g.IntN(8) {
	case 0:
		r.Protocol = dataplane.Protocol(g.IntN(256))
	case 1:
		r.NotProtocol = dataplane.Protocol(g.IntN(256))
	case 2:
		r.ICMP = &dataplane.ICMP{Type: uint8(g.IntN(256)), Code: uint8(g.IntN(256)), HasCode: g.IntN(2) == 0}
	case 3:
		r.NotICMP = &dataplane.ICMP{Type: uint8(g.IntN(256)), Code: uint8(g.IntN(256)), HasCode: g.IntN(2) == 0}
	case 4:
		peer.Nets = append(peer.Nets, wildNet(g), wildNet(g))
	case 5:
		peer.NotNets = append(peer.NotNets, wildNet(g))
	case 6:
		peer.Ports = append(peer.Ports, wildRange(g), wildRange(g))
	case 7:
		peer.NotPorts = append(peer.NotPorts, wildRange(g))
	}
	return r
}

// wildNet is a prefix of any length, with host bits or without.
func wildNet(g *difftest.Gen) netip.Prefix {
	a := difftest.PodAddr(g.IntN(difftest.Pods), difftest.Of(g, dataplane.Families[:]...))
	p := netip.PrefixFrom(a, g.IntN(a.BitLen()+1))
	if g.IntN(2) == 0 {
		return p.Masked()
	}
	return p
}

// wildRange is a range of ports that may be empty.
func wildRange(g *difftest.Gen) dataplane.PortRange {
	return dataplane.PortRange{Min: uint16(g.IntN(256)) << 8 >> g.IntN(9), Max: uint16(g.IntN(256))<<8>>g.IntN(9) | uint16(g.IntN(256))}
}

// wildPacket is one that a rule may mean, or any.
func wildPacket(g *difftest.Gen) dataplane.Packet {
	p := g.Packet()
	switch g.IntN(6) {
	case 0:
		p.Protocol = dataplane.Protocol(g.IntN(256))
	case 1:
		p.Type, p.Code = uint8(g.IntN(256)), uint8(g.IntN(256))
	case 2:
		p.SrcPort, p.DstPort = wildRange(g).Min, wildRange(g).Max
	case 3:
		p.Cut = true
	}
	return p
}

// choices is a source of random numbers each of which is a byte of the input, in all its
// places; after the last, they are those of a fixed generator.
type choices struct {
	data []byte
	rest *rand.PCG
}

func (c *choices) Uint64() uint64 {
	if len(c.data) == 0 {
		if c.rest == nil {
			c.rest = rand.NewPCG(1, 1)
		}
		return c.rest.Uint64()
	}
	b := c.data[0]
	c.data = c.data[1:]
	return uint64(b) * 0x0101010101010101
}
