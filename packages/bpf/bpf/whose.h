/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Whose a packet is: not all that a socket is named with is of its connection, and some of what has
 * none is of one. */
#ifndef TPROXY_WHOSE_H
#define TPROXY_WHOSE_H

#include "ends.h"
#include "kernel.h"
#include "maps.h"
#include "packet.h"

#define SOCK_DGRAM 2

/* ACKs from TIME_WAIT and resets, which the kernel sends for connections of servers too, and SYN
 * cookies, which belong to no socket. They carry nothing. */
static __always_inline bool is_kernels_own(const struct packet *packet, const struct bpf_sock *sk)
{
	return packet->protocol == IPPROTO_TCP && packet->fragment == FRAGMENT_NONE &&
	       packet->bare && packet->flags & (TCP_ACK | TCP_RST) &&
	       !(packet->flags & (sk ? TCP_SYN | TCP_FIN : TCP_FIN));
}

/*
 * What the kernel itself sends for a socket that is gone (an ACK from TIME_WAIT, an RST), or a raw
 * socket: it belongs to an intercepted connection if it is addressed to one of our accepted
 * sockets. No other socket here has a foreign address as its own.
 */
static __always_inline bool belongs_to_us(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *ours;
	bool accepted;

	if (packet->protocol != IPPROTO_TCP || packet->fragment == FRAGMENT_LATER ||
	    packet->flags & TCP_SYN)
		return false;
	ours = receiver(skb, &packet->key, packet->ethertype == ETH_P_IPV6);
	if (!ours)
		return false;
	accepted = ours->state != BPF_TCP_LISTEN;
	bpf_sk_release(ours);
	return accepted;
}

/* What the kernel answers to a SYN, for a server. Its later packets pass, too. */
static __always_inline bool is_servers(const struct bpf_sock *sk)
{
	return sk && sk->state == BPF_TCP_NEW_SYN_RECV;
}

extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym;

/* Whether a socket is of another network namespace, whose macvlan is above this interface. */
static __always_inline bool is_elsewhere(const struct bpf_sock *sk)
{
	const struct sock *any = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct sock));

	return any->__sk_common.skc_net.net->ns.inum != settings.netns;
}

/* Whether a tunnel put this packet around one of that socket, which it keeps (WireGuard, VXLAN, and
 * the like): it is none of the socket's connection. */
static __always_inline bool is_wrapped(const struct bpf_sock *sk, const struct packet *packet)
{
	if (sk->family != AF_INET && sk->family != AF_INET6)
		return false;
	if (sk->protocol != packet->protocol)
		return sk->protocol != IPPROTO_RAW;
	return sk->protocol == IPPROTO_UDP && sk->type == SOCK_DGRAM &&
	       packet->fragment != FRAGMENT_LATER &&
	       bpf_htons(sk->src_port) != packet->key.source_port;
}

/* Whether a packet that has a socket of TCP is a tunnel's, around one of it: by the protocol that
 * it names, for the rest of it was not read yet. */
static __always_inline bool is_tunnels(struct __sk_buff *skb)
{
	__u32 at = skb->protocol == bpf_htons(ETH_P_IP) ? offsetof(struct iphdr, protocol)
							: offsetof(struct ipv6hdr, nexthdr);
	__u8 protocol;

	if (bpf_skb_load_bytes_relative(skb, at, &protocol, 1, BPF_HDR_START_NET))
		return false;
	return protocol == IPPROTO_UDP || protocol == IPPROTO_GRE || protocol == IPPROTO_IPIP ||
	       protocol == IPPROTO_IPV6 || protocol == IPPROTO_ESP;
}

/* Whether a packet of a connection is as its socket sent it, and not translated. */
static __always_inline bool is_as_sent(const struct bpf_sock *sk, const struct packet *packet)
{
	__be32 v4 = sk->dst_ip4, v6 = sk->dst_ip6[3], destination;

	/* Or the compiler loads one of them, by a computed address. */
	barrier_var(v4);
	barrier_var(v6);
	__builtin_memcpy(&destination, packet->key.destination + 12, 4);
	return bpf_htons(sk->src_port) == packet->key.source_port &&
	       sk->dst_port == packet->key.destination_port &&
	       (packet->ethertype == ETH_P_IP ? v4 : v6) == destination;
}

#endif
