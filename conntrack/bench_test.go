package conntrack_test

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/conntrack"
	"github.com/calicogo/calico/dataplane"
)

// BenchmarkLoop is what the agent's loop takes for a pod that comes and for a policy that changes, rules included, while
// passes go on beside it; without is the same with none. ms/cut is how long it takes until the flows that a policy's change concerns are
// judged: the first change after a quiet time, and changes without end, between which passes rest.
func BenchmarkLoop(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		w := newWorld(b, 1, 2)
		w.state.Endpoints[iface(1)].Ingress = []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{policyOf(1)}, Default: dataplane.Deny}}
		w.state.Policies[policyOf(1)] = &dataplane.Policy{ID: policyOf(1), Ingress: rules(dataplane.Allow)}
		w.applyAll()
		fill(b, w.node, n)
		w.applyAll()
		l := &loop{world: w, ended: make(chan error, 1)}
		pod := func(i int) *dataplane.Delta {
			d := dataplane.NewDelta()
			ep := w.endpoint(3 + i%100)
			d.Endpoints[ep.Interface] = ep
			if w.state.Endpoints[ep.Interface] != nil {
				d.Endpoints[ep.Interface] = nil
			}
			return d
		}
		policy := func(i int) *dataplane.Delta {
			d := dataplane.NewDelta()
			d.Policies[policyOf(1)] = &dataplane.Policy{ID: policyOf(1), Ingress: rules(dataplane.Log, dataplane.Allow, dataplane.Allow)[i%2:]}
			return d
		}
		for name, change := range map[string]func(int) *dataplane.Delta{"pod": pod, "policy": policy} {
			for _, flows := range []bool{false, true} {
				b.Run(fmt.Sprintf("%d/%s/%s", n, name, map[bool]string{false: "without", true: "with"}[flows]), func(b *testing.B) {
					var took []time.Duration
					for i := 0; b.Loop(); i++ {
						begin := time.Now()
						l.step(change(i), flows)
						took = append(took, time.Since(begin))
						b.StopTimer()
						time.Sleep(20 * time.Millisecond) // changes come one by one
						b.StartTimer()
					}
					slices.Sort(took)
					b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/p50")
					b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms/p99")
					l.quiet()
				})
			}
		}
		for _, rested := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/cut/%s", n, map[bool]string{true: "after-quiet", false: "without-end"}[rested]), func(b *testing.B) {
				var took []time.Duration
				for i := 0; b.Loop(); i++ {
					if rested {
						l.flows.Owe(-time.Hour)
					}
					begin := time.Now()
					l.step(policy(i), true)
					l.quiet()
					took = append(took, time.Since(begin))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/cut")
			})
		}
		l.quiet()
	}
}

// loop is an agent's, but for its bell.
type loop struct {
	*world
	busy  bool
	last  *conntrack.Pass
	ended chan error
}

// step makes a change. Where flows have a part in it, a pass goes on beside.
func (l *loop) step(d *dataplane.Delta, flows bool) {
	l.state.Apply(d)
	l.rules.Update(d)
	l.flows.Update(d)
	l.must(l.rules.Sync(ctx))
	if flows {
		l.pass()
	}
	l.flows.Release()
}

// pass begins the next pass, unless one is under way or has to rest.
func (l *loop) pass() (rest time.Duration) {
	if l.busy {
		select {
		case err := <-l.ended:
			l.end(err)
		default:
			return 0
		}
	}
	p, rest := l.flows.Begin()
	if p != nil {
		l.busy, l.last = true, p
		go func() { l.ended <- p.Run(ctx) }()
	}
	return rest
}

// quiet waits until nothing is left to judge.
func (l *loop) quiet() {
	for {
		l.flows.Hold()
		rest := l.pass()
		l.flows.Release()
		switch {
		case l.busy:
			l.end(<-l.ended)
		case rest > 0:
			time.Sleep(rest)
		default:
			return
		}
	}
}

func (l *loop) end(err error) {
	l.must(err)
	l.flows.End(l.last, err)
	l.busy = false
}

// fill has n flows tracked, all with pod 2 at one end.
func fill(t testing.TB, ns, n int) {
	t.Helper()
	h, err := vnl.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	dst := net.IP(podAddr(2, 4).AsSlice())
	for i := range n {
		src := net.IPv4(198, 51, byte(i>>8), byte(i)).To4()
		err := h.ConntrackCreate(vnl.ConntrackTable, unix.AF_INET, &vnl.ConntrackFlow{
			FamilyType: unix.AF_INET, TimeOut: 3600,
			Forward: vnl.IPTuple{SrcIP: src, DstIP: dst, SrcPort: uint16(i>>16) + 1, DstPort: 2, Protocol: unix.IPPROTO_UDP},
			Reverse: vnl.IPTuple{SrcIP: dst, DstIP: src, SrcPort: 2, DstPort: uint16(i>>16) + 1, Protocol: unix.IPPROTO_UDP},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
