/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Segments of an upstream that come in fragments, as where a router on the way cuts what a sender
 * without path MTU discovery has made too long, or translates between IPv4 and IPv6 (RFC 7915). */
#ifndef TPROXY_FRAGMENTS_H
#define TPROXY_FRAGMENTS_H

#include "carry.h"

/* A segment of which the first fragment has come. */
struct cut_segment {
	__u32 pair;
	__u32 serial;
	__u64 seen;		/* ns, coarse */
	struct segment segment; /* but for where it ends */
};

/* A receiver waits as long for the rest of a datagram (ipfrag_time of the kernel); then its number
 * may be another's. */
#define CUT_NS 30000000000ull

/* Segments by the addresses of their fragments, and the number that these have in common in place
 * of the ports, which only the first has. Written and read by: splice_ingress. Bounded:
 * LIMIT_FRAGMENTED, least recently used first. Evicted, or come before the first: the fragment goes
 * to our socket, which is silent, and all is sent again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_FRAGMENTED);
	__type(key, struct flow_key);
	__type(value, struct cut_segment);
} cut_segments SEC(".maps");

static __always_inline void number_in_place_of_ports(struct packet *packet)
{
	packet->key.source_port = packet->fragment_id;
	packet->key.destination_port = packet->fragment_id >> 16;
}

/* What a fragment has of its segment: where it begins, how long it is, and whether more follows. */
struct extent {
	__u32 at;
	__u32 length;
	bool more;
};

static __always_inline bool is_fragment(struct __sk_buff *skb, __u32 network)
{
	__be16 part;
	__u8 next;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return !bpf_skb_load_bytes(skb, network + offsetof(struct iphdr, frag_off), &part,
					   2) &&
		       part & bpf_htons(IP_FRAGMENT_OFFSET | IP_MORE_FRAGMENTS);
	return skb->protocol == bpf_htons(ETH_P_IPV6) &&
	       !bpf_skb_load_bytes(skb, network + offsetof(struct ipv6hdr, nexthdr), &next, 1) &&
	       next == IPPROTO_FRAGMENT;
}

static __always_inline bool read_extent(struct __sk_buff *skb, const struct packet *packet,
					struct extent *extent)
{
	bool v6 = packet->ethertype == ETH_P_IPV6;
	__u32 network = packet->network, headers = packet->transport - network, part;
	__be16 field[2];

	/* The fragment header is the only one between. */
	if (v6 && headers != sizeof(struct ipv6hdr) + 8)
		return false;
	if (bpf_skb_load_bytes(skb, v6 ? packet->transport - 6 : network + 6, &field[0], 2) ||
	    bpf_skb_load_bytes(skb, network + (v6 ? 4 : 2), &field[1], 2))
		return false;
	part = bpf_ntohs(field[0]);
	extent->at = v6 ? part & 0xfff8 : (part & IP_FRAGMENT_OFFSET) * 8;
	extent->more = v6 ? part & 1 : part & IP_MORE_FRAGMENTS;
	extent->length = bpf_ntohs(field[1]) + (v6 ? sizeof(struct ipv6hdr) : 0);
	if (extent->length < headers)
		return false;
	extent->length -= headers;
	return true;
}

/* Reads what the first fragment tells. */
static __always_inline bool read_first(struct __sk_buff *skb, const struct packet *packet,
				       const struct extent *extent, struct segment *segment)
{
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(skb, packet->transport, &tcp, sizeof(tcp)) || tcp.doff < 5 ||
	    extent->length < tcp.doff * 4)
		return false;
	segment->network = packet->network;
	segment->transport = packet->transport;
	segment->words = tcp.doff;
	segment->flags = packet->flags;
	segment->seq = bpf_ntohl(tcp.seq);
	segment->ack = bpf_ntohl(tcp.ack_seq);
	segment->window = bpf_ntohs(tcp.window);
	return true;
}

/* Where the segment ends as far as this fragment has it. The FIN is behind all of it. */
static __always_inline void end_with(struct segment *segment, const struct extent *extent)
{
	if (extent->more)
		segment->flags &= ~TCP_FIN;
	segment->payload = extent->at + extent->length - segment->words * 4;
	segment->end = segment->seq + segment->payload + !!(segment->flags & TCP_FIN);
}

/*
 * Which fragment this is of what an upstream sent to a socket of ours that is silent, with the
 * segment as far as it goes; FRAGMENT_NONE: of none. Until our socket is silent, the kernel puts
 * its segments together for it, and the process relays what they bring. Global: or the verifier
 * would follow all that comes behind from each of the ways through it.
 */
__noinline enum fragment find_fragment(struct __sk_buff *skb, __u32 network, __u32 *index,
				       struct segment *segment)
{
	struct packet packet = {};
	struct cut_segment cut = {}, *known;
	struct extent extent;
	struct pair *pair;

	if (!index || !segment || skb->vlan_present ||
	    read_packet(skb, network, &packet) != READ_ALL || packet.protocol != IPPROTO_TCP ||
	    !read_extent(skb, &packet, &extent))
		return FRAGMENT_NONE;
	if (packet.fragment == FRAGMENT_LATER) {
		number_in_place_of_ports(&packet);
		known = bpf_map_lookup_elem(&cut_segments, &packet.key);
		if (!known || bpf_ktime_get_coarse_ns() - known->seen > CUT_NS)
			return FRAGMENT_NONE;
		cut = *known;
	} else {
		struct leg *leg = bpf_map_lookup_elem(&legs, &packet.key);

		/* What had this number before, the fragments that follow are none of. */
		number_in_place_of_ports(&packet);
		bpf_map_delete_elem(&cut_segments, &packet.key);
		if (!leg || leg->way != WAY_DOWN || packet.flags & (TCP_SYN | TCP_RST) ||
		    !read_first(skb, &packet, &extent, &cut.segment))
			return FRAGMENT_NONE;
		cut.pair = leg->pair;
		cut.serial = leg->serial;
		cut.seen = bpf_ktime_get_coarse_ns();
	}
	*index = cut.pair;
	pair = bpf_map_lookup_elem(&pairs, index);
	if (!pair || pair->serial != cut.serial || *(volatile __u32 *)&pair->state != PAIR_SPLICED)
		return FRAGMENT_NONE;
	*segment = cut.segment;
	end_with(segment, &extent);
	if (packet.fragment == FRAGMENT_LATER)
		return FRAGMENT_LATER;
	/* The only one needs no note, as what a translator may have made (RFC 6946). */
	if (extent.more)
		bpf_map_update_elem(&cut_segments, &packet.key, &cut, BPF_ANY);
	return FRAGMENT_FIRST;
}

/* Gives a later fragment the addresses of the other connection; it has nothing else of ours. */
static __always_inline long readdress(struct __sk_buff *skb, __u32 network, const struct pair *pair)
{
	const struct flow_key *to = &pair->to[WAY_DOWN];
	__u32 at = network + offsetof(struct iphdr, saddr);
	__be32 old[2], new[8];

	if (pair->same_addresses)
		return 0;
	if (pair->v6) {
		__builtin_memcpy(new, to->source, 16);
		__builtin_memcpy(new + 4, to->destination, 16);
		/* No checksum in this header makes up for it. */
		return bpf_skb_store_bytes(skb, network + offsetof(struct ipv6hdr, saddr), new, 32,
					   BPF_F_RECOMPUTE_CSUM);
	}
	if (bpf_skb_load_bytes(skb, at, old, sizeof(old)))
		return -1;
	__builtin_memcpy(&new[0], to->source + 12, 4);
	__builtin_memcpy(&new[1], to->destination + 12, 4);
	return bpf_skb_store_bytes(skb, at, new, 8, 0) ||
	       bpf_l3_csum_replace(skb, network + offsetof(struct iphdr, check), 0,
				   bpf_csum_diff(old, 8, new, 8, 0), 0);
}

/* Carries a fragment behind the first. */
static __noinline enum outcome carry_rest(struct __sk_buff *skb, __u32 index, __u32 network,
					  const struct segment *segment)
{
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);

	if (!pair)
		return LEFT;
	note(pair, index, WAY_DOWN, PAIR_SPLICED, segment);
	if (readdress(skb, network, pair))
		return because(SPLICE_DROPPED, SPOILT);
	return because(SPLICE_CARRIED, TRANSLATED);
}

#endif
