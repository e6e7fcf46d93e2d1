// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What a remembered verdict costs: each run asks about the next of many destinations. */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "contract.h"
#include "recall.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define DESTINATIONS 8192

__u32 next;
__u32 found SEC(".data.found");

static __always_inline int each(bool asks, __u32 remembers)
{
	struct flow_key key = {.destination_port = bpf_htons(443)};
	struct verdict verdict = {};
	__u32 index = next++ % DESTINATIONS;

	__builtin_memcpy(key.destination, &index, sizeof(index));
	/* All programs make it. */
	asm volatile("" : : "r"(&key) : "memory");
	if (asks && recall(&key, 0, remembers, &verdict))
		found++;
	return TC_ACT_OK;
}

__u32 nothing SEC(".data.nothing");

SEC("tc")
int empty(struct __sk_buff *skb)
{
	return each(false, 0);
}

/* Nothing is remembered, which is known at run time only. */
SEC("tc")
int unused(struct __sk_buff *skb)
{
	return each(true, *(volatile __u32 *)&nothing);
}

SEC("tc")
int destination(struct __sk_buff *skb)
{
	return each(true, MEMORY_BY_DESTINATION);
}

/* The second look, after one for the port that finds nothing. */
SEC("tc")
int address(struct __sk_buff *skb)
{
	return each(true, MEMORY_BY_DESTINATION | MEMORY_BY_ADDRESS);
}
