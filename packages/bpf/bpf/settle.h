/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Our sockets fall silent when nothing is left for them to do. Run by the process. */
#ifndef TPROXY_SETTLE_H
#define TPROXY_SETTLE_H

#include "ends.h"
#include "forge.h"
#include "kernel.h"
#include "silence.h"

/* Answers of the programs that the process runs. */
enum { DONE = 0, FAILED = 1 };

/* Where the question begins, and the answer: the kernel wants a frame. */
#define FRAME ETH_HLEN

static __always_inline int answer(struct __sk_buff *skb, const struct carriage *carriage)
{
	return bpf_skb_store_bytes(skb, FRAME, carriage, sizeof(*carriage), 0) ? FAILED : DONE;
}

static __always_inline int unfit(struct __sk_buff *skb, enum unfit why)
{
	struct carriage carriage = {.state = PAIR_UNFIT, .unfit = why};

	return answer(skb, &carriage);
}

static __always_inline void report(struct carriage *carriage, const struct pair *pair)
{
	/* First: what another processor notes meanwhile would be later than now. */
	__u64 seen = *(volatile const __u64 *)&pair->seen, now = bpf_ktime_get_coarse_ns();

	carriage->state = pair->state;
	carriage->by = pair->by;
	carriage->sent = pair->ways[WAY_UP].carried;
	carriage->received = pair->ways[WAY_DOWN].carried;
	carriage->half = pair->ways[WAY_UP].ended || pair->ways[WAY_DOWN].ended;
	carriage->idle_ns = now > seen ? now - seen : 0;
}

/*
 * Tells our socket what the final receiver has acknowledged by segments with payload, of which it
 * gets no copy: it would go on sending that, and wait for room to send the rest. What may be sent
 * ends where it ended.
 */
static __always_inline void acknowledge(struct __sk_buff *skb, struct pair *pair, __u32 way,
					const struct tcp_sock *to)
{
	__u32 acked = pair->ways[way].acked, una = to->snd_una, window = to->snd_wnd;
	__u32 ifindex = way == WAY_UP ? pair->upstream_ifindex : settings.lo_ifindex;
	struct tcphdr header = {.ack = 1, .seq = bpf_htonl(to->rcv_nxt)};
	__u8 mac[ETH_ALEN] = {};
	struct flow_key key;
	struct device *device;

	if (is_past(&pair->ways[way]) || after(acked, to->snd_nxt))
		acked = to->snd_nxt;
	if (!after(acked, una))
		return;
	window = window > acked - una ? window - (acked - una) : 0;
	window >>= BPF_CORE_READ_BITFIELD(to, rx_opt.snd_wscale);
	header.window = bpf_htons(window < 0xffff ? window : 0xffff);
	header.ack_seq = bpf_htonl(acked);
	device = bpf_map_lookup_elem(&hooked, &ifindex);
	if (device)
		__builtin_memcpy(mac, device->mac, sizeof(mac));
	reverse(&key, &pair->to[way]);
	if (write_segment(skb, &key, pair->v6, mac, &header))
		return;
	/* Over lo, an upstream's segment needs no mark; to an accepted socket, the way leads by
	 * one. */
	skb->mark = ifindex == settings.lo_ifindex && way == WAY_UP ? 0 : MARK_COPY;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	because(SPLICE_TOLD, 0);
}

/* Forgets one of the addresses of a pair, unless it belongs to a later one. */
static __always_inline void forget_leg(const struct flow_key *of_what_leaves, const __u32 owner[2])
{
	struct flow_key key;
	struct leg *leg;

	reverse(&key, of_what_leaves);
	leg = bpf_map_lookup_elem(&legs, &key);
	if (leg && leg->pair == owner[0] && leg->serial == owner[1])
		bpf_map_delete_elem(&legs, &key);
}

/* Run by the process, on a frame with the beginning of a struct arming: no packet belongs to this
 * pair any more. */
SEC("tc")
int forget(struct __sk_buff *skb)
{
	struct carriage carriage = {};
	__u32 request[2]; /* pair and serial */
	struct pair *pair;

	if (bpf_skb_load_bytes(skb, FRAME, request, sizeof(request)))
		return FAILED;
	pair = bpf_map_lookup_elem(&pairs, &request[0]);
	if (!pair || pair->serial != request[1])
		return unfit(skb, UNFIT_GONE);
	forget_leg(&pair->to[WAY_UP], request);
	forget_leg(&pair->to[WAY_DOWN], request);
	report(&carriage, pair);
	return answer(skb, &carriage);
}

/* Run by the process, on a frame with the beginning of a struct arming: silences our sockets if
 * nothing is left for them to do, and answers with a struct carriage. */
SEC("tc")
int settle(struct __sk_buff *skb)
{
	struct bpf_sock *client, *a, *b;
	struct tcp_sock *a_tcp, *b_tcp;
	struct carriage carriage = {};
	__u32 request[2]; /* pair and serial */
	struct pair *pair;

	if (bpf_skb_load_bytes(skb, FRAME, request, sizeof(request)))
		return FAILED;
	pair = bpf_map_lookup_elem(&pairs, &request[0]);
	if (!pair || pair->serial != request[1])
		return unfit(skb, UNFIT_GONE);
	if (pair->state == PAIR_CARRIED || pair->state == PAIR_SPLICED) {
		a = sender(skb, &pair->to[WAY_DOWN], pair->v6);
		b = sender(skb, &pair->to[WAY_UP], pair->v6);
		/* Not of those who have the addresses since. */
		a_tcp = a && is_of(a, pair) ? bpf_skc_to_tcp_sock(a) : NULL;
		b_tcp = b && is_of(b, pair) ? bpf_skc_to_tcp_sock(b) : NULL;
		/* Also the silent one that holds the port: it would give up at last. */
		if (b_tcp)
			acknowledge(skb, pair, WAY_UP, b_tcp);
		if (a_tcp)
			acknowledge(skb, pair, WAY_DOWN, a_tcp);
		if (a_tcp && b_tcp)
			silence(pair, a_tcp, b_tcp);
		if (a)
			bpf_sk_release(a);
		if (b)
			bpf_sk_release(b);
	}
	client = receiver(skb, &pair->to[WAY_DOWN], pair->v6);
	carriage.alone = !client || (is_full(client) && !is_of(client, pair));
	if (client)
		bpf_sk_release(client);
	report(&carriage, pair);
	return answer(skb, &carriage);
}

#endif
