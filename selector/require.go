package selector

// A Requirement is a label that must be there: with the given value, or with
// any.
type Requirement struct {
	Label string
	Value string // "" if Any
	Any   bool   // the label with whatever value
}

// RequiresOneOf returns requirements of which at least one is met by all labels
// that the selector matches; an empty list means that it matches nothing. It
// is false if no such list is known, as for all() or a != "b". The answer
// follows from the selector's form alone and is often wider than what matches.
//
// Of the lists that would do, an && having several, it returns the one whose
// costs sum up to the least. cost may be nil: then a value costs 1 and the mere
// presence of a label 1000.
func (s *Selector) RequiresOneOf(cost func(Requirement) int) ([]Requirement, bool) {
	if cost == nil {
		cost = plainCost
	}
	n := need{cost: cost}
	_, known := n.of(&s.root, false)
	return n.list, known
}

// RequiresNoMore tells that all labels that meet one of the requirements that RequiresOneOf returns
// are matched. It is true of has(a), a == "b" and a in {"b", "c"}; of what else it is so is not told.
func (s *Selector) RequiresNoMore() bool {
	op := s.root.op
	return !s.root.not && (op == opHas || op == opEqual || op == opIn)
}

func plainCost(r Requirement) int {
	if r.Any {
		return 1000
	}
	return 1
}

// need collects requirements. Each step appends its own to list, and returns
// what they cost; a step that knows none leaves list as it was.
type need struct {
	cost func(Requirement) int
	list []Requirement
}

// of handles the node n, negated once more if not is set.
func (d *need) of(n *node, not bool) (cost int, known bool) {
	not = not != n.not
	switch n.op {
	case opAll, opGlobal:
		return 0, not
	case opAnd, opOr:
		if (n.op == opAnd) != not {
			return d.cheapest(n.kids, not)
		}
		return d.union(n.kids, not)
	case opNotEqual, opNotIn:
		if !not {
			return 0, false
		}
		return d.values(n), true
	case opEqual, opIn:
		if not {
			return 0, false
		}
		return d.values(n), true
	}
	if not { // has, contains, starts with, ends with: absence satisfies it
		return 0, false
	}
	return d.add(Requirement{Label: n.label, Any: true}), true
}

// values requires one of the values that n names.
func (d *need) values(n *node) (cost int) {
	if n.op == opEqual || n.op == opNotEqual {
		return d.add(Requirement{Label: n.label, Value: n.value})
	}
	for _, v := range n.set {
		cost += d.add(Requirement{Label: n.label, Value: v})
	}
	return cost
}

func (d *need) add(r Requirement) (cost int) {
	d.list = append(d.list, r)
	return d.cost(r)
}

// cheapest keeps the least costly list of kids of which all must hold.
func (d *need) cheapest(kids []node, not bool) (best int, known bool) {
	start := len(d.list)
	for i := range kids {
		mark := len(d.list)
		cost, ok := d.of(&kids[i], not)
		switch {
		case !ok:
		case !known || cost < best:
			d.list = append(d.list[:start], d.list[mark:]...)
			best, known = cost, true
		default:
			d.list = d.list[:mark]
		}
	}
	return best, known
}

// union joins the lists of kids of which one must hold: known only if all are.
func (d *need) union(kids []node, not bool) (sum int, known bool) {
	start := len(d.list)
	for i := range kids {
		cost, ok := d.of(&kids[i], not)
		if !ok {
			d.list = d.list[:start]
			return 0, false
		}
		sum += cost
	}
	return sum, true
}
