/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Where steered and redirected packets go. */
#ifndef TPROXY_REDIRECT_H
#define TPROXY_REDIRECT_H

#include "maps.h"
#include "packet.h"

/* tcx: let the next program on the hook see the packet (since 6.6; TC_ACT_UNSPEC before). */
#define NEXT TC_ACT_UNSPEC

/* Makes room for an Ethernet header, where the device has none. */
static __always_inline long put_frame(struct __sk_buff *skb, const struct device *device,
				      const __u8 mac[ETH_ALEN])
{
	struct ethhdr frame = {.h_proto = skb->protocol};

	__builtin_memcpy(frame.h_dest, mac, ETH_ALEN);
	if (!device->has_mac && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0);
}

/* Sends a packet into lo, marked so that the routing rule delivers it here and lo_ingress knows it.
 */
static __always_inline int steer(struct __sk_buff *skb, const struct device *device, __u32 slot)
{
	/* lo's own address is zero, and only a frame to it is for this host. */
	const __u8 mac[ETH_ALEN] = {};

	if (put_frame(skb, device, mac))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	skb->mark = settings.mark | slot;
	return bpf_redirect(settings.lo_ifindex, BPF_F_INGRESS);
}

/*
 * To the next hop of another interface. The look-up of the helper honours the interface with IPv4;
 * with IPv6 it does so only for sockets bound to one (ip6_route_output_flags in
 * net/ipv6/route.c), and the gateway it finds may be another interface's.
 */
static __noinline long send_by(struct __sk_buff *skb, const struct verdict *verdict)
{
	/* One after the other: the stack is nearly used up. */
	union {
		struct bpf_fib_lookup route;
		struct bpf_redir_neigh gateway;
	} to = {.route = {.family = AF_INET6, .ifindex = verdict->ifindex}};
	long found;

	if (skb->protocol != bpf_htons(ETH_P_IPV6))
		return bpf_redirect_neigh(verdict->ifindex, NULL, 0, 0);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), to.route.ipv6_src,
			       2 * sizeof(struct in6_addr)))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	found = bpf_fib_lookup(skb, &to.route, sizeof(to.route), BPF_FIB_LOOKUP_OUTPUT);
	if ((found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	    to.route.ifindex == verdict->ifindex)
		return bpf_redirect_neigh(verdict->ifindex, NULL, 0, 0);
	if (!verdict->address[0])
		return because(COUNT_DROPPED_NO_ROUTE, TC_ACT_SHOT);
	to.gateway.nh_family = AF_INET6;
	__builtin_memcpy(to.gateway.ipv6_nh, verdict->address, sizeof(to.gateway.ipv6_nh));
	return bpf_redirect_neigh(verdict->ifindex, &to.gateway, sizeof(to.gateway), 0);
}

/* Out of another interface, to the next hop that its routes name, or into it. */
static __always_inline int redirect(struct __sk_buff *skb, const struct verdict *verdict,
				    const struct device *device)
{
	/* Here it comes by that other interface, and the rules say the same again. */
	if (verdict->ifindex == skb->ifindex && !verdict->into)
		return because(COUNT_PASSED_RULE, NEXT);
	if (verdict->into && !verdict->has_mac) {
		count(COUNT_REDIRECTED);
		/* The kernel takes the link layer header off for such a device. */
		return bpf_redirect(verdict->ifindex, BPF_F_INGRESS);
	}
	if (verdict->into || !device->has_mac)
		if (put_frame(skb, device, verdict->address))
			return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	count(COUNT_REDIRECTED);
	if (verdict->into)
		return bpf_redirect(verdict->ifindex, BPF_F_INGRESS);
	return verdict->has_mac ? send_by(skb, verdict) : bpf_redirect(verdict->ifindex, 0);
}

#endif
