/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* From a packet to the connection it belongs to. */
#ifndef TPROXY_PACKET_H
#define TPROXY_PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include "contract.h"

#define IP_FRAGMENT_OFFSET 0x1fff

/* Hop-by-hop, routing, destination options and authentication: one of each is legal, destination
 * options twice (RFC 8200, 4.1). A program sets them with IPV6_HOPOPTS and the like. */
#define IPV6_EXTENSIONS 6

struct packet {
	struct flow_key key;
	__u16 ethertype; /* host order */
	__u8 flags;	 /* of TCP: the 14th byte of its header */
};

enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

static __always_inline bool is_syn(const struct packet *packet)
{
	return (packet->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline void map_v4(__u8 mapped[16], __be32 address)
{
	__builtin_memset(mapped, 0, 10);
	mapped[10] = 0xff;
	mapped[11] = 0xff;
	__builtin_memcpy(mapped + 12, &address, 4);
}

static __always_inline bool parse_tcp(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)) ||
	    bpf_skb_load_bytes(skb, offset + 13, &packet->flags, 1))
		return false;
	packet->key.source_port = ports[0];
	packet->key.destination_port = ports[1];
	return true;
}

static __always_inline bool parse_v4(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	/* A later fragment has no TCP header. It follows its socket: see wan_egress. */
	if (ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
		return false;
	map_v4(packet->key.source, ip.saddr);
	map_v4(packet->key.destination, ip.daddr);
	return parse_tcp(skb, offset + ip.ihl * 4, packet);
}

static __always_inline bool parse_v6(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(packet->key.source, &ip.saddr, 16);
	__builtin_memcpy(packet->key.destination, &ip.daddr, 16);
	next = ip.nexthdr;
	offset += sizeof(ip);
	for (int i = 0; i < IPV6_EXTENSIONS && next != IPPROTO_TCP; i++) {
		__u8 extension[2];

		if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
			return false;
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			offset += (extension[1] + 1) * 8;
			break;
		case IPPROTO_AH: /* counts in units of 4, less 2 (RFC 4302, 2.2) */
			offset += (extension[1] + 2) * 4;
			break;
		default: /* a fragment among them: as with IPv4 */
			return false;
		}
		next = extension[0];
	}
	return next == IPPROTO_TCP && parse_tcp(skb, offset, packet);
}

/* Reads the packet whose IP header is at offset. False: not TCP, or not all there. */
static __always_inline bool parse(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	packet->ethertype = bpf_ntohs(skb->protocol);
	switch (packet->ethertype) {
	case ETH_P_IP:
		return parse_v4(skb, offset, packet);
	case ETH_P_IPV6:
		return parse_v6(skb, offset, packet);
	default:
		return false;
	}
}

/* The socket that this packet is addressed to, as the stack would find it on arrival; to be
 * released. */
static __always_inline struct bpf_sock *find_receiver(struct __sk_buff *skb,
						      const struct packet *packet)
{
	const struct flow_key *key = &packet->key;
	struct bpf_sock_tuple tuple = {};

	if (packet->ethertype == ETH_P_IP) {
		__builtin_memcpy(&tuple.ipv4.saddr, key->source + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, key->destination + 12, 4);
		tuple.ipv4.sport = key->source_port;
		tuple.ipv4.dport = key->destination_port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(&tuple.ipv6.saddr, key->source, 16);
	__builtin_memcpy(&tuple.ipv6.daddr, key->destination, 16);
	tuple.ipv6.sport = key->source_port;
	tuple.ipv6.dport = key->destination_port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

#endif
