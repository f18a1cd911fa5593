package tunnel

import (
	"errors"
	"fmt"

	"github.com/calicogo/calico/dataplane"
)

// What stands in the way of a tunnel.
var (
	ErrInvalid    = errors.New("invalid tunnel")
	ErrNoUnderlay = errors.New("no interface of this node has the address")
	ErrNoDevice   = errors.New("the tunnel device does not exist (yet)")
	ErrNoModule   = errors.New("the kernel does not support VXLAN: load or build its module vxlan (CONFIG_VXLAN)")
	ErrNoIPIP     = errors.New("the kernel does not support IPIP: load or build its module ipip (CONFIG_NET_IPIP)")
	// ErrNoStandIn says that what stands in for the kernel's ipip cannot either.
	ErrNoStandIn   = errors.New("what stands in for the kernel's ipip takes veth devices (CONFIG_VETH), clsact qdiscs (CONFIG_NET_SCH_INGRESS) and eBPF filters (CONFIG_NET_CLS_BPF)")
	errNotEthernet = errors.New("what stands in for the kernel's ipip cannot receive from it")
	ErrForeign     = errors.New("the device is somebody else's: remove or rename it")
)

// UnsupportedError says that nobody can make tunnels of an encapsulation.
type UnsupportedError struct {
	Device string
	Encap  dataplane.Encap
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("tunnel %s: %s is not supported: use IPIP, VXLAN or no encapsulation in the IP pool", e.Device, encapName(e.Encap))
}

func encapName(e dataplane.Encap) string {
	names := map[dataplane.Encap]string{dataplane.NoEncap: "no encapsulation", dataplane.VXLAN: "VXLAN", dataplane.IPIP: "IPIP"}
	if n := names[e]; n != "" {
		return n
	}
	return fmt.Sprintf("encapsulation %d", e)
}
