package tunnel

import (
	"fmt"
	"net"

	"github.com/calicogo/calico/dataplane"
)

// device is a tunnel device, as wanted or as the kernel has it.
type device struct {
	dataplane.Tunnel
	auto  int    // the MTU that 0 stands for; of devices in the kernel
	drift string // what else is wrong with it; of devices in the kernel
	err   error  // why there can be no such device; of wanted ones
}

// same tells whether the kernel's device is as wanted.
func same(have, want device) bool {
	if want.MTU == 0 && have.MTU == have.auto {
		have.MTU = 0
	}
	if !have.Underlay.IsValid() {
		have.Underlay = want.Underlay // the kernel's ipip takes the address that routes say
	}
	return have.drift == "" && want.err == nil && have.Tunnel == want.Tunnel
}

// wantedDevice checks a tunnel of the state.
func wantedDevice(name string, t dataplane.Tunnel) device {
	switch t.Encap {
	case dataplane.VXLAN:
	case dataplane.IPIP:
		return wantedIPIP(name, t)
	default:
		return device{Tunnel: t, err: &UnsupportedError{name, t.Encap}}
	}
	mac, err := net.ParseMAC(t.MAC)
	if err == nil {
		t.MAC = mac.String()
	}
	if why := invalidVXLAN(name, t, len(mac) == 6); why != "" {
		return device{Tunnel: t, err: fmt.Errorf("tunnel %s: %w: %s", name, ErrInvalid, why)}
	}
	return device{Tunnel: t}
}

func invalidVXLAN(name string, t dataplane.Tunnel, macOK bool) string {
	bits := 0
	if t.Family == dataplane.IPv4 || t.Family == dataplane.IPv6 {
		bits = t.Family.Bits()
	}
	switch {
	case vxlanNames[t.Family] == "" || vxlanNames[t.Family] != name:
		return fmt.Sprintf("a VXLAN device of %d-bit addresses is not called so", bits)
	case t.Underlay.BitLen() != bits:
		return fmt.Sprintf("the underlay address %v is not of %v", t.Underlay, t.Family)
	case t.Addr.IsValid() && t.Addr.BitLen() != bits:
		return fmt.Sprintf("the tunnel address %v is not of %v", t.Addr, t.Family)
	case t.VNI < 1 || t.VNI >= 1<<24:
		return fmt.Sprintf("the VNI %d is not in 1–16777215", t.VNI)
	case t.Port == 0:
		return "it has no port"
	case t.MTU < 0:
		return fmt.Sprintf("the MTU %d is negative", t.MTU)
	case !macOK:
		return fmt.Sprintf("the MAC address %q is none", t.MAC)
	}
	return ""
}

func wantedIPIP(name string, t dataplane.Tunnel) device {
	why := ""
	switch {
	case name != dataplane.DeviceIPIP || t.Family != dataplane.IPv4:
		why = "the only IPIP device is " + dataplane.DeviceIPIP + ", of IPv4"
	case !t.Underlay.Is4():
		why = fmt.Sprintf("the underlay address %v is not of IPv4", t.Underlay)
	case t.Addr.IsValid() && !t.Addr.Is4():
		why = fmt.Sprintf("the tunnel address %v is not of IPv4", t.Addr)
	case t.MTU < 0:
		why = fmt.Sprintf("the MTU %d is negative", t.MTU)
	default:
		return device{Tunnel: dataplane.Tunnel{Encap: t.Encap, Family: t.Family, Addr: t.Addr, Underlay: t.Underlay, MTU: t.MTU}}
	}
	return device{Tunnel: t, err: fmt.Errorf("tunnel %s: %w: %s", name, ErrInvalid, why)}
}

// vxlanNames are the names of our VXLAN devices.
var vxlanNames = map[dataplane.Family]string{
	dataplane.IPv4: dataplane.DeviceVXLAN,
	dataplane.IPv6: dataplane.DeviceVXLANv6,
}

// vxlanOverhead is what VXLAN adds to an Ethernet frame's payload, in bytes: outer IP, UDP,
// VXLAN and inner Ethernet headers.
var vxlanOverhead = map[dataplane.Family]int{dataplane.IPv4: 20 + 8 + 8 + 14, dataplane.IPv6: 40 + 8 + 8 + 14}

// ipipOverhead is what IPIP adds to a packet, in bytes: the outer IP header.
const ipipOverhead = 20
