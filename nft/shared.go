package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// A program has a set of addresses for every selector: often thousands, mostly small. The
// kernel finds a set by walking the list of all of a table, for every message of elements and
// every rule that looks something up: a start with 10,000 sets took 15 s. So sets of [filter.Addrs]
// and of [filter.Triples] share a few of the kernel's, whose keys begin with a number for
// the program's set. These are hash tables, where an element costs the same whatever else
// is in them.

// setNumber tells apart the program's sets that share one of the kernel's. It is of the name
// alone, so that another process takes the same; and of 128 bits of SHA-256, so that nobody can
// make two names of one number, as who writes selectors could try with fewer.
type setNumber [16]byte

func numberOf(set string) setNumber {
	sum := sha256.Sum256([]byte(set))
	return setNumber(sum[:])
}

// shares is how many of the kernel's sets share the sets of a kind. The kernel begins a dump
// anew with every message, and skips what it has told: a set of 50,000 elements is read in
// 0.1 s, one of 100,000 in 0.4 s, one of 200,000 in 1.9 s.
const shares = 16

var sharedKinds = []filter.SetKind{filter.Addrs, filter.Triples}

func isShared(k filter.SetKind) bool { return k == filter.Addrs || k == filter.Triples }

// share is one of the kernel's sets that are shared.
type share struct {
	kind filter.SetKind
	i    byte // below shares
}

func shareOf(k filter.SetKind, n setNumber) share { return share{k, n[0] % shares} }

func allShares() []share { return listOfShares }

var listOfShares = func() (out []share) {
	for _, k := range sharedKinds {
		for i := range byte(shares) {
			out = append(out, share{k, i})
		}
	}
	return out
}()

// name is that of the kernel's set.
func (s share) name() string {
	return shareNames[s.kind][s.i]
}

var shareNames = func() map[filter.SetKind][shares]string {
	var addrs, triples [shares]string
	for i := range shares {
		addrs[i], triples[i] = fmt.Sprintf("cali-addrs-%x", i), fmt.Sprintf("cali-triples-%x", i)
	}
	return map[filter.SetKind][shares]string{filter.Addrs: addrs, filter.Triples: triples}
}()

// share returns the kernel's set. Its number is shown as an IPv6 address, since it is as long.
func (e *encoder) share(s share) *nftables.Set {
	fields := append([]nftables.SetDatatype{nftables.TypeIP6Addr}, e.fields(s.kind)...)
	return &nftables.Set{Name: s.name(), KeyType: nftables.MustConcatSetType(fields...), Concatenation: true}
}

// newShares makes the sets that are shared; they stay as long as the table.
func (b *batch) newShares() {
	for _, s := range allShares() {
		b.addSet("set", b.enc.share(s))
	}
}

// changeShared changes the sets that share the kernel's, in as few messages as hold it.
func (b *batch) changeShared(names []string, ch *filter.Changes) {
	if len(names) == 0 {
		return
	}
	gone, come := map[share]*elementList{}, map[share]*elementList{}
	for _, name := range names {
		sc := ch.Sets[name]
		if !isShared(sc.Kind) {
			continue
		}
		n := numberOf(name)
		b.members(gone, unix.NFT_MSG_DELSETELEM, sc.Kind, name, n, sc.Remove)
		b.members(come, unix.NFT_MSG_NEWSETELEM, sc.Kind, name, n, sc.Add)
	}
	for _, s := range allShares() {
		b.list("remove from", s, gone[s])
		b.list("add to", s, come[s])
	}
}

// members adds elements of a program's set to the list of the kernel's.
func (b *batch) members(lists map[share]*elementList, message uint16, k filter.SetKind, set string, n setNumber, all []filter.Element) {
	if len(all) == 0 {
		return
	}
	s := shareOf(k, n)
	if lists[s] == nil {
		lists[s] = newElementList(message, b.enc.afFamily(), s.name())
	}
	lists[s].of(set)
	for i := range all {
		lists[s].member(k, n, &all[i])
	}
}

func (b *batch) list(verb string, s share, l *elementList) {
	if l != nil {
		b.add(verb, "set", s.name(), l)
	}
}

// refill is a set of the kernel's that is shared and must be filled anew.
type refill struct {
	missing bool
	names   []string // of the program's sets in it
}

// refill fills shared sets anew, all at once: what is in them is in force when the
// transaction is.
func (b *batch) refill(p *filter.Program, all map[share]*refill) {
	ch := &filter.Changes{Sets: map[string]*filter.SetChange{}}
	for _, s := range allShares() {
		r := all[s]
		if r == nil {
			continue
		}
		if r.missing {
			b.addSet("set", b.enc.share(s))
		} else {
			b.emptySet("set", s.name())
		}
		for _, name := range r.names {
			ch.Sets[name] = &filter.SetChange{Kind: s.kind, Add: missing(p.Sets[name].Elements, nil)}
		}
	}
	b.changeShared(sorted(ch.Sets), ch)
}

// part is a set of the program as it is compared with what the kernel's has for it.
type part struct {
	name string
	set  *filter.Set
	seen int    // elements that are right, as often as the kernel told them
	sum  uint64 // of those; see sumOf
}

// whole tells whether all elements were seen, and each once.
func (p *part) whole() bool {
	if p.seen != len(p.set.Elements) {
		return false
	}
	var sum uint64
	for x := range p.set.Elements {
		sum += sumOf(&x)
	}
	return p.sum == sum
}

// sumOf is a number by which lists of elements are compared that are equally long: where one
// element stands for another the sums differ.
func sumOf(x *filter.Element) uint64 {
	b := x.Prefix.Addr().As16()
	return binary.BigEndian.Uint64(b[8:]) + binary.BigEndian.Uint64(b[:8])*3 + (uint64(x.Protocol)<<16+uint64(x.Ports.Min))<<32
}

// shared compares the sets that share the kernel's.
func (c *comparison) shared(p *filter.Program, im *image) error {
	all := map[share]map[setNumber]*part{}
	for _, s := range allShares() {
		all[s] = map[setNumber]*part{}
	}
	for name, set := range p.Sets {
		if isShared(set.Kind) {
			n := numberOf(name)
			all[shareOf(set.Kind, n)][n] = &part{name: name, set: set}
		}
	}
	for s, parts := range all {
		if err := c.share(s, parts, im); err != nil {
			return err
		}
	}
	return nil
}

// share compares one of the kernel's sets.
func (c *comparison) share(s share, parts map[setNumber]*part, im *image) error {
	have := im.sets[s.name()]
	if have == nil {
		c.refill(s, parts, true)
		return nil
	}
	if !c.usable(c.e.share(s), have) {
		return nil
	}
	strangers := map[[maxKey]byte][]nftables.SetElement{} // and in removed, each once
	removed := map[string]map[filter.Element]struct{}{}
	odd, err := c.each(s, func(e *rawElement) {
		at, x, ok := e.member(s.kind, c.e.family, parts)
		if !ok {
			strangers[e.key] = e.messages(false)
		} else if _, wanted := at.set.Elements[x]; wanted {
			at.seen++
			at.sum += sumOf(&x)
		} else {
			if removed[at.name] == nil {
				removed[at.name] = map[filter.Element]struct{}{}
			}
			removed[at.name][x] = struct{}{}
		}
	})
	if err != nil {
		return err
	}
	if odd {
		c.refill(s, parts, false)
		return nil
	}
	for _, e := range strangers {
		c.d.wipe[s.name()] = append(c.d.wipe[s.name()], e...)
	}
	added, err := c.lacking(s, parts)
	if err != nil {
		return err
	}
	for n, at := range parts {
		if sc := (&filter.SetChange{Kind: s.kind, Sense: at.set.Sense, New: im.unasked(n), Add: added[at.name], Remove: slices.Collect(maps.Keys(removed[at.name]))}); len(sc.Add)+len(sc.Remove) > 0 {
			c.d.changes.Sets[at.name] = sc
		}
	}
	return nil
}

// lacking returns what the kernel's set lacks of each of the program's. A hash table that the
// kernel is making larger or smaller is told with some elements twice and without others, so
// what seems to be missing is looked for again.
func (c *comparison) lacking(s share, parts map[setNumber]*part) (map[string][]filter.Element, error) {
	short := map[string]map[filter.Element]struct{}{}
	for _, at := range parts {
		if !at.whole() {
			short[at.name] = maps.Clone(at.set.Elements)
		}
	}
	for try := 0; try < lookAgain && len(short) > 0; try++ {
		_, err := c.each(s, func(e *rawElement) {
			if at, x, ok := e.member(s.kind, c.e.family, parts); ok {
				delete(short[at.name], x)
			}
		})
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(short, func(_ string, left map[filter.Element]struct{}) bool { return len(left) == 0 })
	}
	out := map[string][]filter.Element{}
	for name, left := range short {
		out[name] = slices.Collect(maps.Keys(left))
	}
	return out, nil
}

// lookAgain is how often a set is read again in which something seems to be missing.
const lookAgain = 2

// each calls f with each element of a shared set; odd: it has such as no program has, and
// must be emptied.
func (c *comparison) each(s share, f func(*rawElement)) (odd bool, err error) {
	err = c.s.eachElement(c.e.afFamily(), s.name(), false, f)
	var o *oddSet
	switch {
	case errors.As(err, &o):
		return true, nil
	case errors.Is(err, errInterrupted):
		c.interrupted = true
		return false, nil
	}
	return false, err
}

func (c *comparison) refill(s share, parts map[setNumber]*part, missing bool) {
	r := &refill{missing: missing}
	for _, at := range parts {
		r.names = append(r.names, at.name)
	}
	c.d.refill[s] = r
}

// member returns which of the program's sets e is in, and as what; false: no program has
// such a one there.
func (e *rawElement) member(k filter.SetKind, f dataplane.Family, parts map[setNumber]*part) (*part, filter.Element, bool) {
	var n setNumber
	if int(e.keyLen) < len(n) || e.endLen > 0 {
		return nil, filter.Element{}, false
	}
	at := parts[setNumber(e.key[:len(n)])]
	if at == nil {
		return nil, filter.Element{}, false
	}
	x, ok := memberOf(k, e.key[len(n):e.keyLen], f.Bits()/8)
	return at, x, ok
}
