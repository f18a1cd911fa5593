package calc

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/calicogo/calico/api"
)

// active is the contents of a cluster in which every policy counts: each governs one of
// 100 local endpoints and names, by a label of its own, a set of 10 endpoints, of which one
// is local.
func active(policies int) *contents {
	const local, remote = 100, 1000
	labels := make([]map[string]string, local+remote)
	for i := range labels {
		labels[i] = map[string]string{"pod": fmt.Sprint("p", i), "projectcalico.org/orchestrator": "k8s"}
	}
	c := &contents{}
	for p := range policies {
		set := fmt.Sprint("s", p)
		labels[(p+1)%local][set] = "in"
		for m := range 9 {
			labels[local+(p*9+m)%remote][set] = "in"
		}
		o := &api.GlobalNetworkPolicy{Meta: api.Named(api.KindGlobalNetworkPolicy, "", fmt.Sprint("policy", p))}
		o.Spec = api.GlobalNetworkPolicySpec{Selector: fmt.Sprintf("pod == 'p%d'", p%local), Types: []api.PolicyType{api.Ingress},
			Ingress: []api.Rule{{Action: api.Allow, Source: api.EntityRule{Selector: fmt.Sprintf("has(%s)", set)}}}}
		o.Default()
		c.objects = append(c.objects, o)
	}
	for i, l := range labels {
		node := "elsewhere"
		if i < local {
			node = "node1"
		}
		w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, "default", api.WorkloadEndpointName(node, "k8s", fmt.Sprint("p", i), "eth0"))}
		w.Labels = l
		a := netip.AddrFrom4([4]byte{10, 66, byte(i >> 8), byte(i)})
		w.Spec = api.WorkloadEndpointSpec{Node: node, Orchestrator: "k8s", Pod: fmt.Sprint("p", i), Endpoint: "eth0", ContainerID: fmt.Sprint("p", i),
			InterfaceName: fmt.Sprint("cali", i), IPNetworks: []string{hostNet(a).String()}, Profiles: []string{api.NamespaceProfile + "default"}}
		c.objects = append(c.objects, w)
		if i < local {
			c.attachments = append(c.attachments, record(w))
		}
	}
	return c
}

// BenchmarkMemory measures what lives of a cluster whose policies are all active, with the
// objects, which come as a datastore's client makes them.
func BenchmarkMemory(b *testing.B) {
	c := active(10_000)
	bodies := make([][]byte, len(c.objects))
	for i, o := range c.objects {
		body, err := json.Marshal(o)
		if err != nil {
			b.Fatal(err)
		}
		bodies[i] = body
	}
	live := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	for b.Loop() {
		before := live()
		g := New("node1")
		for i, body := range bodies {
			o := api.KindOf(c.objects[i]).New()
			if err := json.Unmarshal(body, o); err != nil {
				b.Fatal(err)
			}
			g.Put(o)
		}
		for _, a := range c.attachments {
			g.PutAttachment(a)
		}
		d := g.Flush()
		withDelta := live()
		if len(d.Policies) < 10_000 {
			b.Fatal(len(d.Policies))
		}
		d = nil
		b.ReportMetric(withDelta-before, "live-MB-with-delta")
		b.ReportMetric(live()-before, "live-MB")
		runtime.KeepAlive(g)
		runtime.KeepAlive(c)
	}
}
