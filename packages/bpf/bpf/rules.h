/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the rules say of a packet: the first that matches, found in a compiled list. */
#ifndef TPROXY_RULES_H
#define TPROXY_RULES_H

#include "maps.h"

/* What rules ask of a packet. */
struct question {
	struct flow_key key;
	__u8 v6;
	__u8 protocol;
	__u8 dscp;
	__u8 has_ports;
	/* The rest counts only with extended rules. */
	__u32 ifindex;
	__u32 mark;
	__u32 has_uid;
	__u32 has_owner;
	__u32 uid;
	__u32 gid;
	char name[16];
} __attribute__((aligned(8)));

/* Number of trailing zeros (Leiserson, Prokop, Randall, "Using de Bruijn sequences to index a 1 in
 * a computer word", 1998); BPF has no instruction for it. */
static const __u8 trailing_zeros_of[64] = {
    0,	1,  48, 2,  57, 49, 28, 3,  61, 58, 50, 42, 38, 29, 17, 4,  62, 55, 59, 36, 53, 51,
    43, 22, 45, 39, 33, 30, 24, 18, 12, 5,  63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
    44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,  13, 8,  7,	6,
};

static __always_inline __u32 trailing_zeros(__u64 word)
{
	return trailing_zeros_of[((word & -word) * 0x03f79d71b4cb0a89) >> 58];
}

/* Number of ones, for which BPF has no instruction either (Warren, "Hacker's Delight", 5-1). */
static __always_inline __u32 population(__u64 word)
{
	word -= word >> 1 & 0x5555555555555555;
	word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return word * 0x0101010101010101 >> 56;
}

/* All ones for what is not negative; what the compiler cannot take for a comparison and branch on.
 */
#define NOT_NEGATIVE(value)                                                                        \
	({                                                                                         \
		__s64 sign = (value) >> 63;                                                        \
		barrier_var(sign);                                                                 \
		~sign;                                                                             \
	})

/* What is zero becomes another word; returns whether it did. */
static __always_inline __u32 fall_to(__u64 *bits, __u64 other)
{
	__u64 none = NOT_NEGATIVE((__s64)(*bits | -*bits));

	*bits |= other & none;
	return none & 1;
}

#define PACKET_ROWS 4
#define OWNER_ROWS  7
#define NO_RULE	    0xffff

/* Positions of the rows of one packet. */
struct rows {
	__u32 of[PACKET_ROWS + OWNER_ROWS];
	__u32 count; /* of these that count */
};

/* The first rule so far, and where others may be. */
struct search {
	__u64 candidates; /* what of the rows may not be zero, as in their summaries */
	__u32 best;
};

/*
 * The list in force is the one in the smallest of these maps that has one. Written by: the process,
 * which removes the old list from its map only after the new one is in another: so there is always
 * one, and it is found whole. Read by: wan_egress. Bounded: by their size, and the process refuses
 * rules that need more.
 */
#define LIST(name) name##_small
#define LIST_SIZE  CAPACITY_SMALL
#include "lookup.h"

#define LIST(name) name##_medium
#define LIST_SIZE  CAPACITY_MEDIUM
#include "lookup.h"

#define LIST(name) name##_large
#define LIST_SIZE  CAPACITY_LARGE
#include "lookup.h"

#define LIST(name) name##_huge
#define LIST_SIZE  CAPACITY_HUGE
#include "lookup.h"

static __always_inline void *list_in(void *lists)
{
	__u32 zero = 0;
	void *list = bpf_map_lookup_elem(lists, &zero);

	return list ? bpf_map_lookup_elem(list, &zero) : NULL;
}

/* What applies to a packet; false: no list is in force. */
static __always_inline bool ask(struct __sk_buff *skb, const struct question *question,
				struct verdict *verdict)
{
	void *list;

	if ((list = list_in(&rules_small)))
		ask_small(skb, list, question, verdict);
	else if ((list = list_in(&rules_medium)))
		ask_medium(skb, list, question, verdict);
	else if ((list = list_in(&rules_large)))
		ask_large(skb, list, question, verdict);
	else if ((list = list_in(&rules_huge)))
		ask_huge(skb, list, question, verdict);
	return list;
}

#endif
