/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Whether the rules have a say about a packet, what they are asked, and whether it can be as they
 * say. */
#ifndef TPROXY_JUDGE_H
#define TPROXY_JUDGE_H

#include "maps.h"
#include "opened.h"
#include "packet.h"
#include "rules.h"

/* Multicast listener reports (RFC 2710, RFC 3810) and neighbor discovery (RFC 4861). */
static __always_inline bool is_neighbor_discovery(const struct packet *packet)
{
	return packet->ethertype == ETH_P_IPV6 && packet->protocol == IPPROTO_ICMPV6 &&
	       packet->fragment == FRAGMENT_NONE &&
	       ((packet->type >= 130 && packet->type <= 137) || packet->type == 143);
}

static __always_inline bool is_out_of_scope(struct __sk_buff *skb)
{
	return settings.scoped && bpf_skb_under_cgroup(skb, &scope, 0) != 1;
}

/* What the rules say, or false where they have no say: then reason tells why. */
static __always_inline bool judge(struct __sk_buff *skb, const struct packet *packet,
				  const struct opened *opened, struct verdict *verdict,
				  enum counter *reason)
{
	struct question question = {
	    .key = packet->key,
	    .v6 = packet->ethertype == ETH_P_IPV6,
	    .protocol = packet->protocol,
	    .dscp = packet->dscp,
	    .ifindex = skb->ifindex,
	    .mark = skb->mark,
	};

	if (is_out_of_scope(skb)) {
		*reason = COUNT_PASSED_SCOPE;
		return false;
	}
	if (opened && opened->exempt) {
		*reason = COUNT_PASSED_EXEMPT;
		return false;
	}
	if (is_neighbor_discovery(packet)) {
		*reason = COUNT_PASSED_NEIGHBOR;
		return false;
	}
	/* Who sends by a socket that does not connect is not seen; whose it is, is. */
	if (skb->sk) {
		question.has_uid = 1;
		question.uid = bpf_get_socket_uid(skb);
	}
	if (opened && opened->known) {
		question.has_owner = 1;
		question.uid = opened->owner.uid;
		question.gid = opened->owner.gid;
		__builtin_memcpy(question.name, opened->owner.name, sizeof(question.name));
	}
	*reason = COUNT_PASSED_CLOSING;
	return ask(skb, &question, verdict);
}

/* A datagram's later fragments follow the first, which alone has the ports. Returns false where
 * there is nothing to follow. */
static __always_inline bool follow_fragment(const struct packet *packet, struct verdict *verdict,
					    bool write)
{
	struct fragment_key key = {.id = packet->fragment_id};
	struct verdict *known;

	/* With IPv6 options may stand between, and only the first tells what follows them (RFC
	 * 8200, 4.5). */
	if (packet->ethertype == ETH_P_IP)
		key.protocol = packet->protocol;
	__builtin_memcpy(key.source, packet->key.source, 16);
	__builtin_memcpy(key.destination, packet->key.destination, 16);
	if (write)
		return !bpf_map_update_elem(&fragments, &key, verdict, BPF_ANY);
	known = bpf_map_lookup_elem(&fragments, &key);
	if (known)
		*verdict = *known;
	return known;
}

/* fe80::/10, ff00::/8, 169.254.0.0/16, 224.0.0.0/4: meant for the link, and ambiguous without its
 * interface. */
static __always_inline bool is_link_local(const struct packet *packet)
{
	const __u8 *address = packet->key.destination;

	if (packet->ethertype == ETH_P_IP)
		return (address[12] == 169 && address[13] == 254) || (address[12] & 0xf0) == 224;
	return (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) || address[0] == 0xff;
}

/* Whether a connection that the rules would have proxied can be; if not, why. */
static __always_inline enum counter
can_proxy(const struct packet *packet, const struct bpf_sock *sk, const struct control *state)
{
	/* An interface above this one took it off: it may be of our own, and nobody could tell. */
	if (!sk)
		return COUNT_PASSED_NO_SOCKET;
	if (packet->protocol != IPPROTO_TCP)
		return COUNT_PASSED_NOT_TCP;
	if (packet->tagged)
		return COUNT_PASSED_VLAN;
	if (is_link_local(packet))
		return COUNT_PASSED_LINK_LOCAL;
	if (state->closing)
		return COUNT_PASSED_CLOSING;
	if (!is_syn(packet) && packet->fragment != FRAGMENT_LATER)
		return COUNT_PASSED_NO_SOCKET;
	return COUNT_STEERED_SYN;
}

#endif
