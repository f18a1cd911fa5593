package labelindex

// A roster is an unordered list whose entries know where they stand in it, so
// that leaving it costs the same whatever its length. An entry may be on many
// rosters; slot is its own number for this one.
type roster[T seated] []seat[T]

type seat[T seated] struct {
	who  T
	slot int
}

// seated is told the new position of its seat on the roster of that slot.
type seated interface{ reseat(slot, pos int) }

// join seats who and returns the position.
func (r *roster[T]) join(who T, slot int) int {
	*r = append(*r, seat[T]{who, slot})
	return len(*r) - 1
}

// leave frees the seat at pos, and gives it to the last on the roster.
func (r *roster[T]) leave(pos int) {
	last := len(*r) - 1
	if pos != last {
		moved := (*r)[last]
		(*r)[pos] = moved
		moved.who.reseat(moved.slot, pos)
	}
	(*r)[last] = seat[T]{}
	*r = (*r)[:last]
}
