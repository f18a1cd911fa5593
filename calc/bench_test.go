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

// sized is the contents of a cluster in which policies count: each of 10,000 governs one of
// 1,000 local endpoints and names one of 9,000 network sets of 10 nets each, or one of 10,000.
func sized() *contents {
	const policies, local, few, nets = 10_000, 1000, 9000, 10
	c := &contents{}
	for i := range local {
		a := netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)})
		w := wepOf("node1", "default", fmt.Sprint("p", i), fmt.Sprintf("pod=p%d app=a%d", i, i%100), a.String())
		c.objects, c.attachments = append(c.objects, w), append(c.attachments, record(w))
	}
	at := 0
	set := func(name string, n int) {
		o := &api.GlobalNetworkSet{Meta: api.Named(api.KindGlobalNetworkSet, "", name)}
		o.Labels = map[string]string{"set": name}
		for range n {
			o.Spec.Nets = append(o.Spec.Nets, netip.AddrFrom4([4]byte{20, byte(at >> 16), byte(at >> 8), byte(at)}).String()+"/32")
			at++
		}
		c.objects = append(c.objects, o)
	}
	for i := range few {
		set(fmt.Sprint("s", i), nets)
	}
	set("big", policies)
	for i := range policies {
		name := "big"
		if i < few {
			name = fmt.Sprint("s", i)
		}
		o := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", fmt.Sprint("policy", i))}
		o.Spec = api.GlobalNetworkPolicySpec{Selector: fmt.Sprintf("pod == 'p%d'", i%local), Types: []api.PolicyType{api.Ingress},
			Ingress: []api.Rule{{Action: api.Allow, Source: api.EntityRule{Selector: fmt.Sprintf("set == '%s'", name)}}}}
		c.objects = append(c.objects, o)
	}
	return c
}

// BenchmarkStart is calc's part of an agent's start: 10,000 policies, 1,000 local endpoints,
// 100,000 members of sets.
func BenchmarkStart(b *testing.B) {
	c := sized()
	b.ReportAllocs()
	var g *Graph
	live := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	before := live()
	for b.Loop() {
		g = c.load()
		if d := g.Flush(); len(d.Sets) != 9001+len(ownSets) || len(d.Policies) < 10_000 {
			b.Fatal(len(d.Sets), " sets, ", len(d.Policies), " policies")
		}
	}
	b.ReportMetric(live()-before, "live-MB")
	runtime.KeepAlive(g)
	runtime.KeepAlive(c)
}

// BenchmarkNetworkSet changes one net of a network set of 100,000 that a rule uses.
func BenchmarkNetworkSet(b *testing.B) {
	var c contents
	c.pod("ns", "p", "", "10.0.0.1")
	g := c.load()
	p := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", "p")}
	p.Spec.Ingress = []api.Rule{{Action: api.Allow, Source: api.EntityRule{Selector: "has(x)"}}}
	g.Put(p)
	var versions [2]*api.GlobalNetworkSet
	for i := range versions {
		versions[i] = &api.GlobalNetworkSet{Meta: api.Named(api.KindGlobalNetworkSet, "", "s")}
		versions[i].Labels = map[string]string{"x": ""}
		for n := range 100_000 {
			versions[i].Spec.Nets = append(versions[i].Spec.Nets, fmt.Sprintf("20.%d.%d.%d/32", n>>16, n>>8&255, n&255))
		}
		versions[i].Spec.Nets[50_000] = fmt.Sprintf("30.0.0.%d/32", i)
	}
	g.Put(versions[1])
	g.Flush()
	b.Run("with reading it", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			g.Put(versions[i%2])
			g.Flush()
		}
	})
	b.Run("without", func(b *testing.B) {
		var read [2]*networkSet
		for i := range versions {
			read[i], _ = readNetworkSet(versions[i])
		}
		k, _ := keyOf(versions[0])
		for i := 0; b.Loop(); i++ {
			g.netsets.touch(k).now = read[i%2].asMember()
			g.Flush()
		}
	})
}
