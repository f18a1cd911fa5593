package route

import (
	"fmt"
	"net/netip"
	"strings"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Protocols of routes (rtnetlink(7)).
const (
	protoBoot   = unix.RTPROT_BOOT // of routes to pods, as of every `ip route add`
	protoCalico = 80
)

// entry is what there is to say of a route besides its key. Two are equal if the kernel
// treats packets alike for them.
type entry struct {
	typ      int // RTN_UNICAST, RTN_BLACKHOLE
	protocol int
	device   string     // empty: as the kernel finds the gateway, or none
	gateway  netip.Addr // invalid: none
	link     bool       // scope link; of IPv4 only
	onlink   bool
	strange  string // what else it has that no route of ours has
	err      error  // why no such route can be; of wanted ones only
}

func equal(have, want entry) bool { return have == want }

// wanted turns a route of the state into an entry.
func wanted(dst netip.Prefix, r *dataplane.Route) entry {
	if err := check(dst, r); err != nil {
		return entry{err: &Error{Dst: dst, Device: r.Device, Gateway: r.Gateway, Err: err}}
	}
	switch r.Kind {
	case dataplane.RouteWorkload:
		return entry{typ: unix.RTN_UNICAST, protocol: protoBoot, device: r.Device, link: family(dst) == dataplane.IPv4}
	case dataplane.RouteTunnel:
		return entry{typ: unix.RTN_UNICAST, protocol: protoCalico, device: r.Device, gateway: r.Gateway, onlink: true}
	case dataplane.RouteDirect:
		return entry{typ: unix.RTN_UNICAST, protocol: protoCalico, gateway: r.Gateway}
	default:
		return entry{typ: unix.RTN_BLACKHOLE, protocol: protoCalico}
	}
}

func check(dst netip.Prefix, r *dataplane.Route) error {
	if !dst.IsValid() || dst != dst.Masked() || dst.Addr().Is4In6() {
		return fmt.Errorf("%w: %q is not a network", ErrInvalid, dst)
	}
	device := r.Kind == dataplane.RouteWorkload || r.Kind == dataplane.RouteTunnel
	gateway := r.Kind == dataplane.RouteTunnel || r.Kind == dataplane.RouteDirect
	switch {
	case r.Kind < dataplane.RouteWorkload || r.Kind > dataplane.RouteBlackhole:
		return fmt.Errorf("%w: unknown kind %d", ErrInvalid, r.Kind)
	case device && r.Device == "":
		return fmt.Errorf("%w: it has no device", ErrInvalid)
	case device && len(r.Device) >= unix.IFNAMSIZ:
		return fmt.Errorf("%w: the name of its device is too long", ErrInvalid)
	case gateway && !r.Gateway.IsValid():
		return fmt.Errorf("%w: it has no gateway", ErrInvalid)
	case gateway && r.Gateway.BitLen() != dst.Addr().BitLen():
		return fmt.Errorf("%w: its gateway %v is of the other family", ErrInvalid, r.Gateway)
	}
	return nil
}

// read turns a route of the kernel into key and entry.
func read(r *vnl.Route, device string) (key, entry) {
	dst := netlink.Prefix(r.Dst)
	if r.Dst == nil { // the default route of older kernels' answers
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Family == unix.AF_INET6 {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	e := entry{
		typ: r.Type, protocol: int(r.Protocol), device: device,
		gateway: netlink.Addr(r.Gw), onlink: r.Flags&unix.RTNH_F_ONLINK != 0,
		link:    r.Family == unix.AF_INET && r.Scope == vnl.SCOPE_LINK,
		strange: strange(r),
	}
	if e.typ == unix.RTN_BLACKHOLE {
		e.device = "" // IPv6 says lo
	}
	return key{dst: dst, metric: r.Priority, tos: r.Tos}, e
}

// strange names attributes that change what a route does and that ours never have.
func strange(r *vnl.Route) string {
	var s []string
	add := func(has bool, name string) {
		if has {
			s = append(s, name)
		}
	}
	add(len(r.MultiPath) > 0, "multipath")
	add(r.Src != nil, "src")
	add(r.Encap != nil, "encap")
	add(r.Via != nil, "via")
	add(r.MTU != 0, "mtu")
	add(r.AdvMSS != 0, "advmss")
	return strings.Join(s, " ")
}

// route is the reverse of read.
func (e entry) route(k key, index int) *vnl.Route {
	r := &vnl.Route{
		Dst: netlink.IPNet(k.dst), Table: unix.RT_TABLE_MAIN, Priority: k.metric, Tos: k.tos,
		Type: e.typ, Protocol: vnl.RouteProtocol(e.protocol),
		LinkIndex: index, Gw: netlink.IP(e.gateway),
	}
	if e.link {
		r.Scope = vnl.SCOPE_LINK
	}
	if e.onlink {
		r.Flags = unix.RTNH_F_ONLINK
	}
	return r
}

// String is like what `ip route` prints.
func (e entry) String() string {
	var s []string
	if e.typ != unix.RTN_UNICAST {
		s = append(s, typeName(e.typ))
	}
	if e.gateway.IsValid() {
		s = append(s, "via "+e.gateway.String())
	}
	if e.device != "" {
		s = append(s, "dev "+e.device)
	}
	s = append(s, fmt.Sprintf("proto %d", e.protocol))
	return strings.Join(s, " ")
}

func typeName(t int) string {
	names := map[int]string{unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw", unix.RTN_LOCAL: "local"}
	if n := names[t]; n != "" {
		return n
	}
	return fmt.Sprintf("type %d", t)
}
