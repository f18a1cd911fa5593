package netlink_test

import (
	"fmt"
	"sync"
	"testing"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// deleteGroup is the number that the package deletes by.
const deleteGroup = 0x63616c69

// TestLinksAreDeletedTogether deletes many at a time, some of which are gone already, and
// no other: neither those that nobody asked for, nor, where one has got into the group,
// that one.
func TestLinksAreDeletedTogether(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		t.Run(fmt.Sprintf("foreign %v", foreign), func(t *testing.T) {
			ns, pod := nstest.New(t), nstest.New(t)
			h, err := netlink.Open(ns)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			d, err := netlink.NewDeleter(ns)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			add := func(name string) vnl.Link {
				err := h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: vnl.NsFd(pod)})
				if err != nil {
					t.Fatal(err)
				}
				l, err := h.LinkByName(name)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			stays := []vnl.Link{add("stays0"), add("stays1")}
			if err := h.LinkSetGroup(stays[1], 7); err != nil {
				t.Fatal(err)
			}
			if foreign {
				if err := h.LinkSetGroup(stays[0], deleteGroup); err != nil {
					t.Fatal(err)
				}
			}
			var all []int
			for i := range 12 {
				all = append(all, add(fmt.Sprint("goes", i)).Attrs().Index)
			}
			all = append(all, all[0], 4711) // one twice, one that never was
			var wg sync.WaitGroup
			for _, index := range all {
				wg.Go(func() {
					if err := d.Delete(index); err != nil {
						t.Error(err)
					}
					if _, err := h.LinkByIndex(index); !netlink.IsNoLink(err) {
						t.Errorf("after its deletion link %d: %v", index, err)
					}
				})
			}
			wg.Wait()
			links, err := h.Links()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range stays {
				if links[l.Attrs().Index] == nil {
					t.Errorf("%s was deleted", l.Attrs().Name)
				}
			}
			if len(links) != 3 { // and lo
				t.Errorf("left: %v", links)
			}
		})
	}
}
