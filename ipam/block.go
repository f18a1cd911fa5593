package ipam

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
)

// block is an IPAMBlock that has been checked. It is a value: its methods leave it as it
// is and return another, so that blocks can be cached and shared.
type block struct {
	cidr netip.Prefix
	obj  *api.IPAMBlock // never written to
}

// newBlock returns an unassigned block of the given owner ("host:NAME").
func newBlock(cidr netip.Prefix, owner string, strict bool, now time.Time) block {
	o := &api.IPAMBlock{Meta: api.Named(api.KindIPAMBlock, "", BlockName(cidr))}
	n := capacity(cidr)
	o.Spec = api.IPAMBlockSpec{
		CIDR:           cidr.String(),
		StrictAffinity: strict,
		Allocations:    make([]*int, n),
		Unallocated:    make([]int, n),
		Attributes:     []api.AllocAttributes{},
		// Seeded by the time, so that the numbers of a block that is deleted and made
		// again never repeat. As upstream.
		SequenceNumber:              uint64(now.UnixNano()),
		SequenceNumberForAllocation: map[string]uint64{},
	}
	for i := range n {
		o.Spec.Unallocated[i] = i
	}
	return block{cidr, o}.owned(owner, now)
}

// parseBlock checks o and takes it over. Free addresses that the queue of free addresses
// lacks are added to it.
func parseBlock(o *api.IPAMBlock) (block, error) {
	cidr, err := parseBlockCIDR(o.Spec.CIDR)
	if err != nil {
		return block{}, fmt.Errorf("IPAMBlock(%s): spec.cidr: %w", o.Name, err)
	}
	b := block{cidr, o}
	if err := b.check(); err != nil {
		return block{}, fmt.Errorf("IPAMBlock(%s): %w", o.Name, err)
	}
	return b.requeued(), nil
}

// check says what makes the block unfit for use.
func (b block) check() error {
	s := &b.obj.Spec
	if len(s.Allocations) != capacity(b.cidr) {
		return fmt.Errorf("spec.allocations has %d entries for %d addresses", len(s.Allocations), capacity(b.cidr))
	}
	for ord, i := range s.Allocations {
		if i != nil && (*i < 0 || *i >= len(s.Attributes)) {
			return fmt.Errorf("spec.allocations[%d] is %d, but there are %d attributes", ord, *i, len(s.Attributes))
		}
	}
	seen := make([]bool, len(s.Allocations))
	for _, ord := range s.Unallocated {
		if ord < 0 || ord >= len(seen) || seen[ord] || s.Allocations[ord] != nil {
			return fmt.Errorf("spec.unallocated lists %d, which is out of range, listed twice or allocated", ord)
		}
		seen[ord] = true
	}
	return nil
}

// requeued returns the block with every free address in the queue.
func (b block) requeued() block {
	free := 0
	for _, i := range b.obj.Spec.Allocations {
		if i == nil {
			free++
		}
	}
	if free == len(b.obj.Spec.Unallocated) {
		return b
	}
	b = b.clone()
	s := &b.obj.Spec
	for ord, i := range s.Allocations {
		if i == nil && !slices.Contains(s.Unallocated, ord) {
			s.Unallocated = append(s.Unallocated, ord)
		}
	}
	return b
}

// clone returns a block whose slices and maps may be written to. What attributes and
// allocations point to stays shared.
func (b block) clone() block {
	o := *b.obj
	s := &o.Spec
	s.Allocations = slices.Clone(s.Allocations)
	s.Unallocated = slices.Clone(s.Unallocated)
	s.Attributes = slices.Clone(s.Attributes)
	s.SequenceNumberForAllocation = maps.Clone(s.SequenceNumberForAllocation)
	if s.SequenceNumberForAllocation == nil {
		s.SequenceNumberForAllocation = map[string]uint64{}
	}
	return block{b.cidr, &o}
}

// owner is "host:NAME", "virtual:NAME" or empty.
func (b block) owner() string {
	if b.obj.Spec.Affinity == nil {
		return ""
	}
	return *b.obj.Spec.Affinity
}

// claimed is the time at which the owner claimed the block, zero if unknown.
func (b block) claimed() time.Time {
	if b.obj.Spec.AffinityClaimTime == nil {
		return time.Time{}
	}
	return b.obj.Spec.AffinityClaimTime.Time
}

// owned returns the block with another owner, nobody if it is empty.
func (b block) owned(owner string, now time.Time) block {
	b = b.clone()
	b.obj.Spec.Affinity, b.obj.Spec.AffinityClaimTime = nil, nil
	if owner != "" {
		t := seconds(now)
		b.obj.Spec.Affinity, b.obj.Spec.AffinityClaimTime = &owner, &t
	}
	b.obj.Spec.SequenceNumber++
	return b
}

// usable tells whether addresses may be taken from the block at all.
func (b block) usable() bool { return !b.obj.Spec.Deleted }

// counts says how many addresses are held, rest, and can be had at once.
func (b block) counts(now time.Time, rest time.Duration) (live, resting, free int) {
	for _, i := range b.obj.Spec.Allocations {
		switch {
		case i == nil:
			free++
		case b.obj.Spec.Attributes[*i].ReleasedAt == nil:
			live++
		case b.rested(*i, now, rest):
			free++
		default:
			resting++
		}
	}
	return live, resting, free
}

// rested tells whether attribute i is that of released addresses that may be used again.
// One that was released in the future, as it seems, by another clock, rests.
func (b block) rested(i int, now time.Time, rest time.Duration) bool {
	at := b.obj.Spec.Attributes[i].ReleasedAt
	return at != nil && now.Sub(at.Time) >= rest
}

// thaw returns the block with the addresses that have rested in the queue, those first
// that were released first.
func (b block) thaw(now time.Time, rest time.Duration) block {
	var ords []int
	for ord, i := range b.obj.Spec.Allocations {
		if i != nil && b.rested(*i, now, rest) {
			ords = append(ords, ord)
		}
	}
	if len(ords) == 0 {
		return b
	}
	slices.SortFunc(ords, b.byRelease)
	b = b.clone()
	b.free(ords)
	return b.compact()
}

// byRelease orders two resting addresses.
func (b block) byRelease(x, y int) int {
	s := &b.obj.Spec
	at := func(ord int) time.Time { return s.Attributes[*s.Allocations[ord]].ReleasedAt.Time }
	return cmp.Or(at(x).Compare(at(y)), cmp.Compare(b.sequence(x), b.sequence(y)), cmp.Compare(x, y))
}

// free puts ords at the end of the queue. It writes to b, which must be a clone.
func (b block) free(ords []int) {
	s := &b.obj.Spec
	for _, ord := range ords {
		s.Allocations[ord] = nil
		s.Unallocated = append(s.Unallocated, ord)
		delete(s.SequenceNumberForAllocation, strconv.Itoa(ord))
	}
}

// compact returns b, which must be a clone, without the attributes that nothing refers to.
func (b block) compact() block {
	s := &b.obj.Spec
	used := make([]bool, len(s.Attributes))
	for _, i := range s.Allocations {
		if i != nil {
			used[*i] = true
		}
	}
	index := make([]int, len(s.Attributes)) // old to new
	kept := s.Attributes[:0]
	for i, a := range s.Attributes {
		if used[i] {
			index[i] = len(kept)
			kept = append(kept, a)
		}
	}
	s.Attributes = kept
	for ord, i := range s.Allocations {
		if i != nil {
			s.Allocations[ord] = &index[*i]
		}
	}
	return b
}

// sequence is the number that the last assignment or release of the address was given.
func (b block) sequence(ord int) uint64 {
	return b.obj.Spec.SequenceNumberForAllocation[strconv.Itoa(ord)]
}

// holder says who gets an address.
type holder struct {
	handle string
	attrs  map[string]string
}

// next returns the first address of the queue, after thaw.
func (b block) next() (int, bool) {
	if !b.usable() || len(b.obj.Spec.Unallocated) == 0 {
		return 0, false
	}
	return b.obj.Spec.Unallocated[0], true
}

// nextResting returns the address that has rested for longest.
func (b block) nextResting() (int, bool) {
	best, found := 0, false
	for ord, i := range b.obj.Spec.Allocations {
		if i == nil || b.obj.Spec.Attributes[*i].ReleasedAt == nil {
			continue
		}
		if !found || b.byRelease(ord, best) < 0 {
			best, found = ord, true
		}
	}
	return best, found && b.usable()
}

// assign returns the block with the address given to h, or who has it already.
func (b block) assign(ord int, h holder) (block, error) {
	s := &b.obj.Spec
	if i := s.Allocations[ord]; i != nil && s.Attributes[*i].ReleasedAt == nil {
		return b, fmt.Errorf("%w: %v is held by %s", ErrTaken, addrAt(b.cidr, ord), b.handleOf(ord))
	}
	b = b.clone()
	s = &b.obj.Spec
	s.Unallocated = slices.DeleteFunc(s.Unallocated, func(o int) bool { return o == ord })
	i := len(s.Attributes)
	s.Attributes = append(s.Attributes, api.AllocAttributes{HandleID: &h.handle, Secondary: h.attrs})
	s.Allocations[ord] = &i
	b.count(ord)
	return b.compact(), nil
}

// count gives ord, in b, which must be a clone, the next sequence number.
func (b block) count(ord int) {
	s := &b.obj.Spec
	s.SequenceNumberForAllocation[strconv.Itoa(ord)] = s.SequenceNumber
	s.SequenceNumber++
}

// handleOf returns the handle that holds the address; empty if none does.
func (b block) handleOf(ord int) string {
	i := b.obj.Spec.Allocations[ord]
	if i == nil {
		return ""
	}
	a := b.obj.Spec.Attributes[*i]
	if a.HandleID == nil || a.ReleasedAt != nil {
		return ""
	}
	// Upstream's migration from host-local left handles with a carriage return.
	h, _, _ := strings.Cut(*a.HandleID, "\r")
	return h
}

// held returns the ordinals that the handle holds.
func (b block) held(handle string) []int {
	var ords []int
	for ord, i := range b.obj.Spec.Allocations {
		if i != nil && b.handleOf(ord) == handle {
			ords = append(ords, ord)
		}
	}
	return ords
}

// live tells whether somebody has the address.
func (b block) live(ord int) bool {
	i := b.obj.Spec.Allocations[ord]
	return i != nil && b.obj.Spec.Attributes[*i].ReleasedAt == nil
}

// release returns the block with the addresses, which must be live, at rest from now on;
// a rest of 0 frees them.
func (b block) release(ords []int, now time.Time, rest time.Duration) block {
	if len(ords) == 0 {
		return b
	}
	b = b.clone()
	s := &b.obj.Spec
	if rest <= 0 {
		b.free(ords)
		s.SequenceNumber++
		return b.compact()
	}
	t := seconds(now)
	i := len(s.Attributes)
	s.Attributes = append(s.Attributes, api.AllocAttributes{ReleasedAt: &t})
	for _, ord := range ords {
		s.Allocations[ord] = &i
		b.count(ord)
	}
	return b.compact()
}

// seconds rounds up to whole seconds, which is what is stored: an address must not rest
// for less than it should.
func seconds(t time.Time) metav1.Time {
	s := t.UTC().Truncate(time.Second)
	if s.Before(t) {
		s = s.Add(time.Second)
	}
	return metav1.NewTime(s)
}
