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
#include "pair.h"

#define TRACE_COUNTERS splice_counters
#define TRACE_REASONS  SPLICE_MAX
#include "trace.h"

#include "admit.h"
#include "arm.h"
#include "carry.h"
#include "fragments.h"
#include "refer.h"
#include "sever.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* tcx: let the next program on the hook see the packet. */
#define NEXT TC_ACT_UNSPEC

/* Whether there is no pair, so that nothing need be looked up. Written by: the process, before it
 * arms the first and when it has forgotten the last. Read by: every hook, per packet. A variable,
 * so that a look costs one load. It begins as false: a process before may have left pairs. */
volatile __u32 vacant SEC(".data.vacant") = 0;

static __always_inline struct pair *pair_of_member(const struct membership *member, __u32 *index)
{
	struct pair *pair;

	*index = member->pair;
	pair = bpf_map_lookup_elem(&pairs, index);
	return pair && pair->serial == member->serial ? pair : NULL;
}

static __always_inline struct pair *pair_of_leg(const struct flow_key *key, __u32 way, __u32 *index)
{
	struct leg *leg = bpf_map_lookup_elem(&legs, key);
	struct pair *pair;

	if (!leg || leg->way != way)
		return NULL;
	*index = leg->pair;
	pair = bpf_map_lookup_elem(&pairs, index);
	return pair && pair->serial == leg->serial ? pair : NULL;
}

/* A packet of a socket of ours: what it says is out of date once the ends talk to each other. */
static __always_inline int stand_in(struct __sk_buff *skb, struct pair *pair, __u32 way,
				    __u32 network)
{
	__u32 state;

	bpf_spin_lock(&pair->lock);
	state = pair->state;
	bpf_spin_unlock(&pair->lock);
	if (state >= PAIR_SPLICED && state != PAIR_UNFIT)
		return because(SPLICE_SILENCED, TC_ACT_SHOT);
	if (state == PAIR_CARRIED && catch_up(skb, pair, way, network))
		return because(SPLICE_DROPPED, TC_ACT_SHOT);
	return NEXT;
}

/* A connection of ours begins: notes whether its packets carry the addresses that its socket has.
 */
static __noinline void note_opening(struct __sk_buff *skb, __u32 network)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct membership *member;
	struct opened *opened;
	struct flow_key wire = {}, own = {};
	struct segment segment;
	bool same;

	if (!sk || sk->protocol != IPPROTO_TCP)
		return;
	opened = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	/* A program's. */
	if (opened && !opened->exempt)
		return;
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

/* Who connects has these addresses for itself: a connection that the kernel carries for them was
 * let go of without a word, or given up long ago. Its upstream hears a reset when it says
 * something. */
static __noinline void supersede(struct __sk_buff *skb, __u32 network)
{
	struct flow_key key = {};
	struct segment segment;
	bool lasts;
	struct pair *pair;
	__u32 index;

	if (!read_segment(skb, network, &segment, &key))
		return;
	pair = pair_of_leg(&key, WAY_UP, &index);
	if (!pair)
		return;
	bpf_spin_lock(&pair->lock);
	lasts = pair->state == PAIR_CARRIED || pair->state == PAIR_SPLICED;
	if (lasts) {
		pair->state = PAIR_RESET;
		pair->by = WAY_UP;
	}
	bpf_spin_unlock(&pair->lock);
	if (lasts)
		tell(index, pair);
}

/* Into an interface, as if received there. Its link layer header, if any, is in place. */
static __always_inline int receive_by(struct __sk_buff *skb, const struct device *device)
{
	if (device->has_mac && bpf_skb_store_bytes(skb, 0, device->mac, ETH_ALEN, 0))
		return because(SPLICE_DROPPED, TC_ACT_SHOT);
	skb->mark = 0;
	return bpf_redirect(device->ifindex, BPF_F_INGRESS);
}

/* Routes change, and nobody tells us. */
#define HOP_NS 5000000000ull

/* Notes where the kernel sends what is for the upstream. */
static __always_inline void learn_hop(struct __sk_buff *skb, struct pair *pair, __u32 network)
{
	if (network && skb->ifindex == pair->upstream_ifindex &&
	    !bpf_skb_load_bytes(skb, 0, pair->hop, ETH_ALEN))
		pair->hop_seen = bpf_ktime_get_coarse_ns();
}

/* Whether a frame for the destination goes to the upstream's next hop, too: mostly both are the
 * default gateway. Then it need not be routed again, which costs more than all else here. */
static __always_inline bool has_hop(struct __sk_buff *skb, const struct pair *pair, __u32 network)
{
	__u16 hop[ETH_ALEN / 2];

	return network && pair->upstream_ifindex == skb->ifindex &&
	       pair->seen - pair->hop_seen < HOP_NS && !bpf_skb_load_bytes(skb, 0, hop, ETH_ALEN) &&
	       hop[0] == pair->hop[0] && hop[1] == pair->hop[1] && hop[2] == pair->hop[2];
}

/* Towards the upstream. */
static __always_inline int send_up(struct __sk_buff *skb, const struct pair *pair, __u32 network)
{
	struct ethhdr frame = {.h_proto = skb->protocol};

	if (pair->plain_path || has_hop(skb, pair, network))
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

/* Whether this is a copy that our socket gets; it is then at its goal, and an ordinary packet. */
static __always_inline bool is_copy(struct __sk_buff *skb)
{
	if (skb->mark != MARK_COPY)
		return false;
	skb->mark = 0;
	return true;
}

/* What the kernel sends for a socket that is gone has none, or one of the kernel's own that is not
 * connected (ip_send_unicast_reply() of net/ipv4/ip_output.c), or a listener's at the same port. */
static __always_inline bool may_send_for_others(const struct bpf_sock *sk)
{
	return sk->state == BPF_TCP_CLOSE || sk->state == BPF_TCP_LISTEN;
}

/* A packet on its way out: of a socket, or of the kernel for one that is gone. `way` is where those
 * of a pair go from here; ours go the other. */
static __always_inline int leave(struct __sk_buff *skb, __u32 network, __u32 way)
{
	struct bpf_sock *sk = skb->sk;
	struct membership *member;
	struct flow_key key = {};
	struct segment segment;
	enum outcome outcome;
	struct pair *pair;
	__u32 index = 0;
	bool returns;

	if (sk && sk->state == BPF_TCP_SYN_SENT) {
		note_opening(skb, network);
		if (way == WAY_UP && !vacant)
			supersede(skb, network);
		return NEXT;
	}
	if (way == WAY_DOWN && sk && sk->state == BPF_TCP_NEW_SYN_RECV)
		close_window(skb);
	/* Of the kernel, in nobody's name. */
	if (way == WAY_DOWN && sk && sk->state == BPF_TCP_CLOSE && is_premature(skb))
		return because(SPLICE_PREMATURE, TC_ACT_SHOT);
	if (vacant)
		return NEXT;
	member = sk && is_full(sk) ? bpf_sk_storage_get(&members, sk, NULL, 0) : NULL;
	if (member && member->role == ROLE_NONE)
		member = NULL;
	if (!member && sk && is_full(sk) && !may_send_for_others(sk))
		return NEXT;
	if (member) {
		pair = pair_of_member(member, &index);
		if (!pair)
			return NEXT;
		if (member->role == ROLE_STAND_IN)
			return stand_in(skb, pair, member->way, network);
		/* What takes its way to another next hop comes by here again; so does what leaves
		 * by an interface above this one (macvlan, bond), or by a tunnel: around it. */
		returns =
		    way == WAY_UP && (!pair->plain_path || skb->ifindex != pair->client_ifindex);
		if (!read_segment(skb, network, &segment, returns ? &key : NULL))
			return because(SPLICE_UNREADABLE, NEXT);
		if (returns && same_flow(&key, &pair->to[WAY_UP])) {
			learn_hop(skb, pair, network);
			return TC_ACT_OK;
		}
	} else {
		if (!read_segment(skb, network, &segment, &key))
			return NEXT;
		pair = pair_of_leg(&key, way, &index);
		if (!pair)
			return NEXT;
	}
	outcome = carry(skb, index, way, &segment, 0);
	if (outcome == TRANSLATED)
		return way == WAY_UP ? send_up(skb, pair, network) : send_down(skb, pair);
	return outcome == SPOILT ? TC_ACT_SHOT : NEXT;
}

/*
 * Egress of every intercepted interface, before the steering, to which a copy is left.
 *
 * NEXT: not of a pair, or to be relayed. TC_ACT_OK: translated. TC_ACT_REDIRECT: translated, and
 * its way is another. TC_ACT_SHOT: of a socket that is silent, or spoilt.
 */
SEC("tc")
int splice_egress(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_SPLICE_EGRESS, traced,
			 skb->mark == MARK_COPY ? NEXT : leave(skb, ETH_HLEN, WAY_UP));
}

/* Of an interface without link layer header. */
SEC("tc")
int splice_egress_bare(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_SPLICE_EGRESS, traced,
			 skb->mark == MARK_COPY ? NEXT : leave(skb, 0, WAY_UP));
}

/* Egress of lo, before the steering: our sockets towards the program, and upstreams on this host.
 */
SEC("tc")
int splice_loopback(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_SPLICE_LOOPBACK, traced,
			 is_copy(skb) ? NEXT : leave(skb, ETH_HLEN, WAY_DOWN));
}

/* Ingress of every intercepted interface. Returns as splice_egress does; NEXT when translated, too.
 */
static __always_inline int arrive(struct __sk_buff *skb, __u32 network)
{
	struct flow_key key = {};
	struct segment segment;
	enum outcome outcome;
	struct pair *pair;
	__u32 index = 0;

	if (is_copy(skb) || vacant)
		return NEXT;
	if (read_segment(skb, network, &segment, &key)) {
		if (!pair_of_leg(&key, WAY_DOWN, &index))
			return NEXT;
		outcome = carry(skb, index, WAY_DOWN, &segment, BPF_F_INGRESS);
	} else if (is_fragment(skb, network)) {
		switch (find_fragment(skb, network, &index, &segment)) {
		case FRAGMENT_FIRST:
			outcome = carry(skb, index, WAY_DOWN, &segment, BPF_F_INGRESS);
			break;
		case FRAGMENT_LATER:
			outcome = carry_rest(skb, index, network, &segment);
			break;
		default:
			return NEXT;
		}
	} else {
		outcome = refer(skb, network, &index);
	}
	pair = bpf_map_lookup_elem(&pairs, &index);
	if (outcome == TRANSLATED && pair)
		return send_down(skb, pair);
	return outcome == SPOILT ? TC_ACT_SHOT : NEXT;
}

SEC("tc")
int splice_ingress(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_SPLICE_INGRESS, traced, arrive(skb, ETH_HLEN));
}

SEC("tc")
int splice_ingress_bare(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_SPLICE_INGRESS, traced, arrive(skb, 0));
}
