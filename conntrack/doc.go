// Package conntrack has a change of policy reach the flows that live. Rules accept what is
// established before they ask any policy, so a flow that was allowed once would pass for
// ever; this package finds the flows that the present rules deny and sets the cut bit
// ([filter.Marks]) in their mark, and clears it where they are allowed again. The rules do the rest: the first of each
// hook resets TCP at whichever end speaks next, and drops everything else of a marked flow.
//
// # Mark, and delete
//
// An entry whose pod lives is marked and never deleted. Without the entry the next packet of
// the flow would be taken for the first of a new one, for the kernel picks TCP up in mid-stream
// (nf_conntrack_tcp_loose), and if it is an answer, the flow is judged as one in the other
// direction, which policy may allow. Of a pod that is gone the entries are deleted: its interface
// is gone, nothing can revive them, and the pod that is given the address next must
// not find flows established that it never had.
//
// # Who judges
//
// A flow is judged as the hook of the filter sees the first packet of it, after translation of the
// destination: its source is that of the original direction, its destination the source of the
// reply. The interfaces are those of the local pods that have these addresses; where several
// have one, as while one takes another's place, the flow lives only if it may come from each, and go to each.
// The judge is [filter.Program.Verdict] with the very programs that the kernel holds. So there is no
// second copy of sets of 100,000 members, nothing else to keep in step, and what is denied is what a new flow
// would be denied by; that this is dataplane.Eval in other words is held by tests.
//
// # Which flows
//
// Those of endpoints that a change touches: they changed, or a policy of theirs, or a set that rules of
// such a policy use; of the last only flows with an end among the changed members. At the first
// pass, and after [Driver.Resync], those of all local endpoints: policy may have changed while nobody
// was here. A change that touches no endpoint costs nothing, and a namespace without flows one
// short question.
//
// A packet that the old rules let pass may be under way yet as the kernel takes the new ones, and its
// flow appear after the list was made. So after changes that may deny what was allowed, a pass
// waits until every packet is through (an RCU grace period, some 16 ms), and lists then. For a pod that has only just come, or
// members of a set that can only allow more, it does not.
//
// # What it costs
//
// To list is to have the kernel walk its whole table, whichever namespaces its entries are of: 7 ms of a processor for
// 262,144 empty buckets, 240 ms with 100,000 flows, less than a quarter of that where one address is asked for and the
// kernel leaves all others out (it is, where a change is about one or two: a pod that comes, a member that goes). So a pass goes on
// beside the agent's loop: [Driver.Begin] and [Driver.End] take microseconds, [Pass.Run] waits, lists, and
// judges as it lists, 64 flows at a time: it needs no memory for the others, and what it judges is
// as it was a moment ago. Programs and endpoints do not change while flows are judged: the loop
// waits with [Driver.Hold] for the 64, and the pass from there to [Driver.Release] for the loop.
// A flow judged before a change is judged again by the pass that follows, if the change may concern it.
//
// Passes may take a sixth of a processor in the long run, and 100 ms at once after a quiet time; then they rest, and what
// changes meanwhile is judged together. A pass that may deny a flow that lives does not rest for longer than will have it over
// 0.7 s after the one before ended, or for the time that one took: with 100,000 flows, and changes without end that
// concern many, passes take up to half a processor. Others wait for up to 5 s.
//
// # What operators see
//
// `conntrack -L` shows the bit in a flow's mark; with the default mask 0xffff0000 it is 0x40000
// (mark=262144). It goes with the flow, or when policy allows the flow again, which revives
// nothing by itself: connections that were reset are no more.
//
// # Limits
//
// Which device a flow came by its entry does not say, but by its address. One of a further address that a pod may
// use (allowedSourcePrefixes) is taken for that pod's if the route to it leads to the pod; else for one from
// elsewhere, which is judged by the ingress policy of the pod that it goes to.
// An address that is neither a pod's nor within what it may use, and yet routed to it, counts as elsewhere.
// What the host sends to its own pods is always allowed, so that of a pod's flow to the host, when it is cut, the host's end
// is not told. What IPVS translates has another destination in its entry than the hooks see. A change of
// the mark mask while flows are cut lets them pass until the pass that follows it. Flows that somebody
// hands to a flowtable pass no hook of ours. Flows of all zones are judged, for rules of others may put what our hooks see
// in any. If the kernel's table is given another size while it is listed (nf_conntrack_buckets), flows may be
// left out until the next pass over them. If a flow ends between list and mark, less than a millisecond apart as long as no rules are
// written meanwhile, and another of the same addresses and ports begins, which is translated to another pod, that is marked
// in its place.
package conntrack
