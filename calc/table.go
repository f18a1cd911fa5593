package calc

// table is a keyed table of pointers that remembers what stood at each touched key when
// the table was last settled. nil means that there is nothing.
type table[K comparable, V any] struct {
	rows   map[K]*V
	before map[K]*V // of the touched keys
}

func newTable[K comparable, V any]() table[K, V] {
	return table[K, V]{rows: map[K]*V{}, before: map[K]*V{}}
}

// touch makes the next settling look at k.
func (t *table[K, V]) touch(k K) {
	if _, ok := t.before[k]; !ok {
		t.before[k] = t.rows[k]
	}
}

func (t *table[K, V]) put(k K, v *V) {
	t.touch(k)
	if v == nil {
		delete(t.rows, k)
	} else {
		t.rows[k] = v
	}
}

// manyKeys is how large a map that is filled at each Flush may have been to be kept for the
// next one.
const manyKeys = 1000

// settled forgets what was touched.
func (t *table[K, V]) settled() {
	if len(t.before) > manyKeys {
		t.before = map[K]*V{} // the memory of a snapshot goes back
	} else {
		clear(t.before)
	}
}

// multimap maps a key to a set of values.
type multimap[K, V comparable] map[K]map[V]struct{}

func (m multimap[K, V]) add(k K, v V) {
	s := m[k]
	if s == nil {
		s = map[V]struct{}{}
		m[k] = s
	}
	s[v] = struct{}{}
}

func (m multimap[K, V]) remove(k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

type keySet[K comparable] map[K]struct{}

func (s keySet[K]) add(k K) { s[k] = struct{}{} }

// reset empties the set. The memory of a snapshot goes back.
func (s *keySet[K]) reset() {
	if len(*s) > manyKeys {
		*s = keySet[K]{}
	} else {
		clear(*s)
	}
}
