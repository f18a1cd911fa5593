package labelindex

// A parent is known while it has labels or a class names it.
type parent[S, I comparable] struct {
	name    string
	labels  []pair // in no order
	classes roster[*class[S, I]]
}

// A pair is a label with its value, as an item or a parent has it.
type pair struct {
	name, text string
	own        bool // not inherited
}

// parent returns the parent of the name, new if need be.
func (x *Index[S, I]) parent(name string) *parent[S, I] {
	p := x.parents[name]
	if p == nil {
		p = &parent[S, I]{name: name}
		x.parents[name] = p
	}
	return p
}

// releaseParent forgets the parent unless it is in use.
func (x *Index[S, I]) releaseParent(p *parent[S, I]) {
	if len(p.labels) == 0 && len(p.classes) == 0 {
		delete(x.parents, p.name)
	}
}

// set replaces the labels and tells whether they differ.
func (p *parent[S, I]) set(labels map[string]string) (changed bool) {
	same := len(labels) == len(p.labels)
	for _, l := range p.labels {
		v, ok := labels[l.name]
		same = same && ok && v == l.text
	}
	if same {
		return false
	}
	p.labels = make([]pair, 0, len(labels))
	for name, text := range labels {
		p.labels = append(p.labels, pair{name: name, text: text})
	}
	return true
}
