package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/calc"
	"github.com/calicogo/calico/dataplane"
)

// contents is a cluster as calc is given it, of which node1 is measured.
type contents struct {
	objects     []api.Object
	attachments []*dataplane.Attachment
}

// calcSize is a cluster's size: policies each select one in spread of the endpoints and
// name another such selector.
type calcSize struct{ Endpoints, Local, Policies, Spread int }

var calcSizes = []calcSize{{250_000, 200, 10_000, 1000}, {10_000, 200, 10_000, 10_000}}

func (s calcSize) contents() *contents {
	c := &contents{}
	for i := range s.Endpoints {
		w := s.endpoint(i)
		c.objects = append(c.objects, w)
		if i < s.Local {
			c.attachments = append(c.attachments, attachment(w))
		}
	}
	for i := range s.Policies {
		c.objects = append(c.objects, s.policy(i, i+1))
	}
	return c
}

func (s calcSize) endpoint(i int) *api.WorkloadEndpoint {
	a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	node := fmt.Sprintf("node%d", 2+i/100)
	if i < s.Local {
		node = "node1"
	}
	w := &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, fmt.Sprintf("ns%d", i%100), fmt.Sprintf("%s-k8s-p%d-eth0", node, i))}
	w.Labels = map[string]string{"app": s.app(i), "tier": fmt.Sprintf("t%d", i%7)}
	w.Spec = api.WorkloadEndpointSpec{
		Node: node, Pod: fmt.Sprintf("p%d", i), Orchestrator: "k8s", InterfaceName: fmt.Sprintf("cali%d", i),
		IPNetworks: []string{netip.PrefixFrom(a, 32).String()}, Profiles: []string{fmt.Sprintf("kns.ns%d", i%100)},
	}
	return w
}

func (s calcSize) app(i int) string { return fmt.Sprintf("app%d", i%s.Spread) }

func (s calcSize) policy(i, source int) *api.GlobalNetworkPolicy {
	return policy(fmt.Sprintf("p%d", i), fmt.Sprintf("app == '%s'", s.app(i)), api.Allow, fmt.Sprintf("app == '%s'", s.app(source)))
}

func attachment(w *api.WorkloadEndpoint) *dataplane.Attachment {
	return &dataplane.Attachment{
		ID:        dataplane.AttachmentID{ContainerID: "c-" + w.Spec.Pod, IfName: "eth0"},
		Interface: dataplane.Interface(w.Spec.InterfaceName), MAC: "ee:ee:ee:00:00:01", Endpoint: w,
		Addrs: []netip.Addr{netip.MustParsePrefix(w.Spec.IPNetworks[0]).Addr()},
	}
}

// load is a snapshot, as far as Flush.
func (c *contents) load() *calc.Graph {
	g := calc.New("node1")
	for _, o := range c.objects {
		g.Put(o)
	}
	for _, a := range c.attachments {
		g.PutAttachment(a)
	}
	g.Flush()
	return g
}

// calcFigures is what the process of one size found.
type calcFigures struct {
	Load, Decode                                            []float64 // ms
	Allocated, Live                                         float64   // MB
	Labels, LabelsFloor, Policy, PolicyFloor, Pod, PodFloor []float64 // µs
}

// runCalc measures each size in a process of its own, whose memory is nothing else.
func runCalc(_ context.Context, b *bench) error {
	for i, s := range calcSizes {
		cmd := exec.Command("/bin/bench", "calc", fmt.Sprint(i), fmt.Sprint(b.n(2, 5)), fmt.Sprint(b.n(300, 3000)))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		var f calcFigures
		if err := json.Unmarshal(out, &f); err != nil {
			return err
		}
		what := fmt.Sprintf("%d endpoints, %d policies", s.Endpoints, s.Policies)
		b.report(result{What: "snapshot, " + what, Unit: "ms", Ours: f.Load, Floor: f.Decode, Aim: "1 s"})
		b.report(result{What: "snapshot, allocated, " + what, Unit: "MB", Ours: one(f.Allocated), Aim: []string{"150 MB", ""}[i]})
		b.report(result{What: "snapshot, live heap, " + what, Unit: "MB", Ours: one(f.Live), Aim: []string{"", "100 MB"}[i]})
		b.report(result{What: "labels of one endpoint changed, " + what, Unit: "µs", Ours: f.Labels, Floor: f.LabelsFloor, Aim: "2x"})
		b.report(result{What: "rules of one policy changed, " + what, Unit: "µs", Ours: f.Policy, Floor: f.PolicyFloor, Aim: "2x"})
		b.report(result{What: "one pod come or gone, " + what, Unit: "µs", Ours: f.Pod, Floor: f.PodFloor, Aim: "2x"})
	}
	return nil
}

// calcProcess is the process: the number of the size, of snapshots, of events.
func calcProcess(args []string) error {
	var size, loads, events int
	for i, n := range []*int{&size, &loads, &events} {
		if _, err := fmt.Sscan(args[i], n); err != nil {
			return err
		}
	}
	s := calcSizes[size]
	c := s.contents()
	bodies, err := encode(c.objects)
	if err != nil {
		return err
	}
	f := &calcFigures{}
	for range loads {
		f.snapshot(c)
		start := time.Now()
		for i, body := range bodies {
			if err := decode(c.objects[i], body); err != nil {
				return err
			}
		}
		f.Decode = append(f.Decode, ms(time.Since(start)))
	}
	bodies = nil
	g := c.load()
	for i := range events {
		if err := f.event(s, g, i); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// snapshot loads once, and says what that allocated and what lives.
func (f *calcFigures) snapshot(c *contents) {
	var before, after, live runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	g := c.load()
	f.Load = append(f.Load, ms(time.Since(start)))
	runtime.ReadMemStats(&after)
	runtime.GC()
	runtime.ReadMemStats(&live)
	f.Allocated = float64(after.TotalAlloc-before.TotalAlloc) / 1e6
	f.Live = float64(live.HeapAlloc-before.HeapAlloc) / 1e6
	runtime.KeepAlive(g)
	runtime.KeepAlive(c)
}

// event makes one change of each kind, and undoes it with the next.
func (f *calcFigures) event(s calcSize, g *calc.Graph, i int) error {
	w := s.endpoint(s.Endpoints / 2)
	w.Labels["app"] = s.app(50 + i%2)
	p := s.policy(100, 500+i%2)
	local := s.endpoint(7)
	local.Name, local.Spec.Pod, local.Spec.InterfaceName, local.Spec.IPNetworks = "node1-k8s-new-eth0", "new", "calinew", []string{"10.200.0.1/32"}
	at := attachment(local)
	for _, x := range []struct {
		ours, floor *[]float64
		object      api.Object
		put         func()
	}{
		{&f.Labels, &f.LabelsFloor, w, func() { g.Put(w) }},
		{&f.Policy, &f.PolicyFloor, p, func() { g.Put(p) }},
		{&f.Pod, &f.PodFloor, local, func() {
			if i%2 == 0 {
				g.PutAttachment(at)
			} else {
				g.RemoveAttachment(at.ID)
			}
		}},
	} {
		body, err := json.Marshal(x.object)
		if err != nil {
			return err
		}
		start := time.Now()
		x.put()
		d := g.Flush()
		*x.ours = append(*x.ours, 1000*ms(time.Since(start)))
		if d.Empty() && i > 0 {
			return errors.New("an event changed nothing")
		}
		start = time.Now()
		if err := decode(x.object, body); err != nil {
			return err
		}
		*x.floor = append(*x.floor, 1000*ms(time.Since(start)))
	}
	return nil
}

func encode(all []api.Object) (bodies [][]byte, err error) {
	for _, o := range all {
		b, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, b)
	}
	return bodies, nil
}

// decode is the floor: the object anew, as a reader of the datastore makes it.
func decode(like api.Object, body []byte) error { return json.Unmarshal(body, api.KindOf(like).New()) }
