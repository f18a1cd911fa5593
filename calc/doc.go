// Package calc turns what the datastore holds, and the node's own records of its pods,
// into what the node's kernel must hold.
//
// A [Graph] is a pure state machine: no clock, no goroutine, no I/O, no log. Put and
// Remove note what is there now; Flush settles every derived table once, in the order
// written in it, and returns what changed. Prepare does most of the first Flush while a
// snapshot comes in. The result depends on the present contents
// alone, never on the path there. [Compute] is its plain definition: the sum of a Graph's
// Deltas from the empty State is what Compute gives for the same contents, and random
// tests hold the two equal.
//
// # Who decides what about a pod of this node
//
// The node's record (an Attachment) decides that the endpoint exists, its interface, MAC
// and addresses. The stored WorkloadEndpoint decides labels, profiles, ports and service
// account, unless the record was committed at a later revision than the stored object
// shows. So no view of the datastore, stale or empty, removes a live pod.
//
// # What cannot be read fails closed
//
// Objects are validated where they are written, but not everything that writes to a
// datastore does that. What cannot be understood of a policy is taken at its worst, and
// reported as a [Problem]:
//   - A policy whose selectors do not parse applies to all that the rest of it selects
//     (its namespace, say) and denies everything in the directions that it governs.
//   - A rule with a part that cannot be read or enforced (a bad prefix, ports without a
//     protocol, http) is left out if it allows or logs. If it denies or
//     passes, it denies, and that part of its conditions counts as met.
//   - A policy in a tier that does not exist stands in a tier that comes last and denies.
//   - A profile that is named but not there allows nothing.
//
// A net of a network set, or an address of a service, that does not parse is left out of the
// sets of rules: no rule, whether it allows or denies, can know it.
//
// # What work is in proportion to
//
// A change costs what it changes: an address is parsed when its object is put, and kept
// packed; endpoints with equal labels are matched once (package labelindex); a member whose
// labels stay gives its sets what differs; a policy's rules are translated once for each of
// its versions, and only where it governs an endpoint of this node. An object is read whole,
// and so is a network set of 100,000 nets of which one is new; what follows from it is one
// member.
package calc
