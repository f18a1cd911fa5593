package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

func handleKey(id string) store.Key { return store.Key{Kind: api.KindIPAMHandle.Name, Name: id} }

// newHandle returns a handle without addresses.
func newHandle(id string) *api.IPAMHandle {
	return &api.IPAMHandle{
		Meta: api.Named(api.KindIPAMHandle, "", id),
		Spec: api.IPAMHandleSpec{HandleID: id, Block: map[string]int{}},
	}
}

// counted returns h with the number of addresses in cidr changed by n.
func counted(h *api.IPAMHandle, cidr netip.Prefix, n int) *api.IPAMHandle {
	c := *h
	c.Spec.Deleted = false
	c.Spec.Block = maps.Clone(h.Spec.Block)
	if c.Spec.Block == nil {
		c.Spec.Block = map[string]int{}
	}
	c.Spec.Block[cidr.String()] += n
	if c.Spec.Block[cidr.String()] <= 0 {
		delete(c.Spec.Block, cidr.String())
	}
	return &c
}

// handleBlocks returns the blocks that h names, in order.
func handleBlocks(h *api.IPAMHandle) ([]netip.Prefix, error) {
	var cidrs []netip.Prefix
	for _, s := range slices.Sorted(maps.Keys(h.Spec.Block)) {
		p, err := parseBlockCIDR(s)
		if err != nil {
			return nil, fmt.Errorf("IPAMHandle(%s): spec.block: %w", h.Name, err)
		}
		cidrs = append(cidrs, p)
	}
	return cidrs, nil
}

func checkNow(now time.Time) error {
	if now.IsZero() {
		return fmt.Errorf("%w: the present time is missing", ErrInvalid)
	}
	return nil
}

func checkHandle(id string) error {
	if id == "" || strings.ContainsAny(id, "/\r\n") {
		return fmt.Errorf("%w: handle %q: want the name of an owner, without a slash", ErrInvalid, id)
	}
	return nil
}
