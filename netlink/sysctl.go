package netlink

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const sysctlRoot = "/proc/sys/"

// SetSysctls sets sysctls, for instance "net/ipv4/ip_forward" to "1", in the namespace of
// descriptor ns, or Current. Those that have the value already are not written. The
// order of writing is that of the arguments.
func SetSysctls(ns int, settings ...Sysctl) error {
	return Do(ns, func() error {
		for _, s := range settings {
			if err := s.set(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sysctl is a kernel parameter of a network namespace and its value.
type Sysctl struct {
	Name  string // with slashes: interface names may contain dots
	Value string
	// IfPresent passes over the parameter where the kernel does not have it, as all of
	// net/ipv6 in one without IPv6.
	IfPresent bool
}

func (s Sysctl) set() error {
	err := writeSysctl(sysctlRoot+s.Name, s.Value)
	if err == nil || s.IfPresent && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("set sysctl %s to %s: %w", s.Name, s.Value, err)
}

// writeSysctl writes a value that is not there already, so that /proc may be read-only
// where it is. By bare system calls: package os makes ten of these four, and a pod has
// some ten settings.
func writeSysctl(path, value string) error {
	fd, err := openSysctl(path, unix.O_RDWR)
	var readOnly error
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		readOnly = err
		fd, err = openSysctl(path, unix.O_RDONLY)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old := make([]byte, 128)
	n, err := unix.Pread(fd, old, 0)
	if err != nil || string(bytes.TrimSpace(old[:n])) == value {
		return err
	}
	if readOnly != nil {
		return readOnly
	}
	_, err = unix.Pwrite(fd, []byte(value), 0)
	return err
}

func openSysctl(path string, mode int) (int, error) {
	for {
		fd, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// EnableForwarding makes the namespace of descriptor ns, or Current, a router for both
// families.
func EnableForwarding(ns int) error {
	return SetSysctls(ns,
		Sysctl{Name: "net/ipv4/ip_forward", Value: "1"},
		Sysctl{Name: "net/ipv6/conf/all/forwarding", Value: "1", IfPresent: true})
}
