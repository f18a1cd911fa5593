package labelindex

import "iter"

// values are those of one label, by their text. Most labels that are many in a cluster
// have few values each, for which a map would cost more than they do.
type values[S, I comparable] struct {
	few  []*value[S, I]
	many map[string]*value[S, I] // all of them, once they were more than fewValues
}

const fewValues = 8

// get returns the value of that text, nil if there is none.
func (vs *values[S, I]) get(text string) *value[S, I] {
	if vs.many != nil {
		return vs.many[text]
	}
	for _, v := range vs.few {
		if v.text == text {
			return v
		}
	}
	return nil
}

// add adds a value, of whose text there is none.
func (vs *values[S, I]) add(v *value[S, I]) {
	switch {
	case vs.many != nil:
		vs.many[v.text] = v
	case len(vs.few) < fewValues:
		vs.few = append(vs.few, v)
	default:
		vs.many = make(map[string]*value[S, I], 2*fewValues)
		for _, old := range vs.few {
			vs.many[old.text] = old
		}
		vs.many[v.text], vs.few = v, nil
	}
}

// remove takes a value out.
func (vs *values[S, I]) remove(v *value[S, I]) {
	delete(vs.many, v.text)
	for i, old := range vs.few {
		if last := len(vs.few) - 1; old == v {
			vs.few[i], vs.few[last] = vs.few[last], nil
			vs.few = vs.few[:last]
			return
		}
	}
}

func (vs *values[S, I]) len() int { return len(vs.few) + len(vs.many) }

// all lists the values, in no particular order.
func (vs *values[S, I]) all() iter.Seq[*value[S, I]] {
	return func(yield func(*value[S, I]) bool) {
		for _, v := range vs.few {
			if !yield(v) {
				return
			}
		}
		for _, v := range vs.many {
			if !yield(v) {
				return
			}
		}
	}
}
