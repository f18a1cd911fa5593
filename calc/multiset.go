package calc

import "slices"

// multiset is a list of values in order, each as often as it is held. It takes changes in
// all at once.
type multiset[T ordered[T]] struct {
	all   []T
	moves *moves[T] // since all was settled; nil: none
}

type ordered[T any] interface {
	comparable
	compare(T) int
}

// moves are values that got a holder or lost one, in no order.
type moves[T ordered[T]] struct{ come, gone []T }

// note notes that x is held once more, or once less.
func (s *multiset[T]) note(x T, in bool) {
	if s.moves == nil {
		s.moves = &moves[T]{}
	}
	if in {
		s.moves.come = append(s.moves.come, x)
	} else {
		s.moves.gone = append(s.moves.gone, x)
	}
}

// expect makes room for n values that come.
func (s *multiset[T]) expect(n int) {
	if s.moves == nil {
		s.moves = &moves[T]{}
	}
	s.moves.come = slices.Grow(s.moves.come, n)
}

// coming is how many values have come, at most.
func (s *multiset[T]) coming() int {
	if s.moves == nil {
		return 0
	}
	return len(s.moves.come)
}

// settle takes the moves in and calls f for each value that is held now and was not, or
// the other way round, in order.
func (s *multiset[T]) settle(f func(x T, in bool)) {
	m := s.moves
	if m == nil {
		return
	}
	slices.SortFunc(m.come, T.compare)
	slices.SortFunc(m.gone, T.compare)
	s.moves = nil
	if len(m.come)+len(m.gone) <= fewMoves && len(s.all) >= longList {
		s.edit(m, f)
	} else {
		s.merge(m, f)
	}
}

// fewMoves are so many, and longList is so long, that it is less work to make room for each in
// the list than to write the list anew.
const (
	fewMoves = 8
	longList = 32
)

// edit takes a few moves in, in place.
func (s *multiset[T]) edit(m *moves[T], f func(x T, in bool)) {
	for x, ok := m.first(); ok; x, ok = m.first() {
		i, _ := slices.BinarySearchFunc(s.all, x, T.compare)
		rest := s.all[i:]
		had := take(&rest, x)
		has := had + take(&m.come, x) - take(&m.gone, x)
		for range has - had {
			s.all = slices.Insert(s.all, i, x)
		}
		s.all = slices.Delete(s.all, i, i+max(0, had-has))
		if (had > 0) != (has > 0) {
			f(x, has > 0)
		}
	}
}

// merge takes moves in with one pass over the list.
func (s *multiset[T]) merge(m *moves[T], f func(x T, in bool)) {
	rest, all := s.all, make([]T, 0, max(0, len(s.all)+len(m.come)-len(m.gone)))
	for x, ok := m.first(); ok; x, ok = m.first() {
		i, _ := slices.BinarySearchFunc(rest, x, T.compare)
		all, rest = append(all, rest[:i]...), rest[i:]
		had := take(&rest, x)
		has := had + take(&m.come, x) - take(&m.gone, x)
		for range has {
			all = append(all, x)
		}
		if (had > 0) != (has > 0) {
			f(x, has > 0)
		}
	}
	s.all = append(all, rest...)
}

// first is the least value that has moved; false if there is none left.
func (m *moves[T]) first() (x T, ok bool) {
	switch {
	case len(m.come)+len(m.gone) == 0:
		return x, false
	case len(m.gone) == 0 || len(m.come) > 0 && m.come[0].compare(m.gone[0]) < 0:
		return m.come[0], true
	}
	return m.gone[0], true
}

// take takes all x off the beginning of the list, and says how many there were.
func take[T comparable](list *[]T, x T) int {
	n := 0
	for n < len(*list) && (*list)[n] == x {
		n++
	}
	*list = (*list)[n:]
	return n
}
