package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
)

// A cluster of N active policies, as the figures of upstream have it: each governs one of
// the local pods and allows what a selector of its own selects, 10 endpoints, of which one
// is local.
const (
	localPods   = 100
	remotePods  = 1000
	setMembers  = 10
	mostPolices = 10_000
)

func setLabel(policy int) string { return fmt.Sprint("s", policy) }

// localLabels are those of local pod i: what its policies know it by, and the sets it is
// in.
func localLabels(i int) map[string]string {
	m := map[string]string{"pod": fmt.Sprint("p", i)}
	for p := range mostPolices {
		if (p+1)%localPods == i {
			m[setLabel(p)] = "in"
		}
	}
	return m
}

// remoteEndpoints are the pods of other nodes.
func remoteEndpoints() (all []api.Object) {
	labels := make([]map[string]string, remotePods)
	for i := range labels {
		labels[i] = map[string]string{"pod": "remote"}
	}
	for p := range mostPolices {
		for m := range setMembers - 1 {
			labels[(p*(setMembers-1)+m)%remotePods][setLabel(p)] = "in"
		}
	}
	for i, l := range labels {
		all = append(all, remoteEndpoint(fmt.Sprint("remote", i), netip.AddrFrom4([4]byte{10, 66, byte(i >> 8), byte(i)}), l))
	}
	return all
}

func remoteEndpoint(pod string, a netip.Addr, labels map[string]string) *api.WorkloadEndpoint {
	const node = "elsewhere"
	w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, "default", api.WorkloadEndpointName(node, "k8s", pod, "eth0"))}
	w.Labels = map[string]string{"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}
	for k, v := range labels {
		w.Labels[k] = v
	}
	w.Spec = api.WorkloadEndpointSpec{
		Node: node, Orchestrator: "k8s", Pod: pod, Endpoint: "eth0", ContainerID: pod, InterfaceName: "cali0",
		IPNetworks: []string{netip.PrefixFrom(a, a.BitLen()).String()}, Profiles: []string{api.NamespaceProfile + "default"},
	}
	return w
}

// policies are those numbered from to below to.
func policies(from, to int) (all []api.Object) {
	for p := from; p < to; p++ {
		all = append(all, policy(fmt.Sprint("policy", p), fmt.Sprintf("pod == 'p%d'", p%localPods), api.Allow, fmt.Sprintf("has(%s)", setLabel(p))))
	}
	return all
}

// policy has one rule of ingress.
func policy(name, selector string, action api.Action, source string) *api.GlobalNetworkPolicy {
	p := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", name)}
	p.Spec = api.GlobalNetworkPolicySpec{
		Selector: selector, Types: []api.PolicyType{api.Ingress},
		Ingress: []api.Rule{{Action: action, Source: api.EntityRule{Selector: source}}},
	}
	p.Default()
	return p
}

// create writes objects and returns the last revision.
func create(ctx context.Context, s *etcd.Store, all []api.Object) (rev store.Revision) {
	for len(all) > 0 {
		n := min(len(all), etcd.MaxOps)
		var ops []store.Op
		for _, o := range all[:n] {
			ops = append(ops, store.Create(o))
		}
		rev = got(s.Commit(ctx, ops))
		all = all[n:]
	}
	return rev
}

// populate adds the local pods, but those that there are, and the remote ones.
func (a *agent) populate(ctx context.Context, b *bench) {
	for i := range localPods {
		p := got(newPod(fmt.Sprint("local", i), localLabels(i)))
		b.cleanup(p.close)
		got(p.add())
	}
	must(a.holds(ctx, create(ctx, a.server.store, remoteEndpoints())))
}
