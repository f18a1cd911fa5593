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
)

// UnsupportedError says that this build cannot make tunnels of an encapsulation.
type UnsupportedError struct {
	Device string
	Encap  dataplane.Encap
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("tunnel %s: %s is not supported yet by this build's tunnel driver: use VXLAN or no encapsulation in the IP pool", e.Device, encapName(e.Encap))
}

func encapName(e dataplane.Encap) string {
	names := map[dataplane.Encap]string{dataplane.NoEncap: "no encapsulation", dataplane.VXLAN: "VXLAN", dataplane.IPIP: "IPIP"}
	if n := names[e]; n != "" {
		return n
	}
	return fmt.Sprintf("encapsulation %d", e)
}
