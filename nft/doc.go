// Package nft holds filter programs in nftables: one table called calico for each address
// family, which is wholly ours. What anyone else puts into it goes at the next read-back;
// no other table is ever touched.
//
// A change is one transaction, all or nothing: no packet sees half of it. At the start
// the table is read back; if it is not what it must be, one transaction replaces it whole,
// and until then the earlier one stands. Each rule carries a hash of itself as its
// comment, because the kernel does not give rules back byte for byte.
package nft
