package conntrack_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) }

// Of TestThousandFlows: servers, each with a policy of its own. Each end of each flow sends once in a beat.
const (
	servers = 10
	beat    = 150 * time.Millisecond
)

// flowsPerServer is how many the named backend is tried with: all a thousand where FLOWS_FULL is set.
func flowsPerServer(name string) int {
	if name == "nft" || os.Getenv("FLOWS_FULL") != "" {
		return 100
	}
	return 20
}

// TestThousandFlows holds that of 1,000 live TCP flows, half by services, exactly those are reset, at
// both ends, that a policy's change denies; also if the agent that wrote the rules died before it
// came to the flows. Allowing them again revives none. The second and third backend have fewer flows, unless
// FLOWS_FULL is set.
func TestThousandFlows(t *testing.T) {
	t.Parallel()
	nstest.RequireTool(t, "nft")
	for name := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			thousandFlows(t, name, flowsPerServer(name))
		})
	}
}

func thousandFlows(t *testing.T, name string, perPod int) {
	all := []int{100}
	for n := range servers {
		all = append(all, n+1)
	}
	w := newWorldOf(t, name, all...)
	services := "table ip svc { chain pre { type nat hook prerouting priority dstnat\n"
	for n := range servers {
		ep := w.state.Endpoints[iface(n+1)]
		ep.Ingress = []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{policyOf(n)}, Default: dataplane.Deny}}
		w.state.Policies[policyOf(n)] = &dataplane.Policy{ID: policyOf(n), Ingress: rules(dataplane.Allow)}
		services += fmt.Sprintf("ip daddr 10.96.0.%d tcp dport 80 dnat to %v:8080\n", n+1, podAddr(n+1, 4))
	}
	w.sh(w.node, "nft -f - <<END\n"+services+"}\n}\nEND")
	w.applyAll()
	b := w.beats(perPod)
	b.live(nil)

	neutral := &dataplane.Policy{ID: policyOf(3), Ingress: rules(dataplane.Log, dataplane.Allow, dataplane.Allow)}
	neutral.Ingress[0].Protocol = dataplane.UDP
	w.apply(func(d *dataplane.Delta) { d.Policies[policyOf(3)] = neutral })
	b.live(nil)

	begin := time.Now()
	deny := dataplane.NewDelta()
	deny.Policies[policyOf(3)] = &dataplane.Policy{ID: policyOf(3)}
	w.applyRules(deny)
	written := time.Since(begin)
	w.must(w.flows.Sync(ctx))
	applied := time.Since(begin)
	b.ended(3)
	t.Logf("%d flows of %d: rules in %v, marks after %v, all reset at both ends after %v", perPod, servers*perPod, written, applied, time.Since(begin))
	b.live(map[int]bool{3: true})
	if s := w.flows.Stats(); s.Cut != perPod {
		t.Errorf("%d flows were marked, want %d", s.Cut, perPod)
	}

	w.apply(func(d *dataplane.Delta) { d.Policies[policyOf(3)] = neutral })
	if cut := w.cut(); len(cut) > 0 {
		t.Errorf("allowed again: still marked: %v", cut)
	}
	b.live(map[int]bool{3: true})

	// The agent dies between rules and flows; or the policy changes while there is none.
	d := dataplane.NewDelta()
	d.Policies[policyOf(7)] = &dataplane.Policy{ID: policyOf(7)}
	w.applyRules(d)
	b.live(map[int]bool{3: true})
	w.start()
	begin = time.Now()
	w.applyAll()
	b.ended(7)
	t.Logf("after a restart: all reset after %v", time.Since(begin))
	b.live(map[int]bool{3: true, 7: true})
}

func policyOf(n int) dataplane.PolicyID {
	return dataplane.PolicyID{Kind: "NetworkPolicy", Name: fmt.Sprint("server", n)}
}

// beats are flows whose ends send all the time.
type beats struct {
	t    testing.TB
	ends [servers][]*end
}

// end is one side of a flow.
type end struct {
	conn net.Conn
	got  atomic.Int64
	err  atomic.Pointer[error] // that ended it
}

func (w *world) beats(perPod int) *beats {
	b := &beats{t: w.t}
	stop := make(chan struct{})
	var parts sync.WaitGroup
	w.t.Cleanup(func() {
		close(stop)
		for n := range b.ends {
			for _, e := range b.ends[n] {
				e.conn.Close()
			}
		}
		parts.Wait()
	})
	for n := range servers {
		var l net.Listener
		w.must(netlink.Do(w.pods[n+1], func() (err error) { l, err = net.Listen("tcp4", ":8080"); return err }))
		service := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(n + 1)}), 80)
		direct := netip.AddrPortFrom(podAddr(n+1, 4), 8080)
		w.must(netlink.Do(w.pods[100], func() error {
			for i := range perPod {
				to := direct
				if i%2 == 0 {
					to = service
				}
				c, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp4", to.String())
				if err != nil {
					return err
				}
				s, err := l.Accept()
				if err != nil {
					return err
				}
				b.ends[n] = append(b.ends[n], &end{conn: c}, &end{conn: s})
			}
			return nil
		}))
		l.Close()
	}
	for n := range b.ends {
		for _, e := range b.ends[n] {
			parts.Go(func() { e.send(stop) })
			parts.Go(e.receive)
		}
	}
	return b
}

func (e *end) send(stop chan struct{}) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		if _, err := e.conn.Write([]byte{1}); err != nil {
			e.err.CompareAndSwap(nil, &err)
			return
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

func (e *end) receive() {
	buf := make([]byte, 64)
	for {
		n, err := e.conn.Read(buf)
		e.got.Add(int64(n))
		if err != nil {
			e.err.CompareAndSwap(nil, &err)
			return
		}
	}
}

// live waits until every end that is not of the pods has received something more, and holds that
// none has ended, and that those have received nothing more.
func (b *beats) live(but map[int]bool) {
	b.t.Helper()
	var had [servers][]int64
	for n := range b.ends {
		for _, e := range b.ends[n] {
			had[n] = append(had[n], e.got.Load())
		}
	}
	for n := range b.ends {
		for i, e := range b.ends[n] {
			if but[n] {
				continue
			}
			b.until(fmt.Sprintf("server %d, end %d to receive more", n, i), func() bool {
				if err := e.err.Load(); err != nil {
					b.t.Fatalf("server %d, end %d: %v", n, i, *err)
				}
				return e.got.Load() >= had[n][i]+2
			})
		}
	}
	for n := range but {
		for i, e := range b.ends[n] {
			if got := e.got.Load(); got != had[n][i] {
				b.t.Errorf("server %d, end %d: received %d bytes more though it had ended", n, i, got-had[n][i])
			}
		}
	}
}

// ended waits until every end of a pod's flows was reset.
func (b *beats) ended(n int) {
	b.t.Helper()
	for i, e := range b.ends[n] {
		b.until(fmt.Sprintf("server %d, end %d to be reset", n, i), func() bool {
			err := e.err.Load()
			if err != nil && !isReset(*err) {
				b.t.Fatalf("server %d, end %d: %v, want a reset", n, i, *err)
			}
			return err != nil
		})
	}
}

func (b *beats) until(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("waited in vain for %s", what)
		}
	}
}
