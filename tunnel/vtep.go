package tunnel

import (
	"fmt"
	"net"

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
}

// ends are the entries of one VTEP.
type ends struct {
	neighKey, fdbKey neighKey
}

// claims is who claims what.
type claims map[neighKey]map[string]neigh // by node

func newVTEPs() *vteps {
	return &vteps{map[dataplane.VTEPKey]ends{}, claims{}, claims{}}
}

// set notes the VTEP of a node, or with nil that it has none, and passes on what that
// changes.
func (v *vteps) set(key dataplane.VTEPKey, t *dataplane.VTEP, neighs, fdb *reconcile.Table[neighKey, neigh]) {
	if old, ok := v.ends[key]; ok {
		delete(v.ends, key)
		v.neighs.drop(old.neighKey, key.Node, neighs)
		v.fdb.drop(old.fdbKey, key.Node, fdb)
	}
	if t == nil || key.Device == dataplane.DeviceIPIP { // IPIP needs only routes
		return
	}
	mac, err := checkVTEP(key, t)
	e := ends{neighKey{device: key.Device, what: t.Addr.String()}, neighKey{device: key.Device, what: mac}}
	v.ends[key] = e
	v.neighs.add(e.neighKey, key.Node, neigh{t.Addr, mac, err}, neighs)
	v.fdb.add(e.fdbKey, key.Node, neigh{t.Underlay, mac, err}, fdb)
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
