// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Carries decided connections: translates the headers of what a program sends into those of our
 * connection to the upstream, and of what the upstream sends into those of the program's, so that
 * the two talk end to end (Maltz and Bhagwat, "TCP Splice for application layer proxy performance",
 * 1998). What it leaves alone, the steering programs and the process relay.
 *
 *   program ── splice_egress ──► network, or lo ── upstream
 *   program ◄── splice_ingress, or splice_loopback ◄── upstream
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>
#include "kernel.h"
#include "pair.h"
#include "segment.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* tcx: let the next program on the hook see the packet. */
#define NEXT TC_ACT_UNSPEC

/* A slot that no interface has: for the copy of an ACK that our socket gets. */
#define MARK_COPY (settings.mark | MARK_SLOT)

/* RCV_SHUTDOWN of include/net/sock.h. */
#define RECEIVE_SHUTDOWN 1

/* Answers of the programs that the process runs. */
enum { DONE = 0, FAILED = 1 };

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

/* Under the lock, or `settle` might find the pair spliced after its end. */
static __always_inline void end_pair(struct pair *pair, __u32 index, enum pair_state state)
{
	bpf_spin_lock(&pair->lock);
	pair->state = state;
	bpf_spin_unlock(&pair->lock);
	tell(index, pair);
}

/* What passed may have been the last. */
static __always_inline void note(struct pair *pair, __u32 index, __u32 way,
				 const struct segment *segment)
{
	struct way *this = &pair->ways[way & 1], *back = &pair->ways[!(way & 1)];
	__u32 end = segment->seq + segment->payload;
	__u32 acked = segment->ack - back->delta;
	__s32 ahead;

	pair->seen = bpf_ktime_get_coarse_ns();
	if (segment->flags & TCP_FIN) {
		this->ended = 1;
		this->fin = segment->end;
	}
	/* What comes behind a FIN begins behind it. */
	if (this->ended && after(end, this->fin - 1))
		end = this->fin - 1;
	ahead = end - (this->first + (__u32)this->carried);
	if (ahead > 0)
		this->carried += ahead;
	if (segment->flags & TCP_RST) {
		pair->by = way;
		end_pair(pair, index, PAIR_RESET);
		return;
	}
	if (!(segment->flags & TCP_ACK))
		return;
	if (after(segment->ack, back->acked))
		back->acked = segment->ack;
	if (back->ended && !back->finished && !after(back->fin, acked)) {
		back->finished = 1;
		if (this->finished) {
			end_pair(pair, index, PAIR_CLOSED);
		}
	}
}

static __always_inline long set_ack(struct __sk_buff *skb, const struct segment *segment,
				    __u32 from, __u32 to)
{
	__be32 old = bpf_htonl(from), new = bpf_htonl(to);

	return bpf_skb_store_bytes(skb, segment->transport + offsetof(struct tcphdr, ack_seq), &new,
				   4, 0) ||
	       bpf_l4_csum_replace(skb, segment->transport + offsetof(struct tcphdr, check), old,
				   new, 4);
}

/*
 * Lets our socket have an ACK as well, which it may wait for before it sends more. It would not
 * take one for what it has not sent, of which others may have brought a copy.
 */
static __noinline long copy_ack(struct __sk_buff *skb, const struct pair *pair, __u32 way,
				const struct segment *segment, __u64 ingress)
{
	struct bpf_sock *sk = sender(skb, &pair->to[!(way & 1)], pair->v6);
	struct tcp_sock *tcp;
	__u32 mark = skb->mark, sent = segment->ack;

	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp)
		sent = tcp->snd_nxt;
	bpf_sk_release(sk);
	if (after(segment->ack, sent) && set_ack(skb, segment, segment->ack, sent))
		return -1;
	skb->mark = MARK_COPY;
	bpf_clone_redirect(skb, skb->ifindex, ingress);
	skb->mark = mark;
	if (after(segment->ack, sent))
		return set_ack(skb, segment, sent, segment->ack);
	return 0;
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

enum outcome { LEFT, TRANSLATED, SPOILT };

/* A packet that a program or an upstream sent. */
static __noinline enum outcome carry(struct __sk_buff *skb, __u32 index, __u32 way,
				     const struct segment *segment, __u64 ingress)
{
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);
	__u32 state;

	if (!pair)
		return LEFT;
	state = *(volatile __u32 *)&pair->state;
	if (state == PAIR_ARMED) {
		/* By this answer we know the addresses of our socket on the wire. */
		__u32 next = segment->flags & (TCP_FIN | TCP_RST) ? PAIR_UNFIT : PAIR_CARRIED;

		if (segment->flags & TCP_SYN || (way == WAY_UP && next == PAIR_CARRIED))
			return because(SPLICE_LEFT, LEFT);
		bpf_spin_lock(&pair->lock);
		if (pair->state == PAIR_ARMED)
			pair->state = next;
		state = pair->state;
		bpf_spin_unlock(&pair->lock);
		tell(index, pair);
	}
	if (state == PAIR_SEVERED) {
		if (way == WAY_DOWN || segment->payload || make_reset(skb, segment))
			return because(SPLICE_SEVERED, SPOILT);
	} else if (state == PAIR_CLOSED) {
		/* Whose last ACK was lost says FIN again, and is answered. */
		if (segment->flags & TCP_SYN || segment->end != pair->ways[way & 1].fin)
			return because(SPLICE_STALE, LEFT);
	} else if ((state != PAIR_CARRIED && state != PAIR_SPLICED) || segment->flags & TCP_SYN) {
		return because(SPLICE_LEFT, LEFT);
	} else {
		note(pair, index, way, segment);
		if (state == PAIR_CARRIED && !segment->payload &&
		    !(segment->flags & (TCP_FIN | TCP_RST))) {
			if (copy_ack(skb, pair, way, segment, ingress))
				return because(SPLICE_DROPPED, SPOILT);
			because(SPLICE_COPIED, 0);
		}
	}
	if (translate(skb, pair, way, segment) ||
	    (!pair->same_addresses && readdress(skb, segment, &pair->to[way & 1], pair->v6)))
		return because(SPLICE_DROPPED, SPOILT);
	return because(SPLICE_CARRIED, TRANSLATED);
}

/* A packet of a socket of ours: what it says is out of date once the ends talk to each other. */
static __always_inline int stand_in(const struct membership *member)
{
	__u32 index = member->pair, state;
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);

	if (!pair || pair->serial != member->serial)
		return NEXT;
	bpf_spin_lock(&pair->lock);
	state = pair->state;
	bpf_spin_unlock(&pair->lock);
	if (state >= PAIR_SPLICED && state != PAIR_UNFIT)
		return because(SPLICE_SILENCED, TC_ACT_SHOT);
	return NEXT;
}

/* A connection begins: notes whether its packets carry the addresses that its socket has. */
static __noinline void note_opening(struct __sk_buff *skb, struct bpf_sock *sk, __u32 network)
{
	struct membership *member;
	struct flow_key wire = {}, own = {};
	struct segment segment;
	bool same;

	if (!read_segment(skb, network, &segment, &wire))
		return;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 source = sk->src_ip4, destination = sk->dst_ip4;

		/* Or the compiler shares a load with the other branch, by a computed address. */
		barrier_var(source);
		barrier_var(destination);
		map_v4(own.source, source);
		map_v4(own.destination, destination);
	} else {
		__be32 source[4] = {sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]};
		__be32 destination[4] = {sk->dst_ip6[0], sk->dst_ip6[1], sk->dst_ip6[2],
					 sk->dst_ip6[3]};

		__builtin_memcpy(own.source, source, 16);
		__builtin_memcpy(own.destination, destination, 16);
	}
	same = same_address(wire.source, own.source) &&
	       same_address(wire.destination, own.destination) &&
	       wire.source_port == bpf_htons(sk->src_port) && wire.destination_port == sk->dst_port;
	member = bpf_sk_storage_get(&members, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (member)
		member->plain = same;
}

/* The membership of who sends this packet, when that is a socket of a pair. */
static __always_inline struct membership *member_of(struct __sk_buff *skb, struct bpf_sock *sk,
						    __u32 network)
{
	struct membership *member;

	if (sk->protocol != IPPROTO_TCP)
		return NULL;
	if (sk->state == BPF_TCP_SYN_SENT) {
		note_opening(skb, sk, network);
		return NULL;
	}
	member = bpf_sk_storage_get(&members, sk, NULL, 0);
	return member && member->role != ROLE_NONE ? member : NULL;
}

/* Into an interface, as if received there. Its link layer header, if any, is in place. */
static __always_inline int receive_by(struct __sk_buff *skb, const struct device *device)
{
	if (device->has_mac && bpf_skb_store_bytes(skb, 0, device->mac, ETH_ALEN, 0))
		return because(SPLICE_DROPPED, TC_ACT_SHOT);
	skb->mark = 0;
	return bpf_redirect(device->ifindex, BPF_F_INGRESS);
}

/* Towards the upstream. */
static __always_inline int send_up(struct __sk_buff *skb, const struct pair *pair, __u32 network)
{
	struct ethhdr frame = {.h_proto = skb->protocol};

	if (pair->plain_path)
		return TC_ACT_OK;
	if (pair->upstream_ifindex != settings.lo_ifindex)
		return bpf_redirect_neigh(pair->upstream_ifindex, NULL, 0, 0);
	if (!network && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return because(SPLICE_DROPPED, TC_ACT_SHOT);
	/* lo's own address is zero, and only a frame to it is for this host. */
	if (bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
		return because(SPLICE_DROPPED, TC_ACT_SHOT);
	skb->mark = 0;
	return bpf_redirect(settings.lo_ifindex, BPF_F_INGRESS);
}

/*
 * Egress of every intercepted interface, before the steering.
 *
 * NEXT: not of a pair, or to be relayed. TC_ACT_OK: translated. TC_ACT_REDIRECT: translated, and
 * its way is another. TC_ACT_SHOT: of a socket that is silent, or spoilt.
 */
static __always_inline int leave(struct __sk_buff *skb, __u32 network)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct membership *member;
	struct flow_key key = {};
	struct segment segment;
	struct leg *leg;
	struct pair *pair;
	enum outcome outcome;
	__u32 index;

	if (skb->mark == MARK_COPY)
		return NEXT;
	if (sk) {
		member = member_of(skb, sk, network);
		if (!member)
			return NEXT;
		if (member->role == ROLE_STAND_IN)
			return stand_in(member);
		index = member->pair;
		pair = bpf_map_lookup_elem(&pairs, &index);
		if (!pair || pair->serial != member->serial)
			return NEXT;
		if (!read_segment(skb, network, &segment, pair->plain_path ? NULL : &key))
			return because(SPLICE_UNREADABLE, NEXT);
		/* A packet that takes its way to another next hop comes by here again. */
		if (!pair->plain_path && same_flow(&key, &pair->to[WAY_UP]))
			return TC_ACT_OK;
	} else {
		if (!read_segment(skb, network, &segment, &key))
			return NEXT;
		leg = bpf_map_lookup_elem(&legs, &key);
		if (!leg || leg->way != WAY_UP)
			return NEXT;
		index = leg->pair;
		pair = bpf_map_lookup_elem(&pairs, &index);
		if (!pair)
			return NEXT;
	}
	outcome = carry(skb, index, WAY_UP, &segment, 0);
	if (outcome == TRANSLATED)
		return send_up(skb, pair, network);
	return outcome == SPOILT ? TC_ACT_SHOT : NEXT;
}

SEC("tc")
int splice_egress(struct __sk_buff *skb)
{
	return leave(skb, ETH_HLEN);
}

/* Of an interface without link layer header. */
SEC("tc")
int splice_egress_bare(struct __sk_buff *skb)
{
	return leave(skb, 0);
}

/* Back to the program, by the interface where it expects that. */
static __always_inline int send_down(struct __sk_buff *skb, const struct pair *pair)
{
	struct device *device;
	__u32 ifindex = pair->client_ifindex;

	if (ifindex == skb->ifindex)
		return NEXT;
	device = bpf_map_lookup_elem(&hooked, &ifindex);
	return device ? receive_by(skb, device) : because(SPLICE_DROPPED, TC_ACT_SHOT);
}

/* Ingress of every intercepted interface. Returns as splice_egress does; NEXT when translated, too.
 */
static __always_inline int arrive(struct __sk_buff *skb, __u32 network)
{
	struct flow_key key = {};
	struct segment segment;
	enum outcome outcome;
	struct pair *pair;
	struct leg *leg;
	__u32 index;

	if (skb->mark == MARK_COPY) {
		skb->mark = 0;
		return NEXT;
	}
	if (!read_segment(skb, network, &segment, &key))
		return NEXT;
	leg = bpf_map_lookup_elem(&legs, &key);
	if (!leg || leg->way != WAY_DOWN)
		return NEXT;
	index = leg->pair;
	pair = bpf_map_lookup_elem(&pairs, &index);
	if (!pair)
		return NEXT;
	outcome = carry(skb, index, WAY_DOWN, &segment, BPF_F_INGRESS);
	if (outcome == TRANSLATED)
		return send_down(skb, pair);
	return outcome == SPOILT ? TC_ACT_SHOT : NEXT;
}

SEC("tc")
int splice_ingress(struct __sk_buff *skb)
{
	return arrive(skb, ETH_HLEN);
}

SEC("tc")
int splice_ingress_bare(struct __sk_buff *skb)
{
	return arrive(skb, 0);
}

/* Egress of lo, before the steering: our sockets towards the program, and upstreams on this host.
 */
SEC("tc")
int splice_loopback(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct membership *member;
	struct flow_key key = {};
	struct segment segment;
	enum outcome outcome;
	struct pair *pair;
	struct leg *leg;
	__u32 index;

	if (skb->mark == MARK_COPY) {
		skb->mark = 0;
		return NEXT;
	}
	if (sk) {
		member = member_of(skb, sk, ETH_HLEN);
		if (!member)
			return NEXT;
		if (member->role == ROLE_STAND_IN)
			return stand_in(member);
		index = member->pair;
		pair = bpf_map_lookup_elem(&pairs, &index);
		if (!pair || pair->serial != member->serial)
			return NEXT;
		if (!read_segment(skb, ETH_HLEN, &segment, NULL))
			return because(SPLICE_UNREADABLE, NEXT);
	} else {
		if (!read_segment(skb, ETH_HLEN, &segment, &key))
			return NEXT;
		leg = bpf_map_lookup_elem(&legs, &key);
		if (!leg || leg->way != WAY_DOWN)
			return NEXT;
		index = leg->pair;
		pair = bpf_map_lookup_elem(&pairs, &index);
		if (!pair)
			return NEXT;
	}
	outcome = carry(skb, index, WAY_DOWN, &segment, 0);
	if (outcome == TRANSLATED)
		return send_down(skb, pair);
	return outcome == SPOILT ? TC_ACT_SHOT : NEXT;
}

/* What one end of a way has taken and the other has not had yet is still the process's to deliver.
 */
static __always_inline bool delivered(const struct way *way, const struct tcp_sock *from,
				      const struct tcp_sock *to)
{
	__u32 acked = after(way->acked, to->snd_una) ? way->acked : to->snd_una;

	return from->copied_seq == from->rcv_nxt &&
	       from->copied_seq + way->delta == to->write_seq && !after(to->write_seq, acked);
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

/* Silences our sockets if they have nothing left to do. */
static __always_inline void silence(struct pair *pair, const struct tcp_sock *towards_client,
				    const struct tcp_sock *towards_upstream)
{
	bpf_spin_lock(&pair->lock);
	if (pair->state == PAIR_CARRIED &&
	    delivered(&pair->ways[WAY_UP], towards_client, towards_upstream) &&
	    delivered(&pair->ways[WAY_DOWN], towards_upstream, towards_client)) {
		pair->state = PAIR_SPLICED;
		note_end(&pair->ways[WAY_UP], towards_client);
		note_end(&pair->ways[WAY_DOWN], towards_upstream);
	}
	bpf_spin_unlock(&pair->lock);
}

static __always_inline void reverse(struct flow_key *to, const struct flow_key *key)
{
	__builtin_memcpy(to->source, key->destination, 16);
	__builtin_memcpy(to->destination, key->source, 16);
	to->source_port = key->destination_port;
	to->destination_port = key->source_port;
}

#define SIGNED(sk)                                                                                 \
	((bpf_core_field_exists((sk)->md5sig_info) && (sk)->md5sig_info) ||                        \
	 (bpf_core_field_exists((sk)->ao_info) && (sk)->ao_info))

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
	    BPF_CORE_READ_BITFIELD(client, tcp_usec_ts) || BPF_CORE_READ_BITFIELD(a, tcp_usec_ts) ||
	    BPF_CORE_READ_BITFIELD(b, tcp_usec_ts))
		return UNFIT_TIMESTAMPS;
	if (!BPF_CORE_READ_BITFIELD(a, rx_opt.sack_ok) !=
	    !BPF_CORE_READ_BITFIELD(b, rx_opt.sack_ok))
		return UNFIT_SACK;
	if (!a->ecn_flags != !b->ecn_flags)
		return UNFIT_ECN;
	if (client->mss_cache > b->mss_cache)
		return UNFIT_SEGMENTS;
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
	carriage->state = pair->state;
	carriage->by = pair->by;
	carriage->sent = pair->ways[WAY_UP].carried;
	carriage->received = pair->ways[WAY_DOWN].carried;
	carriage->half = pair->ways[WAY_UP].ended || pair->ways[WAY_DOWN].ended;
	carriage->idle_ns = bpf_ktime_get_coarse_ns() - pair->seen;
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
	up->delta = b->write_seq - up->first;
	down->first = b->copied_seq - request->unread_down;
	down->delta = a->write_seq - down->first;
	/* Both clocks are this host's. Of the upstream's, what it said last is the best we know. */
	up->clock_delta = b->tsoffset - client->tsoffset;
	down->clock_delta =
	    (__u32)(bpf_ktime_get_ns() / 1000000) + a->tsoffset - b->rx_opt.ts_recent;
	down->grow = BPF_CORE_READ_BITFIELD(a, rx_opt.snd_wscale);
	down->shrink = BPF_CORE_READ_BITFIELD(b, rx_opt.rcv_wscale);
	up->grow = BPF_CORE_READ_BITFIELD(b, rx_opt.snd_wscale);
	up->shrink = BPF_CORE_READ_BITFIELD(a, rx_opt.rcv_wscale);
	up->acked = b->snd_una;
	down->acked = a->snd_una;
	up->carried = down->carried = 0;
	up->ended = up->finished = down->ended = down->finished = 0;
	pair->seen = bpf_ktime_get_coarse_ns();
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
	struct tcp_sock *client_tcp, *a_tcp, *b_tcp;
	struct carriage carriage = {};
	struct arming request;
	struct membership *member;
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

	reverse(&incoming, &request.upstream);
	/* Ours first: not one of their packets may leave unseen once others are translated. */
	why = UNFIT_FULL;
	if (!enlist(a, &request, ROLE_STAND_IN, WAY_DOWN) ||
	    !enlist(b, &request, ROLE_STAND_IN, WAY_UP))
		goto free;
	if (pair->upstream_ifindex == settings.lo_ifindex) {
		upstream = receiver(skb, &request.upstream, v6);
		why = UNFIT_INTERFACE;
		if (!upstream || !bpf_skc_to_tcp_sock(upstream))
			goto free;
		why = UNFIT_FULL;
		if (!enlist(upstream, &request, ROLE_SENDER, WAY_DOWN))
			goto free;
	}
	leg = (struct leg){.pair = request.pair, .way = WAY_DOWN};
	if (bpf_map_update_elem(&legs, &incoming, &leg, BPF_ANY))
		goto free;
	leg.way = WAY_UP;
	if (bpf_map_update_elem(&legs, &request.client, &leg, BPF_ANY) ||
	    !enlist(client, &request, ROLE_SENDER, WAY_UP))
		goto free;
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
	if (pair->state == PAIR_CARRIED) {
		a = sender(skb, &pair->to[WAY_DOWN], pair->v6);
		b = sender(skb, &pair->to[WAY_UP], pair->v6);
		if (a && b) {
			a_tcp = bpf_skc_to_tcp_sock(a);
			b_tcp = bpf_skc_to_tcp_sock(b);
			if (a_tcp && b_tcp)
				silence(pair, a_tcp, b_tcp);
		}
		if (a)
			bpf_sk_release(a);
		if (b)
			bpf_sk_release(b);
	}
	client = receiver(skb, &pair->to[WAY_DOWN], pair->v6);
	carriage.alone = !client;
	if (client)
		bpf_sk_release(client);
	report(&carriage, pair);
	return answer(skb, &carriage);
}

/* A segment without payload, from the upstream as the program sees it. */
struct bare_segment {
	struct ethhdr frame;
	union {
		struct {
			struct iphdr ip;
			struct tcphdr tcp;
		} __attribute__((packed)) v4;
		struct {
			struct ipv6hdr ip;
			struct tcphdr tcp;
		} __attribute__((packed)) v6;
	};
} __attribute__((packed));

static __always_inline long write_segment(struct __sk_buff *skb, const struct pair *pair,
					  const __u8 mac[ETH_ALEN], const struct tcphdr *tcp)
{
	const struct flow_key *to = &pair->to[WAY_DOWN];
	struct pseudo_header pseudo = {
	    .length = bpf_htonl(sizeof(*tcp)),
	    .next = bpf_htonl(IPPROTO_TCP),
	};
	struct bare_segment segment = {};
	struct tcphdr header = *tcp;
	struct iphdr ip = {};
	__s64 sum;

	__builtin_memcpy(segment.frame.h_dest, mac, ETH_ALEN);
	segment.frame.h_proto = bpf_htons(pair->v6 ? ETH_P_IPV6 : ETH_P_IP);
	header.source = to->source_port;
	header.dest = to->destination_port;
	header.doff = sizeof(header) / 4;
	__builtin_memcpy(pseudo.source, to->source, 16);
	__builtin_memcpy(pseudo.destination, to->destination, 16);
	if (!pair->v6) {
		/* Mapped addresses would count more than those of four bytes. */
		__builtin_memset(pseudo.source, 0, 12);
		__builtin_memset(pseudo.destination, 0, 12);
	}
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	header.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&header, sizeof(header), sum));
	if (pair->v6) {
		segment.v6.ip.version = 6;
		segment.v6.ip.payload_len = bpf_htons(sizeof(header));
		segment.v6.ip.nexthdr = IPPROTO_TCP;
		segment.v6.ip.hop_limit = HOPS;
		__builtin_memcpy(&segment.v6.ip.saddr, to->source, 16);
		__builtin_memcpy(&segment.v6.ip.daddr, to->destination, 16);
		segment.v6.tcp = header;
		return bpf_skb_store_bytes(skb, 0, &segment,
					   sizeof(segment.frame) + sizeof(segment.v6), 0);
	}
	ip.version = 4;
	ip.ihl = sizeof(ip) / 4;
	ip.tot_len = bpf_htons(sizeof(segment.v4));
	ip.ttl = HOPS;
	ip.protocol = IPPROTO_TCP;
	__builtin_memcpy(&ip.saddr, to->source + 12, 4);
	__builtin_memcpy(&ip.daddr, to->destination + 12, 4);
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	segment.v4.ip = ip;
	segment.v4.tcp = header;
	return bpf_skb_store_bytes(skb, 0, &segment, sizeof(segment.frame) + sizeof(segment.v4), 0);
}

/*
 * Run by the process, with a pair and its serial in cb, on a frame as long as a segment without
 * payload: resets both ends. The program's socket gets a segment that it has had, which it answers
 * with an ACK that has the right numbers and takes the right way; that ACK becomes the upstream's
 * reset. Then it gets its own.
 */
SEC("tc")
int sever(struct __sk_buff *skb)
{
	__u32 index = skb->cb[0];
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);
	struct tcphdr header = {.ack = 1};
	struct device *device;
	struct tcp_sock *tcp;
	struct bpf_sock *client;
	__u32 ifindex, next, acked;
	__u8 mac[ETH_ALEN] = {};

	if (!pair || pair->serial != skb->cb[1])
		return DONE;
	bpf_spin_lock(&pair->lock);
	pair->state = PAIR_SEVERED;
	bpf_spin_unlock(&pair->lock);
	ifindex = pair->client_ifindex;
	device = bpf_map_lookup_elem(&hooked, &ifindex);
	client = receiver(skb, &pair->to[WAY_DOWN], pair->v6);
	if (!client)
		return DONE;
	tcp = bpf_skc_to_tcp_sock(client);
	if (!tcp || !device) {
		bpf_sk_release(client);
		return DONE;
	}
	next = tcp->rcv_nxt;
	acked = tcp->snd_una;
	bpf_sk_release(client);
	__builtin_memcpy(mac, device->mac, sizeof(mac));
	header.ack_seq = bpf_htonl(acked);
	header.seq = bpf_htonl(next - 1);
	if (write_segment(skb, pair, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	header.rst = 1;
	header.seq = bpf_htonl(next);
	if (write_segment(skb, pair, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	return DONE;
}
