// Package api holds Calico's v3 resources: their Go types, defaults and validation.
//
// One file is one kind: it declares the struct, its Default and Validate methods and
// one [Kind] that names it, its plural and short names, and the columns that a table of
// it has. To add a kind, add a file; nothing else in this package changes.
//
// The JSON and YAML forms are those of projectcalico.org/v3 as upstream has them, for
// these are the forms that the datastore holds and that users write. The package has no
// I/O and no clock, and does not know where objects are stored.
package api
