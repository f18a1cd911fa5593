package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/calicogo/calico/netlink"
)

// ErrUnsupported says that the kernel cannot run the programs.
var ErrUnsupported = errors.New("the kernel cannot run the eBPF programs for IPIP (it takes Linux 5.15 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT, and the right CAP_BPF or CAP_SYS_ADMIN)")

// Role is what a program does; each stands at ingress of links of one kind.
type Role string

const (
	Encapsulates Role = ipipProgIpipOut // on the peer of the tunnel device
	Decapsulates Role = ipipProgIpipIn  // on the links that lead to other nodes
)

// Encapsulator is the programs and maps of IP in IP in a network namespace, loaded. It is
// for one goroutine at a time. What is attached stays when it is closed.
type Encapsulator struct {
	h    *netlink.Handle
	objs ipipObjects
	ids  map[ebpf.MapID]bool // of the maps
	tags map[Role]string
}

// Open loads the programs. Maps that filters of ours hold are kept, with their contents, as
// far as they have the layout that the programs know; others are made anew and empty.
func Open(h *netlink.Handle) (*Encapsulator, error) {
	spec, err := loadIpip()
	if err != nil {
		return nil, err
	}
	kept, err := adopt(h, spec)
	if err != nil {
		return nil, err
	}
	defer closeAll(kept)
	_ = rlimit.RemoveMemlock() // before Linux 5.11 only; that it was needed shows below
	e := &Encapsulator{h: h}
	if err := spec.LoadAndAssign(&e.objs, &ebpf.CollectionOptions{MapReplacements: kept}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err := e.describe(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// describe notes what tells the programs from others.
func (e *Encapsulator) describe() error {
	e.ids, e.tags = map[ebpf.MapID]bool{}, map[Role]string{}
	for _, m := range []*ebpf.Map{e.objs.IpipConfig, e.objs.IpipNodes, e.objs.IpipStats} {
		info, err := m.Info()
		if err != nil {
			return fmt.Errorf("describe %v: %w", m, err)
		}
		if id, ok := info.ID(); ok {
			e.ids[id] = true
		}
	}
	for _, role := range []Role{Encapsulates, Decapsulates} {
		info, err := e.program(role).Info()
		if err != nil {
			return fmt.Errorf("describe eBPF program %s: %w", role, err)
		}
		e.tags[role] = info.Tag
	}
	return nil
}

func (e *Encapsulator) program(r Role) *ebpf.Program {
	if r == Encapsulates {
		return e.objs.IpipOut
	}
	return e.objs.IpipIn
}

// Close gives up what the process holds.
func (e *Encapsulator) Close() error { return e.objs.Close() }

// Filters says, of each link that has a filter of ours, in which role it stands there; none
// if the filter is not the program and maps of e, and must be attached anew.
func (e *Encapsulator) Filters() (map[int]Role, error) {
	all, err := list(e.h)
	if err != nil {
		return nil, err
	}
	m := make(map[int]Role, len(all))
	for link, f := range all {
		role := Role(f.name)
		ok, err := e.current(role, f)
		if err != nil {
			return nil, err
		}
		if !ok {
			role = ""
		}
		m[link] = role
	}
	return m, nil
}

// current tells whether a filter runs e's program of a role, with e's maps.
func (e *Encapsulator) current(role Role, f filter) (bool, error) {
	if e.tags[role] == "" || !f.direct {
		return false, nil
	}
	info, err := programInfo(f.program)
	if errors.Is(err, ebpf.ErrKeyNotExist) || errors.Is(err, errNoProgram) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		if !e.ids[id] {
			return false, nil
		}
	}
	return info.Tag == e.tags[role], nil
}

// Attach has a link carry the program of a role. One that is there is replaced in one step.
func (e *Encapsulator) Attach(link int, r Role) error {
	return put(e.h, link, string(r), e.program(r).FD())
}

// Detach takes a program off a link; that there is none is no error.
func (e *Encapsulator) Detach(link int) error { return take(e.h, link) }

// Leftovers returns the links of h's namespace that carry filters of ours, whoever put
// them there.
func Leftovers(h *netlink.Handle) ([]int, error) {
	all, err := list(h)
	var links []int
	for link := range all {
		links = append(links, link)
	}
	return links, err
}

// Detach takes our filter off a link, as [Encapsulator.Detach] does, without programs
// loaded.
func Detach(h *netlink.Handle, link int) error { return take(h, link) }

// Config is what the programs must know beside the nodes' addresses.
type Config struct {
	Local  netip.Addr // of this node, IPv4: the source of outer headers; IPIP to others is passed by
	Device int        // index of the tunnel device
	Peer   int        // index of its peer, which carries [Encapsulates]
	MAC    [6]byte    // of the tunnel device
}

// wireConfig is a Config as the programs read it: struct ipip_config.
type wireConfig struct {
	Local        [4]byte // in network order
	Device, Peer uint32
	MAC          [6]byte
	_            [2]byte
}

// Config returns what the programs were told; that is nothing at first.
func (e *Encapsulator) Config() (Config, error) {
	var w wireConfig
	if err := e.objs.IpipConfig.Lookup(uint32(0), &w); err != nil {
		return Config{}, fmt.Errorf("read the configuration of the eBPF programs: %w", err)
	}
	return Config{netip.AddrFrom4(w.Local), int(w.Device), int(w.Peer), w.MAC}, nil
}

// SetConfig tells the programs.
func (e *Encapsulator) SetConfig(c Config) error {
	if !c.Local.Is4() {
		return fmt.Errorf("the eBPF programs take an IPv4 address, not %v", c.Local)
	}
	w := wireConfig{Local: c.Local.As4(), Device: uint32(c.Device), Peer: uint32(c.Peer), MAC: c.MAC}
	if err := e.objs.IpipConfig.Put(uint32(0), w); err != nil {
		return fmt.Errorf("write the configuration of the eBPF programs: %w", err)
	}
	return nil
}
