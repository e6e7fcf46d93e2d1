/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* On lo: what was steered finds its socket, and the replies find their way back. */
#ifndef TPROXY_LOOPBACK_H
#define TPROXY_LOOPBACK_H

#include "maps.h"
#include "packet.h"
#include "redirect.h"
#include "reopen.h"
#include "trace.h"

/* The listener of a slot for a family, to be released. */
static __always_inline struct bpf_sock *find_listener(__u32 slot, bool v6)
{
	__u32 key = slot * 2 + v6;

	return bpf_map_lookup_elem(&listeners, &key);
}

static __always_inline int deliver(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct bpf_sock *sk;
	__u32 due = 0;
	long error;

	if ((skb->mark & ~MARK_SLOT) != settings.mark)
		return NEXT;
	if ((skb->mark & MARK_SLOT) == SLOT_HELD)
		return because(COUNT_DROPPED_HELD, TC_ACT_SHOT);
	/* A later fragment: the stack puts it together with the first. */
	if (read_packet(skb, ETH_HLEN, &packet) != READ_ALL || packet.fragment == FRAGMENT_LATER ||
	    packet.protocol != IPPROTO_TCP)
		return because(COUNT_DROPPED_MALFORMED, NEXT);
	sk = receiver(skb, &packet.key, packet.ethertype == ETH_P_IPV6);
	if (sk) {
		bool established = sk->state != BPF_TCP_LISTEN;
		bool earlier = established && is_earlier(skb, &packet, sk, &due);

		bpf_sk_release(sk);
		if (earlier)
			return reopen(skb, packet.transport, due);
		if (established)
			return because(COUNT_ESTABLISHED, NEXT);
	}
	/* A firewall may translate it on its way to a socket that the stack finds then; or it
	 * answers a SYN cookie, and listener_lookup says whom. */
	if (!is_syn(&packet))
		return because(COUNT_UNASSIGNED, NEXT);
	sk = find_listener(skb->mark & MARK_SLOT, packet.ethertype == ETH_P_IPV6);
	if (!sk)
		return because(COUNT_DROPPED_NO_LISTENER, TC_ACT_SHOT);
	error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (error)
		return because(COUNT_DROPPED_ASSIGN, TC_ACT_SHOT);
	return because(COUNT_ASSIGNED, NEXT);
}

/*
 * Ingress of lo: hands what was steered to the listener, unless the stack finds its socket by
 * itself: an accepted one, a half-open one, or one in TIME_WAIT, where the kernel decides whether
 * the SYN may reuse it (RFC 6191) and then asks listener_lookup.
 *
 * NEXT: not ours, or assigned. TC_ACT_REDIRECT: it comes again, behind a reset. TC_ACT_SHOT: there
 * is nobody to take it.
 */
SEC("tc")
int lo_ingress(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_LO_INGRESS, traced, deliver(skb));
}

/*
 * Listener lookup of our network namespace. The stack asks it about a steered SYN only where its
 * 4-tuple is still in TIME_WAIT on our side: without an answer the program would wait for a
 * retransmission that is not answered either. The look-up of lo_ingress asks it about every other.
 *
 * SK_PASS: with our listener assigned, or the ordinary lookup.
 */
SEC("sk_lookup")
int listener_lookup(struct bpf_sk_lookup *ctx)
{
	struct flow_key key = {};
	struct bpf_sock *sk;
	struct flow *flow;
	bool v6 = ctx->family == AF_INET6;

	if (ctx->ingress_ifindex != settings.lo_ifindex || ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (v6) {
		__u32 source[4] = {ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
				   ctx->remote_ip6[3]};
		__u32 destination[4] = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
					ctx->local_ip6[3]};

		__builtin_memcpy(key.source, source, 16);
		__builtin_memcpy(key.destination, destination, 16);
	} else {
		map_v4(key.source, ctx->remote_ip4);
		map_v4(key.destination, ctx->local_ip4);
	}
	key.source_port = ctx->remote_port;
	key.destination_port = bpf_htons(ctx->local_port);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return SK_PASS;
	sk = find_listener(flow->slot, v6);
	if (!sk)
		return SK_PASS;
	if (!bpf_sk_assign(ctx, sk, 0))
		count(COUNT_LISTENER_FOUND);
	bpf_sk_release(sk);
	return SK_PASS;
}

/* Whether a packet comes from 127.0.0.0/8 or ::1. */
static __always_inline bool is_from_loopback(struct __sk_buff *skb)
{
	__u32 address[4] = {};

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), address, 4);
		return (address[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	}
	bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), address, 16);
	return !address[0] && !address[1] && !address[2] && address[3] == bpf_htonl(1);
}

static __always_inline int bring_back(struct __sk_buff *skb)
{
	struct device *device;
	__u32 slot = skb->mark & MARK_SLOT;

	if ((skb->mark & ~MARK_SLOT) != (settings.mark | MARK_REPLY))
		return NEXT;
	if (is_from_loopback(skb))
		return because(COUNT_PASSED_LOOPBACK, NEXT);
	device = bpf_map_lookup_elem(&devices, &slot);
	if (!device || !device->ifindex)
		return because(COUNT_DROPPED_RETURN, TC_ACT_SHOT);
	if (device->has_mac && bpf_skb_store_bytes(skb, 0, device->mac, ETH_ALEN, 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	/* The program's host sees no mark on packets from the network either. */
	skb->mark = 0;
	count(COUNT_RETURNED);
	return bpf_redirect(device->ifindex, BPF_F_INGRESS);
}

/*
 * Egress of lo: takes the replies of our sockets to the interface the connection left by, where the
 * program's socket, even one bound to that interface, expects them.
 *
 * NEXT: not ours. TC_ACT_REDIRECT: into the interface. TC_ACT_SHOT: it is gone.
 */
SEC("tc")
int lo_egress(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_LO_EGRESS, traced, bring_back(skb));
}

#endif
