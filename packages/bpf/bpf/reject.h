/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Turns a packet into the refusal that its program would get from the network, and hands it back by
 * the interface it was about to leave by: a TCP reset (RFC 9293, 3.10.7.1), or ICMP port
 * unreachable (RFC 792; RFC 4443, 3.1).
 */
#ifndef TPROXY_REJECT_H
#define TPROXY_REJECT_H

#include "maps.h"
#include "packet.h"

/* Of the packet, with an ICMP error: its headers and 8 bytes. */
#define LIMIT_QUOTE 128

/* An error's, alike for both versions. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 unused;
};

/* Into the interface, addressed to it. */
static __always_inline int give_back(struct __sk_buff *skb, const struct device *device)
{
	if (device->has_mac && bpf_skb_store_bytes(skb, 0, device->mac, ETH_ALEN, 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	/* From the network, nothing comes marked. */
	skb->mark = 0;
	count(COUNT_REJECTED);
	return bpf_redirect(device->ifindex, BPF_F_INGRESS);
}

/* The IP header of an answer, over the one that is there. */
static __always_inline long write_ip(struct __sk_buff *skb, const struct packet *packet,
				     __u8 protocol, __u32 payload)
{
	const struct flow_key *key = &packet->key;

	if (packet->ethertype == ETH_P_IP) {
		struct iphdr ip = {
		    .version = 4,
		    .ihl = 5,
		    .tot_len = bpf_htons(sizeof(ip) + payload),
		    .ttl = HOPS,
		    .protocol = protocol,
		};

		__builtin_memcpy(&ip.saddr, key->destination + 12, 4);
		__builtin_memcpy(&ip.daddr, key->source + 12, 4);
		ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
		return bpf_skb_store_bytes(skb, packet->network, &ip, sizeof(ip), 0);
	} else {
		struct ipv6hdr ip = {
		    .version = 6,
		    .payload_len = bpf_htons(payload),
		    .nexthdr = protocol,
		    .hop_limit = HOPS,
		};

		__builtin_memcpy(&ip.saddr, key->destination, 16);
		__builtin_memcpy(&ip.daddr, key->source, 16);
		return bpf_skb_store_bytes(skb, packet->network, &ip, sizeof(ip), 0);
	}
}

/* The sum of the pseudo header of an answer; IPv4's is the same sum, its addresses being shorter.
 */
static __always_inline __s64 sum_pseudo_header(const struct packet *packet, __u8 protocol,
					       __u32 length)
{
	struct pseudo_header pseudo = {
	    .length = bpf_htonl(length),
	    .next = bpf_htonl(protocol),
	};
	int skip = packet->ethertype == ETH_P_IP ? 12 : 0;

	if (skip) {
		__builtin_memcpy(pseudo.source + 12, packet->key.destination + 12, 4);
		__builtin_memcpy(pseudo.destination + 12, packet->key.source + 12, 4);
	} else {
		__builtin_memcpy(pseudo.source, packet->key.destination, 16);
		__builtin_memcpy(pseudo.destination, packet->key.source, 16);
	}
	return bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}

static __always_inline __u32 header_size(const struct packet *packet)
{
	return packet->ethertype == ETH_P_IP ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __noinline int reset(struct __sk_buff *skb, const struct packet *packet,
			    const struct device *device)
{
	struct tcphdr seen, tcp = {};
	__u32 transport = packet->network + header_size(packet);

	if (bpf_skb_load_bytes(skb, packet->transport, &seen, sizeof(seen)))
		return because(COUNT_DROPPED_UNREADABLE, TC_ACT_SHOT);
	if (seen.rst)
		return because(COUNT_REJECTED_SILENTLY, TC_ACT_SHOT);
	tcp.source = seen.dest;
	tcp.dest = seen.source;
	tcp.doff = sizeof(tcp) / 4;
	tcp.rst = 1;
	if (seen.ack) {
		tcp.seq = seen.ack_seq;
	} else {
		__u32 length = skb->len - packet->transport - seen.doff * 4;

		tcp.ack = 1;
		tcp.ack_seq = bpf_htonl(bpf_ntohl(seen.seq) + seen.syn + seen.fin + length);
	}
	tcp.check =
	    fold(bpf_csum_diff(NULL, 0, (__be32 *)&tcp, sizeof(tcp),
			       sum_pseudo_header(packet, IPPROTO_TCP, sizeof(tcp)) & 0xffffffff));
	/* IP options and extension headers stay behind the answer, and are cut off there. */
	if (write_ip(skb, packet, IPPROTO_TCP, sizeof(tcp)) ||
	    bpf_skb_store_bytes(skb, transport, &tcp, sizeof(tcp), 0) ||
	    bpf_skb_change_tail(skb, packet->transport + sizeof(tcp), 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	return give_back(skb, device);
}

static __noinline int unreachable(struct __sk_buff *skb, const struct packet *packet,
				  const struct device *device)
{
	__u8 quote[LIMIT_QUOTE] = {};
	bool v4 = packet->ethertype == ETH_P_IP;
	struct icmp_header icmp = {
	    .type = v4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH,
	    .code = v4 ? ICMP_PORT_UNREACH : ICMPV6_PORT_UNREACH,
	};
	__u8 protocol = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	__u32 length = packet->transport - packet->network + 8;
	__u32 added = header_size(packet) + sizeof(icmp);
	__s64 sum;

	/* No error answers an error (RFC 1122, 3.2.2). */
	if (packet->protocol == IPPROTO_ICMP && packet->type != ICMP_ECHO)
		return because(COUNT_REJECTED_SILENTLY, TC_ACT_SHOT);
	if (packet->protocol == IPPROTO_ICMPV6 && packet->type != ICMPV6_ECHO_REQUEST)
		return because(COUNT_REJECTED_SILENTLY, TC_ACT_SHOT);
	if (length < 28 || length > LIMIT_QUOTE || packet->network + length > skb->len)
		return because(COUNT_REJECTED_SILENTLY, TC_ACT_SHOT);
	if (bpf_skb_load_bytes(skb, packet->network, quote, length))
		return because(COUNT_DROPPED_UNREADABLE, TC_ACT_SHOT);
	sum = v4 ? 0 : sum_pseudo_header(packet, protocol, sizeof(icmp) + length);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)quote, sizeof(quote), sum & 0xffffffff);
	icmp.checksum =
	    fold(bpf_csum_diff(NULL, 0, (__be32 *)&icmp, sizeof(icmp), sum & 0xffffffff));
	if (bpf_skb_change_tail(skb, packet->network + length, 0) ||
	    bpf_skb_adjust_room(skb, added, BPF_ADJ_ROOM_MAC, 0) ||
	    write_ip(skb, packet, protocol, sizeof(icmp) + length) ||
	    bpf_skb_store_bytes(skb, packet->network + header_size(packet), &icmp, sizeof(icmp), 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	return give_back(skb, device);
}

static __always_inline int reject(struct __sk_buff *skb, const struct packet *packet,
				  const struct device *device)
{
	if (packet->fragment == FRAGMENT_LATER || packet->tagged)
		return because(COUNT_REJECTED_SILENTLY, TC_ACT_SHOT);
	if (packet->protocol == IPPROTO_TCP)
		return reset(skb, packet, device);
	return unreachable(skb, packet, device);
}

#endif
