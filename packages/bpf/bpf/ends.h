/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The sockets at the ends of a connection, by its addresses. */
#ifndef TPROXY_ENDS_H
#define TPROXY_ENDS_H

#include "packet.h"

static __always_inline void reverse(struct flow_key *to, const struct flow_key *key)
{
	__builtin_memcpy(to->source, key->destination, 16);
	__builtin_memcpy(to->destination, key->source, 16);
	to->source_port = key->destination_port;
	to->destination_port = key->source_port;
}

/* Who receives packets with these addresses, to be released. */
static __always_inline struct bpf_sock *receiver_of(struct __sk_buff *skb, const __u8 source[16],
						    __be16 source_port, const __u8 destination[16],
						    __be16 destination_port, bool v6)
{
	struct bpf_sock_tuple tuple = {};

	if (v6) {
		__builtin_memcpy(tuple.ipv6.saddr, source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, destination, 16);
		tuple.ipv6.sport = source_port;
		tuple.ipv6.dport = destination_port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(&tuple.ipv4.saddr, source + 12, 4);
	__builtin_memcpy(&tuple.ipv4.daddr, destination + 12, 4);
	tuple.ipv4.sport = source_port;
	tuple.ipv4.dport = destination_port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

static __always_inline struct bpf_sock *receiver(struct __sk_buff *skb, const struct flow_key *key,
						 bool v6)
{
	return receiver_of(skb, key->source, key->source_port, key->destination,
			   key->destination_port, v6);
}

/* Who sends packets with these addresses, if it is on this host; to be released. */
static __always_inline struct bpf_sock *sender(struct __sk_buff *skb, const struct flow_key *key,
					       bool v6)
{
	return receiver_of(skb, key->destination, key->destination_port, key->source,
			   key->source_port, v6);
}

/* Not the sockets of TIME_WAIT and SYN_RECV, which the kernel keeps in place of what is gone, or
 * not there yet (sk_fullsock() of include/net/sock.h; the helper takes longer). */
static __always_inline bool is_full(const struct bpf_sock *sk)
{
	return sk->state != BPF_TCP_TIME_WAIT && sk->state != BPF_TCP_NEW_SYN_RECV;
}

#endif
