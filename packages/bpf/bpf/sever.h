/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A pair ends before its time. Run by the process. */
#ifndef TPROXY_SEVER_H
#define TPROXY_SEVER_H

#include "arm.h"
#include "packet.h"

/* A segment without payload, from the upstream as the program sees it. */
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

static __always_inline long write_segment(struct __sk_buff *skb, const struct pair *pair,
					  const __u8 mac[ETH_ALEN], const struct tcphdr *tcp)
{
	const struct flow_key *to = &pair->to[WAY_DOWN];
	struct pseudo_header pseudo = {
	    .length = bpf_htonl(sizeof(*tcp)),
	    .next = bpf_htonl(IPPROTO_TCP),
	};
	struct bare_segment segment = {};
	struct tcphdr header = *tcp;
	struct iphdr ip = {};
	__s64 sum;

	__builtin_memcpy(segment.frame.h_dest, mac, ETH_ALEN);
	segment.frame.h_proto = bpf_htons(pair->v6 ? ETH_P_IPV6 : ETH_P_IP);
	header.source = to->source_port;
	header.dest = to->destination_port;
	header.doff = sizeof(header) / 4;
	__builtin_memcpy(pseudo.source, to->source, 16);
	__builtin_memcpy(pseudo.destination, to->destination, 16);
	if (!pair->v6) {
		/* Mapped addresses would count more than those of four bytes. */
		__builtin_memset(pseudo.source, 0, 12);
		__builtin_memset(pseudo.destination, 0, 12);
	}
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	header.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&header, sizeof(header), sum));
	if (pair->v6) {
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

/*
 * Run by the process, with a pair and its serial in cb, on a frame as long as a segment without
 * payload: resets both ends. The program's socket gets a segment that it has had, which it answers
 * with an ACK that has the right numbers and takes the right way; that ACK becomes the upstream's
 * reset. Then it gets its own.
 */
SEC("tc")
int sever(struct __sk_buff *skb)
{
	__u32 index = skb->cb[0];
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);
	struct tcphdr header = {.ack = 1};
	struct device *device;
	struct tcp_sock *tcp;
	struct bpf_sock *client;
	__u32 ifindex, next, acked;
	__u8 mac[ETH_ALEN] = {};

	if (!pair || pair->serial != skb->cb[1])
		return DONE;
	bpf_spin_lock(&pair->lock);
	pair->state = PAIR_SEVERED;
	bpf_spin_unlock(&pair->lock);
	ifindex = pair->client_ifindex;
	device = bpf_map_lookup_elem(&hooked, &ifindex);
	client = receiver(skb, &pair->to[WAY_DOWN], pair->v6);
	if (!client)
		return DONE;
	tcp = bpf_skc_to_tcp_sock(client);
	if (!tcp || !device) {
		bpf_sk_release(client);
		return DONE;
	}
	next = tcp->rcv_nxt;
	acked = tcp->snd_una;
	bpf_sk_release(client);
	__builtin_memcpy(mac, device->mac, sizeof(mac));
	header.ack_seq = bpf_htonl(acked);
	header.seq = bpf_htonl(next - 1);
	if (write_segment(skb, pair, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	header.rst = 1;
	header.seq = bpf_htonl(next);
	if (write_segment(skb, pair, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	return DONE;
}

#endif
