// Package filter turns a node's [dataplane.State] into the packet-filter program that
// holds it, in no backend's syntax: chains of rules, sets and dispatch maps.
//
// [Compile] is the plain definition; a [Compiler] does the same step by step, and touches
// only what changed. [Program.Trace] runs a packet through a program as the kernel would.
// A program is of one address family; the two families' are compiled apart.
//
// How the verdict travels: a policy's Allow sets the accept mark and returns, its Pass
// sets the pass mark and returns; only the last rule of a hook accepts. So a packet from
// pod to pod on one node passes the first one's egress and the second one's ingress.
//
// # Sets
//
// A set of dataplane's becomes up to two of the program's where rules match an address: one of
// [Addrs], its single addresses, and one of [Nets], its longer prefixes. The first is in a hash
// table of the kernel, where a member costs as much in a set of 100,000 as in one of ten, and
// which backends let many sets share: so a set that goes says what was in it; the
// second is an interval set, which the kernel builds anew for every change (10,000 prefixes:
// 0.6 ms; 100,000: 22 ms). Rules refer to the kinds of which the set has members, or to Addrs
// if it has none: a rule that matches an address in a set of both kinds becomes two rules, and
// one that matches an address in none of it has two matches. So what a rule looks like changes
// only as the first or last member of a kind comes or goes, and then in the chains that use
// the set and nowhere else; nothing is copied from one kernel set to another, as it would be
// if one kernel set were of this kind or that one. A prefix beside 100,000 addresses costs one rule
// and an interval set of one.
//
// Sets of prefixes are not shared: the kernel would build all of them anew for each change.
//
// And rules that let pass use other sets than rules that deny: cali40… and cali40…/deny, by
// the [Sense] of the match. A set is rarely used both ways, and only so is it known of each
// set which half of a change may come before the rules and which must come after them; see
// [Changes.Steps]. A Pass rule uses both: it passes on whom the first has, and drops whom the second has
// and the first has not, which nobody is but while members come and go.
//
// # Chains
//
// A policy has a chain a direction. All endpoints of the same tiers, policies and profiles share a chain
// that asks these in turn, cali-gi-… for packets to them and cali-go-… for packets from them, named
// by a hash of the list; an endpoint's own, cali-tw-… and cali-fw-…, only lead there. So what
// a pod costs does not depend on how many policies govern it, if others are governed alike.
//
// # What the kernel does not do
//
// Connection tracking of Linux (6.18 and before) takes the checksum of UDP-Lite to be UDP's: it
// sums the pseudo header with protocol 17 where RFC 3828 says 136 (udplite_error in
// nf_conntrack_proto_udp.c), so that with net.netfilter.nf_conntrack_checksum=1, the default,
// every right UDP-Lite packet whose checksum no device has vouched for is invalid before any
// rule meets it. Ours drop what is invalid, as the rules of a stateful filter must. Who needs
// UDP-Lite between pods sets that sysctl to 0.
package filter
