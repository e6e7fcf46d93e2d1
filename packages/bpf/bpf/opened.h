/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What is known of a program's socket; shared by the steering and the fastpath. */
#ifndef TPROXY_OPENED_H
#define TPROXY_OPENED_H

#include "contract.h"

/* What is known of a local TCP socket that connects: who opened it, and what was decided about it.
 * It lives and dies with the socket. Written by: connect_owner, connect_outcome, wan_egress,
 * release. Read by: wan_egress, per packet, and remember. Bounded: by the sockets there are. Full
 * (no memory for the socket's options): what is not to be left alone does not begin, for its later
 * packets would not follow. */
enum decided {
	UNDECIDED = 0,
	DECIDED_BY_RULE,
	DECIDED_TO_PASS, /* out of scope or exempt, whatever the rules say */
	DECIDED_BY_PLUGIN,
};

/* How far a connection is that the rules have proxied. */
enum stage {
	STAGE_NONE = 0, /* it goes to the listener at once */
	STAGE_HELD,	/* its SYN waits with the process */
	STAGE_STEERED,	/* it was, and goes to the listener */
	STAGE_ALONE,	/* it was, and goes where its program wanted */
};

struct opened {
	struct owner owner;
	__u16 known; /* 0: it began to connect before we looked, and nobody knows who did */
	__u16 exempt;
	__u16 decided;
	__u16 network; /* where the IP header began when it was decided */
	__u32 ifindex; /* where that was. What arrives elsewhere may be a tunnel's, around it */
	__u32 id;      /* that the process knows it by; 0: it does not */
	__u32 stage;
	__u32 reached; /* the process has heard that it is */
	struct verdict verdict;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct opened);
} sockets SEC(".maps");

#endif
