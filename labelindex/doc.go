// Package labelindex keeps, as both change, which items each selector matches.
//
// An item is anything with labels: an endpoint, a network set. It has labels of
// its own and a list of parents, its profiles, whose labels it inherits: its
// own label wins, then that of the first parent in its list which has it.
//
// The work of a change follows what the change can affect, not how much is in
// the index:
//
//   - Items with the same labels and parents form one class. Selectors are
//     evaluated once a class, and an item that joins a class is not evaluated.
//   - A selector is filed under labels of which it requires one to be present
//     (selector.RequiresOneOf): app == "a" && has(b) under app=a. A class is
//     held against the selectors filed under its own labels, and against those
//     few that require nothing, such as all() or a != "b".
//   - A selector is held against the classes that have a label it requires.
//
// Where several labels would do, the one with the fewest classes and selectors
// is taken: a label that everything has, orchestrator == "k8s", does no harm.
//
// The index calls back within the call that makes the change, at most once for
// a pair of selector and item, in no particular order. It is not safe for
// concurrent use.
package labelindex
