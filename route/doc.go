// Package route keeps a node's routes: to its pods, to other nodes' pods through a tunnel
// or directly, and the blackholes of its own blocks.
//
// Ours are, in the main table: routes on pods' interfaces and on our tunnel devices, and
// those of protocol 80. What the kernel itself or a routing daemon (BIRD among them) put on these interfaces is
// not ours. Nothing else is ever changed: where another route stands in the way, that is
// reported.
//
// It makes neither links nor neighbours: pods' are made by package cni, tunnels by
// package tunnel.
package route
