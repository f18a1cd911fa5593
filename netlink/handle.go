// Package netlink is the seam to rtnetlink: persistent sockets, one set a network
// namespace, and running code inside a namespace. Everything that speaks netlink goes
// through a [Handle] of this package.
package netlink

import (
	"fmt"
	"runtime"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Current stands for the caller's own network namespace where a descriptor is wanted.
const Current = -1

// Handle is a set of persistent netlink sockets in one network namespace. It is safe for
// concurrent use. A call costs a fifth of what one with a socket of its own does.
type Handle struct {
	*vnl.Handle
	ns int // a descriptor of its own, or Current
}

// Open opens a Handle in the namespace of descriptor ns, or Current. The descriptor may be
// closed afterwards: the sockets keep the namespace alive.
func Open(ns int) (*Handle, error) {
	var h *vnl.Handle
	var err error
	if ns == Current {
		h, err = vnl.NewHandle(unix.NETLINK_ROUTE)
	} else {
		h, err = vnl.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if ns != Current {
		if ns, err = unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			h.Close()
			return nil, fmt.Errorf("keep the network namespace: %w", err)
		}
	}
	return &Handle{h, ns}, nil
}

// Do runs f in h's namespace as [Do] does, for what no netlink message of h's can do.
func (h *Handle) Do(f func() error) error { return Do(h.ns, f) }

// Close closes the sockets; h is of no use then.
func (h *Handle) Close() {
	h.Handle.Close()
	if h.ns != Current {
		unix.Close(h.ns)
		h.ns = closed
	}
}

// closed is the descriptor of a Handle that was closed: none, and not Current.
const closed = -2

// Do runs f in the namespace of descriptor ns, in an OS thread of its own that ends with
// it, and returns f's error. It is for what has no descriptor to act on: sysctls,
// sockets, exec. Files of /proc must be read through /proc/thread-self.
func Do(ns int, f func() error) error {
	if ns == Current {
		return f()
	}
	return Thread(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Thread runs f in an OS thread that ends with it, so that f may change what a thread
// has of its own: namespaces, capabilities.
func Thread(f func() error) error {
	errs := make(chan error, 1)
	go func() { errs <- lockedThread(f) }()
	return <-errs
}

// lockedThread runs f in a locked goroutine, which ends with its caller's, and its thread
// with it. The process's first thread cannot end, and would stay what f made of it: it
// only waits for another.
func lockedThread(f func() error) error {
	runtime.LockOSThread() // never unlocked in the thread that runs f
	if unix.Gettid() != unix.Getpid() {
		return f()
	}
	defer runtime.UnlockOSThread()
	return Thread(f)
}

// LoopbackUp sets lo up in the calling thread's namespace.
func LoopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
