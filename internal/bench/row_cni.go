package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/calicogo/calico/api"
)

// runExec measures the start of processes alone.
func runExec(_ context.Context, b *bench) error {
	var plugin, ctl, node, floor samples
	for range b.n(50, 200) {
		for _, x := range []struct {
			to   *samples
			args []string
			env  []string
		}{
			{&plugin, []string{"/bin/calico-cni"}, []string{"CNI_COMMAND=VERSION"}},
			{&floor, []string{"/bin/bench-empty"}, nil},
			{&ctl, []string{"/bin/calicoctl", "--help"}, nil},
			{&node, []string{"/bin/calico", "version"}, nil},
		} {
			cmd := exec.Command(x.args[0], x.args[1:]...)
			cmd.Env = x.env
			start := time.Now()
			if err := cmd.Run(); err != nil {
				return err
			}
			x.to.since(start)
		}
	}
	b.report(result{What: "start of the plugin (VERSION)", Unit: "ms", Ours: plugin, Floor: floor})
	b.report(result{What: "start of calicoctl --help", Unit: "ms", Ours: ctl, Floor: floor})
	b.report(result{What: "start of calico version", Unit: "ms", Ours: node, Floor: floor})
	return nil
}

// cniBench is what the samples of one row need.
type cniBench struct {
	ctx   context.Context
	agent *agent
	floor *machine
	size  int // bytes that an ADD writes to etcd

	add, del, addFloor, delFloor, cpu, floorCPU samples
}

// runCNI measures ADD and DEL as whole processes.
func runCNI(ctx context.Context, b *bench) error {
	c := &cniBench{ctx: ctx, agent: b.newAgent(ctx), floor: got(newMachine(1))}
	b.cleanup(c.floor.close)
	for i := range 3 { // what only the first ones do is not measured
		c.pair(fmt.Sprint("warm", i), 250-i)
	}
	c.clear()
	for i := range b.n(100, 400) {
		c.pair(fmt.Sprint("pod", i), i%200)
	}
	b.report(result{What: "ADD, one after another", Unit: "ms", Ours: c.add, Floor: c.addFloor, Aim: "2x"})
	b.report(result{What: "DEL, one after another", Unit: "ms", Ours: c.del, Floor: c.delFloor, Aim: "2x"})
	b.report(result{What: "ADD, CPU of plugin and agent", Unit: "ms", Ours: c.cpu, Floor: c.floorCPU, Aim: "10 ms"})
	var ours, floor, ourDel, floorDel samples
	for i := range b.n(4, 10) {
		o, f, od, fd := c.parallel(fmt.Sprint("par", i), 48, 8)
		ours.add(o)
		floor.add(f)
		ourDel.add(od)
		floorDel.add(fd)
	}
	b.report(result{What: "ADD, 8 in parallel", Unit: "/s", Ours: ours, Floor: floor, Aim: "2x, 300 /s", More: true})
	b.report(result{What: "DEL, 8 in parallel", Unit: "/s", Ours: ourDel, Floor: floorDel, Aim: "2x", More: true})
	return nil
}

func (c *cniBench) clear() {
	c.add, c.del, c.addFloor, c.delFloor, c.cpu, c.floorCPU = nil, nil, nil, nil, nil, nil
}

// pair measures one ADD and DEL of each.
func (c *cniBench) pair(name string, i int) {
	p, q := got(newPod(name, nil)), got(newNS())
	defer p.close()
	defer q.close()
	before := got(cpuTime(c.agent.cmd.Process.Pid))
	add := got(p.add())
	after := got(cpuTime(c.agent.cmd.Process.Pid))
	c.add.took(add.took)
	c.cpu.took(after - before + add.state.UserTime() + add.state.SystemTime())
	if c.size == 0 {
		c.size = c.written(p)
	}
	mine := got(cpuTime(1))
	took, empty := c.bareAdd(q, name, i)
	c.addFloor.took(took)
	c.floorCPU.took(got(cpuTime(1)) - mine + empty.UserTime() + empty.SystemTime())
	c.del.took(got(p.cni("DEL")).took)
	c.delFloor.took(c.bareDel(name))
}

// written is how many bytes an ADD wrote to etcd: block, handle and endpoint.
func (c *cniBench) written(p *pod) (n int) {
	for _, k := range []string{
		"/calico/ipam/v2/handle/k8s-pod-network." + p.container,
		fmt.Sprintf("/calico/ipam/v2/assignment/ipv4/block/%v-%d", netip.PrefixFrom(p.addr, 26).Masked().Addr(), 26),
		fmt.Sprintf("/calico/resources/v3/projectcalico.org/workloadendpoints/default/%s",
			api.WorkloadEndpointName(nodeName, "k8s", p.name, "eth0")),
	} {
		r := got(c.agent.server.raw.Get(c.ctx, k))
		if len(r.Kvs) != 1 {
			must(fmt.Errorf("after an ADD etcd has no %s", k))
		}
		n += len(r.Kvs[0].Value)
	}
	return n
}

// bareAdd is the floor of an ADD.
func (c *cniBench) bareAdd(n *netns, name string, i int) (time.Duration, *os.ProcessState) {
	start := time.Now()
	empty := got(execEmpty())
	must(bareWire(c.floor, n, device(name), netip.AddrFrom4([4]byte{10, 64, 0, byte(i)})))
	must(c.agent.server.put(c.ctx, "/floor/"+name, c.size))
	return time.Since(start), empty
}

// bareDel is the floor of a DEL.
func (c *cniBench) bareDel(name string) time.Duration {
	start := time.Now()
	got(execEmpty())
	must(bareUnwire(c.floor, device(name)))
	must(c.agent.server.put(c.ctx, "/floor/"+name, c.size))
	return time.Since(start)
}

func device(name string) string { return "bare" + name[max(0, len(name)-11):] }

// parallel measures n of each, so many at a time, and returns how many a second.
func (c *cniBench) parallel(name string, n, at int) (ours, floor, ourDel, floorDel float64) {
	pods, spaces := make([]*pod, n), make([]*netns, n)
	for i := range pods {
		pods[i], spaces[i] = got(newPod(fmt.Sprintf("%s-%d", name, i), nil)), got(newNS())
		defer pods[i].close()
		defer spaces[i].close()
	}
	ours = perSecond(n, atOnce(n, at, func(i int) { got(pods[i].add()) }))
	floor = perSecond(n, atOnce(n, at, func(i int) { c.bareAdd(spaces[i], fmt.Sprintf("%s-%d", name, i), i) }))
	ourDel = perSecond(n, atOnce(n, at, func(i int) { got(pods[i].cni("DEL")) }))
	floorDel = perSecond(n, atOnce(n, at, func(i int) { c.bareDel(fmt.Sprintf("%s-%d", name, i)) }))
	return ours, floor, ourDel, floorDel
}

// atOnce calls f for each of n, so many at a time, and returns how long that took.
func atOnce(n, at int, f func(int)) time.Duration {
	next := make(chan int)
	fails := make(chan any, at)
	var wg sync.WaitGroup
	start := time.Now()
	for range at {
		wg.Go(func() {
			defer func() {
				if x := recover(); x != nil {
					fails <- x
					for range next {
					}
				}
			}()
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	took := time.Since(start)
	select {
	case x := <-fails:
		panic(x)
	default:
	}
	return took
}
