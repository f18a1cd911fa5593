package cni

import (
	"crypto/sha1"
	"encoding/hex"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// Wiring is everything that attaches one pod: objects in the order in which they are
// made. Undone, it is the veth pair alone: the rest lies on it.
type Wiring struct {
	Host    dataplane.Interface // host side of the veth pair
	IfName  string              // pod side
	MAC     string              // pod side
	Addrs   []netip.Addr
	Objects []Object
}

// Object is one thing in the kernel: [Sysctl], [Veth], [Address], [LinkUp], [Route] or
// [Neighbour].
type Object interface{ isObject() }

// Side says where an object lies.
type Side bool

const (
	InHost Side = false
	InPod  Side = true
)

type (
	// Sysctl is a file below /proc/sys; one that does not exist is passed over where
	// Optional: a kernel without IPv6 has none of its settings.
	Sysctl struct {
		Side     Side
		Path     string // ipv4/conf/…, below /proc/sys/net
		Value    string
		Optional bool
	}
	// Veth is the pair of devices.
	Veth struct {
		Host, Pod       string
		HostMAC, PodMAC string
		MTU             int
	}
	// Address is an address of the pod's device, without duplicate detection.
	Address struct {
		Device string
		Prefix netip.Prefix
	}
	// LinkUp sets a device up.
	LinkUp struct {
		Side   Side
		Device string
	}
	// Route is a route in the pod; without Gateway it has scope link.
	Route struct {
		Device  string
		Dst     netip.Prefix
		Gateway netip.Addr
	}
	// Neighbour is a permanent entry.
	Neighbour struct {
		Side   Side
		Device string
		Addr   netip.Addr
		MAC    string
	}
)

func (Sysctl) isObject()    {}
func (Veth) isObject()      {}
func (Address) isObject()   {}
func (LinkUp) isObject()    {}
func (Route) isObject()     {}
func (Neighbour) isObject() {}

// Addresses of the first hop, which every node answers for and none has.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee") // of hostMAC, by EUI-64
)

const hostMAC = "ee:ee:ee:ee:ee:ee"

// maxName is how long a device's name may be (IFNAMSIZ, less the terminating zero).
const maxName = 15

// maxPrefix leaves 20 bits to tell the pods of a node apart.
const maxPrefix = 10

// HostInterface is the name of the host's side of a pod's veth pair. A prefix of more
// than four characters, at most maxPrefix, shortens the hash.
func HostInterface(prefix, namespace, pod string) dataplane.Interface {
	sum := sha1.Sum([]byte(namespace + "." + pod))
	return dataplane.Interface(prefix + hex.EncodeToString(sum[:])[:min(11, maxName-len(prefix))])
}

// PodMAC is the address of the pod's device: locally administered, of the attachment
// alone, so that a repeated ADD gives the same.
func PodMAC(id dataplane.AttachmentID) string {
	sum := sha1.Sum([]byte(id.ContainerID + "/" + id.IfName))
	mac := sum[:6]
	mac[0] = mac[0]&^1 | 2
	return formatMAC(mac)
}

func formatMAC(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for i, x := range b {
		if i > 0 {
			s = append(s, ':')
		}
		s = append(s, digits[x>>4], digits[x&15])
	}
	return string(s)
}

// Plan says how the attachment is wired. mtu is used unless the configuration has one.
func Plan(r *Request, host dataplane.Interface, addrs []netip.Addr, mtu int) Wiring {
	if r.Conf.MTU > 0 {
		mtu = r.Conf.MTU
	}
	w := Wiring{Host: host, IfName: r.ID.IfName, MAC: PodMAC(r.ID), Addrs: addrs}
	v4, v6 := has(addrs, dataplane.IPv4), has(addrs, dataplane.IPv6)
	w.beforeVeth(v6, r.Conf.ContainerSettings.AllowIPForwarding)
	w.add(Veth{Host: string(host), Pod: w.IfName, HostMAC: hostMAC, PodMAC: w.MAC, MTU: mtu})
	w.hostSide(v4, v6)
	w.add(LinkUp{InPod, "lo"})
	for _, a := range addrs {
		w.add(Address{w.IfName, netip.PrefixFrom(a, a.BitLen())})
	}
	w.add(LinkUp{InPod, w.IfName}, LinkUp{InHost, string(host)})
	for _, a := range addrs {
		w.add(Neighbour{InHost, string(host), a, w.MAC})
	}
	if v4 {
		w.add(Neighbour{InPod, w.IfName, gateway4, hostMAC},
			Route{Device: w.IfName, Dst: netip.PrefixFrom(gateway4, 32)})
	}
	if v6 {
		w.add(Neighbour{InPod, w.IfName, gateway6, hostMAC})
	}
	for _, dst := range r.Conf.destinations(v4, v6) {
		gw := gateway4
		if dst.Addr().Is6() {
			gw = gateway6
		}
		w.add(Route{w.IfName, dst, gw})
	}
	return w
}

func (w *Wiring) add(os ...Object) { w.Objects = append(w.Objects, os...) }

// beforeVeth sets what a device must find when it appears: duplicate address detection
// off, for it delays the first IPv6 packet by two seconds and nobody else is on the link;
// IPv6 on, which some runtimes turn off in a sandbox.
func (w *Wiring) beforeVeth(v6, forward bool) {
	if v6 {
		for _, conf := range []string{"all", "default", "lo"} {
			w.add(Sysctl{InPod, "ipv6/conf/" + conf + "/disable_ipv6", "0", false})
		}
	}
	for _, name := range []string{"accept_dad", "dad_transmits"} {
		w.add(Sysctl{InPod, "ipv6/conf/default/" + name, "0", true})
	}
	f := "0"
	if forward {
		f = "1"
	}
	w.add(Sysctl{InPod, "ipv4/ip_forward", f, false}, Sysctl{InPod, "ipv6/conf/all/forwarding", f, true})
}

// hostSide sets up the host's device: it forwards, and answers ARP for the gateway to
// guests that ask (a virtual machine in the pod).
func (w *Wiring) hostSide(v4, v6 bool) {
	conf := func(family, name, value string) Sysctl {
		return Sysctl{InHost, family + "/conf/" + string(w.Host) + "/" + name, value, family == "ipv6"}
	}
	if v4 {
		w.add(conf("ipv4", "forwarding", "1"), conf("ipv4", "proxy_arp", "1"),
			Sysctl{InHost, "ipv4/neigh/" + string(w.Host) + "/proxy_delay", "0", false})
	}
	if !v6 { // no link-local address either: with one the kernel takes measurably longer to delete
		// the device, probably as it waits for IPv6 routes that hold it
		w.add(conf("ipv6", "disable_ipv6", "1"))
		return
	}
	w.add(conf("ipv6", "accept_dad", "0"), conf("ipv6", "dad_transmits", "0"), conf("ipv6", "accept_ra", "0"),
		conf("ipv6", "disable_ipv6", "0"), conf("ipv6", "forwarding", "1"))
}

// destinations are the routes by the gateway: those of the configuration, and the default
// route if there are none or it asks for both.
func (c *NetConf) destinations(v4, v6 bool) []netip.Prefix {
	var ds []netip.Prefix
	for _, r := range c.IPAM.Routes {
		p, err := netip.ParsePrefix(r.Dst)
		if err == nil && (p.Addr().Is4() && v4 || p.Addr().Is6() && v6) { // ParseRequest refused others
			ds = append(ds, p.Masked())
		}
	}
	if len(c.IPAM.Routes) > 0 && !c.IncludeDefaultRoutes {
		return ds
	}
	if v4 {
		ds = append(ds, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if v6 {
		ds = append(ds, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	return ds
}

func has(addrs []netip.Addr, f dataplane.Family) bool {
	for _, a := range addrs {
		if dataplane.FamilyOf(a) == f {
			return true
		}
	}
	return false
}
