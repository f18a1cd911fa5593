package filter

// Steps returns c as transactions to be made one after another, so that at no moment a
// packet passes that neither the program before c nor the one after it lets pass.
//
// One transaction would not do. The kernel chooses the generation of rules as a packet enters
// a hook, and that of a set's elements as it is looked up: a packet under way when the
// transaction is taken meets old rules and new elements. Hash tables show their elements
// together with the rules, and even so some of 400 packets sent meanwhile that both
// programs denied have passed (Linux 6.18); kernels that keep intervals in arrays show
// rules a moment before the elements, and dozens passed. So a packet may meet any mixture of old and new,
// and one that both programs deny could find a mixture that allows it. The steps are:
//
//  1. new sets, filled, to which nothing refers yet; and of the sets there are, whatever
//     only closes: elements out of sets that open, and into sets that close;
//  2. the chains and maps, and the sets without a sense;
//  3. whatever only opens, and the sets that go, to which nothing refers any more.
//
// Before step 3, no packet may be under way any more by rules of before step 2: a CPU can hold one,
// between its choice of rules and its look at a set, for longer than a transaction takes. So backends
// wait for a grace period (netlink.GracePeriod) between a step that changes rules and
// the next that [Changes.Opens]; other changes need not wait.
//
// nftables has one more reason to wait. The kernel keeps two generations of chains, and a packet goes by the number, 0 or 1, of
// the one that it began with: two transactions later, whosoever's, that number is the newest again, and
// the packet goes on by that. Of packets that both programs denied some have passed so (Linux 6.18). So between a transaction and the next
// that changes several of the chains that stand ([Changes.Standing]) that backend waits as well. Where one chain alone has changed,
// a packet meets it as it was or as it is, and so the one program or the other.
//
// In step 1 a packet meets the old rules and at most fewer ways to pass than they give it; in
// step 3 the same is true of the new rules; and in step 2 of the one or the other, for a transaction
// leaves the packets that are under way the chains of before. Whatever a step's own
// mixture is, it can only be stricter. Sets without a sense are fixed, or are
// those that endpoints fill, which hold nothing open that the dispatch maps do not; Pass rules, which
// have no sense, use sets of both (context.undecided).
//
// The price: a packet that both programs allow, by different sets, may open its flow a
// transaction's time later. Where one prefix gives way to others inside it, or they to it, the
// set changes in one step, and no packet is denied that both let pass.
func (c *Changes) Steps() []*Changes {
	if c.Empty() {
		return nil
	}
	closing, rules, opening := &Changes{}, &Changes{Chains: c.Chains, Maps: c.Maps, fresh: c.fresh}, &Changes{}
	for name, sc := range c.Sets {
		switch {
		case sc.New:
			closing.set(name, sc)
		case sc.Gone:
			opening.set(name, sc)
			opening.opens = opening.opens || sc.Sense != Opens && len(sc.Remove) > 0
		case sc.Sense == Neutral || len(sc.Add)+len(sc.Remove) == 0:
			rules.set(name, sc)
		default:
			grow, shrink := sc.halves()
			if sc.Sense == Closes {
				grow, shrink = shrink, grow
			}
			closing.put(name, shrink)
			opening.opens = opening.put(name, grow) || opening.opens
		}
	}
	var out []*Changes
	for _, step := range []*Changes{closing, rules, opening} {
		if !step.Empty() {
			out = append(out, step)
		}
	}
	return out
}

// Opens tells whether packets may pass by c, the last of the steps, that are under way by rules of
// before.
func (c *Changes) Opens() bool { return c.opens }

// anyBase stands in Changes.Standing for all base chains: a packet meets one at a hook.
const anyBase = "base chains"

// Standing returns the names of the chains of before that are changed or go, but for those of endpoints
// that go: without its rules such a one denies.
func (c *Changes) Standing() (names []string) {
	if len(c.Chains) == 0 {
		return nil
	}
	ends := map[string]bool{}
	for _, mc := range c.Maps {
		for _, chain := range mc.Remove {
			ends[chain] = true
		}
	}
	for name, ch := range c.Chains {
		switch {
		case c.fresh[name], ch == nil && ends[name]:
		case ch != nil && ch.Base != nil:
			names = append(names, anyBase)
		default:
			names = append(names, name)
		}
	}
	return names
}

// put adds the change of a set if it is one.
func (c *Changes) put(name string, sc *SetChange) bool {
	if len(sc.Add)+len(sc.Remove) == 0 {
		return false
	}
	c.set(name, sc)
	return true
}

func (c *Changes) set(name string, sc *SetChange) {
	if c.Sets == nil {
		c.Sets = map[string]*SetChange{}
	}
	c.Sets[name] = sc
}

// halves returns the two parts of a change, in whichever order they are made: after the one
// the set contains no address less, after the other none more. What comes for what it
// contains, or goes for what it contained, is in one part.
func (sc *SetChange) halves() (grow, shrink *SetChange) {
	grow, shrink = &SetChange{Kind: sc.Kind, Sense: sc.Sense}, &SetChange{Kind: sc.Kind, Sense: sc.Sense}
	if sc.Kind != Nets || len(sc.Add) == 0 || len(sc.Remove) == 0 {
		grow.Add, shrink.Remove = sc.Add, sc.Remove
		return grow, shrink
	}
	added, removed := newOuters(sc.Add), newOuters(sc.Remove)
	for _, e := range sc.Add {
		if removed.contain(e) {
			shrink.Add = append(shrink.Add, e)
		} else {
			grow.Add = append(grow.Add, e)
		}
	}
	for _, e := range sc.Remove {
		if added.contain(e) {
			grow.Remove = append(grow.Remove, e)
		} else {
			shrink.Remove = append(shrink.Remove, e)
		}
	}
	return grow, shrink
}

// outers is a list of prefixes, to be asked whether one contains another prefix.
type outers struct {
	elements map[Element]struct{}
	bits     [129]bool // the lengths there are
}

func newOuters(list []Element) *outers {
	o := &outers{elements: make(map[Element]struct{}, len(list))}
	for _, e := range list {
		o.elements[e] = struct{}{}
		o.bits[e.Prefix.Bits()] = true
	}
	return o
}

// contain tells whether a prefix shorter than e's contains it.
func (o *outers) contain(e Element) bool {
	for bits := range e.Prefix.Bits() {
		if !o.bits[bits] {
			continue
		}
		if _, ok := o.elements[Element{Prefix: outer(e.Prefix, bits)}]; ok {
			return true
		}
	}
	return false
}
