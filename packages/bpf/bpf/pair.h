/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What is known of a spliced connection, and where. */
#ifndef TPROXY_PAIR_H
#define TPROXY_PAIR_H

#include <linux/if_ether.h>
#include "contract.h"
#include "packet.h"

/* Constant from load on. */
const volatile struct settings settings SEC(".rodata.settings");

/* For the copy of an ACK that our socket gets. */
#define MARK_COPY (settings.mark | SLOT_COPY)

/* One direction of a pair. Sequence numbers are those of whom the bytes come from. */
struct way {
	__u32 first; /* of the first byte that is carried */
	__u32 sent;  /* up to where a sender on this host may have sent when the pair was armed */
	__u32 delta; /* added, it becomes what the receiver expects */
	__u32 clock_delta; /* the same for timestamps */
	__u32 clock_first; /* the sender's timestamp before any that was carried */
	__u32 acked;	   /* what the final receiver has acknowledged, in its own numbers */
	__u32 edge;	   /* up to where it takes bytes, in the same */
	__u32 fin;	   /* behind its FIN, when ended */
	__u8 ended;
	__u8 finished; /* the FIN was acknowledged */
	__u8 unheard;  /* 1: nothing of this way was carried, and what is echoed is our socket's
			  clock */
	__u8 grow;     /* windows that the receiving end of this way announces: << grow >> shrink */
	__u8 shrink;
	__u64 carried; /* bytes */
};

/*
 * Byte k of what one end sends is byte k of what the other receives, so the sequence numbers of
 * both connections differ by constants, fixed at arming: relayed and translated copies of a byte
 * carry the same number, and a byte that arrives by both is a duplicate that TCP throws away.
 *
 * What a socket of ours has acknowledged, the process still has to deliver. Hence our sockets fall
 * silent only when the final receivers have acknowledged all that our sockets have taken, and that
 * is decided under the lock that every packet of our sockets takes on its way out until then: no
 * acknowledgement of more can slip past.
 */
struct pair {
	struct bpf_spin_lock lock; /* state, until PAIR_SPLICED */
	__u32 serial;
	__u32 state;
	__u32 by;
	__u32 client_ifindex;
	__u32 upstream_ifindex;
	__u32 rule; /* that had the connection proxied */
	__u32 generation;
	__u8 v6;
	__u8 same_addresses; /* only ports differ: the upstream is the destination itself */
	__u8 plain_path; /* up, what leaves by the program's interface needs no other next hop */
	struct flow_key to[WAYS]; /* of what leaves each way */
	struct way ways[WAYS];
	__u64 seen; /* ns of CLOCK_MONOTONIC, coarse */
	__u64 hop_seen;
	__u16 hop[ETH_ALEN /
		  2]; /* MAC address of the upstream's, as the kernel found it at hop_seen */
};

/* Written by: arm, settle, and the packets of a pair. Read by: the same. Bounded: LIMIT_PAIRS; the
 * process gives out the indices, and relays what finds none free. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LIMIT_PAIRS);
	__type(key, __u32);
	__type(value, struct pair);
} pairs SEC(".maps");

/* Pair and way by the addresses of packets that no socket sends: those of an upstream on the
 * network, and of the kernel for a socket that is gone. Written by: arm; the process deletes. Read
 * by: splice_ingress, splice_egress. Bounded: two for each pair. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_PAIRS *WAYS);
	__type(key, struct flow_key);
	__type(value, struct leg);
} legs SEC(".maps");

enum role {
	ROLE_NONE = 0,
	ROLE_SENDER,   /* the program, or an upstream on this host: its packets are carried */
	ROLE_STAND_IN, /* ours: its packets are let through until it falls silent */
};

/* The pair that a local socket belongs to. Written by: splice_egress and splice_loopback at a SYN,
 * arm. Read by: the same, per packet. Bounded: by the sockets there are. Full (no memory for the
 * socket's options): the connection is relayed. */
struct membership {
	__u32 pair;
	__u32 serial;
	__u8 role;
	__u8 way;
	__u8 plain; /* its packets carry its own addresses: nothing on this host translates them */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct membership);
} members SEC(".maps");

/* Whether a socket is of a pair: its addresses may be another's by now. */
static __always_inline bool is_of(struct bpf_sock *sk, const struct pair *pair)
{
	struct membership *member = bpf_sk_storage_get(&members, sk, NULL, 0);

	return member && member->serial == pair->serial;
}

/* Interfaces where we look, by ifindex. Written by: the process, before it attaches there. Read by:
 * arm, and for what comes by one interface and belongs to another. Bounded: LIMIT_HOOKED; what
 * leads elsewhere is relayed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LIMIT_HOOKED);
	__type(key, __u32);
	__type(value, struct device);
} hooked SEC(".maps");

/* Changes of state, as struct pair_event. Written by: all programs. Read by: the process. Bounded:
 * LIMIT_PAIR_EVENTS. Full: the event is lost and counted; the process looks at all pairs now and
 * then anyway. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_PAIR_EVENTS);
} pair_events SEC(".maps");

/* Packets by outcome. Written by: all programs. Read by: the process. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SPLICE_MAX);
	__type(key, enum splice_counter);
	__type(value, __u64);
} splice_counters SEC(".maps");

static __always_inline int because(enum splice_counter reason, int result)
{
	__u64 *value = bpf_map_lookup_elem(&splice_counters, &reason);

	if (value)
		*value += 1;
	return result;
}

static __always_inline void tell(__u32 index, const struct pair *pair)
{
	struct pair_event *event = bpf_ringbuf_reserve(&pair_events, sizeof(*event), 0);

	if (!event) {
		because(SPLICE_EVENT_LOST, 0);
		return;
	}
	event->pair = index;
	event->serial = pair->serial;
	event->state = pair->state;
	event->by = pair->by;
	event->sent = pair->ways[WAY_UP].carried;
	event->received = pair->ways[WAY_DOWN].carried;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline bool same_flow(const struct flow_key *a, const struct flow_key *b)
{
	return a->source_port == b->source_port && a->destination_port == b->destination_port &&
	       same_address(a->source, b->source) && same_address(a->destination, b->destination);
}

/* Sequence numbers wrap (RFC 9293, 3.4). */
static __always_inline bool after(__u32 a, __u32 b)
{
	return (__s32)(b - a) < 0;
}

#endif
