package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// namespaces are those of a node or a pod, held by descriptor: they last while the
// supervisor does, whatever runs in them.
type namespaces struct {
	net   *os.File
	uts   *os.File
	mount *os.File // nil for a pod: it shares the supervisor's

	mu     sync.Mutex
	groups map[int]bool // process groups that run started
}

// newNamespaces makes a network and a uts namespace, and a mount namespace if asked for,
// with the host name and lo up. Then it runs setup inside.
func newNamespaces(hostname string, mount bool, setup func() error) (*namespaces, error) {
	flags := unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	if mount {
		flags |= unix.CLONE_NEWNS
	}
	n := &namespaces{}
	err := netlink.Thread(func() error {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("make namespaces for %s: %w", hostname, err)
		}
		if err := n.open(mount); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("set host name %s: %w", hostname, err)
		}
		if err := netlink.LoopbackUp(); err != nil {
			return err
		}
		return setup()
	})
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *namespaces) open(mount bool) (err error) {
	if n.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if n.uts, err = os.Open("/proc/thread-self/ns/uts"); err != nil {
		return err
	}
	if mount {
		n.mount, err = os.Open("/proc/thread-self/ns/mnt")
	}
	return err
}

func (n *namespaces) close() {
	for _, f := range []*os.File{n.net, n.uts, n.mount} {
		if f != nil {
			f.Close()
		}
	}
}

// path is a name of the network namespace that every process of the lab can open.
func (n *namespaces) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.net.Fd()) }

// do runs f inside, in a thread of its own.
func (n *namespaces) do(f func() error) error {
	return netlink.Thread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// start starts the command inside.
func (n *namespaces) start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// run starts the command, which must be set to lead a process group, and returns the
// function that waits for it.
func (n *namespaces) run(cmd *exec.Cmd) (wait func() error, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.start(cmd); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	if n.groups == nil {
		n.groups = map[int]bool{}
	}
	n.groups[pid] = true
	return func() error {
		err := cmd.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.groups, pid)
		return err
	}, nil
}

// kill kills what run started and what has not ended.
func (n *namespaces) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for group := range n.groups {
		unix.Kill(-group, unix.SIGKILL)
	}
}

func (n *namespaces) enter() error {
	if n.mount != nil {
		// A thread that shares its root and working directory may not change mounts.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the working directory: %w", err)
		}
		if err := unix.Setns(int(n.mount.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
	}
	if err := unix.Setns(int(n.uts.Fd()), unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("enter uts namespace: %w", err)
	}
	if err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// dialer returns a dial function whose sockets are inside the namespace. Only literal
// addresses: a name would be resolved in other threads, outside.
func (n *namespaces) dialer(d net.Dialer) func(network, address string) (net.Conn, error) {
	return func(network, address string) (conn net.Conn, err error) {
		err = n.do(func() error {
			conn, err = d.Dial(network, address)
			return err
		})
		return conn, err
	}
}
