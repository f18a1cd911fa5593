package tunnel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/reconcile"
)

// vteps turns other nodes' tunnel ends into entries. Where two nodes claim the same address or
// MAC, as they do for a moment when a node is renamed, the one that is first by name has it,
// in whatever order they came.
type vteps struct {
	ends   map[dataplane.VTEPKey]ends
	neighs claims
	fdb    claims
	nodes  claims // of IPIP
}

// ends are the entries of one VTEP.
type ends struct {
	neighKey, fdbKey neighKey
	nodeKey          neighKey // of IPIP
}

// tables are where the entries go.
type tables struct {
	neighs, fdb, nodes *reconcile.Table[neighKey, neigh]
}

// claims is who claims what.
type claims map[neighKey]map[string]neigh // by node

func newVTEPs() *vteps {
	return &vteps{map[dataplane.VTEPKey]ends{}, claims{}, claims{}, claims{}}
}

// set notes the VTEP of a node, or with nil that it has none, and passes on what that
// changes.
func (v *vteps) set(key dataplane.VTEPKey, t *dataplane.VTEP, to tables) {
	if old, ok := v.ends[key]; ok {
		delete(v.ends, key)
		v.neighs.drop(old.neighKey, key.Node, to.neighs)
		v.fdb.drop(old.fdbKey, key.Node, to.fdb)
		v.nodes.drop(old.nodeKey, key.Node, to.nodes)
	}
	if t == nil {
		return
	}
	if key.Device == dataplane.DeviceIPIP {
		e := ends{nodeKey: nodeKey(t.Underlay)}
		v.ends[key] = e
		v.nodes.add(e.nodeKey, key.Node, checkNode(key, t), to.nodes)
		return
	}
	mac, err := checkVTEP(key, t)
	e := ends{neighKey: neighKey{device: key.Device, what: t.Addr.String()}, fdbKey: neighKey{device: key.Device, what: mac}}
	v.ends[key] = e
	v.neighs.add(e.neighKey, key.Node, neigh{t.Addr, mac, err}, to.neighs)
	v.fdb.add(e.fdbKey, key.Node, neigh{t.Underlay, mac, err}, to.fdb)
}

// checkNode is another node as the stand-in of IPIP knows it.
func checkNode(key dataplane.VTEPKey, t *dataplane.VTEP) neigh {
	n := neigh{addr: t.Underlay}
	if !t.Underlay.Is4() {
		n.err = fmt.Errorf("%w: node %s has the address %v", ErrInvalid, key.Node, t.Underlay)
	}
	return n
}

// peers are the other nodes that IPIP leads to.
func (v *vteps) peers() []netip.Addr {
	var as []netip.Addr
	for _, by := range v.nodes {
		for _, n := range by {
			if n.err == nil {
				as = append(as, n.addr)
			}
			break
		}
	}
	return as
}

func checkVTEP(key dataplane.VTEPKey, t *dataplane.VTEP) (string, error) {
	bits := 0
	for f, name := range vxlanNames {
		if name == key.Device {
			bits = f.Bits()
		}
	}
	mac, err := net.ParseMAC(t.MAC)
	switch {
	case bits == 0:
		err = fmt.Errorf("%w: %s is not a VXLAN device of ours", ErrInvalid, key.Device)
	case t.Addr.BitLen() != bits:
		err = fmt.Errorf("%w: node %s has the tunnel address %v", ErrInvalid, key.Node, t.Addr)
	case t.Underlay.BitLen() != bits:
		err = fmt.Errorf("%w: node %s has the address %v", ErrInvalid, key.Node, t.Underlay)
	case err != nil || len(mac) != 6:
		err = fmt.Errorf("%w: node %s has the tunnel MAC address %q", ErrInvalid, key.Node, t.MAC)
	}
	if err != nil {
		return t.MAC, err
	}
	return mac.String(), nil
}

func (c claims) add(k neighKey, node string, n neigh, t *reconcile.Table[neighKey, neigh]) {
	if c[k] == nil {
		c[k] = map[string]neigh{}
	}
	c[k][node] = n
	c.settle(k, t)
}

func (c claims) drop(k neighKey, node string, t *reconcile.Table[neighKey, neigh]) {
	if _, ok := c[k]; !ok {
		return
	}
	delete(c[k], node)
	c.settle(k, t)
}

func (c claims) settle(k neighKey, t *reconcile.Table[neighKey, neigh]) {
	if len(c[k]) == 0 {
		delete(c, k)
		t.Delete(k)
		return
	}
	first := ""
	for node := range c[k] {
		if first == "" || node < first {
			first = node
		}
	}
	t.Set(k, c[k][first])
}
