// Package ctl is calicoctl: it reads, checks and writes the objects of package api.
//
// [Apply], [Create], [Replace] and [Delete] are what its commands and the lab share. They
// check all objects, against each other and the datastore, before they write any.
// [Program] is the command line around them. It converts nothing of Kubernetes.
package ctl

// Version is that of this program; the linker sets it.
var Version = "v0.1.0-dev"
