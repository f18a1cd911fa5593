package tunnel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/bpf"
	"github.com/calicogo/calico/dataplane"
)

// config is what the programs must know of tunl0.
func (k *ipip) config(tunl0 vnl.Link, local netip.Addr) bpf.Config {
	a := tunl0.Attrs()
	return bpf.Config{Local: local, Device: a.Index, Peer: a.ParentIndex, MAC: [6]byte(append(a.HardwareAddr, make([]byte, 6)...))}
}

// filters says where which programs must stand. A link that leads to other nodes and is not
// Ethernet can carry none: the error names it, and the others are as good as without it.
func (k *ipip) filters(tunl0 vnl.Link, paths []int) (map[int]bpf.Role, error) {
	m := map[int]bpf.Role{tunl0.Attrs().ParentIndex: bpf.Encapsulates}
	var err error
	for _, index := range paths {
		l, e := k.h.LinkByIndex(index)
		switch {
		case e != nil:
			err = fmt.Errorf("look up link %d, which leads to other nodes: %w", index, e)
		case l.Attrs().EncapType != "ether":
			err = fmt.Errorf("tunnel %s: %s leads to other nodes and is no Ethernet device: %w; without it %w",
				dataplane.DeviceIPIP, l.Attrs().Name, errNotEthernet, ErrNoIPIP)
		default:
			m[index] = bpf.Decapsulates
		}
	}
	return m, err
}

// attach tells the programs what they must know, and then has them stand where they must,
// and nowhere else.
func (k *ipip) attach(d device, tunl0 vnl.Link, paths []int) error {
	if err := k.tell(d, tunl0); err != nil {
		return err
	}
	have, err := k.enc.Filters()
	if err != nil {
		return err
	}
	want, _ := k.filters(tunl0, paths) // what is wrong is said last
	for _, link := range slices.Sorted(maps.Keys(want)) {
		if have[link] == want[link] {
			continue
		}
		if err := k.did(k.enc.Attach(link, want[link])); err != nil {
			return fmt.Errorf("tunnel %s: %w", dataplane.DeviceIPIP, err)
		}
	}
	for _, link := range slices.Sorted(maps.Keys(have)) {
		if want[link] != "" {
			continue
		}
		if err := k.did(k.enc.Detach(link)); err != nil {
			return fmt.Errorf("tunnel %s: %w", dataplane.DeviceIPIP, err)
		}
	}
	return nil
}

// tell writes the programs' maps. All nodes are in before a program that has new maps takes
// the place of another one.
func (k *ipip) tell(d device, tunl0 vnl.Link) error {
	known, err := k.enc.Nodes()
	if err != nil {
		return err
	}
	for _, a := range k.peers() {
		if known[a] {
			continue
		}
		if err := k.did(k.enc.AddNode(a)); err != nil {
			return err
		}
	}
	have, err := k.enc.Config()
	if err != nil {
		return err
	}
	want := k.config(tunl0, d.Underlay)
	if have == want {
		return nil
	}
	return k.did(k.enc.SetConfig(want))
}
