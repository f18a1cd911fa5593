// Package tunnel keeps a node's tunnel devices and what they must know of the other nodes:
// for VXLAN (RFC 7348) a neighbour entry and a forwarding entry each, so that nothing is
// flooded or learned.
//
// The devices vxlan.calico and vxlan-v6.calico are ours by their names, with everything on
// them. The routes into them are made by package route.
package tunnel
