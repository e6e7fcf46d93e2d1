/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What becomes of a packet of a pair. */
#ifndef TPROXY_CARRY_H
#define TPROXY_CARRY_H

#include "ends.h"
#include "kernel.h"
#include "rule_counts.h"
#include "segment.h"
#include "silence.h"

/* Under the lock, or `settle` might find the pair spliced after its end. */
static __always_inline void end_pair(struct pair *pair, __u32 index, enum pair_state state)
{
	bpf_spin_lock(&pair->lock);
	pair->state = state;
	bpf_spin_unlock(&pair->lock);
	tell(index, pair);
}

/*
 * Whether the receiver takes what a segment says, of which anybody may be the author: it lies in
 * the window (tcp_sequence() of net/ipv4/tcp_input.c), and a reset where the next byte is due
 * (RFC 5961, 3.2), or the FIN was (tcp_reset_check()). A receiver that misses some says what is due
 * to it, and is reset there.
 */
static __always_inline bool is_credible(const struct way *way, const struct segment *segment)
{
	__u32 seq = segment->seq + way->delta;

	if (!(segment->flags & TCP_RST))
		return !after(way->acked, segment->end + way->delta) && !after(seq, way->edge);
	if (seq == way->acked)
		return true;
	if (way->ended)
		return segment->seq == way->fin || segment->seq + 1 == way->fin;
	return segment->seq == way->first + (__u32)way->carried;
}

/* More than can be on its way to our sockets, unseen, while a pair is being armed. */
#define UNSEEN (1 << 20)

/* Up to where the sender of a way has sent, as far as we have seen. By lengths: of two numbers that
 * are 2 GB apart, none is after the other. */
static __always_inline __u32 sent_so_far(const struct way *way)
{
	__u32 before = way->sent - way->first;

	return way->first + (way->carried < before ? before : (__u32)way->carried);
}

/* The same as long as our socket takes it, too, which may have room for more than the final
 * receiver has: near what is going on, or a stranger would need to know nothing but our port. */
static __always_inline bool is_likely(const struct way *way, const struct segment *segment)
{
	__u32 most = sent_so_far(way) + way->delta;

	if (after(way->edge, most))
		most = way->edge;
	/* A question whether somebody is there has the number before what is due. */
	return !after(way->acked, segment->end + way->delta + 1) &&
	       !after(segment->seq + way->delta, most + UNSEEN);
}

/* Nobody has had what was not sent, nor says again what is older than a window (RFC 5961, 5.2). */
static __always_inline bool acknowledges_sent(const struct way *back, const struct segment *segment)
{
	return !(segment->flags & TCP_ACK) ||
	       (!after(segment->ack, sent_so_far(back) + back->delta + UNSEEN) &&
		!after(back->acked - (0xffff << back->grow), segment->ack));
}

/* What passed may have been the last. Returns whether it is believed. */
static __always_inline bool note(struct pair *pair, __u32 index, __u32 way, __u32 state,
				 const struct segment *segment)
{
	struct way *this = &pair->ways[way & 1], *back = &pair->ways[!(way & 1)];
	__u32 end = segment->seq + segment->payload;
	__u32 acked = segment->ack - back->delta, edge;
	__s32 ahead;

	pair->seen = bpf_ktime_get_coarse_ns();
	if (!(state == PAIR_SPLICED ? is_credible(this, segment) : is_likely(this, segment)) ||
	    !acknowledges_sent(back, segment))
		return false;
	this->unheard = 0;
	if (segment->flags & TCP_FIN) {
		this->ended = 1;
		this->fin = segment->end;
	}
	/* What comes behind a FIN begins behind it. */
	if (this->ended && after(end, this->fin - 1))
		end = this->fin - 1;
	ahead = end - (this->first + (__u32)this->carried);
	/* An ACK that overtook the FIN told of a byte that there was not. */
	if (ahead > 0 || (ahead == -1 && segment->flags & TCP_FIN))
		this->carried += ahead;
	if (segment->flags & TCP_RST) {
		pair->by = way;
		end_pair(pair, index, PAIR_RESET);
		return true;
	}
	if (!(segment->flags & TCP_ACK))
		return true;
	if (after(segment->ack, back->acked))
		back->acked = segment->ack;
	edge = segment->ack + ((__u32)segment->window << back->grow);
	if (after(edge, back->edge))
		back->edge = edge;
	if (back->ended && !back->finished && !after(back->fin, acked)) {
		bool both;

		/* Both may be on two processors at once. */
		bpf_spin_lock(&pair->lock);
		back->finished = 1;
		both = this->finished;
		bpf_spin_unlock(&pair->lock);
		if (both)
			end_pair(pair, index, PAIR_CLOSED);
	}
	return true;
}

/* What a TCP header says of both ways. */
struct claims {
	__u32 seq;
	__u32 ack;
	__u16 window;
};

static __always_inline long restate(struct __sk_buff *skb, const struct segment *segment,
				    const struct claims *from, const struct claims *to)
{
	__u32 at = segment->transport, check = at + offsetof(struct tcphdr, check);
	__be32 old[2] = {bpf_htonl(from->seq), bpf_htonl(from->ack)};
	__be32 new[2] = {bpf_htonl(to->seq), bpf_htonl(to->ack)};
	__be16 window = bpf_htons(to->window);
	__s64 sum = bpf_csum_diff(old, sizeof(old), new, sizeof(new), 0);

	return bpf_skb_store_bytes(skb, at + offsetof(struct tcphdr, seq), new, sizeof(new), 0) ||
	       bpf_skb_store_bytes(skb, at + offsetof(struct tcphdr, window), &window, 2, 0) ||
	       bpf_l4_csum_replace(skb, check, 0, sum, 0) ||
	       bpf_l4_csum_replace(skb, check, bpf_htons(from->window), window, 2);
}

static __always_inline struct claims claims_of(const struct segment *segment)
{
	return (struct claims){segment->seq, segment->ack, segment->window};
}

/*
 * Has a segment of our socket say what holds by now.
 *
 * It acknowledges what the other end has taken. With an old number its timestamp would not be taken
 * either (tcp_ack() of net/ipv4/tcp_input.c), and an answer with the timestamp before makes our
 * socket believe, each time, that it need not have sent again (Eifel, RFC 3522): under loss it
 * would repeat one segment per timeout.
 *
 * It lets in no more than the other end does. What goes beyond that is lost, and only timeouts
 * bring it back.
 */
static __noinline long catch_up(struct __sk_buff *skb, const struct pair *pair, __u32 way,
				__u32 network)
{
	const struct way *back = &pair->ways[!(way & 1)];
	__u32 acked = back->acked - back->delta, edge = back->edge - back->delta, room;
	struct segment segment;
	struct claims own, now;

	if (!read_segment(skb, network, &segment, NULL) || !(segment.flags & TCP_ACK))
		return 0;
	own = now = claims_of(&segment);
	if (is_past(back) || after(acked, now.ack))
		now.ack = acked;
	room = after(edge, now.ack) ? (edge - now.ack) >> back->shrink : 0;
	if (room < now.window)
		now.window = room;
	if (now.ack == own.ack && now.window == own.window)
		return 0;
	return restate(skb, &segment, &own, &now);
}

/*
 * Lets our socket have an ACK as well, which it may wait for before it sends more. It would not
 * take one for what it has not sent, of which others may have brought a copy; nor one from beyond
 * its window, where its peer is when what it sends since has gone to the other end.
 */
static __noinline long copy_ack(struct __sk_buff *skb, const struct pair *pair, __u32 way,
				const struct segment *segment, __u64 ingress)
{
	struct bpf_sock *sk = sender(skb, &pair->to[!(way & 1)], pair->v6);
	struct claims own = claims_of(segment), copy = own;
	struct tcp_sock *tcp;
	__u32 mark = skb->mark;

	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		copy.seq = tcp->rcv_nxt;
		if (is_past(&pair->ways[!(way & 1)]) || after(segment->ack, tcp->snd_nxt))
			copy.ack = tcp->snd_nxt;
	}
	bpf_sk_release(sk);
	if (restate(skb, segment, &own, &copy))
		return -1;
	skb->mark = MARK_COPY;
	bpf_clone_redirect(skb, skb->ifindex, ingress);
	skb->mark = mark;
	return restate(skb, segment, &copy, &own);
}

/* Our socket may have taken more than the final receiver has room for, which would not take an ACK
 * from there. As tcp_acceptable_seq() of net/ipv4/tcp_output.c does, where the sender knows. */
static __always_inline void hold_back(struct segment *ack, const struct way *way)
{
	if (after(ack->seq + way->delta, way->edge))
		ack->seq = way->edge - way->delta;
}

/*
 * Our socket may have taken more from the final receiver than the sender of this segment has by
 * now: the rest is the process's to deliver. An ACK of so little may be older than the receiver
 * believes possible, who then throws away the segment with its bytes (RFC 5961, 5.2): so we say
 * again what our socket has said. What may be sent ends where it ended.
 */
static __noinline int keep_up(struct __sk_buff *skb, struct pair *pair, __u32 way,
			      struct segment *segment)
{
	struct bpf_sock *sk = sender(skb, &pair->to[way & 1], pair->v6);
	const struct way *back = &pair->ways[!(way & 1)];
	struct tcp_sock *tcp;

	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp && !is_past(back)) {
		__u32 room = (__u32)segment->window << back->grow, taken, more;

		/* What a silent one takes, nobody delivers. */
		bpf_spin_lock(&pair->lock);
		taken = pair->state == PAIR_CARRIED ? tcp->rcv_nxt + back->delta : segment->ack;
		bpf_spin_unlock(&pair->lock);
		more = taken - segment->ack;
		if (after(taken, segment->ack)) {
			segment->ack = taken;
			segment->window = room > more ? (room - more) >> back->grow : 0;
		}
	}
	bpf_sk_release(sk);
	return 0;
}

/* Whether a reset is where our socket or the final receiver expects the next byte: others are for
 * their receiver to ask about (RFC 5961, 3.2), also where anything near would be believed. */
static __noinline bool is_exact(struct __sk_buff *skb, const struct pair *pair, __u32 way,
				const struct segment *segment)
{
	struct bpf_sock *sk = sender(skb, &pair->to[!(way & 1)], pair->v6);
	struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	bool exact =
	    is_credible(&pair->ways[way & 1], segment) || (tcp && tcp->rcv_nxt == segment->seq);

	if (sk)
		bpf_sk_release(sk);
	return exact;
}

/* An ACK becomes a reset with the same numbers, which its receiver must believe (RFC 5961, 3). */
static __always_inline long make_reset(struct __sk_buff *skb, const struct segment *segment)
{
	__u32 at = segment->transport + offsetof(struct tcphdr, ack_seq) + 4;
	__be16 old, new;

	if (bpf_skb_load_bytes(skb, at, &old, 2))
		return -1;
	new = old | bpf_htons(TCP_RST);
	return bpf_skb_store_bytes(skb, at, &new, 2, 0) ||
	       bpf_l4_csum_replace(skb, segment->transport + offsetof(struct tcphdr, check), old,
				   new, 2);
}

/* What a program sent, for its rule. */
static __always_inline void count_sent(struct __sk_buff *skb, __u32 network, __u32 rule,
				       __u32 generation)
{
	__u32 zero = 0;
	struct control *state = bpf_map_lookup_elem(&control, &zero);

	trace_rule(rule, generation);
	if (state)
		count_rule(skb, network, state, rule, generation);
}

/* Whether another connection of ours has the port of this one, which is over: its answers are its
 * own, also an ACK with the old numbers, of an upstream that is to hear from it that they are
 * (RFC 9293, 3.10.7.3). */
static __always_inline bool is_taken(struct __sk_buff *skb, const struct pair *pair)
{
	struct bpf_sock *sk = sender(skb, &pair->to[WAY_UP], pair->v6);
	bool taken;

	if (!sk)
		return false;
	taken = !is_of(sk, pair);
	bpf_sk_release(sk);
	return taken;
}

enum outcome { LEFT, TRANSLATED, SPOILT };

/* A packet that a program or an upstream sent. Global: or the verifier would follow it from every
 * way that leads here. */
__noinline enum outcome carry(struct __sk_buff *skb, __u32 index, __u32 way,
			      struct segment *segment, __u64 ingress)
{
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);
	__u32 state;
	bool ours;

	if (!pair || !segment)
		return LEFT;
	state = *(volatile __u32 *)&pair->state;
	if (state == PAIR_ARMED) {
		/* By this answer we know the addresses of our socket on the wire. */
		__u32 next = segment->flags & (TCP_FIN | TCP_RST) ? PAIR_UNFIT : PAIR_CARRIED;

		/* Nor by what anybody may have sent. */
		if (segment->flags & TCP_SYN || (way == WAY_UP && next == PAIR_CARRIED) ||
		    !is_likely(&pair->ways[way & 1], segment) ||
		    !acknowledges_sent(&pair->ways[!(way & 1)], segment))
			return because(SPLICE_LEFT, LEFT);
		bpf_spin_lock(&pair->lock);
		if (pair->state == PAIR_ARMED)
			pair->state = next;
		state = pair->state;
		bpf_spin_unlock(&pair->lock);
		tell(index, pair);
	}
	if (state == PAIR_SEVERED || state == PAIR_CLOSED) {
		/* Until it is forgotten, its ports may be another connection's. */
		if (segment->flags & TCP_SYN || (way == WAY_DOWN && is_taken(skb, pair)))
			return because(SPLICE_STALE, LEFT);
	}
	if (state == PAIR_SEVERED) {
		if (way == WAY_DOWN || segment->payload || make_reset(skb, segment))
			return because(SPLICE_SEVERED, SPOILT);
	} else if (state == PAIR_CLOSED) {
		/* Whose last ACK was lost says FIN again, and is answered. */
		if (segment->end != pair->ways[way & 1].fin)
			return because(SPLICE_STALE, LEFT);
	} else if ((state != PAIR_CARRIED && state != PAIR_SPLICED) ||
		   (segment->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
		return because(SPLICE_LEFT, LEFT);
	} else if (segment->flags & TCP_SYN) {
		/* An upstream that has not heard the end of the handshake asks again, and says
		 * nothing until then. Our socket is silent; the program answers (RFC 5961, 4). */
	} else {
		/* What is not believed is for its receiver to judge, and none of our sockets'. */
		ours = (!(segment->flags & TCP_RST) || state == PAIR_SPLICED ||
			is_exact(skb, pair, way, segment)) &&
		       note(pair, index, way, state, segment) && state == PAIR_CARRIED;
		if (ours && segment->flags & TCP_ACK)
			ours = fall_silent(skb, pair, index) == PAIR_CARRIED;
		if (ours && !segment->payload && !(segment->flags & (TCP_FIN | TCP_RST))) {
			if (copy_ack(skb, pair, way, segment, ingress))
				return because(SPLICE_DROPPED, SPOILT);
			because(SPLICE_COPIED, 0);
			hold_back(segment, &pair->ways[way & 1]);
		} else if (way == WAY_UP) {
			/* Of what is copied, the steering counts the copy. */
			count_sent(skb, segment->network, pair->rule, pair->generation);
		}
		if (ours && segment->flags & TCP_ACK)
			keep_up(skb, pair, way, segment);
	}
	if (translate(skb, pair, way, segment))
		return because(SPLICE_DROPPED, SPOILT);
	return because(SPLICE_CARRIED, TRANSLATED);
}

#endif
