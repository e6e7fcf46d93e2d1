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

#define AF_INET	 2
#define AF_INET6 10

#define IP_FRAGMENT_OFFSET 0x1fff
#define IP_MORE_FRAGMENTS  0x2000

/* Hop-by-hop, routing, fragment, destination options and authentication: one of each is legal,
 * destination options twice (RFC 8200, 4.1). A program sets them with IPV6_HOPOPTS and the like. */
#define IPV6_EXTENSIONS 7

/* A customer's and a provider's (IEEE 802.1ad). */
#define VLAN_TAGS 2

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	struct flow_key key;
	__u16 ethertype; /* host order, behind VLAN tags */
	__u16 network;	 /* where the IP header begins */
	__u16 transport; /* where what it carries begins */
	__u8 flags;	 /* of TCP: the 14th byte of its header */
	__u8 protocol;
	__u8 type; /* of ICMP */
	__u8 dscp;
	__u8 tagged;
	__u8 fragment;
	__u8 bare; /* TCP without data */
	__u32 fragment_id;
};

/* linux/icmp.h needs the headers of a C library. */
enum { ICMP_DEST_UNREACH = 3, ICMP_PORT_UNREACH = 3, ICMP_ECHO = 8 };
enum { ICMPV6_DEST_UNREACH = 1, ICMPV6_PORT_UNREACH = 4, ICMPV6_ECHO_REQUEST = 128 };

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

static __always_inline bool same_address(const __u8 a[16], const __u8 b[16])
{
	__u32 left[4], right[4];

	__builtin_memcpy(left, a, 16);
	__builtin_memcpy(right, b, 16);
	return left[0] == right[0] && left[1] == right[1] && left[2] == right[2] &&
	       left[3] == right[3];
}

enum reading {
	READ_ALL,
	READ_NOT_IP,
	READ_BROKEN, /* truncated or malformed: what it would be to its receiver is not known */
};

/* What follows the IP headers. A later fragment has none of it. */
static __always_inline enum reading read_transport(struct __sk_buff *skb, __u32 offset,
						   struct packet *packet)
{
	__be16 ports[2];
	__u8 data;

	packet->transport = offset;
	if (packet->fragment == FRAGMENT_LATER)
		return READ_ALL;
	switch (packet->protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, offset + 12, &data, 1) ||
		    bpf_skb_load_bytes(skb, offset + 13, &packet->flags, 1))
			return READ_BROKEN;
		packet->bare = skb->len == offset + (data >> 4) * 4;
		break;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
	case IPPROTO_SCTP:
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return bpf_skb_load_bytes(skb, offset, &packet->type, 1) ? READ_BROKEN : READ_ALL;
	default:
		return READ_ALL;
	}
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return READ_BROKEN;
	packet->key.source_port = ports[0];
	packet->key.destination_port = ports[1];
	return READ_ALL;
}

static __always_inline enum reading read_v4(struct __sk_buff *skb, __u32 offset,
					    struct packet *packet)
{
	struct iphdr ip;
	__u16 part;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return READ_BROKEN;
	part = bpf_ntohs(ip.frag_off);
	packet->fragment = part & IP_FRAGMENT_OFFSET  ? FRAGMENT_LATER
			   : part & IP_MORE_FRAGMENTS ? FRAGMENT_FIRST
						      : FRAGMENT_NONE;
	packet->fragment_id = ip.id;
	packet->protocol = ip.protocol;
	packet->dscp = ip.tos >> 2;
	map_v4(packet->key.source, ip.saddr);
	map_v4(packet->key.destination, ip.daddr);
	return read_transport(skb, offset + ip.ihl * 4, packet);
}

static __always_inline enum reading read_v6(struct __sk_buff *skb, __u32 offset,
					    struct packet *packet)
{
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
		return READ_BROKEN;
	__builtin_memcpy(packet->key.source, &ip.saddr, 16);
	__builtin_memcpy(packet->key.destination, &ip.daddr, 16);
	packet->dscp = (ip.priority << 4 | ip.flow_lbl[0] >> 4) >> 2;
	next = ip.nexthdr;
	offset += sizeof(ip);
	for (int i = 0; i < IPV6_EXTENSIONS + 1; i++) {
		struct {
			__u8 next;
			__u8 length;
			__be16 part;
			__be32 id;
		} extension;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_AH && next != IPPROTO_FRAGMENT) {
			packet->protocol = next;
			return read_transport(skb, offset, packet);
		}
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return READ_BROKEN;
		if (next == IPPROTO_FRAGMENT) {
			/* 13 bits of offset, 2 reserved, 1 for more (RFC 8200, 4.5). */
			__u16 part = bpf_ntohs(extension.part);

			packet->fragment_id = extension.id;
			packet->fragment = part & 0xfff8 ? FRAGMENT_LATER
					   : part & 1	 ? FRAGMENT_FIRST
							 : FRAGMENT_NONE;
			offset += 8;
			/* What it names is in the first fragment only. */
			if (packet->fragment == FRAGMENT_LATER) {
				packet->protocol = extension.next;
				return read_transport(skb, offset, packet);
			}
		} else if (next == IPPROTO_AH) {
			/* In units of 4, less 2 (RFC 4302, 2.2). */
			offset += (extension.length + 2) * 4;
		} else {
			offset += (extension.length + 1) * 8;
		}
		next = extension.next;
	}
	return READ_BROKEN;
}

/* Reads the packet whose link layer header, of hard_header bytes, is at the beginning. */
static __always_inline enum reading read_packet(struct __sk_buff *skb, __u32 hard_header,
						struct packet *packet)
{
	__u32 offset = hard_header;

	packet->ethertype = bpf_ntohs(skb->protocol);
	packet->tagged = skb->vlan_present;
	for (int i = 0; i < VLAN_TAGS; i++) {
		__be16 inner;

		if (packet->ethertype != ETH_P_8021Q && packet->ethertype != ETH_P_8021AD)
			break;
		if (bpf_skb_load_bytes(skb, offset + 2, &inner, sizeof(inner)))
			return READ_BROKEN;
		packet->ethertype = bpf_ntohs(inner);
		packet->tagged = true;
		offset += 4;
	}
	packet->network = offset;
	switch (packet->ethertype) {
	case ETH_P_IP:
		return read_v4(skb, offset, packet);
	case ETH_P_IPV6:
		return read_v6(skb, offset, packet);
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return READ_BROKEN;
	default:
		return READ_NOT_IP;
	}
}

/* Of packets that we make. */
#define HOPS 64

/* What a checksum covers besides the segment (RFC 9293, 3.1; RFC 8200, 8.1). */
struct pseudo_header {
	__u8 source[16];
	__u8 destination[16];
	__be32 length;
	__be32 next;
};

static __always_inline __u16 fold(__s64 sum)
{
	__u64 rest = sum;

	rest = (rest & 0xffff) + (rest >> 16 & 0xffff) + (rest >> 32);
	rest = (rest & 0xffff) + (rest >> 16);
	rest = (rest & 0xffff) + (rest >> 16);
	return ~rest;
}

#endif
