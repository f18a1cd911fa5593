// Package felix is the node agent: it takes what the datastore and the node's own
// records say, has package calc work out what the kernel must hold, and hands that to
// the drivers. It is assembly: what is decided is decided in calc and filter, what is
// done is done by nft, tunnel and route.
//
// It changes nothing in the kernel before the datastore's snapshot is complete, and
// leaves everything in place when it ends.
package felix
