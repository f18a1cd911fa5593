package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/bpf"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// peerIPIP is the other end of the stand-in's pair of veth devices.
const peerIPIP = "tunl0p"

// peerMTU is that of the peer, bytes: whatever tunl0 sends arrives.
const peerMTU = 65535

// MAC addresses of the pair. They are never on a wire. That they were set keeps others from
// choosing some.
var (
	macIPIP = net.HardwareAddr{2, 0, 0, 0, 0, 4}
	macPeer = net.HardwareAddr{2, 0, 0, 0, 0, 5}
)

// notOffloaded are the features of tunl0 that are off: without them the kernel cuts what is a
// tunnel's already into segments before it is encapsulated once more. A packet can say of
// one outer header only that it has it.
var notOffloaded = []string{
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-gre-segmentation", "tx-gre-csum-segmentation",
	"tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
}

// readStandIn describes the pair of devices and its programs.
func (k *ipip) readStandIn(d *device, l vnl.Link) error {
	paths, err := k.readCommon(d, l)
	if err != nil {
		return err
	}
	drift, err := k.driftPair(l)
	if err == nil && drift == "" {
		drift, err = k.driftPrograms(d, l, paths.Links)
	}
	if drift != "" {
		d.drift = drift
	}
	return err
}

// driftPair says what is wrong with the devices themselves.
func (k *ipip) driftPair(l vnl.Link) (string, error) {
	p, err := k.find(peerIPIP)
	if err != nil {
		return "", err
	}
	on, err := k.offloaded(l)
	switch {
	case err != nil:
		return "", err
	case !paired(l, p):
		return "it has no peer " + peerIPIP, nil
	case p.Attrs().Flags&net.FlagUp == 0:
		return peerIPIP + " is down", nil
	case p.Attrs().MTU != peerMTU:
		return fmt.Sprintf("%s has the MTU %d", peerIPIP, p.Attrs().MTU), nil
	case arp(l) || arp(p):
		return "it does ARP", nil
	case len(on) > 0:
		return fmt.Sprintf("its offload features %v are on", on), nil
	}
	return "", nil
}

func arp(l vnl.Link) bool { return l.Attrs().RawFlags&unix.IFF_NOARP == 0 }

// paired tells that two links are the ends of one pair. ParentIndex is IFLA_LINK, of a veth
// device the index of its peer, which is one of another namespace if NetNsID says so.
func paired(l, p vnl.Link) bool {
	if l == nil || p == nil {
		return false
	}
	one := func(a, b *vnl.LinkAttrs) bool { return a.ParentIndex == b.Index && a.NetNsID < 0 }
	return one(l.Attrs(), p.Attrs()) && one(p.Attrs(), l.Attrs())
}

// driftPrograms says what is wrong with programs and maps; paths are the links that lead to
// other nodes. What the programs know is read into d.
func (k *ipip) driftPrograms(d *device, l vnl.Link, paths []int) (string, error) {
	if err := k.load(); err != nil {
		return err.Error(), nil
	}
	c, err := k.enc.Config()
	if err != nil {
		return "", err
	}
	d.Underlay = c.Local
	if want := k.config(l, c.Local); c != want {
		return fmt.Sprintf("its programs know %+v instead of %+v", c, want), nil
	}
	have, err := k.enc.Filters()
	if err != nil {
		return "", err
	}
	if !k.local.IsValid() { // nothing is wanted
		return "", nil
	}
	if want, _ := k.filters(l, paths); !maps.Equal(have, want) {
		return fmt.Sprintf("its programs stand at %v instead of %v", have, want), nil
	}
	return "", nil
}

// load opens the programs, with the maps of those that stand.
func (k *ipip) load() (err error) {
	if k.enc == nil {
		k.enc, err = bpf.Open(k.h)
	}
	return err
}

// setStandIn has pair and programs be as wanted. l is tunl0, or nil.
func (k *ipip) setStandIn(d device, l vnl.Link) error {
	paths, err := k.paths(l)
	if err != nil {
		return err
	}
	if err := k.load(); err != nil {
		return fmt.Errorf("tunnel %s: %w", dataplane.DeviceIPIP, err)
	}
	l, p, err := k.ensurePair(l)
	if err != nil {
		return err
	}
	// Before what keeps IPv6 away: an MTU that grows beyond 1280 brings it back.
	if err := k.setMTU4(l, d, paths.MTU); err != nil {
		return err
	}
	if err := k.configurePair(l, p); err != nil {
		return err
	}
	if err := k.attach(d, l, paths.Links); err != nil {
		return err
	}
	if err := k.setAddr(l, d.Addr); err != nil {
		return err
	}
	if err := k.up(p); err != nil {
		return err
	}
	if err := k.up(l); err != nil {
		return err
	}
	_, err = k.filters(l, paths.Links)
	return err
}

// ensurePair returns both ends, made anew if they are not there or not a pair.
func (k *ipip) ensurePair(l vnl.Link) (tunl0, peer vnl.Link, err error) {
	p, err := k.find(peerIPIP)
	if err != nil {
		return nil, nil, err
	}
	if paired(l, p) {
		return l, p, nil
	}
	if l != nil {
		k.log.Warn("replacing the tunnel device", "device", dataplane.DeviceIPIP, "because", "it has no peer "+peerIPIP)
		if err := k.devices.remove(dataplane.DeviceIPIP); err != nil {
			return nil, nil, err
		}
	}
	a := vnl.NewLinkAttrs()
	a.Name, a.HardwareAddr = dataplane.DeviceIPIP, macIPIP
	err = k.did(k.h.LinkAdd(&vnl.Veth{LinkAttrs: a, PeerName: peerIPIP, PeerHardwareAddr: macPeer, PeerMTU: peerMTU}))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w; %w: %w", ErrNoIPIP, ErrNoStandIn, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("create tunnel device %s with its peer %s: %w", dataplane.DeviceIPIP, peerIPIP, err)
	}
	if l, err = k.h.LinkByName(dataplane.DeviceIPIP); err == nil {
		p, err = k.h.LinkByName(peerIPIP)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look up link: %w", err)
	}
	if k.created != nil {
		if err := k.created(dataplane.DeviceIPIP); err != nil {
			return nil, nil, fmt.Errorf("tunnel %s: %w", dataplane.DeviceIPIP, err)
		}
	}
	return l, p, nil
}

// configurePair sets what the pair needs before it goes up.
func (k *ipip) configurePair(l, p vnl.Link) error {
	for _, end := range []vnl.Link{l, p} {
		if err := k.quieten(end); err != nil {
			return err
		}
	}
	if err := k.linkMTU(p, peerMTU, "the most there is"); err != nil {
		return err
	}
	on, err := k.offloaded(l)
	if err != nil || len(on) == 0 {
		return err
	}
	return k.did(k.h.FeaturesOff(l.Attrs().Index, on...))
}

// quieten keeps a link from speaking by itself: neither ARP nor IPv6.
func (k *ipip) quieten(l vnl.Link) error {
	name := l.Attrs().Name
	if arp(l) {
		if err := k.did(k.h.LinkSetARPOff(l)); err != nil {
			return fmt.Errorf("turn off ARP of %s: %w", name, err)
		}
	}
	if err := k.noLinkLocal(l); err != nil {
		return err
	}
	return k.h.Do(func() error {
		return netlink.SetSysctls(netlink.Current,
			netlink.Sysctl{Name: "net/ipv6/conf/" + name + "/disable_ipv6", Value: "1", IfPresent: true})
	})
}

// offloaded are those features that are on and should be off.
func (k *ipip) offloaded(l vnl.Link) ([]string, error) {
	on, err := k.h.Features(l.Attrs().Index)
	if netlink.IsNoLink(err) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(notOffloaded), func(name string) bool { return !on[name] }), nil
}
