// Package watch is the plumbing that has clocks and goroutines, so that the packages
// below it need none: a doorbell, the loop that retries and resyncs, a cache of a
// datastore's objects, and the tee of one Source into several readers.
package watch
