/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Tells what a hook does with the packets of one destination, on request:
 *
 *   packet ──► trace_begin ──► the hook ──► trace_end ──► trace_events
 *
 * Who includes this names its map of reasons and their number: TRACE_COUNTERS, TRACE_REASONS. What
 * a packet is told to have met are those that were counted meanwhile on this processor, where no
 * other packet comes by until the hook returns, but a copy that the hook itself sends.
 */
#ifndef TPROXY_TRACE_H
#define TPROXY_TRACE_H

#include "contract.h"
#include "packet.h"

_Static_assert(TRACE_REASONS <= 64, "more reasons than an event has bits");

/* What is traced. Written by: the process. Read by: every hook, per packet. A variable, so that a
 * look costs one load where nothing is. */
volatile struct trace_target trace SEC(".data.trace") = {};

/* What a packet was before the hook that is running. Written by: trace_begin, trace_rule. Read by:
 * trace_end. Bounded: TRACE_DEPTH for each processor, for a hook may send a copy by other hooks
 * before it returns. */
#define TRACE_DEPTH 4

struct trace_start {
	bool wanted;
	__u8 flags;
	struct flow_key key;
	__u32 rule;
	__u32 generation;
	__u64 counts[TRACE_REASONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRACE_DEPTH);
	__type(key, __u32);
	__type(value, struct trace_start);
} trace_starts SEC(".maps");

/* How many hooks are running, and how many events were lost since the last that was told. Written
 * and read by: trace_begin, trace_end. Bounded: one for each processor. */
struct trace_state {
	__u32 depth;
	__u32 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_state);
} trace_states SEC(".maps");

/* What hooks did, as struct trace_event. Written by: trace_end. Read by: the process. Bounded:
 * LIMIT_TRACE. Full: the event is lost; the next of this processor says
 * how many were. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_TRACE);
} trace_events SEC(".maps");

static __always_inline struct trace_state *trace_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&trace_states, &zero);
}

/* Of the hook that is running, or of the one at this depth. */
static __always_inline struct trace_start *trace_start(__u32 depth)
{
	__u32 key = (depth - 1) % TRACE_DEPTH;

	return bpf_map_lookup_elem(&trace_starts, &key);
}

/* How often a reason was counted on this processor so far. */
static __always_inline __u64 trace_counted(__u32 reason)
{
	__u64 *value = bpf_map_lookup_elem(&TRACE_COUNTERS, &reason);

	return value ? *value : 0;
}

static __always_inline bool trace_load(struct __sk_buff *skb, __u32 offset, void *to, __u32 size)
{
	return !bpf_skb_load_bytes_relative(skb, offset, to, size, BPF_HDR_START_NET);
}

/* The addresses of a packet; and its ports, where they follow the IP header at once. */
static __always_inline bool trace_read(struct __sk_buff *skb, struct flow_key *key, __u8 *protocol,
				       __u8 *flags)
{
	__u32 transport;
	__be16 ports[2];

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (!trace_load(skb, 0, &ip, sizeof(ip)))
			return false;
		map_v4(key->source, ip.saddr);
		map_v4(key->destination, ip.daddr);
		*protocol = ip.protocol;
		transport = ip.ihl * 4;
		if (ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
			return true;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!trace_load(skb, offsetof(struct ipv6hdr, nexthdr), protocol, 1) ||
		    !trace_load(skb, offsetof(struct ipv6hdr, saddr), key->source, 16) ||
		    !trace_load(skb, offsetof(struct ipv6hdr, daddr), key->destination, 16))
			return false;
		transport = sizeof(struct ipv6hdr);
	} else {
		return false;
	}
	if (*protocol != IPPROTO_TCP && *protocol != IPPROTO_UDP)
		return true;
	if (!trace_load(skb, transport, ports, sizeof(ports)))
		return false;
	key->source_port = ports[0];
	key->destination_port = ports[1];
	return *protocol != IPPROTO_TCP || trace_load(skb, transport + 13, flags, 1);
}

static __always_inline bool trace_is(const __u8 address[16], __be16 port)
{
	__u32 is[4], wanted[4];

	__builtin_memcpy(is, address, 16);
	__builtin_memcpy(wanted, (const void *)trace.address, 16);
	return is[0] == wanted[0] && is[1] == wanted[1] && is[2] == wanted[2] &&
	       is[3] == wanted[3] && (!trace.port || trace.port == port);
}

static __always_inline bool trace_wants(const struct flow_key *key)
{
	return trace_is(key->destination, key->destination_port) ||
	       trace_is(key->source, key->source_port);
}

__noinline int trace_note(struct __sk_buff *skb)
{
	struct trace_state *state = trace_state();
	struct trace_start *start = state ? trace_start(++state->depth) : NULL;
	__u8 protocol, flags = 0;

	if (!start)
		return 0;
	__builtin_memset(&start->key, 0, sizeof(start->key));
	start->rule = 0;
	start->generation = 0;
	start->wanted = trace_read(skb, &start->key, &protocol, &flags) && trace_wants(&start->key);
	start->flags = flags;
	/* Unwanted, too: what is spliced may become a packet of the target by this hook. */
	for (__u32 reason = 0; reason < TRACE_REASONS; reason++)
		start->counts[reason] = trace_counted(reason);
	return 0;
}

__noinline int trace_tell(struct __sk_buff *skb, enum hook hook, int returned)
{
	struct trace_state *state = trace_state();
	struct trace_start *start = state ? trace_start(state->depth--) : NULL;
	struct trace_event *event;

	if (!start)
		return 0;
	event = bpf_ringbuf_reserve(&trace_events, sizeof(*event), 0);
	if (!event) {
		state->lost += start->wanted;
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	if (!trace_read(skb, &event->after, &event->protocol, &event->flags) ||
	    (!start->wanted && !trace_wants(&event->after))) {
		bpf_ringbuf_discard(event, 0);
		return 0;
	}
	event->before = start->key;
	event->flags_before = start->flags;
	event->lost = state->lost;
	state->lost = 0;
	event->rule = start->rule;
	event->generation = start->generation;
	event->time = bpf_ktime_get_ns();
	event->hook = hook;
	event->returned = returned;
	event->ifindex = skb->ifindex;
	event->length = skb->len;
	for (__u32 reason = 0; reason < TRACE_REASONS; reason++)
		if (trace_counted(reason) != start->counts[reason])
			event->reasons |= 1ull << reason;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* To be called before a hook does anything. Returns whether that is traced. */
static __always_inline bool trace_begin(struct __sk_buff *skb)
{
	return trace.on && !trace_note(skb);
}

/* To be called with what trace_begin and the hook returned; returns the latter. */
static __always_inline int trace_end(struct __sk_buff *skb, enum hook hook, bool traced,
				     int returned)
{
	if (traced)
		trace_tell(skb, hook, returned);
	return returned;
}

/* The rule that decides this packet. */
static __always_inline void trace_rule(__u32 rule, __u32 generation)
{
	struct trace_state *state = trace.on ? trace_state() : NULL;
	struct trace_start *start = state ? trace_start(state->depth) : NULL;

	if (start) {
		start->rule = rule;
		start->generation = generation;
	}
}

#endif
