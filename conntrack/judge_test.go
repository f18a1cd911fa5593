package conntrack

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/netlink"
)

// TestJudge holds that a flow is judged as Eval judges its first packet, for random states and packets
// and what connection tracking would say of them.
func TestJudge(t *testing.T) {
	g := difftest.NewGen(difftest.Seed(t))
	seen := map[string]int{}
	for round := range difftest.Count(t, "DIFFTEST_STATES", 150) {
		s := g.State()
		j := judgeOf(t, s)
		for range difftest.Count(t, "DIFFTEST_PACKETS", 100) {
			p := g.Packet()
			p.Conn, p.Cut, p.Fragment = dataplane.ConnNew, false, false
			if !tracked(j, &p) {
				continue
			}
			f := flowOf(p)
			denied, ours := j.denies(&f)
			want := dataplane.Eval(s, p)
			deny := want.Verdict != dataplane.Accept && want.Verdict != dataplane.Return
			pods := len(j.owners.byAddr[p.Src])+len(j.owners.byAddr[p.Dst]) > 0
			if ours != pods || ours && denied != deny {
				t.Fatalf("round %d: %+v: ours %v, denied %v; Eval: %v (%s) %+v\n%s", round, p, ours, denied, want.Verdict, want.Reason, want.Steps, difftest.Describe(s))
			}
			seen[map[bool]string{true: "denied", false: "allowed"}[denied]]++
			if p.Out == "" {
				seen["to the host"]++
			}
		}
	}
	t.Log(seen)
	for _, what := range []string{"denied", "allowed", "to the host"} {
		if seen[what] < 50 {
			t.Errorf("only %d packets were of the kind %q", seen[what], what)
		}
	}
}

func judgeOf(t *testing.T, s *dataplane.State) *judge {
	t.Helper()
	j := &judge{owners: newOwners(), programs: map[dataplane.Family]*filter.Program{}, host: map[netip.Addr]bool{},
		routes: map[netip.Addr]string{}, lookUp: func(netip.Addr) (string, error) { return difftest.Uplink, nil }}
	for id, ep := range s.Endpoints {
		j.owners.put(id, ep)
	}
	for _, f := range dataplane.Families {
		p, err := filter.Compile(s, f)
		if err != nil {
			t.Fatal(err)
		}
		j.programs[f] = p
		j.host[difftest.NodeAddr(f)], j.host[difftest.TunnelAddr(f)] = true, true
	}
	return j
}

// tracked tells whether the packet may be a flow's first that was confirmed some time: it comes from
// where its source is and goes where its destination is.
func tracked(j *judge, p *dataplane.Packet) bool {
	at := func(a netip.Addr, device string, pods []dataplane.Interface) bool {
		switch {
		case len(pods) > 0:
			return slices.Equal(pods, []dataplane.Interface{dataplane.Interface(device)})
		case j.host[a]:
			return device == ""
		}
		return device == difftest.Uplink || device == difftest.Tunnel
	}
	return !p.Src.IsMulticast() && !p.Dst.IsMulticast() &&
		at(p.Src, p.In, j.owners.byAddr[p.Src]) && at(p.Dst, p.Out, j.owners.byAddr[p.Dst]) && !p.Discovery()
}

// flowOf is what the kernel has of the flow that the packet opens. Its destination was translated.
func flowOf(p dataplane.Packet) netlink.Flow {
	service := netip.MustParseAddr("10.96.0.1")
	return netlink.Flow{
		Original: netlink.Tuple{Src: p.Src, Dst: service, Protocol: uint8(p.Protocol), SrcPort: p.SrcPort, DstPort: 1, Type: p.Type, Code: p.Code},
		Reply:    netlink.Tuple{Src: p.Dst, Dst: p.Src, Protocol: uint8(p.Protocol), SrcPort: p.DstPort, DstPort: p.SrcPort},
	}
}
