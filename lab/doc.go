// Package lab is a virtual cluster on one machine: every node is a network and mount
// namespace that runs the real `calico node`, every pod a network namespace wired by the
// real CNI plugin, and etcd is the datastore. There is no Kubernetes, no container
// runtime and no image in it.
//
// A lab is one tree of processes in a pid, mount, network, uts and ipc namespace of its
// own:
//
//	init          pid 1: mounts, reaps, and ends with the supervisor
//	└ supervisor  the underlay bridge, and all namespaces by descriptor
//	  ├ etcd
//	  ├ agent     `calico node` inside node1
//	  └ …
//
// Nothing is bound to a path outside of these namespaces, so when any of the first two
// dies, however it dies, the kernel removes all of the lab but its directory. The
// directory (see [Dir]) holds the control socket, etcd's data and the logs; whether a lab
// lives is told by a lock on it.
//
// etcd and the agents are there to be killed, stopped and started (fault.go), and pods can
// probe one another meanwhile (probing.go): new flows at a steady rate, of which each packet
// is followed at both ends. Single packets of any protocol, and what becomes of each, show
// what policy makes of them (send.go), flows that stay open show what it ends (flow.go), and what
// its rules log can be read (policylog.go).
//
// The command line ([Up], [Client], [Demo]) talks to the supervisor over the control
// socket: one request a connection, answered by lines of JSON (protocol.go).
package lab
