// Package dataplane says what a node's kernel must hold, in no kernel's or backend's
// terms: [State], the changes of it ([Delta]), the drivers that bring the kernel there
// ([Driver]), and [Eval], the definition of what becomes of a packet.
//
// It is plain data and pure functions: no I/O, no clock, no goroutine.
package dataplane
