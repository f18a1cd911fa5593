package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Faults that the user makes: agents and etcd that end.

// NodeFault is something that is done to a node's agent.
type NodeFault string

const (
	NodeKill  NodeFault = "kill"  // by SIGKILL; it is started again after a second
	NodeStop  NodeFault = "stop"  // it ends and stays ended
	NodeStart NodeFault = "start" // it runs again
)

// NodeRequest does something to a node's agent. Its pods are not touched by any of it.
type NodeRequest struct {
	Node string
	Do   NodeFault
}

func (s *Supervisor) nodeFault(c *call, r NodeRequest) (any, error) {
	n, err := s.nodeNamed(r.Node)
	if err != nil {
		return nil, err
	}
	if n.agent == nil {
		return nil, errors.New("this lab has no agents")
	}
	switch r.Do {
	case NodeKill:
		if err := n.agent.kill(c.ctx); err != nil {
			return nil, err
		}
		fmt.Fprintf(c, "the agent of %s is killed; it starts again in %v\n", n.name, shortestPause)
	case NodeStop:
		if err := n.agent.stop(c.ctx); err != nil {
			return nil, err
		}
		fmt.Fprintf(c, "the agent of %s is stopped\n", n.name)
	case NodeStart:
		return nil, s.startNode(c, n)
	default:
		return nil, fmt.Errorf("unknown request %q for a node: client and lab are of different versions", r.Do)
	}
	return nil, nil
}

// startNode starts the agent and waits until it is ready, or, where there is no etcd,
// until it answers: it is not ready before it knows what the datastore holds.
func (s *Supervisor) startNode(c *call, n *node) error {
	n.agent.start()
	ctx, cancel := context.WithTimeout(c.ctx, 60*time.Second)
	defer cancel()
	if trouble := s.etcd.trouble(); trouble != "" {
		if err := n.agent.says(ctx, "up", func(AgentStatus) bool { return true }); err != nil {
			return err
		}
		fmt.Fprintf(c, "the agent of %s runs, but is not ready: %s\n", n.name, trouble)
		return nil
	}
	if err := n.agent.ready(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c, "%s is ready\n", n.name)
	return nil
}

// EtcdFault is something that is done to etcd.
type EtcdFault string

const (
	EtcdStop  EtcdFault = "stop"  // its process is killed; its data stay
	EtcdStart EtcdFault = "start" // on the same data
	EtcdCheck EtcdFault = "check" // an error that says so if it does not run
)

func (s *Supervisor) etcdFault(c *call, do EtcdFault) (any, error) {
	switch do {
	case EtcdStop:
		s.etcd.stop()
		fmt.Fprintln(c, "etcd is stopped")
	case EtcdStart:
		if err := s.etcd.start(c.ctx); err != nil {
			return nil, err
		}
		fmt.Fprintln(c, "etcd is up")
	case EtcdCheck:
		if trouble := s.etcd.trouble(); trouble != "" {
			return nil, errors.New(trouble)
		}
	default:
		return nil, fmt.Errorf("unknown request %q for etcd: client and lab are of different versions", do)
	}
	return nil, nil
}
