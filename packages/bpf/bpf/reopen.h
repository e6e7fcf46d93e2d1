/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A program may connect again by the very port of a connection that is over, while our socket of
 * that is still there, until the process comes to close it. It would answer the SYN with an ACK
 * (RFC 5961, 4), which does not leave where it is silent: the program would wait for a second.
 */
#ifndef TPROXY_REOPEN_H
#define TPROXY_REOPEN_H

#include "ends.h"
#include "kernel.h"
#include "maps.h"
#include "packet.h"
#include "redirect.h"

/* Of a segment, what makes it a SYN or a reset. */
struct kind {
	__be32 seq;
	__be16 flags; /* with the length of the header */
};

static __always_inline long turn(struct __sk_buff *skb, __u32 transport, const struct kind *from,
				 const struct kind *to)
{
	__u32 check = transport + offsetof(struct tcphdr, check);

	return bpf_l4_csum_replace(skb, check, from->seq, to->seq, 4) ||
	       bpf_l4_csum_replace(skb, check, from->flags, to->flags, 2) ||
	       bpf_skb_store_bytes(skb, transport + 4, &to->seq, 4, 0) ||
	       bpf_skb_store_bytes(skb, transport + 12, &to->flags, 2, 0);
}

/* Whether a SYN came for a socket of ours that is of an earlier connection: ours is there only once
 * the program has acknowledged, and does not say SYN any more. `due` is what that one expects. */
static __always_inline bool is_earlier(struct __sk_buff *skb, const struct packet *packet,
				       struct bpf_sock *ours, __u32 *due)
{
	struct bpf_sock *program;
	struct tcp_sock *tcp;
	bool connects;

	/* One look is enough, also where that has no effect yet, for the process is using it. */
	if (!is_syn(packet) || skb->tc_index || ours->state == BPF_TCP_SYN_RECV)
		return false;
	tcp = bpf_skc_to_tcp_sock(ours);
	if (!tcp)
		return false;
	*due = tcp->rcv_nxt;
	program = sender(skb, &packet->key, packet->ethertype == ETH_P_IPV6);
	if (!program)
		return false;
	connects = program->state == BPF_TCP_SYN_SENT;
	bpf_sk_release(program);
	return connects;
}

/* Has a reset come before the SYN, by a number that our socket must believe (RFC 5961, 3.2). */
static __noinline int reopen(struct __sk_buff *skb, __u32 transport, __u32 due)
{
	struct kind syn, reset = {.seq = bpf_htonl(due)};

	skb->tc_index = 1;
	/* It would come for ever where a kernel has no room for it (CONFIG_NET_SCHED). */
	if (!*(volatile __u32 *)&skb->tc_index)
		return because(COUNT_ESTABLISHED, NEXT);
	if (bpf_skb_load_bytes(skb, transport + 4, &syn.seq, 4) ||
	    bpf_skb_load_bytes(skb, transport + 12, &syn.flags, 2))
		return because(COUNT_DROPPED_MALFORMED, TC_ACT_SHOT);
	reset.flags = (syn.flags & bpf_htons(0xf000)) | bpf_htons(TCP_RST);
	if (turn(skb, transport, &syn, &reset))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	bpf_clone_redirect(skb, settings.lo_ifindex, BPF_F_INGRESS);
	if (turn(skb, transport, &reset, &syn))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	count(COUNT_REOPENED);
	return bpf_redirect(settings.lo_ifindex, BPF_F_INGRESS);
}

#endif
