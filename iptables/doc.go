// Package iptables holds filter programs in iptables and ipset, for nodes whose other rules are there: in
// the tables raw, mangle, nat and filter of both families, in the legacy variant (ip_tables) or iptables-nft. Ours
// are the chains cali-…, the rules of built-in chains whose comment begins with cali:, and the sets
// cali40…, cali60…, cali4t… and cali6t…; nothing else is ever changed.
//
// Rules of a program become one of iptables each ([lowering]). What takes two targets is in a chain cali-do-…, to which
// the rule goes, so that a packet is matched once. Maps, and sets of devices, are trees of chains by what names begin
// with. What iptables cannot ask twice in a rule is asked before it, by rules that note in a spare bit of IptablesMarkMask
// that it does not hold; the bit means nothing between rules. Ports are multiport's: it knows UDP-Lite and SCTP,
// and a fragment fits neither it nor its negation.
//
// # Steps
//
// A change goes in the steps of [filter.Changes.Steps]: one run of ipset restore for what only closes, then the rules, and,
// when no packet is under way that met the old rules, another run for what only opens. ipset restore is no transaction: within a
// step members come before others go, and whatever part of a step a packet meets is stricter than what was before
// the step or what is after it. A step that fails is taken back by the inverse of its lines.
//
// iptables-restore commits one table at a time, in both variants; a table whose commit fails is as it was, but those before
// it are changed. So each table is a run of its own, and if one fails, those before it are taken back. A packet
// meets the tables one after another, so that with more than one table changed no order of them is right for
// all changes: it could meet the old anti-spoofing of raw and the new policy of filter, which each
// let pass what the other's pair would not. Where filter changes together with others (settings, tunnels, networks that pods
// may send from, the first Sync; but not pods that come and go), pods open no flows meanwhile ([filter.Compiler.Guarded]):
// first filter with all new chains, but closed; then raw, mangle and nat; then,
// after a grace period, filter opens. Where filter had nothing of ours it comes last and needs no guard: nothing was closed
// before, or another backend, from which ours take over, closes meanwhile. Policy is in one table, filter, and changes in one commit.
//
// iptables-nft shows a packet that is held up for two commits the chains of the second, as nftables does: where several that
// stood change, it waits first if another run was less than a second ago.
//
// A rule with action Pass is not covered by this: its set changes a moment before the chains that come with it.
//
// A command is killed with the agent, and each run is the whole of a commit, or a list of lines that are right in any
// number; so the next agent finds what one of the steps left, and goes on from there.
//
// # What is refused
//
// An error of a rule or a member is a [filter.Refused] of the policy's chain, the set or the endpoint that it is of. Of a table
// that the kernel refuses legacy iptables does not say why: parts of what is new are tried, in the chain cali-trial to which nothing leads,
// until one chain is left. An address stands at 64 devices at most, which is what hash:net,iface takes; the 65th pod is refused.
//
// The lock of legacy iptables (/run/xtables.lock) is waited for for 5 s, and while it cannot be had, one second a Sync: the agent's
// other parts go on meanwhile. Where ip6tables is missing, IPv4 is held and IPv6 is an error; or a warning, with IPv6 off.
//
// # What it costs
//
// What is worked out and written is in proportion to the change: the rules of chains that differ, of a tree those on the way to a device,
// and members one by one. But legacy iptables reads and replaces the whole table for each commit, in user space and in the kernel;
// iptables-nft reads the table's rules first, and sends the difference. A pod costs a run of ipset and one of iptables-restore a family.
//
// # Reading back
//
// iptables-save and ipset save are read at the start and whenever the Driver is told to ([Driver.Resync]). Each rule carries
// a hash of itself as its comment; hashes, their order and the chains that rules lead to are compared, and the members of sets, and
// only what differs is written. Others' rules are not parsed, but for those that use our chains or sets: these cannot go then,
// are emptied, and [Driver.Warnings] names the rule. A set of another type or of too few members under the rules that use it is passed
// over: ours gets another name, the rules follow, and the old one goes. Whoever forges a comment is not found out.
package iptables
