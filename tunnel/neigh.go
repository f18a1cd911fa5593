package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/reconcile"
)

// neighKey names an entry of the neighbour or forwarding table of one of our devices.
type neighKey struct {
	device string
	what   string // a tunnel address, or a MAC
	nth    int    // above 0: one of several of the name; never wanted
}

func (k neighKey) String() string { return k.what + " dev " + k.device }

// neigh is where what is named is: a tunnel address at a MAC, or a MAC at an underlay address.
type neigh struct {
	addr netip.Addr
	mac  string
	err  error // why there can be no such entry; of wanted ones
}

func sameNeigh(have, want neigh) bool { return want.err == nil && have == want }

// table is the permanent neighbours of our devices, or, if fdb, their forwarding entries.
type table struct {
	h      *netlink.Handle
	fdb    bool
	writes uint64
}

func (k *table) name() string {
	if k.fdb {
		return "forwarding entry"
	}
	return "neighbour"
}

// List reads the entries of those of our devices that exist.
func (k *table) List(context.Context) (map[neighKey]neigh, error) {
	m := map[neighKey]neigh{}
	for f, device := range vxlanNames {
		index, err := k.index(device)
		if errors.Is(err, ErrNoDevice) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all, err := netlink.Dump(func() ([]vnl.Neigh, error) { return k.h.NeighList(index, k.family(f)) })
		if err != nil {
			return nil, fmt.Errorf("list %ss of %s: %w", k.name(), device, err)
		}
		for _, n := range all {
			k.note(m, device, n)
		}
	}
	return m, nil
}

func (k *table) family(f dataplane.Family) int {
	if k.fdb {
		return unix.AF_BRIDGE
	}
	return afOf(f)
}

// note adds an entry of the kernel. What the kernel found out by itself is not ours.
func (k *table) note(m map[neighKey]neigh, device string, n vnl.Neigh) {
	e := neigh{addr: netlink.Addr(n.IP), mac: n.HardwareAddr.String()}
	key := neighKey{device: device, what: e.mac}
	if !k.fdb {
		key.what = e.addr.String()
		if n.State&unix.NUD_PERMANENT == 0 {
			return
		}
	}
	if !e.addr.IsValid() {
		return
	}
	for {
		if _, taken := m[key]; !taken {
			m[key] = e
			return
		}
		key.nth++
	}
}

// index returns that of a device of ours, or ErrNoDevice.
func (k *table) index(device string) (int, error) {
	l, err := k.h.LinkByName(device)
	if netlink.IsNoLink(err) {
		return 0, ErrNoDevice
	}
	if err != nil {
		return 0, fmt.Errorf("look up link %s: %w", device, err)
	}
	if l.Type() != "vxlan" {
		return 0, ErrNoDevice
	}
	return l.Attrs().Index, nil
}

// Apply sets and deletes entries.
func (k *table) Apply(ctx context.Context, set, del map[neighKey]neigh) error {
	failed := reconcile.KeyErrors[neighKey]{}
	index := map[string]int{}
	none := map[string]error{}
	for _, device := range vxlanNames {
		index[device], none[device] = k.index(device)
	}
	try := func(key neighKey, e neigh, do func(*vnl.Neigh) error) {
		if err := firstError(e.err, none[key.device]); err != nil {
			failed[key] = fmt.Errorf("%s %v: %w", k.name(), key, err)
		} else if err := do(k.entry(key.device, index[key.device], e)); err != nil {
			failed[key] = fmt.Errorf("%s %v: %w", k.name(), key, err)
		} else {
			k.writes++
		}
	}
	for key, e := range del {
		if ctx.Err() == nil && !errors.Is(none[key.device], ErrNoDevice) {
			try(key, e, k.del)
		}
	}
	for key, e := range set {
		if ctx.Err() == nil {
			try(key, e, k.h.NeighSet)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return failed.Err()
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *table) del(n *vnl.Neigh) error {
	err := k.h.NeighDel(n)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}

func (k *table) entry(device string, index int, e neigh) *vnl.Neigh {
	mac, _ := net.ParseMAC(e.mac) // checked when it was wanted
	n := &vnl.Neigh{LinkIndex: index, State: unix.NUD_PERMANENT, IP: netlink.IP(e.addr), HardwareAddr: mac}
	if k.fdb {
		n.Family, n.Flags = unix.AF_BRIDGE, unix.NTF_SELF
	}
	return n
}
