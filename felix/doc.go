// Package felix is the node agent: it takes what the datastore and the node's own
// records say, has package calc work out what the kernel must hold, and hands that to
// the drivers. It is assembly: what is decided is decided in calc and filter, what is
// done is done by nft, tunnel and route.
//
// [Agent.Watch] has what others change in the kernel mended at once. Its work is in proportion to
// the change: notifications of nftables are kept back by the kernel where they tell of the
// driver's own work, those of rtnetlink are compared with what the drivers believe, key by
// key, and what is not ours is nothing. Whatever went by unseen is found by the periodic
// read-back.
//
// The rules are held by nftables or by iptables, as the configuration has it, and go from one to the other
// while packets pass: both are in force until the next holds everything, and one that cannot be brought up
// leaves the last in force. Where another process has put a table of its own in nftables' place, which the kernel lets nobody
// else change, iptables holds them until it ends. A setting that is not allowed leaves the one before it in force. An object that the kernel refuses three times in a row is left out in the direction that
// closes (a policy denies, a pod is unknown), named in a problem, and tried again when it changes.
//
// It changes nothing in the kernel before the datastore's snapshot is complete, and
// leaves everything in place when it ends.
package felix
