// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What a look-up costs: each run takes the next of many packets, so that no two in a row are alike.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "contract.h"
#include "rules.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define PACKETS 8192

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, struct question);
} packets SEC(".maps");

/* The rule that won, by packet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, __u32);
} winners SEC(".maps");

/* A rule as linear search looks at it. Addresses are v4-mapped, in halves, the one in which most
 * differ first. */
struct plain_rule {
	__u64 to[2];
	__u64 to_mask[2];
	__u64 from[2];
	__u64 from_mask[2];
	__u16 port_low;
	__u16 port_high;
	__u8 v6;
	__u8 protocol; /* 0: any */
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LIMIT_RULES);
	__type(key, __u32);
	__type(value, struct plain_rule);
} plain_rules SEC(".maps");

__u32 plain_count SEC(".data.plain");

struct scan {
	__u64 to[2];
	__u64 from[2];
	__u16 port;
	__u8 v6;
	__u8 protocol;
	__u32 winner;
};

static long compare_rule(__u32 index, struct scan *scan)
{
	const struct plain_rule *rule = bpf_map_lookup_elem(&plain_rules, &index);

	if (!rule)
		return 1;
	if ((scan->to[0] ^ rule->to[0]) & rule->to_mask[0])
		return 0;
	if ((scan->from[0] ^ rule->from[0]) & rule->from_mask[0])
		return 0;
	if (scan->v6 != rule->v6)
		return 0;
	if ((scan->to[1] ^ rule->to[1]) & rule->to_mask[1])
		return 0;
	if ((scan->from[1] ^ rule->from[1]) & rule->from_mask[1])
		return 0;
	if (rule->protocol && scan->protocol != rule->protocol)
		return 0;
	if (scan->port < rule->port_low || scan->port > rule->port_high)
		return 0;
	scan->winner = index + 1;
	return 1;
}

static __always_inline __u32 search_linearly(const struct question *question)
{
	const __u64 *to = (const __u64 *)question->key.destination;
	const __u64 *from = (const __u64 *)question->key.source;
	struct scan scan = {
	    .to = {to[1], to[0]},
	    .from = {from[1], from[0]},
	    .port = bpf_ntohs(question->key.destination_port),
	    .v6 = question->v6,
	    .protocol = question->protocol,
	};

	bpf_loop(plain_count, compare_rule, &scan, 0);
	return scan.winner;
}

enum way { NOTHING, LINEAR, BIT_VECTOR };

__u32 next;

static __always_inline int each(struct __sk_buff *skb, enum way way)
{
	__u32 index = next++ % PACKETS;
	struct question *given = bpf_map_lookup_elem(&packets, &index);
	__u32 *winner = bpf_map_lookup_elem(&winners, &index);
	struct question question;
	struct verdict verdict = {};

	if (!given || !winner)
		return TC_ACT_SHOT;
	question = *given;
	/* All programs copy it. */
	asm volatile("" : : "r"(&question) : "memory");
	if (way == BIT_VECTOR) {
		*winner = ask(skb, &question, &verdict) ? verdict.rule : ~0;
	} else if (way == LINEAR) {
		*winner = search_linearly(&question);
	} else {
		*winner = question.protocol;
	}
	return TC_ACT_OK;
}

SEC("tc")
int empty(struct __sk_buff *skb)
{
	return each(skb, NOTHING);
}

SEC("tc")
int linear(struct __sk_buff *skb)
{
	return each(skb, LINEAR);
}

SEC("tc")
int bitvector(struct __sk_buff *skb)
{
	return each(skb, BIT_VECTOR);
}
