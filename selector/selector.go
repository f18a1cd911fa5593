package selector

import (
	"crypto/sha256"
	"encoding/base64"
	"sync/atomic"
)

// A Selector is a parsed selector. It never changes once made and may be used
// from many goroutines. Two selectors with the same canonical form have the
// same id and match the same labels. Parse and the constructors make one; the
// zero Selector matches nothing.
type Selector struct {
	root node
	text memo
	id   memo
}

// String returns the canonical form. Parse gives an equal selector back.
func (s *Selector) String() string {
	return s.text.get(func() string { return string(s.root.appendText(nil)) })
}

// idPrefix stands before the hash and, as upstream has it, in the hashed text.
const idPrefix = "s:"

// ID returns "s:" and the unpadded base64url form of the SHA-224 hash of "s:"
// and the canonical form, the name upstream gives to the set of addresses that
// the selector matches. It is 40 bytes long.
func (s *Selector) ID() string {
	return s.id.get(func() string {
		sum := sha256.Sum224(s.root.appendText([]byte(idPrefix)))
		return idPrefix + base64.RawURLEncoding.EncodeToString(sum[:])
	})
}

// Matches tells whether the labels satisfy the selector. It allocates nothing.
func (s *Selector) Matches(l Labels) bool { return s.root.matches(l) }

// IsAll tells whether the selector is all(), written out or empty.
func (s *Selector) IsAll() bool { return s.root.op == opAll && !s.root.not }

// A memo keeps a text once it was asked for: parsing is often done for
// validation or matching alone, and the hash costs as much as the parsing.
type memo struct{ text atomic.Pointer[string] }

// get returns the text. make may run in several goroutines at once, always with
// the same result.
func (m *memo) get(make func() string) string {
	if t := m.text.Load(); t != nil {
		return *t
	}
	t := make()
	m.text.Store(&t)
	return t
}
