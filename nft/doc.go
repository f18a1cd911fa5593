// Package nft holds filter programs in nftables: one table called calico for each address
// family, which is wholly ours. What anyone else puts into it goes; no other table is ever
// touched.
//
// A change goes in the steps that package filter gives ([filter.Changes.Steps]), each a
// transaction, all or nothing.
//
// At the start, and whenever the Driver is told to ([Driver.Resync]), the table is read back
// and what differs is mended, and no more: chains get their rules anew, sets and maps the elements
// they lack, and what no program has goes. So an agent that starts anew breaks nothing, and
// one that finds all right writes nothing. Only a table that is not there, one in which a set
// or chain is of another type under the rules that use it, and one that took no repair are
// put in place whole: then pods open no flow until the next transaction, which follows at
// once. A table that is not there gets its sets first and its rules with the next transaction, so that
// flows which another backend still allows go on.
//
// The program's sets of single addresses, and of named ports, share 16 of the kernel's each: cali-addrs-0
// to -f and cali-triples-0 to -f. An element begins with the number of its set, 128 bits of a hash of
// the set's name, which the nft tool shows as an IPv6 address; rules that look there load the same
// number before the address. Sets of prefixes and the few others have one of their own.
//
// Each rule carries a hash of itself as its comment, because the kernel does not give rules back
// byte for byte; beside it the chains that it leads to are compared, for these can be given
// other names. Whoever replaces a rule and forges its comment is not found out.
package nft
