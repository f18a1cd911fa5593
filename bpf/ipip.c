//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
//
// IP in IP (RFC 2003) for kernels without the module ipip. The device is one end of a veth
// pair, tunl0; what it sends arrives at the other end, tunl0p, where `ipip_out` puts the
// outer header before it and sends it on. `ipip_in`, on the links that lead to other nodes,
// takes the outer header away and sends the packet through tunl0p back into tunl0, so that
// to the rest of the kernel it came in there.
//
// No more is asked of the kernel than Linux 5.15 has: no BTF, CO-RE or kfunc.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define EALREADY 114
#define IP_DF 0x4000
#define IP_FRAGMENT 0x3fff // more fragments, or an offset
#define LOOPBACK 1         // the index of lo: lookups of it are the node's own
#define ECN_MASK 3
#define ECN_ECT_0 2
#define ECN_CE 3
#define TOS_RT_MASK 0x1c // the bits of the TOS that choose routes

// Linux 6.3; before it flags that are not known are EINVAL.
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)

char license_[] SEC("license") = "Dual BSD/GPL";

struct ipip_config {
	__be32 local;  // source of outer headers; what comes in for another is not ours
	__u32 device;  // index of tunl0
	__u32 peer;    // index of tunl0p
	__u8 mac[6];   // of tunl0
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ipip_config);
} ipip_config SEC(".maps");

// The addresses of the other nodes: nothing goes to others, or comes from them.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, __u8);
} ipip_nodes SEC(".maps");

// What is counted. The Go side has the same order.
enum {
	OUT_PACKETS,
	OUT_BYTES, // of inner packets
	IN_PACKETS,
	IN_BYTES, // of inner packets
	OUT_NOT_IPV4,
	OUT_NO_ROUTE,
	OUT_NO_NODE,
	OUT_NO_WAY,
	OUT_NESTED,
	OUT_FAILED,
	IN_FOREIGN,
	IN_FRAGMENT,
	IN_MALFORMED,
	IN_CONGESTED,
	IN_FAILED,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} ipip_stats SEC(".maps");

static __always_inline void add(__u32 counter, __u64 n)
{
	__u64 *v = bpf_map_lookup_elem(&ipip_stats, &counter);

	if (v)
		*v += n;
}

static __always_inline int drop(__u32 counter)
{
	add(counter, 1);
	return TC_ACT_SHOT;
}

static __always_inline struct ipip_config *config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ipip_config, &zero);
}

static __always_inline int known(__be32 node)
{
	return bpf_map_lookup_elem(&ipip_nodes, &node) != 0;
}

// fold makes a header's checksum of bpf_csum_diff's sum (RFC 1071).
static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u16 checksum(struct iphdr *ip)
{
	return fold(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

// found tells that a lookup named a device and a next hop. What it says about the packet's
// length is about the packet as it is now.
static __always_inline int found(int r)
{
	return r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_NO_NEIGH ||
	       r == BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

// encapsulate puts an outer header of the length of outer between the Ethernet header and the
// packet. A packet that is a tunnel's already cannot be marked so twice: if it is to be cut
// into segments it cannot be sent.
static __always_inline int encapsulate(struct __sk_buff *skb)
{
	int r = bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
				    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO);

	if (r != -EALREADY)
		return r;
	if (skb->gso_size)
		return r;
	return bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

// send hands the packet to the way that a lookup found.
static __always_inline int send(struct bpf_fib_lookup *way, int r)
{
	struct bpf_redir_neigh hop = {.nh_family = way->family};

	if (r == BPF_FIB_LKUP_RET_NO_NEIGH) // the kernel looks up, resolves and queues
		return bpf_redirect_neigh(way->ifindex, 0, 0, 0);
	if (way->family == AF_INET6)
		__builtin_memcpy(hop.ipv6_nh, way->ipv6_dst, sizeof(hop.ipv6_nh));
	else
		hop.ipv4_nh = way->ipv4_dst;
	return bpf_redirect_neigh(way->ifindex, &hop, sizeof(hop), 0);
}

// gateway looks up the next hop of an inner packet, from or by way of a device.
static __always_inline int gateway(struct __sk_buff *skb, struct iphdr *in, __u32 device, __u32 flags, __be32 *hop)
{
	struct bpf_fib_lookup way = {
		.family = AF_INET, .l4_protocol = in->protocol, .tos = in->tos & TOS_RT_MASK,
		.ipv4_src = in->saddr, .ipv4_dst = in->daddr, .ifindex = device,
	};
	int r = bpf_fib_lookup(skb, &way, sizeof(way), flags);

	*hop = way.family == AF_INET ? way.ipv4_dst : 0;
	return r;
}

// At ingress of tunl0p: packets that were routed to tunl0.
SEC("tc")
int ipip_out(struct __sk_buff *skb)
{
	struct ipip_config *c = config();
	struct iphdr in;
	int r;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return drop(OUT_NOT_IPV4);
	if (!c || bpf_skb_load_bytes(skb, ETH_HLEN, &in, sizeof(in)) < 0)
		return drop(OUT_FAILED);

	// The gateway of the packet's route by tunl0 is the other node. If there is no such route
	// it has changed while the packet was on its way, and the new one may say the node too.
	__be32 node;
	r = gateway(skb, &in, c->device, BPF_FIB_LOOKUP_OUTPUT, &node);
	if (!found(r))
		r = gateway(skb, &in, LOOPBACK, 0, &node);
	if (!found(r))
		return drop(OUT_NO_ROUTE);
	if (!known(node))
		return drop(OUT_NO_NODE);

	struct bpf_fib_lookup outer = {
		.family = AF_INET, .l4_protocol = IPPROTO_IPIP,
		.ipv4_src = c->local, .ipv4_dst = node, .ifindex = LOOPBACK,
	};
	r = bpf_fib_lookup(skb, &outer, sizeof(outer), 0);
	if (!found(r) || outer.ifindex == c->device)
		return drop(OUT_NO_WAY);

	switch (encapsulate(skb)) {
	case 0:
		break;
	case -EALREADY:
		return drop(OUT_NESTED);
	default:
		return drop(OUT_FAILED);
	}

	// As the kernel's tunl0 has it: TTL and DF are the inner ones; of the TOS, ECN (RFC 6040).
	__u32 len = skb->len - ETH_HLEN, ecn = in.tos & ECN_MASK;
	struct iphdr out = {
		.version = 4, .ihl = 5, .protocol = IPPROTO_IPIP, .ttl = in.ttl,
		.tos = ecn == ECN_CE ? ECN_ECT_0 : ecn,
		.tot_len = len > 0xffff ? 0 : bpf_htons(len),
		.id = bpf_get_prandom_u32(), .frag_off = in.frag_off & bpf_htons(IP_DF),
		.saddr = c->local, .daddr = node,
	};
	out.check = checksum(&out);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &out, sizeof(out), 0))
		return drop(OUT_FAILED);
	add(OUT_PACKETS, 1);
	add(OUT_BYTES, len - sizeof(out));
	return send(&outer, r);
}

// malformed tells what the kernel's receive path would refuse in an outer header.
static __always_inline int malformed(struct __sk_buff *skb, struct iphdr *ip)
{
	__u32 len = bpf_ntohs(ip->tot_len);

	if (ip->version != 4 || ip->ihl != 5 || checksum(ip))
		return 1;
	if (!len && skb->gso_size) // longer than the field can say
		return 0;
	return len < 2 * sizeof(*ip) || len > skb->len - ETH_HLEN;
}

// decapsulate takes the outer header away.
static __always_inline int decapsulate(struct __sk_buff *skb)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	int len = sizeof(struct iphdr);

	if (!bpf_skb_adjust_room(skb, -len, BPF_ADJ_ROOM_MAC, flags | ADJ_ROOM_DECAP_L3_IPV4))
		return 0;
	return bpf_skb_adjust_room(skb, -len, BPF_ADJ_ROOM_MAC, flags);
}

// At ingress of the links that lead to other nodes. What is no IPIP packet to this node
// passes by.
SEC("tc")
int ipip_in(struct __sk_buff *skb)
{
	struct ipip_config *c;
	struct iphdr out, in;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &out, sizeof(out)) < 0 || out.protocol != IPPROTO_IPIP)
		return TC_ACT_UNSPEC;
	c = config();
	if (!c || out.daddr != c->local)
		return TC_ACT_UNSPEC;
	if (!known(out.saddr))
		return drop(IN_FOREIGN);
	if (out.frag_off & bpf_htons(IP_FRAGMENT))
		return drop(IN_FRAGMENT);
	if (malformed(skb, &out) || bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(out), &in, sizeof(in)) < 0 ||
	    in.version != 4)
		return drop(IN_MALFORMED);

	int congested = (out.tos & ECN_MASK) == ECN_CE;
	if (congested && !(in.tos & ECN_MASK)) // RFC 6040, section 4.2
		return drop(IN_CONGESTED);
	if (decapsulate(skb))
		return drop(IN_FAILED);
	if (congested)
		bpf_skb_ecn_set_ce(skb);
	if (bpf_skb_store_bytes(skb, 0, c->mac, sizeof(c->mac), 0))
		return drop(IN_FAILED);
	add(IN_PACKETS, 1);
	add(IN_BYTES, skb->len - ETH_HLEN);
	return bpf_redirect(c->peer, 0);
}
