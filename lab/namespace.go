package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// namespaces are those of a node or a pod, held by descriptor: they last while the
// supervisor does, whatever runs in them.
type namespaces struct {
	net   *os.File
	uts   *os.File
	mount *os.File // nil for a pod: it shares the supervisor's

	mu   sync.RWMutex // excludes entering while they go
	gone bool
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
		if err := unix.Sethostname(hostnameOf(hostname)); err != nil {
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

// hostnameOf cuts a name to what Linux takes, as the kubelet does: 63 bytes.
func hostnameOf(name string) []byte {
	return []byte(strings.TrimRight(name[:min(len(name), 63)], "-."))
}

func (n *namespaces) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = true
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
		n.mu.RLock()
		err := n.enter()
		n.mu.RUnlock()
		if err != nil {
			return err
		}
		return f()
	})
}

// start starts the command inside.
func (n *namespaces) start(cmd *exec.Cmd) error {
	return netlink.Thread(func() error {
		n.mu.RLock() // until there is a process that kill finds
		defer n.mu.RUnlock()
		if err := n.enter(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// kill lets nothing enter any more and kills every process in the network namespace,
// whoever started it.
func (n *namespaces) kill() error {
	n.mu.Lock()
	n.gone = true
	n.mu.Unlock()
	own, err := n.net.Stat()
	if err != nil {
		return err
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		pids, err := processesIn(own)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// processesIn returns the processes, but this one, whose network namespace that is. Those
// that have ended are in none.
func processesIn(ns os.FileInfo) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if info, err := os.Stat("/proc/" + e.Name() + "/ns/net"); err == nil && os.SameFile(info, ns) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

var errGone = errors.New("it is being removed")

// enter moves the calling thread inside. The caller holds mu.
func (n *namespaces) enter() error {
	if n.gone {
		return errGone
	}
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
