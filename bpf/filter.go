package bpf

import (
	"errors"
	"fmt"
	"strings"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// A filter of ours has this priority and handle, and a name that begins so.
const (
	priority   = 4 // before those that tc(8) chooses, after those that want to be first
	handle     = 0xca11c0
	namePrefix = "calico_"
	// madeQdisc ends the name of a filter whose qdisc we made: it goes with the filter.
	madeQdisc = "+qdisc"
)

// ErrOccupied says that another program's filter has the place of ours.
var ErrOccupied = errors.New("another program's filter is in the place of ours")

// filter is a filter of ours, at ingress of a link.
type filter struct {
	link    int
	name    string // of the program: without prefix and ending
	made    bool   // its qdisc is ours
	program int    // the id
	direct  bool   // in direct-action mode, as it must be
}

// list returns our filters in h's namespace, by link.
func list(h *netlink.Handle) (map[int]filter, error) {
	qdiscs, err := netlink.Dump(func() ([]vnl.Qdisc, error) { return h.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	m := map[int]filter{}
	for _, q := range qdiscs {
		if q.Type() != "clsact" && q.Type() != "ingress" {
			continue
		}
		link := q.Attrs().LinkIndex
		f, ok, err := find(h, link)
		if err != nil {
			return nil, err
		}
		if ok {
			m[link] = f
		}
	}
	return m, nil
}

// find returns our filter at a link.
func find(h *netlink.Handle, link int) (filter, bool, error) {
	all, err := filters(h, link, vnl.HANDLE_MIN_INGRESS)
	if err != nil {
		return filter{}, false, err
	}
	for _, f := range all {
		if b, ok := f.(*vnl.BpfFilter); ok && b.Priority == priority && b.Handle == handle && strings.HasPrefix(b.Name, namePrefix) {
			name, made := strings.CutSuffix(strings.TrimPrefix(b.Name, namePrefix), madeQdisc)
			return filter{link, name, made, b.Id, b.DirectAction}, true, nil
		}
	}
	return filter{}, false, nil
}

func filters(h *netlink.Handle, link int, parent uint32) ([]vnl.Filter, error) {
	all, err := netlink.Dump(func() ([]vnl.Filter, error) { return h.FilterList(byIndex(link), parent) })
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list filters of link %d: %w", link, err)
	}
	return all, nil
}

// put has a link carry our filter with the program of descriptor fd. A filter that is there
// is replaced in one step.
func put(h *netlink.Handle, link int, name string, fd int) error {
	old, there, err := find(h, link)
	if err != nil {
		return err
	}
	made := old.made
	if !there {
		if made, err = addQdisc(h, link); err != nil {
			return err
		}
	}
	f := shape(link)
	f.Fd, f.DirectAction, f.Name = fd, true, namePrefix+name
	if made {
		f.Name += madeQdisc
	}
	write := h.FilterAdd
	if there {
		write = h.FilterReplace
	}
	if err = write(f); errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%w (priority %d, handle %#x): %w", ErrOccupied, priority, handle, err)
	}
	if err == nil {
		return nil
	}
	if made && !there {
		_ = h.QdiscDel(clsact(link)) // nothing is lost if it stays
	}
	return fmt.Errorf("attach eBPF program %s to link %d: %w", name, link, err)
}

// addQdisc has a link carry a clsact qdisc, and tells whether it was made now.
func addQdisc(h *netlink.Handle, link int) (made bool, err error) {
	err = h.QdiscAdd(clsact(link))
	if errors.Is(err, unix.EEXIST) { // it may be of type ingress, which is as good
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("add clsact qdisc to link %d: %w", link, err)
	}
	return true, nil
}

// take takes our filter off a link, and the qdisc with it if we made that and nobody else
// uses it. That there is none is no error.
func take(h *netlink.Handle, link int) error {
	f, there, err := find(h, link)
	if err != nil || !there {
		return err
	}
	if err := h.FilterDel(shape(link)); err != nil && !gone(err) {
		return fmt.Errorf("detach eBPF program %s from link %d: %w", f.name, link, err)
	}
	if !f.made {
		return nil
	}
	for _, parent := range []uint32{vnl.HANDLE_MIN_INGRESS, vnl.HANDLE_MIN_EGRESS} {
		others, err := filters(h, link, parent)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return nil
		}
	}
	if err := h.QdiscDel(clsact(link)); err != nil && !gone(err) {
		return fmt.Errorf("remove clsact qdisc of link %d: %w", link, err)
	}
	return nil
}

func shape(link int) *vnl.BpfFilter {
	return &vnl.BpfFilter{
		FilterAttrs: vnl.FilterAttrs{
			LinkIndex: link, Parent: vnl.HANDLE_MIN_INGRESS, Handle: handle, Priority: priority, Protocol: unix.ETH_P_ALL,
		},
		Fd: -1,
	}
}

func clsact(link int) *vnl.Clsact {
	return &vnl.Clsact{QdiscAttrs: vnl.QdiscAttrs{LinkIndex: link, Handle: vnl.MakeHandle(0xffff, 0), Parent: vnl.HANDLE_CLSACT}}
}

func byIndex(link int) vnl.Link { return &vnl.Device{LinkAttrs: vnl.LinkAttrs{Index: link}} }

// gone tells that err says that link, qdisc or filter are not there.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
