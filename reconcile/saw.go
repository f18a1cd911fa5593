package reconcile

// Saw takes in what somebody saw of the kernel, for instance in a notification: that the object of key k
// is v, or with exists false that there is none. It reports whether the next Sync has to
// mend something for it. What the Table itself did is no news. Whoever saw it may be late:
// then at worst a right object is set once more.
func (t *Table[K, V]) Saw(k K, v V, exists bool) bool {
	if t.have == nil {
		return true // all is read at the next Sync
	}
	if exists {
		t.have[k] = v
	} else {
		delete(t.have, k)
	}
	want, wanted := t.want[k]
	if exists == wanted && (!exists || t.equal(v, want)) {
		_, dirty := t.dirty[k]
		return dirty // it is looked at anyway
	}
	t.dirty[k] = struct{}{}
	return true
}

// Lost takes in that there are none any more of the objects that f picks.
func (t *Table[K, V]) Lost(f func(K, V) bool) bool {
	news := t.have == nil
	for k, v := range t.have {
		if f(k, v) {
			var none V
			news = t.Saw(k, none, false) || news
		}
	}
	return news
}

// Has returns what the kernel is believed to have of key k.
func (t *Table[K, V]) Has(k K) (V, bool) {
	v, ok := t.have[k]
	return v, ok
}
