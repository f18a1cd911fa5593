package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/calicogo/calico/netlink"
)

// node is a machine of the cluster.
type node struct {
	name  string
	addrs []netip.Addr // on the underlay
	state string       // its own /run, /etc/cni … are directories below this one
	ns    *namespaces
	links *netlink.Handle
	agent *agent // nil in a lab without agents
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i) }

// newNode makes the i-th node, from 1, and joins it to the underlay.
func newNode(i int, u *underlay) (*node, error) {
	n := &node{name: nodeName(i), addrs: u.nodeAddrs(i)}
	n.state = filepath.Join(stateDir, n.name)
	if err := os.MkdirAll(n.state, 0o755); err != nil {
		return nil, err
	}
	var err error
	n.ns, err = newNamespaces(n.name, true, func() error {
		if err := quickIPv6(); err != nil {
			return err
		}
		return mountNode(n.state)
	})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", n.name, err)
	}
	if n.links, err = netlink.Open(int(n.ns.net.Fd())); err != nil {
		return nil, fmt.Errorf("make %s: %w", n.name, err)
	}
	return n, u.connect(n, i)
}

// file is the supervisor's name of a file of the node, for those in the node's own
// directories.
func (n *node) file(path string) string {
	for _, d := range nodeDirs {
		if rest, err := filepath.Rel(d.path, path); err == nil && filepath.IsLocal(rest) {
			return filepath.Join(n.state, d.name, rest)
		}
	}
	return path
}
