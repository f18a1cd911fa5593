package conntrack_test

import (
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
)

// TestFurther holds that flows of an address that is behind a pod, but not its own, are judged as the pod's, and those of
// one that might be, but is elsewhere, are not.
func TestFurther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 2)
	behind, beyond := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.9")
	w.sh(w.pods[1], "ip addr add 198.51.100.1/32 dev lo; ip route change default via 169.254.1.1 src 198.51.100.1")
	w.sh(w.node, "ip route add 198.51.100.1 via 10.65.0.1 dev cali1 onlink; ip route add 198.51.100.9 via 192.168.7.9")
	w.sh(w.outside, "ip addr add 198.51.100.9/32 dev lo; ip route change 10.65.0.0/16 via 192.168.7.1 src 198.51.100.9; ip route add 198.51.100.1 via 192.168.7.1")
	w.state.Settings.AllowSpoofing = true
	w.state.Endpoints[iface(1)].Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	w.applyAll()
	var flows []*flow
	open := func(name, network string, from, to int, src, dst netip.Addr, port uint16) {
		at := netip.AddrPortFrom(dst, port).String()
		f := w.connect(name, network, from, to, at, at)
		f.src, f.dst = src, dst
		flows = append(flows, f)
	}
	open("out", "udp4", w.pods[1], w.outside, behind, outsideAddr(4), 9001)
	open("out", "tcp4", w.pods[1], w.pods[2], behind, podAddr(2, 4), 9002)
	open("in", "udp4", w.outside, w.pods[1], outsideAddr(4), behind, 9003)
	open("beyond", "udp4", w.outside, w.pods[2], beyond, podAddr(2, 4), 9004)
	deny := func(change func(*dataplane.Endpoint, []dataplane.TierPolicies)) {
		w.apply(func(d *dataplane.Delta) {
			none := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "none"}
			ep := *w.state.Endpoints[iface(1)]
			change(&ep, []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{none}, Default: dataplane.Deny}})
			d.Endpoints[iface(1)], d.Policies[none] = &ep, &dataplane.Policy{ID: none}
		})
	}
	w.check("allowed", flows)
	deny(func(ep *dataplane.Endpoint, none []dataplane.TierPolicies) { ep.Egress = none })
	w.check("denied from pod 1", flows, "out")
	w.ends(flows, "out")
	deny(func(ep *dataplane.Endpoint, none []dataplane.TierPolicies) { ep.Ingress = none })
	w.check("denied to pod 1, too", flows, "out", "in")
}
