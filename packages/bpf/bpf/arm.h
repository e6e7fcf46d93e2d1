/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Two connections become one, and our sockets fall silent. Run by the process. */
#ifndef TPROXY_ARM_H
#define TPROXY_ARM_H

#include "ends.h"
#include "kernel.h"
#include "opened.h"
#include "packet.h"
#include "settle.h"

#define SIGNED(sk)                                                                                 \
	((bpf_core_field_exists((sk)->md5sig_info) && (sk)->md5sig_info) ||                        \
	 (bpf_core_field_exists((sk)->ao_info) && (sk)->ao_info))

/* Timestamps in microseconds (since 6.7). */
#define FAST_CLOCK(sk)                                                                             \
	(bpf_core_field_exists((sk)->tcp_usec_ts) && BPF_CORE_READ_BITFIELD(sk, tcp_usec_ts))

/* TCP_ECN_MODE_ACCECN of include/net/tcp.h (since 6.18): what its flags count is counted for each
 * connection. */
#define ACCURATE_ECN 16

/* Of a window, its remainder is lost where the sender's unit is the larger one: of a small one, so
 * much that it looks closed, and only the probes of a timer let a byte through. */
#define WINDOW_UNITS 16

static __always_inline bool blurred(const struct tcp_sock *receiver, const struct tcp_sock *twin)
{
	__u32 unit = BPF_CORE_READ_BITFIELD(twin, rx_opt.rcv_wscale);

	return unit > BPF_CORE_READ_BITFIELD(receiver, rx_opt.snd_wscale) &&
	       receiver->max_window >> unit < WINDOW_UNITS;
}

/*
 * What a program's kernel sends at a time goes by the shortest round trip that it has seen, and
 * that may have been to us. BBR sends no more than fits the shortest of ten seconds, and counts the
 * handshake; it is known by how it is called. Others count what was acknowledged: of a round trip
 * that is longer by 4 ms, cubic thinks that a queue has formed, and leaves slow start
 * (HYSTART_DELAY_MIN of net/ipv4/tcp_cubic.c). Spliced, uploads had of their throughput, with BBR:
 * all by a way of 0.5 ms, 0.55 by 1 ms, 0.27 by 4, 0.04 by 40; with cubic 0.7 by 6 ms, 0.3 by 10.
 */
#define FAR_BBR_US 1000
#define FAR_US	   4000
#define UNKNOWN	   (~0U)

static __always_inline bool misled(const struct tcp_sock *client,
				   const struct tcp_sock *towards_client,
				   const struct tcp_sock *towards_upstream)
{
	__u32 here = client->rtt_min.s[0].v, there = towards_upstream->rtt_min.s[0].v;
	const struct inet_connection_sock *program = (const void *)client;

	if (there == UNKNOWN || there < here)
		return false;
	if (BPF_CORE_READ(program, icsk_ca_ops, cong_control))
		return there - here >= FAR_BBR_US;
	return towards_client->bytes_received && there - here >= FAR_US;
}

/* Whether segments of the one connection mean the same in the other. */
static __always_inline enum unfit compare(const struct tcp_sock *client,
					  const struct tcp_sock *towards_client,
					  const struct tcp_sock *towards_upstream)
{
	const struct tcp_sock *a = towards_client, *b = towards_upstream;

	if (SIGNED(a) || SIGNED(b))
		return UNFIT_SIGNED;
	if (BPF_CORE_READ_BITFIELD(a, rx_opt.tstamp_ok) !=
		BPF_CORE_READ_BITFIELD(b, rx_opt.tstamp_ok) ||
	    FAST_CLOCK(client) || FAST_CLOCK(a) || FAST_CLOCK(b))
		return UNFIT_TIMESTAMPS;
	if (!BPF_CORE_READ_BITFIELD(a, rx_opt.sack_ok) !=
	    !BPF_CORE_READ_BITFIELD(b, rx_opt.sack_ok))
		return UNFIT_SACK;
	if (!a->ecn_flags != !b->ecn_flags || (a->ecn_flags | b->ecn_flags) & ACCURATE_ECN)
		return UNFIT_ECN;
	if (client->mss_cache > b->mss_cache)
		return UNFIT_SEGMENTS;
	if (blurred(a, b) || blurred(b, a))
		return UNFIT_WINDOWS;
	if (misled(client, a, b))
		return UNFIT_FAR;
	return UNFIT_NOT;
}

static __always_inline bool enlist(struct bpf_sock *sk, const struct arming *request, __u8 role,
				   __u8 way)
{
	struct membership *member =
	    bpf_sk_storage_get(&members, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!member)
		return false;
	member->pair = request->pair;
	member->serial = request->serial;
	member->way = way;
	member->role = role;
	return true;
}

/* What no socket of ours has received: until it is known what one may still receive. */
#define NEVER(seq) ((seq) + (1 << 30))

/* GSO_LEGACY_MAX_SIZE of include/linux/netdevice.h. */
#define SEGMENT_MAX 65536

/* Up to where a socket may have sent: snd_nxt follows when a segment is on its way. */
static __always_inline __u32 sent_by(const struct tcp_sock *tcp)
{
	__u32 most = tcp->snd_nxt + SEGMENT_MAX, written = tcp->write_seq;

	return after(written, most) ? most : written;
}

/* Fills in a pair whose three sockets, or four, are at hand. */
static __always_inline enum unfit fill(struct pair *pair, const struct arming *request, bool v6,
				       const struct tcp_sock *client, const struct tcp_sock *a,
				       const struct tcp_sock *b)
{
	__u32 ifindex = BPF_CORE_READ((const struct sock *)b, sk_dst_cache, dev, ifindex),
	      from = request->ifindex;
	struct device *out = bpf_map_lookup_elem(&hooked, &from);
	struct device *in = bpf_map_lookup_elem(&hooked, &ifindex);
	struct way *up = &pair->ways[WAY_UP], *down = &pair->ways[WAY_DOWN];
	enum unfit why = compare(client, a, b);
	bool same;

	if (why)
		return why;
	if (!out || (!in && ifindex != settings.lo_ifindex))
		return UNFIT_INTERFACE;
	same = same_address(request->client.destination, request->upstream.destination);
	pair->plain_path = ifindex == from && (same || !out->has_mac);
	/* A frame can be rewritten, but between the two it would have to be made. */
	if (in && ifindex != from && !(out->has_mac && in->has_mac))
		return UNFIT_INTERFACE;
	pair->serial = request->serial;
	pair->by = 0;
	pair->v6 = v6;
	pair->client_ifindex = from;
	pair->upstream_ifindex = ifindex;
	pair->same_addresses =
	    same && same_address(request->client.source, request->upstream.source);
	pair->to[WAY_UP] = request->upstream;
	reverse(&pair->to[WAY_DOWN], &request->client);
	up->first = a->copied_seq - request->unread_up;
	up->sent = NEVER(up->first);
	up->delta = b->write_seq - up->first;
	down->first = b->copied_seq - request->unread_down;
	down->sent = b->rcv_nxt;
	down->delta = a->write_seq - down->first;
	/* Both clocks are this host's. Of the upstream's, what it said last is the best we know. */
	up->clock_delta = b->tsoffset - client->tsoffset;
	down->clock_delta =
	    (__u32)(bpf_ktime_get_ns() / 1000000) + a->tsoffset - b->rx_opt.ts_recent;
	down->clock_first = b->rx_opt.ts_recent;
	down->unheard = 1;
	up->unheard = 0;
	down->grow = BPF_CORE_READ_BITFIELD(a, rx_opt.snd_wscale);
	down->shrink = BPF_CORE_READ_BITFIELD(b, rx_opt.rcv_wscale);
	up->grow = BPF_CORE_READ_BITFIELD(b, rx_opt.snd_wscale);
	up->shrink = BPF_CORE_READ_BITFIELD(a, rx_opt.rcv_wscale);
	up->acked = b->snd_una;
	down->acked = a->snd_una;
	up->edge = b->snd_una + b->snd_wnd;
	down->edge = a->snd_una + a->snd_wnd;
	up->carried = down->carried = 0;
	up->ended = up->finished = down->ended = down->finished = 0;
	pair->seen = bpf_ktime_get_coarse_ns();
	pair->hop_seen = 0;
	return UNFIT_NOT;
}

/*
 * Run by the process, on a frame that holds a struct arming, when it begins to relay: from now on
 * byte k of the one connection is byte k of the other. Answers with a struct carriage.
 */
SEC("tc")
int arm(struct __sk_buff *skb)
{
	struct bpf_sock *client = NULL, *a = NULL, *b = NULL, *upstream = NULL;
	struct tcp_sock *client_tcp, *a_tcp, *b_tcp, *upstream_tcp;
	struct carriage carriage = {};
	struct arming request;
	struct membership *member;
	struct opened *opened;
	struct flow_key incoming, v4;
	struct leg leg;
	struct pair *pair;
	enum unfit why = UNFIT_GONE;
	bool v6;

	if (bpf_skb_load_bytes(skb, FRAME, &request, sizeof(request)))
		return FAILED;
	pair = bpf_map_lookup_elem(&pairs, &request.pair);
	if (!pair)
		return unfit(skb, UNFIT_FULL);
	map_v4(v4.source, 0);
	__builtin_memcpy(v4.source + 12, request.client.source + 12, 4);
	v6 = !same_address(request.client.source, v4.source);
	client = sender(skb, &request.client, v6);
	a = receiver(skb, &request.client, v6);
	b = sender(skb, &request.upstream, v6);
	if (!client || !a || !b)
		goto out;
	client_tcp = bpf_skc_to_tcp_sock(client);
	a_tcp = bpf_skc_to_tcp_sock(a);
	b_tcp = bpf_skc_to_tcp_sock(b);
	if (!client_tcp || !a_tcp || !b_tcp)
		goto out;
	why = UNFIT_ENDING;
	if (client->state != BPF_TCP_ESTABLISHED || a->state != BPF_TCP_ESTABLISHED ||
	    b->state != BPF_TCP_ESTABLISHED)
		goto out;
	why = fill(pair, &request, v6, client_tcp, a_tcp, b_tcp);
	if (why)
		goto out;
	member = bpf_sk_storage_get(&members, b, NULL, 0);
	pair->state = member && member->plain ? PAIR_CARRIED : PAIR_ARMED;

	opened = bpf_sk_storage_get(&sockets, client, NULL, 0);
	pair->rule = opened ? opened->verdict.rule : 0;
	pair->generation = opened ? opened->verdict.generation : 0;

	reverse(&incoming, &request.upstream);
	/* Ours first: not one of their packets may leave unseen once others are translated. */
	why = UNFIT_FULL;
	if (!enlist(a, &request, ROLE_STAND_IN, WAY_DOWN) ||
	    !enlist(b, &request, ROLE_STAND_IN, WAY_UP))
		goto free;
	upstream = receiver(skb, &request.upstream, v6);
	if (pair->upstream_ifindex != settings.lo_ifindex) {
		/* Somebody took what should have left: what we translate would pass them by. */
		why = UNFIT_INTERCEPTED;
		if (upstream && upstream->state != BPF_TCP_LISTEN)
			goto free;
	} else {
		why = UNFIT_INTERFACE;
		upstream_tcp = upstream ? bpf_skc_to_tcp_sock(upstream) : NULL;
		if (!upstream_tcp)
			goto free;
		pair->ways[WAY_DOWN].sent = NEVER(pair->ways[WAY_DOWN].first);
		why = UNFIT_FULL;
		if (!enlist(upstream, &request, ROLE_SENDER, WAY_DOWN))
			goto free;
		pair->ways[WAY_DOWN].sent = sent_by(upstream_tcp);
	}
	leg = (struct leg){.pair = request.pair, .serial = request.serial, .way = WAY_DOWN};
	if (bpf_map_update_elem(&legs, &incoming, &leg, BPF_ANY))
		goto free;
	leg.way = WAY_UP;
	if (bpf_map_update_elem(&legs, &request.client, &leg, BPF_ANY) ||
	    !enlist(client, &request, ROLE_SENDER, WAY_UP))
		goto free;
	/* All that comes behind is carried. */
	pair->ways[WAY_UP].sent = sent_by(client_tcp);
	silence(pair, a_tcp, b_tcp);
	why = UNFIT_NOT;
	report(&carriage, pair);
	goto out;
free:
	/* The index will be another's. */
	pair->state = PAIR_FREE;
	bpf_map_delete_elem(&legs, &incoming);
	bpf_map_delete_elem(&legs, &request.client);
out:
	if (client)
		bpf_sk_release(client);
	if (a)
		bpf_sk_release(a);
	if (b)
		bpf_sk_release(b);
	if (upstream)
		bpf_sk_release(upstream);
	return why ? unfit(skb, why) : answer(skb, &carriage);
}

#endif
