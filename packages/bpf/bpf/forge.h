/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Segments that nobody has sent. */
#ifndef TPROXY_FORGE_H
#define TPROXY_FORGE_H

#include "packet.h"

/* A segment without payload. */
struct bare_segment {
	struct ethhdr frame;
	union {
		struct {
			struct iphdr ip;
			struct tcphdr tcp;
		} __attribute__((packed)) v4;
		struct {
			struct ipv6hdr ip;
			struct tcphdr tcp;
		} __attribute__((packed)) v6;
	};
} __attribute__((packed));

/* Makes a frame that the process runs a program on a segment with these addresses. */
static __noinline long write_segment(struct __sk_buff *skb, const struct flow_key *to, bool v6,
				     const __u8 mac[ETH_ALEN], const struct tcphdr *tcp)
{
	struct pseudo_header pseudo = {
	    .length = bpf_htonl(sizeof(*tcp)),
	    .next = bpf_htonl(IPPROTO_TCP),
	};
	struct bare_segment segment = {};
	struct tcphdr header = *tcp;
	struct iphdr ip = {};
	__s64 sum;

	__builtin_memcpy(segment.frame.h_dest, mac, ETH_ALEN);
	segment.frame.h_proto = bpf_htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
	header.source = to->source_port;
	header.dest = to->destination_port;
	header.doff = sizeof(header) / 4;
	__builtin_memcpy(pseudo.source, to->source, 16);
	__builtin_memcpy(pseudo.destination, to->destination, 16);
	if (!v6) {
		/* Mapped addresses would count more than those of four bytes. */
		__builtin_memset(pseudo.source, 0, 12);
		__builtin_memset(pseudo.destination, 0, 12);
	}
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	header.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&header, sizeof(header), sum));
	if (v6) {
		segment.v6.ip.version = 6;
		segment.v6.ip.payload_len = bpf_htons(sizeof(header));
		segment.v6.ip.nexthdr = IPPROTO_TCP;
		segment.v6.ip.hop_limit = HOPS;
		__builtin_memcpy(&segment.v6.ip.saddr, to->source, 16);
		__builtin_memcpy(&segment.v6.ip.daddr, to->destination, 16);
		segment.v6.tcp = header;
		return bpf_skb_store_bytes(skb, 0, &segment,
					   sizeof(segment.frame) + sizeof(segment.v6), 0);
	}
	ip.version = 4;
	ip.ihl = sizeof(ip) / 4;
	ip.tot_len = bpf_htons(sizeof(segment.v4));
	ip.ttl = HOPS;
	ip.protocol = IPPROTO_TCP;
	__builtin_memcpy(&ip.saddr, to->source + 12, 4);
	__builtin_memcpy(&ip.daddr, to->destination + 12, 4);
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	segment.v4.ip = ip;
	segment.v4.tcp = header;
	return bpf_skb_store_bytes(skb, 0, &segment, sizeof(segment.frame) + sizeof(segment.v4), 0);
}

#endif
