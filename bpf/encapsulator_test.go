package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// links is a namespace with two links.
func links(t *testing.T) (h *netlink.Handle, a, b int) {
	t.Helper()
	h, err := netlink.Open(nstest.New(t))
	must(t, err)
	t.Cleanup(h.Close)
	must(t, h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "a"}, PeerName: "b"}))
	index := func(name string) int {
		l, err := h.LinkByName(name)
		must(t, err)
		return l.Attrs().Index
	}
	return h, index("a"), index("b")
}

func open(t *testing.T, h *netlink.Handle) *Encapsulator {
	t.Helper()
	e, err := Open(h)
	must(t, err)
	t.Cleanup(func() { e.Close() })
	return e
}

var (
	node = netip.MustParseAddr("10.0.0.2")
	conf = Config{Local: netip.MustParseAddr("10.0.0.1"), Device: 7, Peer: 8, MAC: [6]byte{2, 0, 0, 0, 0, 4}}
)

// What one process attached, the next one finds: programs, maps and what is in them.
func TestAdopt(t *testing.T) {
	h, a, b := links(t)
	e := open(t, h)
	must(t, e.SetConfig(conf))
	must(t, e.AddNode(node))
	must(t, e.AddNode(node))
	must(t, e.Attach(a, Encapsulates))
	must(t, e.Attach(b, Decapsulates))
	must(t, e.Close())

	e = open(t, h)
	got, err := e.Filters()
	if err != nil || len(got) != 2 || got[a] != Encapsulates || got[b] != Decapsulates {
		t.Errorf("filters %v, %v", got, err)
	}
	if c, err := e.Config(); err != nil || c != conf {
		t.Errorf("configuration %+v, %v", c, err)
	}
	if nodes, err := e.Nodes(); err != nil || len(nodes) != 1 || !nodes[node] {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	must(t, e.DeleteNode(node))
	must(t, e.DeleteNode(node))
	must(t, e.Detach(a))
	must(t, e.Detach(a))
	must(t, Detach(h, b))
	if left, err := Leftovers(h); err != nil || len(left) != 0 {
		t.Errorf("left filters at %v, %v", left, err)
	}
	qs, err := h.QdiscList(nil)
	must(t, err)
	for _, q := range qs {
		if q.Type() == "clsact" {
			t.Errorf("left a qdisc at %d", q.Attrs().LinkIndex)
		}
	}
}

// older attaches a program as an older agent might have left it: with another layout of the
// configuration, and the same nodes.
func older(t *testing.T, h *netlink.Handle, link int) {
	t.Helper()
	spec, err := loadIpip()
	must(t, err)
	c := spec.Maps[ipipMapIpipConfig]
	c.ValueSize += 8
	c.Value = nil
	coll, err := ebpf.NewCollection(spec)
	must(t, err)
	defer coll.Close()
	must(t, coll.Maps[ipipMapIpipNodes].Put(node.As4(), uint8(1)))
	must(t, put(h, link, string(Decapsulates), coll.Programs[ipipProgIpipIn].FD()))
}

// A map of another layout is not taken over, one of the same is, and the older program
// stands, as one to replace, until its successor knows all.
func TestOtherLayout(t *testing.T) {
	h, a, _ := links(t)
	older(t, h, a)
	e := open(t, h)
	if nodes, err := e.Nodes(); err != nil || !nodes[node] {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	if c, err := e.Config(); err != nil || c.Device != 0 {
		t.Errorf("configuration %+v, %v", c, err)
	}
	if got, err := e.Filters(); err != nil || len(got) != 1 || got[a] != "" {
		t.Errorf("filters %v, %v", got, err)
	}
	must(t, e.SetConfig(conf))
	must(t, e.Attach(a, Decapsulates))
	if got, err := e.Filters(); err != nil || got[a] != Decapsulates {
		t.Errorf("filters %v, %v", got, err)
	}
	fs, err := filters(h, a, vnl.HANDLE_MIN_INGRESS)
	if err != nil || len(fs) != 1 {
		t.Errorf("the older filter stands beside its successor: %v, %v", fs, err)
	}
}

// Other programs' filters are neither found nor changed; one in the place of ours is an error.
func TestForeignFilter(t *testing.T) {
	h, a, b := links(t)
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, License: "Dual BSD/GPL",
	})
	must(t, err)
	defer pass.Close()
	add := func(link int, prio uint16) {
		t.Helper()
		must(t, h.QdiscAdd(clsact(link)))
		f := shape(link)
		f.Priority, f.Fd, f.Name, f.DirectAction = prio, pass.FD(), "other", true
		must(t, h.FilterAdd(f))
	}
	add(a, priority)
	add(b, priority+1)
	if left, err := Leftovers(h); err != nil || len(left) != 0 {
		t.Errorf("foreign filters are ours: %v, %v", left, err)
	}
	e := open(t, h)
	if err := e.Attach(a, Decapsulates); !errors.Is(err, ErrOccupied) {
		t.Errorf("got %v", err)
	}
	must(t, e.Attach(b, Decapsulates))
	must(t, e.Detach(a))
	must(t, e.Detach(b))
	for _, link := range []int{a, b} {
		if fs, err := filters(h, link, vnl.HANDLE_MIN_INGRESS); err != nil || len(fs) != 1 {
			t.Errorf("link %d has %v, %v", link, fs, err)
		}
	}
}

func TestErrors(t *testing.T) {
	h, _, _ := links(t)
	e := open(t, h)
	six := netip.MustParseAddr("fd00::1")
	if err := e.AddNode(six); err == nil {
		t.Error("a node of IPv6")
	}
	if err := e.SetConfig(Config{Local: six}); err == nil {
		t.Error("a local address of IPv6")
	}
	if err := e.Attach(4711, Decapsulates); err == nil {
		t.Error("attached to a link that does not exist")
	}
	must(t, e.DeleteNode(six))
	must(t, e.Detach(4711))
	if s, err := e.Stats(); err != nil || s != (Stats{}) || s.Dropped() != 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
}

// Each counter of the programs has a place, and each place a counter.
func TestCounters(t *testing.T) {
	spec, err := loadIpip()
	must(t, err)
	if n := len((&Stats{}).counters()); n != int(spec.Maps[ipipMapIpipStats].MaxEntries) {
		t.Errorf("%d places for %d counters", n, spec.Maps[ipipMapIpipStats].MaxEntries)
	}
	for name, p := range spec.Programs {
		if p.License != "Dual BSD/GPL" {
			t.Errorf("%s has the licence %q", name, p.License)
		}
	}
}
