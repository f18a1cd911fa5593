// Package cni attaches pods to the network: the agent's side of the CNI plugin.
//
// [Server] answers the plugin over a Unix socket; [Plan] says, purely, which objects a
// pod needs; [Wiring.Apply] makes them; [Records] remembers each attachment in a file, so
// that neither a restart of the agent nor a datastore that is away loses a pod. Addresses
// come from package ipam; [Server.Adopt] and [Server.Sweep] hold the three against one
// another, so that a pod without a record keeps its network and what no pod has any more
// goes, wherever an agent was killed. That rules and routes are in the kernel is waited for through
// [Dataplane]. The package does not program policy or host routes.
package cni
