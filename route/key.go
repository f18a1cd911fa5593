package route

import (
	"fmt"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// key names a route of the main table, as the kernel tells routes apart.
type key struct {
	dst    netip.Prefix
	metric int
	tos    int
	// nth tells apart routes that were appended to one another; those of nth above 0 are
	// never wanted.
	nth int
}

// keyOf is the key of the route that we make for a prefix.
func keyOf(dst netip.Prefix) key { return key{dst: dst, metric: defaultMetric(dst)} }

// defaultMetric is what the kernel takes where none is given.
func defaultMetric(dst netip.Prefix) int {
	if family(dst) == dataplane.IPv6 {
		return 1024 // IP6_RT_PRIO_USER
	}
	return 0
}

func family(dst netip.Prefix) dataplane.Family { return dataplane.FamilyOf(dst.Addr()) }

// String is the prefix alone for routes such as we make.
func (k key) String() string {
	s := k.dst.String()
	if k.metric != defaultMetric(k.dst) {
		s += fmt.Sprintf(" metric %d", k.metric)
	}
	if k.tos != 0 {
		s += fmt.Sprintf(" tos %#x", k.tos)
	}
	if k.nth != 0 {
		s += fmt.Sprintf(" (duplicate %d)", k.nth)
	}
	return s
}
