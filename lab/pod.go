package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/calicogo/calico/api"
)

// RunRequest makes a pod.
type RunRequest struct {
	Pod    PodName
	Node   string // "": the one with the fewest pods
	Labels map[string]string
	// ServiceAccount and Ports are what Kubernetes would know of the pod.
	ServiceAccount string
	Ports          []api.EndpointPort
	Command        []string // runs in the pod while it lives; may be empty
}

// PodStatus describes a pod.
type PodStatus struct {
	Pod    PodName
	Node   string
	Addrs  []netip.Addr
	Labels map[string]string
}

// pod is a network namespace on a node that CNI has wired, or is about to.
type pod struct {
	name      PodName
	node      *node
	labels    map[string]string
	account   string
	ports     []api.EndpointPort
	container string // CNI container ID
	ns        *namespaces
	listener  *listener
	addrs     []netip.Addr // guarded by Supervisor.mu; none unless the pod is up

	busy sync.Mutex // locked while CNI is at work on the pod
	gone bool       // guarded by busy
}

const podInterface = "eth0"

// run makes a pod, and returns when its node reaches it.
func (s *Supervisor) run(c *call, r RunRequest) (any, error) {
	p, err := s.claim(r)
	if err != nil {
		return nil, err
	}
	defer p.busy.Unlock()
	if err := s.fill(c.ctx, p, r); err != nil {
		if undo := s.discard(p); undo != nil {
			err = fmt.Errorf("%w; and then: %w", err, undo)
		}
		return nil, err
	}
	return p.status(), nil
}

// claim enters the pod in the books, locked as busy.
func (s *Supervisor) claim(r RunRequest) (*pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pods[r.Pod]; ok {
		return nil, fmt.Errorf("pod %v is there already", r.Pod)
	}
	n, err := s.choose(r.Node)
	if err != nil {
		return nil, err
	}
	p := &pod{name: r.Pod, node: n, labels: r.Labels, account: r.ServiceAccount, ports: r.Ports, container: randomID()}
	p.busy.Lock()
	s.pods[r.Pod] = p
	return p, nil
}

// choose finds the node of that name, or, of those whose agents run if there are any, the
// one with the fewest pods.
func (s *Supervisor) choose(name string) (*node, error) {
	if s.options.NoAgents {
		return nil, errors.New("this lab has no agents, so it can have no pods")
	}
	if name != "" {
		return s.nodeNamed(name)
	}
	count := map[*node]int{}
	for _, p := range s.pods {
		count[p.node]++
	}
	nodes := slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return n.agent.isStopped() })
	if len(nodes) == 0 {
		nodes = s.nodes
	}
	return slices.MinFunc(nodes, func(a, b *node) int { return cmp.Compare(count[a], count[b]) }), nil
}

// fill makes what a pod consists of.
func (s *Supervisor) fill(ctx context.Context, p *pod, r RunRequest) (err error) {
	p.ns, err = newNamespaces(p.name.Name, false, func() (err error) {
		p.listener, err = listen(p.name.Name)
		return err
	})
	if err != nil {
		return err
	}
	addrs, err := p.add(ctx)
	if err != nil {
		return fmt.Errorf("run %v on %s: %w", p.name, p.node.name, err)
	}
	if err := p.reached(ctx, addrs); err != nil {
		return err
	}
	if len(r.Command) > 0 {
		if err := s.startCommand(p, r.Command); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.addrs = addrs
	return nil
}

// reached waits until the pod's listener answers its node on every address.
func (p *pod) reached(ctx context.Context, addrs []netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, a := range addrs {
		for {
			_, err := ask(p.node.ns, "tcp", netip.AddrPortFrom(a, listenerPort), time.Second)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not reach %v at %v: %w", p.node.name, p.name, a, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func (s *Supervisor) startCommand(p *pod, args []string) error {
	log, err := os.OpenFile(s.dir.podLog(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	at := place{p.name.Name, p.ns, p.node}
	cmd := at.command(args)
	cmd.Stdout, cmd.Stderr = log, log
	if err := at.ns.start(cmd); err != nil {
		return startError(args[0], err)
	}
	go cmd.Wait()
	return nil
}

// remove removes a pod as kubelet and runtime do: its processes, then CNI DEL.
func (s *Supervisor) remove(c *call, name PodName) (any, error) {
	s.mu.Lock()
	p, ok := s.pods[name] // one whose removal failed, or that is not made yet, as well
	s.mu.Unlock()
	if !ok {
		return nil, noPod(name)
	}
	p.busy.Lock()
	defer p.busy.Unlock()
	if p.gone {
		return nil, noPod(name)
	}
	return nil, s.discard(p)
}

// discard undoes what there is of a pod. If CNI fails the pod stays in the books, so
// that it can be tried again.
func (s *Supervisor) discard(p *pod) error {
	s.mu.Lock()
	p.addrs = nil
	s.mu.Unlock()
	if p.ns != nil {
		if err := p.ns.kill(); err != nil {
			return fmt.Errorf("remove %v from %s: %w", p.name, p.node.name, err)
		}
		if err := p.del(); err != nil {
			return fmt.Errorf("remove %v from %s: %w", p.name, p.node.name, err)
		}
		p.listener.close()
		p.ns.close()
	}
	p.gone = true
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, p.name)
	return nil
}

// podNamed returns a pod that is up.
func (s *Supervisor) podNamed(name, defaultNamespace string) (*pod, error) {
	key, err := ParsePodName(name, defaultNamespace)
	if err != nil {
		return nil, &ExitError{Code: 2, Msg: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[key]
	if !ok {
		return nil, noPod(key)
	}
	if len(p.addrs) == 0 {
		return nil, fmt.Errorf("pod %v is not up: it is being made or removed; `calico lab rm` tries again", key)
	}
	return p, nil
}

func noPod(name PodName) error {
	return fmt.Errorf("no pod %v: `calico lab status` lists those there are", name)
}

func (p *pod) status() PodStatus {
	return PodStatus{Pod: p.name, Node: p.node.name, Addrs: p.addrs, Labels: p.labels}
}

// target gives the addresses that a user means: those of a pod, a node, or one address.
func (s *Supervisor) target(to, defaultNamespace string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(to); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	at, err := s.place(to, defaultNamespace)
	if err != nil {
		return nil, err
	}
	if at.ns == at.node.ns {
		return at.node.addrs, nil
	}
	p, err := s.podNamed(to, defaultNamespace)
	if err != nil {
		return nil, err
	}
	return p.addrs, nil
}
