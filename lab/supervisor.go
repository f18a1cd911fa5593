package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// Supervisor is the process that holds the lab together.
type Supervisor struct {
	dir     Dir
	options Options
	link    *underlay
	etcd    *etcdProcess
	nodes   []*node

	ctx  context.Context
	stop context.CancelCauseFunc

	probes atomic.Uint32 // source ports taken so far

	mu   sync.Mutex
	pods map[PodName]*pod
}

var errDown = errors.New("the lab goes down")

// Supervise runs the supervisor until a client says down.
func Supervise(arg string) error {
	b, err := parseBoot(arg)
	if err != nil {
		return err
	}
	if os.Getppid() != 1 { // anywhere else it would make its bridge in the user's namespace
		return errors.New("this command is internal to calico lab: it must be a child of pid 1")
	}
	unix.CloseOnExec(progressFD)
	unix.CloseOnExec(lockFD) // held while this process and etcd live
	up := &progress{os.NewFile(progressFD, "progress")}
	s := &Supervisor{dir: b.Dir, options: b.Options, pods: map[PodName]*pod{}}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	control, err := s.build(up)
	if endErr := up.end(err); err == nil {
		err = endErr // `up` is gone, nobody knows of this lab
	}
	if err != nil {
		return err
	}
	go s.serve(control)
	<-s.ctx.Done()
	if cause := context.Cause(s.ctx); !errors.Is(cause, errDown) {
		return cause
	}
	return nil
}

// build makes everything, in the order in which the parts need one another.
func (s *Supervisor) build(up *progress) (*net.UnixListener, error) {
	if err := netlink.LoopbackUp(); err != nil {
		return nil, err
	}
	if err := checkKernel(s.options); err != nil {
		return nil, err
	}
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.dir.controlSocket(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.dir.controlSocket(), 0o600); err != nil {
		return nil, err
	}
	if s.link, err = newUnderlay(s.options); err != nil {
		return nil, err
	}
	s.etcd = newEtcdProcess(s.dir, netip.AddrPortFrom(s.link.gateway(), etcdPort), os.NewFile(lockFD, "lock"))
	if err := s.etcd.start(s.ctx); err != nil {
		return nil, err
	}
	if err := up.printf("etcd is up"); err != nil {
		return nil, err
	}
	if err := s.seed(); err != nil {
		return nil, err
	}
	return control, s.buildNodes(up)
}

func (s *Supervisor) buildNodes(up *progress) error {
	for i := 1; i <= s.options.Nodes; i++ {
		n, err := newNode(i, s.link)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, n)
	}
	if s.options.NoAgents {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, 60*time.Second)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range s.nodes {
		if err := s.startAgent(n); err != nil {
			return err
		}
		group.Go(func() error {
			if err := n.agent.ready(ctx); err != nil {
				return err
			}
			return up.printf("%s is ready", n.name)
		})
	}
	return group.Wait()
}

func (s *Supervisor) startAgent(n *node) (err error) {
	n.agent, err = newAgent(n, s.dir.NodeLog(n.name), s.agentEnv(n))
	if err != nil {
		return err
	}
	go n.agent.run(s.ctx)
	return nil
}

// agentEnv is the environment of a node's agent: what a manifest gives it in a cluster.
func (s *Supervisor) agentEnv(n *node) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=/root",
		"NODENAME=" + n.name,
		"DATASTORE_TYPE=etcdv3",
		fmt.Sprintf("ETCD_ENDPOINTS=http://%v", netip.AddrPortFrom(s.link.gateway(), etcdPort)),
		"CALICO_MANAGE_CNI=true",
		"CLUSTER_TYPE=lab",
		"FELIX_HEALTHENABLED=true",
	}
	if s.options.Pool6.IsValid() {
		env = append(env, "IP6=autodetect", "FELIX_IPV6SUPPORT=true")
	} else {
		env = append(env, "IP6=none", "FELIX_IPV6SUPPORT=false")
	}
	for _, k := range []string{"GORACE", "GOTRACEBACK", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// nodeNamed returns the node of that name.
func (s *Supervisor) nodeNamed(name string) (*node, error) {
	for _, n := range s.nodes {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no node %q: this lab has node1 to %s", name, nodeName(len(s.nodes)))
}
