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

__u32 next;

static __always_inline int each(struct __sk_buff *skb, bool asked)
{
	__u32 index = next++ % PACKETS;
	struct question *given = bpf_map_lookup_elem(&packets, &index);
	__u32 *winner = bpf_map_lookup_elem(&winners, &index);
	struct question question;
	const struct verdict *verdict;

	if (!given || !winner)
		return TC_ACT_SHOT;
	question = *given;
	/* Both programs copy it. */
	asm volatile("" : : "r"(&question) : "memory");
	if (asked) {
		verdict = ask(skb, &question);
		*winner = verdict ? verdict->rule : ~0;
	} else {
		*winner = question.protocol;
	}
	return TC_ACT_OK;
}

SEC("tc")
int empty(struct __sk_buff *skb)
{
	return each(skb, false);
}

SEC("tc")
int bitvector(struct __sk_buff *skb)
{
	return each(skb, true);
}
