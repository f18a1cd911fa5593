// Package node is what runs on a machine of the cluster: it finds the machine's
// addresses, keeps its Node resource, and runs the agent (felix) and the CNI server
// (cni) in one process, in the order that keeps every packet judged:
//
//  1. lock, records and CNI socket: DEL works, ADD is told to try again
//  2. the kernel is read, nothing written
//  3. the datastore's snapshot is complete
//  4. the Node resource and its tunnel addresses are written
//  5. the first transaction replaces the previous program whole
//  6. ADD opens
//  7. the CNI configuration is written
//
// Until 5 the kernel's previous state stands, however long it takes, and when the process
// ends it stands again.
package node
