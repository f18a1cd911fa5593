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
package filter
