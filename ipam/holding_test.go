package ipam

import (
	"fmt"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

func TestHoldingsOf(t *testing.T) {
	s := memory.New()
	p := testPool("p", "10.0.0.0/26", 26)
	a := NewAllocator(s, "n")
	mine := mustAssign(t, a, ask("mine", t0, p))
	other := ask("other", t0, p)
	other.Attrs = map[string]string{api.AttrNode: "borrower"}
	mustAssign(t, a, other)
	mustAssign(t, a, ask("released", t0, p))
	mustRelease(t, a, "released", t0)
	b := listBlocks(t, s)[0]
	hs, err := HoldingsOf(b.obj, "n")
	if err != nil || len(hs) != 1 || hs[0].Addr != mine || hs[0].Handle != "mine" || hs[0].Attrs[api.AttrNode] != "n" {
		t.Fatalf("got %v, %v; want %v of mine", hs, err, mine)
	}
	gone, err := a.ReleaseAllocations(t.Context(), []Allocation{hs[0].Allocation}, t0)
	if err != nil || len(gone) != 1 {
		t.Errorf("what is listed can be released: got %v, %v", gone, err)
	}
	if gone, err = a.ReleaseAllocations(t.Context(), []Allocation{hs[0].Allocation}, t0); err != nil || len(gone) != 0 {
		t.Errorf("once: got %v, %v", gone, err)
	}
	if hs, err := HoldingsOf(b.obj, "stranger"); err != nil || hs != nil {
		t.Errorf("of a stranger: %v, %v", hs, err)
	}
	b.obj.Spec.Allocations = nil
	if _, err := HoldingsOf(b.obj, "n"); err == nil {
		t.Error("a block that cannot be read: no error")
	}
}

// TestSurplus holds what Surplus says against what ReleaseEmptyBlocks does.
func TestSurplus(t *testing.T) {
	for _, c := range []struct{ pods, gone int }{{0, 0}, {1, 1}, {4, 4}, {5, 1}, {5, 4}, {5, 5}, {9, 4}, {9, 9}} {
		t.Run(fmt.Sprintf("%d pods, %d of them gone", c.pods, c.gone), func(t *testing.T) {
			s := memory.New()
			a := NewAllocator(s, "a")
			fill(t, a, "a", c.pods, testPool("p", "10.0.0.0/24", 30), t0)
			for i := c.pods - c.gone; i < c.pods; i++ {
				mustRelease(t, a, fmt.Sprint("a", i), t0)
			}
			says := surplus(t, s, "a")
			if surplus(t, s, "b") {
				t.Error("blocks of another node count")
			}
			gone, err := a.ReleaseEmptyBlocks(t.Context(), t0.Add(time.Hour))
			if err != nil || says != (len(gone) > 0) {
				t.Errorf("Surplus says %v; given back: %v, %v", says, gone, err)
			}
		})
	}
}

func surplus(t *testing.T, s store.Store, node string) bool {
	return Surplus(listAll[*api.IPAMBlock](t, s, api.KindIPAMBlock), node)
}
