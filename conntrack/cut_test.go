package conntrack_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
)

// TestEveryWay holds that of flows of every kind exactly those are cut that a policy has come to deny:
// from pod to pod, by a service, from and to elsewhere and the host, of both families.
func TestEveryWay(t *testing.T) {
	t.Parallel()
	nstest.RequireTool(t, "nft")
	for name := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everyWay(t, name)
		})
	}
}

func everyWay(t *testing.T, name string) {
	w := newWorldOf(t, name, 1, 2)
	w.state.Settings.EndpointToHost = dataplane.Allow
	w.sh(w.node, `nft -f - <<END
table ip svc { chain pre { type nat hook prerouting priority dstnat
	ip daddr 10.96.0.2 tcp dport 80 dnat to 10.65.0.2:8080
	ip daddr 192.168.7.1 tcp dport 30080 dnat to 10.65.0.2:8081
	ip daddr 10.96.0.1 udp dport 53 dnat to 192.168.7.1:5353
}
}
table ip6 svc { chain pre { type nat hook prerouting priority dstnat
	ip6 daddr fd00:96::2 tcp dport 80 dnat to [fd00:65::2]:8080
}
}
END`)
	w.applyAll()
	flows := w.everyWay()
	ingress := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "in"}
	egress := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "out"}
	w.check("allowed", flows)
	w.apply(func(d *dataplane.Delta) {
		ep := w.endpoint(2)
		ep.Ingress = []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{ingress}, Default: dataplane.Deny}}
		d.Endpoints[iface(2)] = ep
		d.Policies[ingress] = &dataplane.Policy{ID: ingress, Ingress: rules(dataplane.Allow)}
		from := w.endpoint(1)
		from.Egress = []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{egress}, Default: dataplane.Deny}}
		d.Endpoints[iface(1)] = from
		d.Policies[egress] = &dataplane.Policy{ID: egress, Egress: rules(dataplane.Allow)}
	})
	w.check("allowed by a policy", flows)
	w.apply(func(d *dataplane.Delta) { d.Policies[ingress] = &dataplane.Policy{ID: ingress} })
	w.check("denied to pod 2", flows, "pod-pod", "service", "outside-pod", "nodeport")
	w.apply(func(d *dataplane.Delta) { d.Policies[egress] = &dataplane.Policy{ID: egress} })
	w.check("denied from pod 1, too", flows, "pod-pod", "service", "outside-pod", "nodeport", "pod-outside", "pod-host", "service-host")
	w.apply(func(d *dataplane.Delta) {
		d.Policies[ingress] = &dataplane.Policy{ID: ingress, Ingress: rules(dataplane.Allow)}
	})
	w.check("denied from pod 1", flows, "pod-pod", "service", "pod-outside", "pod-host", "service-host")
	w.apply(func(d *dataplane.Delta) {
		d.Policies[egress] = &dataplane.Policy{ID: egress, Egress: rules(dataplane.Allow)}
	})
	w.check("allowed again", flows)
	w.apply(func(d *dataplane.Delta) {
		s := w.state.Settings
		s.EndpointToHost = dataplane.Deny
		d.Settings = &s
	})
	w.check("pods may not speak to the host", flows, "pod-host", "service-host")
	w.ends(flows, "pod-host", "service-host")
	w.apply(func(d *dataplane.Delta) {
		d.Policies[ingress] = &dataplane.Policy{ID: ingress}
	})
	w.check("denied to pod 2 once more", flows, "pod-host", "service-host", "pod-pod", "service", "outside-pod", "nodeport")
	w.ends(flows, "pod-pod", "service", "outside-pod", "nodeport")
}

// everyWay opens a flow of every kind. Names begin with the kind.
func (w *world) everyWay() (flows []*flow) {
	at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
	open := func(kind, network string, from, to int, src, dst netip.Addr, port uint16, dial string) {
		f := w.connect(kind+" "+network, network, from, to, at(dst, port), dial)
		f.name, f.src, f.dst = kind, src, dst
		flows = append(flows, f)
	}
	for _, f := range dataplane.Families {
		one, two := podAddr(1, f), podAddr(2, f)
		host, outside := hostAddr(f), outsideAddr(f)
		for _, proto := range []string{"tcp", "udp"} {
			network := proto + f.String()[3:]
			direct := func(kind string, from, to int, src, dst netip.Addr, port uint16) {
				open(kind, network, from, to, src, dst, port, at(dst, port))
			}
			direct("pod-pod", w.pods[1], w.pods[2], one, two, 9001)
			direct("back", w.pods[2], w.pods[1], two, one, 9002)
			direct("outside-pod", w.outside, w.pods[2], outside, two, 9003)
			direct("pod-outside", w.pods[1], w.outside, one, outside, 9004)
			direct("host-pod", w.node, w.pods[2], host, two, 9005)
			direct("pod-host", w.pods[1], w.node, one, host, 9006)
		}
	}
	open("service", "tcp4", w.pods[1], w.pods[2], podAddr(1, 4), podAddr(2, 4), 8080, "10.96.0.2:80")
	open("service", "tcp6", w.pods[1], w.pods[2], podAddr(1, 6), podAddr(2, 6), 8080, "[fd00:96::2]:80")
	open("nodeport", "tcp4", w.outside, w.pods[2], outsideAddr(4), podAddr(2, 4), 8081, "192.168.7.1:30080")
	open("service-host", "udp4", w.pods[1], w.node, podAddr(1, 4), hostAddr(4), 5353, "10.96.0.1:53")
	return flows
}

func hostAddr(f dataplane.Family) netip.Addr {
	return map[dataplane.Family]netip.Addr{4: netip.MustParseAddr("192.168.7.1"), 6: netip.MustParseAddr("fd00:7::1")}[f]
}

func outsideAddr(f dataplane.Family) netip.Addr {
	return map[dataplane.Family]netip.Addr{4: netip.MustParseAddr("192.168.7.9"), 6: netip.MustParseAddr("fd00:7::9")}[f]
}

func (f *flow) key() string {
	protocol, port := uint8(6), uint16(0)
	if f.network[:3] == "udp" {
		protocol = 17
	}
	switch a := f.server.LocalAddr().(type) {
	case *net.TCPAddr:
		port = uint16(a.Port)
	case *net.UDPAddr:
		port = uint16(a.Port)
	}
	return key(f.src, f.dst, protocol, port)
}

// check holds that flows of these kinds are cut and no others, and that those live. What TCP has sent
// in the meantime, an acknowledgement maybe, has ended flows that were cut once.
func (w *world) check(when string, flows []*flow, kinds ...string) {
	w.t.Helper()
	want := map[string]bool{}
	for _, f := range flows {
		if slices.Contains(kinds, f.name) {
			want[f.key()] = true
			f.dead = f.network[:3] == "tcp"
		}
	}
	if diff := cmp.Diff(want, w.cut()); diff != "" {
		w.t.Fatalf("%s: marked flows (-want +got):\n%s", when, diff)
	}
	for _, f := range flows {
		if !slices.Contains(kinds, f.name) && !f.dead {
			if err := f.exchange(10 * time.Second); err != nil {
				w.t.Errorf("%s: flow %s of %s: %v", when, f.name, f.network, err)
			}
		}
	}
}

// ends holds that nothing passes by flows of these kinds, and that TCP's are reset for either end, but
// for the host's: what it sends to its pods is always allowed.
func (w *world) ends(flows []*flow, kinds ...string) {
	w.t.Helper()
	seen := map[string]bool{}
	for _, f := range flows {
		if !slices.Contains(kinds, f.name) {
			continue
		}
		seen[f.name] = true
		if f.network[:3] == "udp" {
			if err := f.exchange(100 * time.Millisecond); err == nil {
				w.t.Errorf("flow %s of %s passes though it is cut", f.name, f.network)
			}
			continue
		}
		for _, end := range []net.Conn{f.client, f.server} {
			if end == f.server && f.dst == hostAddr(dataplane.FamilyOf(f.dst)) {
				continue
			}
			if err := reset(end); err != nil {
				w.t.Errorf("flow %s of %s: %v", f.name, f.network, err)
			}
		}
	}
	if len(seen) != len(kinds) {
		w.t.Errorf("of %v only %v were tried", kinds, slices.Collect(maps.Keys(seen)))
	}
}

// reset sends, and returns an error unless the answer is a reset.
func reset(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("anyone?")); isReset(err) {
		return nil
	}
	n, err := c.Read(make([]byte, 64))
	if !isReset(err) {
		return fmt.Errorf("sent, and read %d bytes with error %v, want a reset", n, err)
	}
	return nil
}
