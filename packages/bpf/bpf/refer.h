/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Errors from on the way. */
#ifndef TPROXY_REFER_H
#define TPROXY_REFER_H

#include "carry.h"

/* type, code, checksum, and a word that depends on them (RFC 792, RFC 4443) */
#define ICMP_HEADER    8
#define ICMP_CHECK     2
#define ICMPV6_TOO_BIG 2

/* Of a segment, as much as every error quotes of it. */
struct quoted {
	__be16 source_port;
	__be16 destination_port;
	__be32 seq;
};

/* Whether it tells that a packet did not arrive, which begins behind its header. */
static __always_inline bool is_error(struct __sk_buff *skb, __u32 at, bool v6)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, at, &type, 1))
		return false;
	return v6 ? type == ICMPV6_DEST_UNREACH || type == ICMPV6_TOO_BIG
		  : type == ICMP_DEST_UNREACH;
}

/* Gives the headers the addresses of whom it is for: the outer destination, and the inner pair. */
static __always_inline long refer_v4(struct __sk_buff *skb, __u32 network, __u32 inner,
				     const struct flow_key *to)
{
	__u32 at = inner + offsetof(struct iphdr, saddr);
	__be32 old[2], new[2], outer;

	if (bpf_skb_load_bytes(skb, at, old, sizeof(old)))
		return -1;
	__builtin_memcpy(&new[0], to->source + 12, 4);
	__builtin_memcpy(&new[1], to->destination + 12, 4);
	outer = new[0];
	/* The inner header keeps its sum, and with it the outer checksum. */
	return bpf_skb_store_bytes(skb, at, new, sizeof(new), 0) ||
	       bpf_l3_csum_replace(skb, inner + offsetof(struct iphdr, check), 0,
				   bpf_csum_diff(old, sizeof(old), new, sizeof(new), 0), 0) ||
	       bpf_skb_store_bytes(skb, network + offsetof(struct iphdr, daddr), &outer, 4, 0) ||
	       bpf_l3_csum_replace(skb, network + offsetof(struct iphdr, check), old[0], outer, 4);
}

static __always_inline long refer_v6(struct __sk_buff *skb, __u32 network, __u32 inner, __u32 check,
				     const struct flow_key *to)
{
	__u32 at = inner + offsetof(struct ipv6hdr, saddr);
	__be32 old[8], new[8];
	__s64 sum;

	if (bpf_skb_load_bytes(skb, at, old, sizeof(old)))
		return -1;
	__builtin_memcpy(new, to->source, 16);
	__builtin_memcpy(new + 4, to->destination, 16);
	sum = bpf_csum_diff(old, sizeof(old), new, sizeof(new), 0);
	if (bpf_skb_store_bytes(skb, at, new, sizeof(new), 0) ||
	    bpf_l4_csum_replace(skb, check, 0, sum, 0))
		return -1;
	sum = bpf_csum_diff(old, 16, new, 16, 0);
	if (bpf_skb_store_bytes(skb, network + offsetof(struct ipv6hdr, daddr), new, 16, 0))
		return -1;
	return bpf_l4_csum_replace(skb, check, 0, sum, BPF_F_PSEUDO_HDR | CSUM_IPV6) &&
	       bpf_l4_csum_replace(skb, check, 0, sum, BPF_F_PSEUDO_HDR);
}

/*
 * An error about a packet that the program sent and we translated, such as that it was too large
 * for a part of the path (RFC 1191, RFC 8201): it names our connection, and becomes one that names
 * the program's. Until our sockets are silent it may be about theirs, and is left to them; should
 * it have been for the program, its next segment brings another.
 */
static __noinline enum outcome refer(struct __sk_buff *skb, __u32 network, __u32 *index)
{
	bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct flow_key from_upstream = {}, client;
	__u32 icmp, inner, transport, seq;
	struct quoted old, new;
	struct pair *pair;
	struct leg *leg;
	__s64 sum;

	if (v6) {
		struct ipv6hdr ip;

		icmp = network + sizeof(ip);
		inner = icmp + ICMP_HEADER;
		if (bpf_skb_load_bytes(skb, network, &ip, sizeof(ip)) ||
		    ip.nexthdr != IPPROTO_ICMPV6 || !is_error(skb, icmp, v6) ||
		    bpf_skb_load_bytes(skb, inner, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
			return LEFT;
		transport = inner + sizeof(ip);
		__builtin_memcpy(from_upstream.source, &ip.daddr, 16);
		__builtin_memcpy(from_upstream.destination, &ip.saddr, 16);
	} else {
		struct iphdr ip;

		if (skb->protocol != bpf_htons(ETH_P_IP) ||
		    bpf_skb_load_bytes(skb, network, &ip, sizeof(ip)) ||
		    ip.protocol != IPPROTO_ICMP || ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
			return LEFT;
		icmp = network + ip.ihl * 4;
		inner = icmp + ICMP_HEADER;
		if (!is_error(skb, icmp, v6) || bpf_skb_load_bytes(skb, inner, &ip, sizeof(ip)) ||
		    ip.protocol != IPPROTO_TCP)
			return LEFT;
		transport = inner + ip.ihl * 4;
		map_v4(from_upstream.source, ip.daddr);
		map_v4(from_upstream.destination, ip.saddr);
	}
	if (bpf_skb_load_bytes(skb, transport, &old, sizeof(old)))
		return LEFT;
	from_upstream.source_port = old.destination_port;
	from_upstream.destination_port = old.source_port;
	leg = bpf_map_lookup_elem(&legs, &from_upstream);
	if (!leg || leg->way != WAY_DOWN)
		return LEFT;
	*index = leg->pair;
	pair = bpf_map_lookup_elem(&pairs, index);
	if (!pair || pair->serial != leg->serial || *(volatile __u32 *)&pair->state != PAIR_SPLICED)
		return LEFT;
	reverse(&client, &pair->to[WAY_DOWN]);
	seq = bpf_ntohl(old.seq) - pair->ways[WAY_UP].delta;
	new = (struct quoted){client.source_port, client.destination_port, bpf_htonl(seq)};
	sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&new, sizeof(new), 0);
	if (bpf_skb_store_bytes(skb, transport, &new, sizeof(new), 0) ||
	    bpf_l4_csum_replace(skb, icmp + ICMP_CHECK, 0, sum, 0))
		return because(SPLICE_DROPPED, SPOILT);
	if (!pair->same_addresses && (v6 ? refer_v6(skb, network, inner, icmp + ICMP_CHECK, &client)
					 : refer_v4(skb, network, inner, &client)))
		return because(SPLICE_DROPPED, SPOILT);
	return because(SPLICE_REFERRED, TRANSLATED);
}

#endif
