// Package archtest holds the import law of the tree as data (law.go) and a test that the tree keeps
// it: who may import whom, what the pure packages do without, and which
// package alone has which effect on the world. docs/design.md says why.
package archtest
