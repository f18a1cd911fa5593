// Command bench measures the real programs beside their floors: what the same work must
// cost whoever does it. Each sample of ours is followed by one of the floor, so that
// whatever else the machine does hits both; compare the ratio, not the milliseconds, of
// two machines.
//
//	make bench                    the rows, in a few minutes
//	make bench ROWS=cni,policy    some of them
//	make bench BENCH=long         more samples
//	bin/bench -h                  flags: -o json, -disk DIR and so on
//
// It needs root. Everything it makes is in pid, mount, network, ipc and uts namespaces of
// its own, on a tmpfs that is its root directory, and ends with them however it ends. In
// there etcd runs as a process of its own (without fsync's cost, as the tmpfs has none;
// -disk puts etcd and the records of pods on a disk), `calico node` runs in a network
// namespace of its own, and the plugin is a process for each call, as a container runtime
// has it.
//
// Nothing here fails because something is slow: it is no test.
//
// # Floors
//
// cni: start of an empty Go program; then in this process, with open sockets, the netlink
// requests that wire the same pod (veth pair, sysctls, addresses, routes, neighbours) and
// its route on the node; then one put of as many bytes as an ADD writes. DEL: the same
// program, deletion of the device, one put. Rules of policy are not in the floor.
//
// policy, set: a process that watches etcd and answers an event with one transaction of raw
// netlink in a table of its own: one rule added or removed, one element. Stamps are of
// packets: from the start of the write to the sending of the first packet whose fate
// changed; packets leave every 60 µs or so, which is the resolution of both.
//
// start: with 100 pods on the node, and once more with 1,000; `calico version`, a read of everything below /calico from etcd, and one
// transaction of raw netlink with as many chains, rules, sets and elements as the table of
// the agent has.
//
// calc: decoding the same objects from JSON, which any reader of a datastore does first.
//
// ipam: one put of a block's, a handle's and an endpoint's size together, by as many
// clients.
//
// ctl: start of an empty Go program, then the same objects in puts of 128 a transaction (for
// get: a read of them), by a client that is connected already.
//
// rules: the table that the driver has made, or the messages that lead from one to the other, in the
// kernel's own bytes, as one batch in another namespace.
//
// path: the same round trip through a machine that tracks connections and has no rules.
//
// iptables: one run of ipset restore, and one of iptables-restore a family, with the same objects, or
// the chains and members that differ, in another namespace. For packets that of policy.
//
// memory: an empty Go program.
package main
