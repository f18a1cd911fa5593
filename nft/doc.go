// Package nft holds filter programs in nftables: one table called calico for each address
// family, which is wholly ours. What anyone else puts into it goes at the next read-back;
// no other table is ever touched.
//
// A change is one transaction, all or nothing, but for its new sets, which go before in one
// of their own: kernels that keep intervals in arrays (6.18 does) show rules a moment before
// the contents of sets of the same transaction. At the start the table is read back; if it
// is not what it must be one transaction replaces it whole, and until then the earlier one
// stands. For the same reason that one lets pods open no flow, and a second one does. Each rule carries a hash of itself as its
// comment, because the kernel does not give rules back byte for byte.
package nft
