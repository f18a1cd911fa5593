package conntrack_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// TestScope holds that a change has only the flows judged that it may concern, and that flows of a
// pod that is gone are deleted, and no others.
func TestScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 2, 3)
	in := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "in"}
	ep := w.state.Endpoints[iface(2)]
	ep.Ingress = []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{in}, Default: dataplane.Deny}}
	fromSet := dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{"s"}}}
	w.state.Policies[in] = &dataplane.Policy{ID: in, Ingress: []dataplane.Rule{fromSet}}
	w.state.Sets["s"] = members("10.65.0.1/32", "10.65.0.3/32", "192.168.7.0/28", "fd00:65::/64")
	w.applyAll()
	var flows []*flow
	open := func(name, network string, from, to int, src, dst netip.Addr, port uint16) {
		at := netip.AddrPortFrom(dst, port).String()
		f := w.connect(name, network, from, to, at, at)
		f.src, f.dst = src, dst
		flows = append(flows, f)
	}
	open("one", "udp4", w.pods[1], w.pods[2], podAddr(1, 4), podAddr(2, 4), 9001)
	open("one6", "udp6", w.pods[1], w.pods[2], podAddr(1, 6), podAddr(2, 6), 9001)
	open("three", "udp4", w.pods[3], w.pods[2], podAddr(3, 4), podAddr(2, 4), 9001+1)
	open("out", "tcp4", w.outside, w.pods[2], outsideAddr(4), podAddr(2, 4), 9003)
	open("other", "tcp4", w.pods[1], w.pods[3], podAddr(1, 4), podAddr(3, 4), 9004)
	judged := func(what string, passes, flows int, change func(*dataplane.Delta)) {
		t.Helper()
		before := w.flows.Stats()
		w.apply(change)
		after := w.flows.Stats()
		if after.Passes-before.Passes != passes || after.Judged-before.Judged != flows {
			t.Errorf("%s: %d passes, %d flows judged, want %d and %d", what, after.Passes-before.Passes, after.Judged-before.Judged, passes, flows)
		}
	}
	set := func(add, remove string) func(*dataplane.Delta) {
		return func(d *dataplane.Delta) {
			sd := &dataplane.SetDelta{}
			if add != "" {
				sd.Add = append(sd.Add, dataplane.Member{Prefix: netip.MustParsePrefix(add)})
			}
			if remove != "" {
				sd.Remove = append(sd.Remove, dataplane.Member{Prefix: netip.MustParsePrefix(remove)})
			}
			d.Sets["s"] = sd
		}
	}
	judged("a policy that governs nobody", 0, 0, func(d *dataplane.Delta) {
		id := dataplane.PolicyID{Kind: "NetworkPolicy", Name: "nobody's"}
		d.Policies[id] = &dataplane.Policy{ID: id}
	})
	judged("a set that nobody uses", 0, 0, func(d *dataplane.Delta) {
		d.Sets["x"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: netip.MustParsePrefix("10.65.0.0/16")}}}
	})
	judged("a route", 0, 0, func(d *dataplane.Delta) { d.Routes[netip.MustParsePrefix("10.0.0.0/8")] = &dataplane.Route{} })
	judged("a member more", 1, 0, set("10.65.0.9/32", ""))
	judged("a member less", 1, 1, set("", "10.65.0.3/32"))
	w.check("one member less", flows, "three")
	judged("a prefix less", 1, 1, set("", "192.168.7.0/28"))
	w.check("a prefix less", flows, "three", "out")
	judged("a prefix of IPv6 less", 1, 1, set("", "fd00:65::/64"))
	w.check("a prefix of IPv6 less", flows, "three", "out", "one6")
	judged("all members back", 1, 4, func(d *dataplane.Delta) {
		add := w.state.Delta().Sets["s"].Add // and more, of which one has every flow judged
		for m := range members("10.65.0.3/32", "192.168.0.0/16", "fd00:65::/64", "10.65.0.2/32") {
			add = append(add, m)
		}
		d.Sets["s"] = &dataplane.SetDelta{Add: add}
	})
	w.check("all members back", flows)
	judged("a pod", 1, 2, func(d *dataplane.Delta) { d.Endpoints[iface(3)] = w.endpoint(3) })

	judged("pod 1 is gone", 1, 3, func(d *dataplane.Delta) { d.Endpoints[iface(1)] = nil })
	left := map[string]bool{}
	w.must(w.table.Each(netlink.Query{}, func(f *netlink.Flow) error {
		left[key(f.Source(), f.Destination(), f.Original.Protocol, f.Reply.SrcPort)] = true
		return nil
	}))
	if diff := cmp.Diff(map[string]bool{flows[2].key(): true, flows[3].key(): true}, left); diff != "" {
		t.Errorf("after a pod is gone, flows (-want +got):\n%s", diff)
	}
	for _, f := range flows[2:3] {
		if err := f.exchange(10 * time.Second); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}
