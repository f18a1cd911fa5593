package netlink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
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
	path := sysctlRoot + s.Name
	old, err := os.ReadFile(path)
	if s.IfPresent && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && strings.TrimSpace(string(old)) == s.Value {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(s.Value), 0)
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", s.Name, s.Value, err)
	}
	return nil
}

// EnableForwarding makes the namespace of descriptor ns, or Current, a router for both
// families.
func EnableForwarding(ns int) error {
	return SetSysctls(ns,
		Sysctl{Name: "net/ipv4/ip_forward", Value: "1"},
		Sysctl{Name: "net/ipv6/conf/all/forwarding", Value: "1", IfPresent: true})
}
