package lab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Status is the state of a lab.
type Status struct {
	Nodes []NodeStatus
	Pods  []PodStatus // by name
	Etcd  string      // why it does not run; "": it does
}

// NodeStatus is the state of one node.
type NodeStatus struct {
	Name  string
	Addrs []netip.Addr // on the underlay
	Pods  int
	Exits int         // times that its agent ended
	Agent AgentStatus // the zero value if it does not answer
	Error string      // why it does not answer
}

func (s *Supervisor) status(c *call, _ struct{}) (any, error) {
	st := Status{Nodes: make([]NodeStatus, len(s.nodes)), Etcd: s.etcd.trouble()}
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() { st.Nodes[i] = n.status(c.ctx) })
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[string]int{}
	for _, p := range s.pods {
		count[p.node.name]++
		st.Pods = append(st.Pods, p.status())
	}
	for i := range st.Nodes {
		st.Nodes[i].Pods = count[st.Nodes[i].Name]
	}
	slices.SortFunc(st.Pods, func(a, b PodStatus) int { return cmp.Compare(a.Pod.String(), b.Pod.String()) })
	return st, nil
}

func (n *node) status(ctx context.Context) NodeStatus {
	st := NodeStatus{Name: n.name, Addrs: n.addrs}
	if n.agent == nil {
		st.Error = "no agent runs"
		return st
	}
	st.Exits, _ = n.agent.lives()
	if n.agent.isStopped() {
		st.Error = "its agent does not run: " + n.agent.stoppedText()
		return st
	}
	var err error
	if st.Agent, err = n.agent.status(ctx, 0, 0); err != nil {
		st.Error = err.Error()
	}
	return st
}

// Print writes the status in aligned columns.
func (st Status) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tREADY\tREVISION\tPODS\tADDRESS")
	for _, n := range st.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", n.Name, yesNo(n.Agent.Ready), n.Agent.Revision, n.Pods, joined(n.Addrs))
	}
	if len(st.Pods) > 0 {
		fmt.Fprintln(w, "\nPOD\tNODE\tADDRESS\tLABELS")
	}
	for _, p := range st.Pods {
		fmt.Fprintf(w, "%v\t%s\t%s\t%s\n", p.Pod, p.Node, joined(p.Addrs), labelText(p.Labels))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if st.Etcd != "" {
		fmt.Fprintf(out, "\n%s\n", st.Etcd)
	}
	for _, n := range st.Nodes {
		n.printProblems(out)
	}
	return nil
}

func (n NodeStatus) printProblems(out io.Writer) {
	if n.Error != "" {
		fmt.Fprintf(out, "\n%s: %s\n", n.Name, n.Error)
	}
	for _, c := range n.Agent.Conditions {
		if !c.OK {
			fmt.Fprintf(out, "\n%s: %s: %s\n", n.Name, c.Type, c.Message)
		}
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func joined(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "-" // of a pod that is not up
	}
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}

func labelText(labels map[string]string) string {
	var s []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		s = append(s, k+"="+labels[k])
	}
	return strings.Join(s, ",")
}

// WaitRequest waits until every node whose agent is not stopped has a revision of the
// datastore in its kernel. The result is the names of those whose agent is.
type WaitRequest struct {
	Revision int64
	Patience time.Duration
}

func (s *Supervisor) wait(c *call, r WaitRequest) (any, error) {
	lags := make([]string, len(s.nodes))
	var stopped []string
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		if n.agent == nil {
			continue
		}
		if n.agent.isStopped() {
			stopped = append(stopped, n.name)
			continue
		}
		wg.Go(func() { lags[i] = n.await(c.ctx, r) })
	}
	wg.Wait()
	lags = slices.DeleteFunc(lags, func(s string) bool { return s == "" })
	if len(lags) > 0 {
		return nil, fmt.Errorf("written, but after %v not in force on: %s", r.Patience, strings.Join(lags, "; "))
	}
	return stopped, nil
}

// await waits for the revision; it returns "", or how far the node is.
func (n *node) await(ctx context.Context, r WaitRequest) string {
	until := time.Now().Add(r.Patience)
	for {
		left := time.Until(until)
		st, err := n.agent.status(ctx, r.Revision, max(left, 0))
		if err == nil && st.Revision >= r.Revision {
			return ""
		}
		if left <= 0 || ctx.Err() != nil {
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%s (has revision %d of %d%s)", n.name, st.Revision, r.Revision, st.problems())
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
