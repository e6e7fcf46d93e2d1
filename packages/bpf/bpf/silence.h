/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Our sockets fall silent as soon as nothing is left for them to do. */
#ifndef TPROXY_SILENCE_H
#define TPROXY_SILENCE_H

#include "ends.h"
#include "kernel.h"

/* RCV_SHUTDOWN of include/net/sock.h. */
#define RECEIVE_SHUTDOWN 1

/* Whether more was carried than a window holds, which is 1 GB at most (RFC 7323, 2.3): what our
 * sockets had in hand is acknowledged since long. Their numbers stand still meanwhile, and of two
 * numbers that are 2 GB apart, none is after the other. */
static __always_inline bool is_past(const struct way *way)
{
	return way->carried >> 31;
}

/* What one end of a way has taken and the other has not had yet is still the process's to deliver.
 */
static __always_inline bool delivered(const struct way *way, const struct tcp_sock *from,
				      const struct tcp_sock *to)
{
	__u32 acked = after(way->acked, to->snd_una) ? way->acked : to->snd_una;
	bool passed_on =
	    from->copied_seq == from->rcv_nxt && from->copied_seq + way->delta == to->write_seq;

	if (is_past(way))
		return passed_on;
	/* What had been sent by then may still be on its way to our socket, which would take it and
	 * not say so: its sender would repeat it after a timeout. Or it was lost there, and was
	 * carried when it came again. */
	if (after(way->sent, from->rcv_nxt) && after(way->sent + way->delta, acked))
		return false;
	return passed_on && !after(to->write_seq, acked);
}

/* A FIN that was on its way to our socket when the pair was armed was relayed, and not seen. */
static __always_inline void note_end(struct way *way, const struct tcp_sock *from)
{
	if (!(((const struct sock *)from)->sk_shutdown & RECEIVE_SHUTDOWN) || way->ended)
		return;
	way->ended = 1;
	way->finished = 1;
	way->fin = from->rcv_nxt;
}

/* What an end has told our socket, and no packet that was carried. */
static __always_inline void note_heard(struct way *way, const struct tcp_sock *to)
{
	__u32 edge = to->snd_una + to->snd_wnd;

	if (is_past(way))
		return;
	if (after(to->snd_una, way->acked))
		way->acked = to->snd_una;
	if (after(edge, way->edge))
		way->edge = edge;
}

/* Silences our sockets if they have nothing left to do; whether it did. */
static __always_inline bool silence(struct pair *pair, const struct tcp_sock *towards_client,
				    const struct tcp_sock *towards_upstream)
{
	bool done = false;

	bpf_spin_lock(&pair->lock);
	if (pair->state == PAIR_CARRIED &&
	    delivered(&pair->ways[WAY_UP], towards_client, towards_upstream) &&
	    delivered(&pair->ways[WAY_DOWN], towards_upstream, towards_client)) {
		pair->state = PAIR_SPLICED;
		note_heard(&pair->ways[WAY_UP], towards_upstream);
		note_heard(&pair->ways[WAY_DOWN], towards_client);
		note_end(&pair->ways[WAY_UP], towards_client);
		note_end(&pair->ways[WAY_DOWN], towards_upstream);
		done = true;
	}
	bpf_spin_unlock(&pair->lock);
	return done;
}

/* Looks, for a packet that may have brought what was missing, whether our sockets have anything
 * left to do. Returns the state of the pair. */
static __noinline __u32 fall_silent(struct __sk_buff *skb, struct pair *pair, __u32 index)
{
	struct bpf_sock *a = sender(skb, &pair->to[WAY_DOWN], pair->v6);
	struct bpf_sock *b = sender(skb, &pair->to[WAY_UP], pair->v6);
	struct tcp_sock *a_tcp, *b_tcp;

	if (a && b && is_of(a, pair) && is_of(b, pair)) {
		a_tcp = bpf_skc_to_tcp_sock(a);
		b_tcp = bpf_skc_to_tcp_sock(b);
		if (a_tcp && b_tcp && silence(pair, a_tcp, b_tcp))
			tell(index, pair);
	}
	if (a)
		bpf_sk_release(a);
	if (b)
		bpf_sk_release(b);
	return *(volatile __u32 *)&pair->state;
}

#endif
