/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What is counted for each rule; by the steering, and by splice for what that no longer sees. */
#ifndef TPROXY_RULE_COUNTS_H
#define TPROXY_RULE_COUNTS_H

#include "contract.h"

/* Written by: the process. Read by: wan_egress, carry. Bounded: one entry. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

/* Of rules that follow each other. The kernel allocates each entry of a map by itself, for every
 * processor: 32 768 would take 50 ms on two, and more on more. */
struct rule_counts {
	struct rule_count of[LIMIT_COUNTED];
};

/* Of one list: its rules and the default. */
#define RULE_COUNTS (LIMIT_RULES / LIMIT_COUNTED + 1)

/* Packets by the rule that decided them, the default first, for lists of even and of odd
 * generations: while one takes the place of the other, both count. Written by: wan_egress, carry;
 * the process clears. Read by: the process. Bounded: by the longest list. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * RULE_COUNTS);
	__type(key, __u32);
	__type(value, struct rule_counts);
} rule_counts SEC(".maps");

/* Notes a packet, from its IP header on, for the rule that decided it, unless that belongs to a
 * list that is no longer in force. */
static __always_inline void count_rule(const struct __sk_buff *skb, __u32 network,
				       const struct control *state, __u32 rule, __u32 generation)
{
	__u32 index = rule / LIMIT_COUNTED + (generation & 1) * RULE_COUNTS;
	struct rule_counts *counts;
	struct rule_count *count;

	/* This list, or the one that takes its place. */
	if (generation - state->generation > 1)
		return;
	counts = bpf_map_lookup_elem(&rule_counts, &index);
	if (!counts)
		return;
	count = &counts->of[rule % LIMIT_COUNTED];
	count->packets += 1;
	count->bytes += skb->len - network;
}

#endif
