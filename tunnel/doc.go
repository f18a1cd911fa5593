// Package tunnel keeps a node's tunnel devices and what they must know of the other nodes:
// for VXLAN (RFC 7348) a neighbour entry and a forwarding entry each, so that nothing is
// flooded or learned; for IPIP (RFC 2003) nothing where the kernel does it, and the nodes'
// addresses where eBPF does. The routes into the devices are made by package route.
//
// The devices vxlan.calico and vxlan-v6.calico are ours by their names, with everything on
// them.
//
// The device of IPIP is tunl0, of one of two kinds that look alike to all the rest, and to
// other nodes:
//
//   - The kernel's, where its module ipip is. If the kernel made a tunl0 by itself (the
//     fallback device of each namespace, unless
//     net.core.fb_tunnels_only_for_init_net says otherwise) it is that one: adopted, never
//     removed, and put down without address when no tunnel is wanted. Else one is made like
//     it, from any to any address. The device's alias says which.
//   - The stand-in: a veth pair tunl0 and tunl0p with the programs of package bpf, which
//     outlive the agent with all that they know. Outer packets pass the node's own rules by:
//     which nodes it speaks with is in the programs' map, written before routes grow.
//
// What stands is kept, so that the restart of an agent interrupts nothing; where nothing
// stands [ProbeIPIP] says which kind can be, the kernel's first. While the stand-in stands
// the module ipip may fail to load, for its tunl0 has the same name; to change kinds, say so
// in [Config], which replaces the device at once, or restart the node.
package tunnel
