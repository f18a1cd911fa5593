package nft

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// A program has a set of addresses for every selector: often thousands, mostly small. The
// kernel finds a set by walking the list of all of a table, for every message of elements and
// every rule that looks something up, so that 10,000 sets took seconds. So sets of [filter.Addrs]
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

// shares is how many of the kernel's sets share the sets of a kind. A dump of one begins
// anew with every message, and skips what it has told: 200,000 elements in one set take far
// longer than in 16.
const shares = 16

var sharedKinds = []filter.SetKind{filter.Addrs, filter.Triples}

func isShared(k filter.SetKind) bool { return k == filter.Addrs || k == filter.Triples }

// share is one of the kernel's sets that are shared.
type share struct {
	kind filter.SetKind
	i    byte // below shares
}

func shareOf(k filter.SetKind, n setNumber) share { return share{k, n[0] % shares} }

func allShares() (out []share) {
	for _, k := range sharedKinds {
		for i := range byte(shares) {
			out = append(out, share{k, i})
		}
	}
	return out
}

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
	gone, come := map[share]*elementList{}, map[share]*elementList{}
	for _, name := range names {
		sc := ch.Sets[name]
		if !isShared(sc.Kind) {
			continue
		}
		n := numberOf(name)
		b.members(gone, unix.NFT_MSG_DELSETELEM, sc.Kind, n, sc.Remove)
		b.members(come, unix.NFT_MSG_NEWSETELEM, sc.Kind, n, sc.Add)
	}
	for _, s := range allShares() {
		b.list("remove from", s, gone[s])
		b.list("add to", s, come[s])
	}
}

// members adds elements of a program's set to the list of the kernel's.
func (b *batch) members(lists map[share]*elementList, message uint16, k filter.SetKind, n setNumber, all []filter.Element) {
	if len(all) == 0 {
		return
	}
	s := shareOf(k, n)
	if lists[s] == nil {
		lists[s] = newElementList(message, b.enc.afFamily(), s.name())
	}
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
			b.note("empty", "set", s.name())
			b.conn.FlushSet(&nftables.Set{Name: s.name(), Table: b.table})
		}
		for _, name := range r.names {
			ch.Sets[name] = &filter.SetChange{Kind: s.kind, Add: missing(p.Sets[name].Elements, nil)}
		}
	}
	b.take()
	b.changeShared(sorted(ch.Sets), ch)
}

// part is a set of the program as it is compared with what the kernel's has for it.
type part struct {
	name string
	set  *filter.Set
	seen int // elements that are right
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
		if err := c.share(s, parts, im.sets[s.name()]); err != nil {
			return err
		}
	}
	return nil
}

// share compares one of the kernel's sets.
func (c *comparison) share(s share, parts map[setNumber]*part, have *setImage) error {
	if have == nil {
		c.refill(s, parts, true)
		return nil
	}
	if !c.usable(c.e.share(s), have) {
		return nil
	}
	var strangers []nftables.SetElement
	removed := map[string][]filter.Element{}
	odd, err := c.each(s, func(e *rawElement) {
		at, x, ok := e.member(s.kind, c.e.family, parts)
		if !ok {
			strangers = append(strangers, e.messages(false)...)
		} else if _, wanted := at.set.Elements[x]; wanted {
			at.seen++
		} else {
			removed[at.name] = append(removed[at.name], x)
		}
	})
	if err != nil {
		return err
	}
	if odd {
		c.refill(s, parts, false)
		return nil
	}
	if len(strangers) > 0 {
		c.d.wipe[s.name()] = strangers
	}
	added, err := c.lacking(s, parts)
	if err != nil {
		return err
	}
	for _, at := range parts {
		if sc := (&filter.SetChange{Kind: s.kind, Sense: at.set.Sense, Add: added[at.name], Remove: removed[at.name]}); len(sc.Add)+len(sc.Remove) > 0 {
			c.d.changes.Sets[at.name] = sc
		}
	}
	return nil
}

// lacking returns what the kernel's set lacks of each of the program's. Where it lacks
// something it is read once more.
func (c *comparison) lacking(s share, parts map[setNumber]*part) (map[string][]filter.Element, error) {
	seen := map[string][]filter.Element{}
	for _, at := range parts {
		if at.seen != len(at.set.Elements) {
			seen[at.name] = nil
		}
	}
	if len(seen) == 0 {
		return nil, nil
	}
	_, err := c.each(s, func(e *rawElement) {
		at, x, ok := e.member(s.kind, c.e.family, parts)
		if !ok {
			return
		}
		if list, short := seen[at.name]; short {
			if _, wanted := at.set.Elements[x]; wanted {
				seen[at.name] = append(list, x)
			}
		}
	})
	for _, at := range parts {
		if list, short := seen[at.name]; short {
			seen[at.name] = missing(at.set.Elements, list)
		}
	}
	return seen, err
}

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
