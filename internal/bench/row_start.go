package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// runStart measures from the start of the process to the first status that says that the
// kernel holds what the datastore had when it was started, and the agent's memory then.
func runStart(ctx context.Context, b *bench) error {
	a := b.newAgent(ctx)
	a.starts(b, "0 policies", b.n(10, 40))
	b.agentMemory(a, "near empty")
	a.populate(ctx, b)
	a.withPolicies(ctx)
	what := fmt.Sprint(mostPolices, " policies")
	a.starts(b, what, b.n(4, 15))
	b.agentMemory(a, what)
	a.crowd(ctx, b)
	a.withPolicies(ctx)
	what = fmt.Sprintf("%d policies, %d endpoints, %d members", mostPolices, crowd, mostPolices*setMembers)
	a.starts(b, what, b.n(2, 15))
	b.agentMemory(a, what)
	b.pluginMemory()
	return nil
}

// withPolicies has the agent start anew and enforce the policies, which are written while there is none: it
// is no matter of this row how it takes them in one by one.
func (a *agent) withPolicies(ctx context.Context) {
	a.kill()
	create(ctx, a.server.store, policies(0, mostPolices))
	a.restart(true)
}

// crowd is how many pods the node has after the method of that name.
const crowd = 1000

// crowd takes the policies away and adds pods, which the same policies govern as those that there are, a
// hundred each, but which are in no set.
func (a *agent) crowd(ctx context.Context, b *bench) {
	a.kill()
	got(a.server.raw.Delete(ctx, "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/", clientv3.WithPrefix()))
	a.restart(true)
	pods := make([]*pod, crowd-localPods)
	for i := range pods {
		pods[i] = got(newPod(fmt.Sprint("crowd", i), map[string]string{"pod": fmt.Sprint("p", i%localPods)}))
		b.cleanup(pods[i].close)
	}
	atOnce(len(pods), 8, func(i int) { got(pods[i].add()) })
}

// starts measures starts with no table in the kernel, and with the one that a killed agent
// left.
func (a *agent) starts(b *bench, what string, n int) {
	var cold, warm, coldFloor, warmFloor samples
	size := a.tableSize()
	b.turns(n, func(int) {
		cold.took(a.restart(true))
		coldFloor.took(a.bareStart(size, true))
		warm.took(a.restart(false))
		warmFloor.took(a.bareStart(size, false))
	})
	b.report(result{What: "start to enforced, no table, " + what, Unit: "ms", Ours: cold, Floor: coldFloor, Aim: "2x, 150/500 ms"})
	b.report(result{What: "start to enforced, table stands, " + what, Unit: "ms", Ours: warm, Floor: warmFloor, Aim: "2x, 150/500 ms"})
}

// restart kills the agent and starts it.
func (a *agent) restart(wipe bool) time.Duration {
	a.kill()
	if wipe {
		must(netlink.Do(int(a.Fd()), flushTables))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rev := got(a.server.raw.Get(ctx, "/calico/", clientv3.WithCountOnly())).Header.Revision
	start := time.Now()
	must(a.start())
	for {
		s, err := a.status(ctx, "")
		if err == nil && s.Revision >= rev {
			took := time.Since(start)
			must(a.ready(ctx))
			return took
		}
		if ctx.Err() != nil {
			must(fmt.Errorf("the agent is not there after %v: %v, %+v", patience, err, s))
		}
		time.Sleep(time.Millisecond)
	}
}

// flushTables deletes all tables of the calling thread's namespace, as `nft flush ruleset`.
func flushTables() error {
	s, err := openNFNetlink()
	if err != nil {
		return err
	}
	defer s.close()
	m := nftMessage(unix.NFT_MSG_DELTABLE, 0)
	m.body[0] = unix.AF_UNSPEC
	return s.commit(m)
}

// tableSize is how many objects the agent's tables have.
type tableSize struct{ chains, rules, sets int }

func (a *agent) tableSize() (t tableSize) {
	must(netlink.Do(int(a.Fd()), func() error {
		s, err := openNFNetlink()
		if err != nil {
			return err
		}
		defer s.close()
		count := func(kind uint16, n *int) error {
			m := nftMessage(kind, 0)
			m.body[0] = unix.AF_UNSPEC
			return s.dump(m, func([]byte) { *n++ })
		}
		return errors.Join(count(unix.NFT_MSG_GETCHAIN, &t.chains), count(unix.NFT_MSG_GETRULE, &t.rules), count(unix.NFT_MSG_GETSET, &t.sets))
	}))
	return t
}

// bareStart is the floor: a process of the same size, all keys, and as many objects written
// to the kernel, or read from it.
func (a *agent) bareStart(t tableSize, write bool) (took time.Duration) {
	n := got(newNS())
	defer n.close()
	must(netlink.Do(int(n.Fd()), func() error {
		s, err := openNFNetlink()
		if err != nil {
			return err
		}
		defer s.close()
		if !write {
			if err := s.commit(t.messages()...); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := exec.Command("/bin/calico", "version").Run(); err != nil {
			return err
		}
		if _, err := a.server.raw.Get(context.Background(), "/calico/", clientv3.WithPrefix()); err != nil {
			return err
		}
		if write {
			err = s.commit(t.messages()...)
		} else {
			err = readAll(s)
		}
		took = time.Since(start)
		return err
	}))
	return took
}

// messages make as many objects, with 10 members a set.
func (t tableSize) messages() []message {
	ms := []message{newTable(), forwardChain("forward")}
	for i := range t.sets {
		name := fmt.Sprint("s", i)
		ms = append(ms, newSet(name, i+1), elements(true, name, addresses(i, setMembers)...))
	}
	for i := range t.chains {
		ms = append(ms, newChain(fmt.Sprint("c", i)))
	}
	for i := range t.rules {
		set := "s" + fmt.Sprint(i%max(1, t.sets))
		ms = append(ms, newRule(fmt.Sprint("c", i%max(1, t.chains)), address4(false), notIn(set), drop()))
	}
	return ms
}

// readAll reads all objects, as a check of them must.
func readAll(s *nfnetlink) error {
	names, err := s.read()
	for _, name := range names {
		err = errors.Join(err, s.dump(readElements(floorTable, name), func([]byte) {}))
	}
	return err
}

// agentMemory reports what the agent takes, at most and when it has come to rest.
func (b *bench) agentMemory(a *agent, what string) {
	pid, floor := a.cmd.Process.Pid, got(emptyMemory())
	atOnce := got(memoryOf(pid))
	time.Sleep(time.Duration(b.n(3, 30)) * time.Second)
	m := got(memoryOf(pid))
	b.report(result{What: "agent memory, resident, peak, " + what, Unit: "MB", Ours: one(max(atOnce.peak, m.peak)), Floor: one(floor.peak), Aim: "30/60 MB"})
	b.report(result{What: "agent memory, resident, at rest, " + what, Unit: "MB", Ours: one(m.rss), Floor: one(floor.rss)})
	b.report(result{What: "agent memory, anonymous, at rest, " + what, Unit: "MB", Ours: one(m.anon), Floor: one(floor.anon), Aim: "15/45 MB"})
}

// emptyMemory is what an empty program takes.
func emptyMemory() (memory, error) {
	cmd := exec.Command("/bin/bench-empty", "wait")
	in, err := cmd.StdinPipe()
	if err != nil {
		return memory{}, err
	}
	if err := cmd.Start(); err != nil {
		return memory{}, err
	}
	time.Sleep(100 * time.Millisecond) // until it waits
	m, err := memoryOf(cmd.Process.Pid)
	in.Close()
	return m, errors.Join(err, cmd.Wait())
}

// pluginMemory reports what the plugin takes while it waits for the agent: an agent that
// never answers holds it there. (What wait4 says of a child is no less than this process's
// own memory.)
func (b *bench) pluginMemory() {
	const socket = "/run/hold.sock"
	l := got(net.Listen("unix", socket))
	defer l.Close()
	p := got(newPod("held", nil))
	defer p.close()
	conf := got(json.Marshal(map[string]any{"name": "k", "cniVersion": "1.0.0", "type": "calico", "agent_socket": socket}))
	cmd := p.command("ADD", conf)
	must(cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	c := got(l.Accept())
	defer c.Close()
	got(c.Read(make([]byte, 1)))
	m, floor := got(memoryOf(cmd.Process.Pid)), got(emptyMemory())
	b.report(result{What: "plugin memory, resident, peak", Unit: "MB", Ours: one(m.peak), Floor: one(floor.peak), Aim: "8 MB"})
}
