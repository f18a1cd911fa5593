// Package ipam gives out the addresses of IP pools.
//
// A pool is cut into blocks (/26 and /122 unless the pool says otherwise). A node claims
// blocks and gives out their addresses alone, so that two nodes hardly ever write the
// same object; when it finds nothing more to claim it borrows single addresses from the
// blocks of other nodes. Three kinds of object hold all state:
//
//	BlockAffinity  a node's claim on a block: pending, confirmed, pendingDeletion
//	IPAMBlock      the block's owner, and per address who holds it
//	IPAMHandle     per owner of addresses (a container, a tunnel device) the blocks they are in
//
// Every write is a compare-and-swap on what was read. An assignment is one commit of
// block, handle and whatever the caller adds, a release is one too, and those that wait
// at the same time share one.
//
// The core is pure: a block is a value, and assigning from it gives another block. Time
// comes in as a value. [Allocator] adds the datastore; it starts no goroutine and does
// no other I/O.
//
// # Claims
//
// A claim first writes its intent, a pending affinity, and only then reads all blocks
// and affinities. If a block overlaps what it wants, whatever its size, it yields.
// Otherwise one commit creates the block, confirms the affinity and deletes the pending
// affinities that overlap it, each compared with what was read. Of two overlapping
// claims each sees the other's intent or comes after the other's block; the first to
// commit ends the other. So blocks never overlap and never have two owners, and a claim
// whose claimer died is in nobody's way.
//
// # Rest
//
// A released address keeps its place in the block's allocations, under an attribute that
// has releasedAt instead of a handle, until it has rested for ipCooldownSeconds (60 s if
// that is not set); then it goes to the end of the queue of free addresses. It is given
// out before its time only when nothing else is free.
package ipam
