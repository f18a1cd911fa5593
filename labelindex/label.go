package labelindex

// A label is a label's name, with the values that classes have or selectors
// are filed under.
type label[S, I comparable] struct {
	name      string
	values    values[S, I]
	classes   int                  // that have the label
	selectors roster[*entry[S, I]] // filed under its mere presence
}

// A value is one value of a label.
type value[S, I comparable] struct {
	label     *label[S, I]
	name      string // the label's
	text      string
	classes   roster[*class[S, I]] // that have it
	selectors roster[*entry[S, I]] // filed under it
}

// label returns the label of the name, new if need be.
func (x *Index[S, I]) label(name string) *label[S, I] {
	l := x.labels[name]
	if l == nil {
		l = &label[S, I]{name: name}
		x.labels[name] = l
	}
	return l
}

// value returns the label's value of that text, new if need be.
func (l *label[S, I]) value(text string) *value[S, I] {
	v := l.values.get(text)
	if v == nil {
		v = &value[S, I]{label: l, name: l.name, text: text}
		l.values.add(v)
	}
	return v
}

// release forgets the label, and its value if v is not nil, unless in use.
func (x *Index[S, I]) release(l *label[S, I], v *value[S, I]) {
	if v != nil && len(v.classes) == 0 && len(v.selectors) == 0 {
		l.values.remove(v)
	}
	if l.values.len() == 0 && len(l.selectors) == 0 {
		delete(x.labels, l.name)
	}
}
