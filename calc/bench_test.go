package calc

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

// big is the contents of a cluster: endpoints of which local are on node1, and policies
// that each select one in spread of the endpoints and name another such selector.
func big(endpoints, local, policies, spread int) *contents {
	c := &contents{}
	for i := range endpoints {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		node := fmt.Sprintf("node%d", 2+i/100)
		if i < local {
			node = "node1"
		}
		w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, fmt.Sprintf("ns%d", i%100), fmt.Sprintf("%s-k8s-p%d-eth0", node, i))}
		w.Labels = map[string]string{"app": fmt.Sprintf("app%d", i%spread), "tier": fmt.Sprintf("t%d", i%7)}
		w.Spec = api.WorkloadEndpointSpec{Node: node, Pod: fmt.Sprintf("p%d", i), Orchestrator: "k8s", InterfaceName: fmt.Sprintf("cali%d", i),
			IPNetworks: []string{hostNet(a).String()}, Profiles: []string{fmt.Sprintf("kns.ns%d", i%100)}}
		c.objects = append(c.objects, w)
		if i < local {
			c.attachments = append(c.attachments, record(w))
		}
	}
	for i := range policies {
		p := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", fmt.Sprintf("p%d", i))}
		p.Spec = api.GlobalNetworkPolicySpec{Selector: fmt.Sprintf("app == 'app%d'", i%spread), Types: []api.PolicyType{api.Ingress},
			Ingress: []api.Rule{{Action: api.Allow, Source: api.EntityRule{Selector: fmt.Sprintf("app == 'app%d'", (i+1)%spread)}}}}
		c.objects = append(c.objects, p)
	}
	return c
}

func (c *contents) load() *Graph {
	g := New("node1")
	for _, o := range c.objects {
		g.Put(o)
	}
	for _, a := range c.attachments {
		g.PutAttachment(a)
	}
	return g
}

func BenchmarkSnapshot(b *testing.B) {
	for _, size := range []struct{ endpoints, local, policies, spread int }{
		{250_000, 200, 10_000, 1000},
		{10_000, 200, 10_000, 10_000},
	} {
		b.Run(fmt.Sprintf("endpoints=%d/policies=%d", size.endpoints, size.policies), func(b *testing.B) {
			c := big(size.endpoints, size.local, size.policies, size.spread)
			b.ReportAllocs()
			var g *Graph
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				g = c.load()
				g.Flush()
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "live-MB")
			b.ReportMetric(float64(len(g.rules.live)), "sets-in-use")
			runtime.KeepAlive(c)
		})
	}
}

// BenchmarkLabels changes the labels of one endpoint of another node.
func BenchmarkLabels(b *testing.B) {
	c := big(10_000, 200, 10_000, 10_000)
	g := c.load()
	g.Flush()
	var versions [2]*api.WorkloadEndpoint
	for i := range versions {
		versions[i] = api.Clone(c.objects[5000].(*api.WorkloadEndpoint))
		versions[i].Labels["app"] = fmt.Sprintf("app%d", 50+i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		g.Put(versions[i%2])
		i++
		if d := g.Flush(); len(d.Sets) == 0 {
			b.Fatal("nothing changed")
		}
	}
}

// BenchmarkPolicy changes the rules of one policy that governs a local endpoint.
func BenchmarkPolicy(b *testing.B) {
	c := big(10_000, 200, 10_000, 10_000)
	g := c.load()
	g.Flush()
	var versions [2]*api.GlobalNetworkPolicy
	for i := range versions {
		versions[i] = api.Clone(c.objects[10_000+100].(*api.GlobalNetworkPolicy))
		versions[i].Spec.Ingress[0].Source.Selector = fmt.Sprintf("app == 'app%d'", 500+i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		g.Put(versions[i%2])
		i++
		if d := g.Flush(); len(d.Policies) != 1 || len(d.Endpoints) != 0 {
			b.Fatal("not one policy changed")
		}
	}
}

// BenchmarkPod adds and removes a pod of this node.
func BenchmarkPod(b *testing.B) {
	c := big(10_000, 200, 10_000, 10_000)
	g := c.load()
	g.Flush()
	w := wepOf("node1", "ns1", "new", "app=app7", "10.200.0.1")
	a := record(w)
	b.ReportAllocs()
	for b.Loop() {
		g.PutAttachment(a)
		d := g.Flush()
		g.RemoveAttachment(a.ID)
		if e := g.Flush(); len(d.Endpoints)+len(e.Endpoints) != 2 || d.Endpoints[dataplane.Interface("calinew")] == nil {
			b.Fatal("not one endpoint changed")
		}
	}
}
