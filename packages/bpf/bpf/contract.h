/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The contract between the kernel programs and the process that loads them.
 * packages/bpf/src/layout.gen.ts is generated from the BTF of these types: change them here and
 * nowhere else. A __be16 or __be32 carries its byte order into the generated accessors; every other
 * integer has the machine's.
 */
#ifndef TPROXY_CONTRACT_H
#define TPROXY_CONTRACT_H

#include <linux/types.h>

/*
 * The routing mark of a packet between our hooks:
 *
 *    31            16 15       8  7  6       0
 *   +----------------+----------+---+---------+
 *   |      base      | instance | R |  slot   |
 *   +----------------+----------+---+---------+
 *
 * base is configured and belongs to tproxy on this host; instance tells processes apart; slot is an
 * index of devices[]. R = 0: steered, on the way to the listener, and the only marks that the
 * routing rule matches. R = 1: sent by a listener or an accepted socket, on the way back to the
 * program.
 */
enum mark {
	MARK_SLOT = 0x7f,
	MARK_REPLY = 0x80,
	MARK_BASE = 0xffff0000,
};

/* Slots that no interface has. */
enum slot {
	SLOT_HELD =
	    0x7e, /* of a SYN that waits for a decision, on the way to where it is dropped */
	SLOT_COPY = 0x7f, /* of a copy of an ACK that our socket gets */
};

enum limit {
	LIMIT_DEVICES = 64, /* interfaces that one instance intercepts */
	LIMIT_RULES = 16384,
	LIMIT_FLOWS = 16384,	 /* connections opened and not yet accepted */
	LIMIT_EVENTS = 1 << 21,	 /* bytes */
	LIMIT_SYN = 128,	 /* bytes of a SYN that is held, from its IP header on */
	LIMIT_FRAGMENTED = 4096, /* datagrams */
	LIMIT_LOG = 1 << 18,	 /* bytes */
	LIMIT_EXEMPT = 1024,	 /* processes */
	LIMIT_ANCESTORS = 16,
	LIMIT_CGROUP_DEPTH = 16,
	LIMIT_GROUP =
	    LIMIT_RULES / 64 / 64, /* words of a row for which one bit of its summary can stand */
	LIMIT_DEPTH = 16,	   /* of the nodes for 64 bits */
	LIMIT_PID_LEVELS = 8,	   /* nested pid namespaces */
	LIMIT_PAIRS = 32768,
	LIMIT_PAIR_EVENTS = 1 << 20, /* bytes */
	LIMIT_HOOKED = 256,	     /* interfaces where spliced connections are looked for */
	LIMIT_ENDS = 32768,	     /* connections that the fastpath knows */
	LIMIT_MEMORIES = 16384,	     /* verdicts of plugins that hold for later connections */
	LIMIT_TRACE = 1 << 18,	     /* bytes */
	LIMIT_OPENING = 150, /* seconds that a SYN is repeated: 127 (tcp_syn_retries), and more */
	LIMIT_COUNTED = 64,  /* rules whose counts lie together */
};

/* Constant from load on. */
struct settings {
	__u64 since;	  /* bpf_ktime_get_ns(): before, nobody noted whose a socket is */
	__u32 mark;	  /* base and instance */
	__u32 lo_ifindex; /* where steered packets enter */
	__u32 netns; /* inode of our network namespace: sockets elsewhere are not ours to look at */
	__u32 pidns; /* inode of our pid namespace: the one whose pids we report */
	__u32 scoped; /* 1: only sockets of the cgroup in scope[0] are intercepted */
};

/* Changes while running. */
struct control {
	__u32 closing;	  /* 1: steer what is established, take nothing new */
	__u32 generation; /* of the oldest rules whose packets are counted */
	__u32 since;	  /* what an earlier generation decided is asked again */
	__u32 refuses; /* 1: some packets are dropped or rejected, and so is what cannot be read */
	__u32 remembers; /* the values of enum memory_by that some memory has */
};

/* What connections have in common with the one whose verdict is remembered, besides the user and
 * the rule. */
enum memory_by {
	MEMORY_BY_DESTINATION = 1, /* address and port */
	MEMORY_BY_ADDRESS = 2,
};

struct memory_key {
	__u8 destination[16];
	__u32 uid;
	__u32 rule;  /* that sends the connections to the plugin */
	__be16 port; /* 0 by address */
	__u16 by;    /* enum memory_by: 0 is a port, too */
};

/* What a plugin decided about one connection, to hold for others. */
struct memory {
	__u64 until;	  /* ns of CLOCK_MONOTONIC */
	__u64 hits;	  /* connections that it decided */
	__u32 generation; /* of the rule */
	__u32 action;
};

/* An intercepted interface. */
struct device {
	__u32 ifindex;
	__u8 mac[6];
	__u8 has_mac; /* 0: packets begin with the IP header (tun, wireguard, ppp) */
};

/* A connection as its program sees it. IPv4 addresses are v4-mapped (RFC 4291, 2.5.5.2). */
struct flow_key {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
};

/* Who opened a socket, as it was at connect(2). */
struct owner {
	__u64 cgroup; /* id of the cgroup, which is its inode in cgroup2 */
	__u32 pid;    /* thread group id in our pid namespace; 0: not visible from it, or no process
			 (raw packets) */
	__u32 uid;
	__u32 gid;
	char name[16]; /* of the thread group's leader */
};

/* An opened connection on its way to the listener. */
struct flow {
	struct owner owner;
	__u32 slot;
	__u32 rule;	  /* number of the rule that said proxy; 0: none matched */
	__u32 generation; /* of that rule */
	__u32 bound;	  /* 1: the program's socket is bound to the interface */
	__u32 mark;	  /* of its SYN, as rules see it */
	__u32 dscp;
};

/* What the process hears of connections that programs open. */
enum event {
	EVENT_HELD,    /* struct held */
	EVENT_REACHED, /* struct opening_event: a connection that was left alone is established */
	EVENT_ENDED,   /* the same: it is over, or its program has given up */
};

/* A connection that waits for a decision: its program has said SYN, and hears nothing yet. */
struct held {
	__u32 event;
	__u32 id; /* of this opening of its socket; never 0 */
	struct flow_key key;
	struct flow flow;
	__u8 hop[6]; /* MAC address that its first packet was for */
	__u16 length;
	__u8 syn[LIMIT_SYN]; /* from its IP header on */
};

struct opening_event {
	__u32 event;
	__u32 id;
	__u64 sent; /* payload, as the other side has acknowledged it */
	__u64 received;
	__u32 state; /* of TCP: the last before its end */
	__u32 error; /* errno that its program hears; 0: none */
};

/* What becomes of a SYN that was held. */
enum release {
	RELEASE_ALONE,	 /* it goes where its program sent it, and so does all that follows */
	RELEASE_STEERED, /* to the listener */
	RELEASE_REFUSED, /* its program hears a reset */
};

/* What the process asks of `release`: the link layer header of the SYN, which it completes. */
struct releasing {
	__u8 hop[6];
	__u8 slot;
	__u8 release;
	__u8 id[4]; /* of struct held, in the machine's byte order */
	__be16 ethertype;
};

/* What the process asks of `watch` and `cut`. */
struct watching {
	struct flow_key key;
	__u32 id;
	__u32 slot;
	__u8 hop[6];
};

/* What `watch` answers, of a connection that was left alone. */
struct watched {
	__u64 sent; /* as in struct opening_event */
	__u64 received;
	__u32 state;
};

enum action {
	ACTION_PROXY = 0,
	ACTION_DIRECT = 1,
	ACTION_DROP = 2,
	ACTION_REJECT = 3,
	ACTION_REDIRECT = 4,
};

/* What a rule says; the first of them is the default's. */
struct verdict {
	__u32 rule; /* its number, from 1, as the user's list has it; 0: the default */
	__u32 generation;
	__u32 ifindex; /* with ACTION_REDIRECT: where to */
	__u8 action;
	__u8 log;     /* 1: report what it decides */
	__u8 into;    /* 1: as if received there */
	__u8 has_mac; /* of that interface */
	/* Into it: its MAC address. Out of it: the gateway of its IPv6 default route, or zero. */
	__u8 address[16];
};

/*
 * The rules, compiled: for each field of a packet, a value leads to a row, which has a bit for
 * every rule that this field lets match. The rows of all fields, ANDed, leave the rules that match
 * (Lakshman and Stiliadis, "High-speed policy-based packet forwarding", SIGCOMM 1998; Bertrone et
 * al., "Securing Linux with a Faster and Scalable Iptables", CCR 2019).
 *
 * Everything lies in one flat value, so that a new list replaces an old one with one pointer. All
 * positions are in bytes from its beginning and multiples of 8.
 *
 * A row begins with its summary: a word that says which groups of words are not zero. What follows
 * are these, or, where a group is more than one word, 32 bits for each that say where it is: in a
 * long list most groups are alike in many rows, and all of it is to fit into the processor's cache.
 * Rules that few packets have in common stand far apart in a row (see order.ts), so that the ANDed
 * summaries name one group or two where they would name a hundred; order[] leads back from a bit to
 * the number of its rule.
 */
enum field {
	FIELD_TO4,
	FIELD_TO6,
	FIELD_FROM4,
	FIELD_FROM6,
	FIELD_SERVICE, /* protocol << 16 | destination port */
	FIELD_SPORT,
	/* Looked at only if the rules are extended. */
	FIELD_INTERFACE,
	FIELD_UID,
	FIELD_GID,
	FIELD_CGROUP,
	FIELD_PROCESS,
	FIELD_MARK,
	FIELD_DSCP,
	FIELD_MAX,
};

/* Leads on from a node: to a row, or to another node. */
enum ref {
	REF_NODE = 1u << 31,
	REF_LOWER = 1 << 30, /* to a node for the lower 64 of 128 bits */
};

/*
 * A node of an interval trie whose levels and paths are compressed (after Nilsson and Karlsson,
 * "IP-address lookup using LC-tries", 1999): it looks at just the bits in which the bounds below it
 * differ, as many at once as they fill well. 2 + count refs follow: for smaller keys, for each
 * key >> shift from base on, for larger keys.
 */
struct node {
	__u64 base;
	__u32 shift;
	__u32 count;
};

/*
 * Where a field's look-up begins. Services lead through plain tables instead of nodes, of 8 and 16
 * bits: there, REF_NODE means the next table. So do IPv4 addresses, by 16, 8 and 8 bits, or where
 * depth is not 0, 16 bits, below which there are nodes.
 */
struct dimension {
	__u32 root;   /* ref; a row at once if no rule looks at the field */
	__u32 absent; /* row of packets that lack the field */
	__u32 depth;  /* nodes on the longest way to a row, or to a lower half */
	__u32 lower_depth;
};

struct ruleset {
	__u32 extended; /* 1: rules look at more than addresses, protocol and ports */
	__u32 group;	/* words of a row that a bit of its summary stands for, 1 or LIMIT_GROUP; 0:
			   a row is one word, without a summary */
	__u32 order;	/* 16 bits for each bit of a row */
	__u32 verdicts;
	struct dimension dimensions[FIELD_MAX];
};

/* A value holds one compiled list, and a row's length more; the smallest that fits is used. */
enum capacity {
	CAPACITY_SMALL = 1 << 16,
	CAPACITY_MEDIUM = 1 << 21,
	CAPACITY_LARGE = 1 << 23,
	CAPACITY_HUGE = 1 << 26,
	CAPACITY_SLACK = 1 << 12, /* so that a row's words need no mask each */
};

/* A packet that a rule with log decided: the first of a connection, each of other protocols. */
struct log_entry {
	struct flow_key key;
	__u32 rule;
	__u32 generation;
	__u32 ifindex;
	__u32 length; /* of the packet, from the IP header on */
	__u32 protocol;
	struct owner owner;
};

/* Packets of programs by the rule that decided them. */
struct rule_count {
	__u64 packets;
	__u64 bytes;
};

/*
 * Splice: the two connections of a proxied one, carried by the kernel as one. Ways are named by
 * where the bytes go: up, from the program to the upstream; down, back to the program.
 *
 *   program ◄──► accepted socket   our socket ◄──► upstream
 *           (source, destination)      (source, destination)
 */
enum direction { WAY_UP = 0, WAY_DOWN = 1, WAYS = 2 };

enum pair_state {
	PAIR_FREE = 0,
	PAIR_ARMED,   /* relayed; the tuple of our socket on the wire is not known yet */
	PAIR_CARRIED, /* what comes is translated; our sockets still send what they have taken */
	PAIR_SPLICED, /* our sockets are silent */
	PAIR_CLOSED,  /* both ways have ended in order */
	PAIR_RESET,
	PAIR_SEVERED, /* by the process: who still sends hears a reset */
	PAIR_UNFIT,   /* relayed to the end */
};

/* Why two connections cannot be one. */
enum unfit {
	UNFIT_NOT = 0,
	UNFIT_GONE,	  /* a socket was not found, or is not established any more */
	UNFIT_ENDING,	  /* one way has ended already */
	UNFIT_TIMESTAMPS, /* one connection has them (RFC 7323), the other has not */
	UNFIT_SACK,	  /* the same for RFC 2018 */
	UNFIT_ECN,	  /* the same for RFC 3168 */
	UNFIT_SIGNED,	  /* MD5 or TCP-AO (RFC 2385, RFC 5925) */
	UNFIT_SEGMENTS,	  /* the upstream takes smaller segments than the program sends */
	UNFIT_WINDOWS,	  /* what an end takes is little in the unit that the other counts in */
	UNFIT_INTERFACE,  /* the upstream is reached by an interface where we do not look */
	UNFIT_FAMILY,
	UNFIT_FAR, /* the upstream is, and the program's kernel has timed answers from here */
	UNFIT_INTERCEPTED, /* our connection itself, by another transparent proxy of this host */
	UNFIT_FULL,	   /* as many pairs as there may be */
	UNFIT_MAX,
};

/* What the process asks of `arm`, and of `settle`, which looks at the first two fields only. */
struct arming {
	__u32 pair;	 /* index of pairs[] */
	__u32 serial;	 /* of this use of it; never 0 */
	__u32 ifindex;	 /* the interface that the program's packets leave by */
	__u32 unread_up; /* bytes that the process has read from the program, and not written yet */
	__u32 unread_down;	  /* the same from the upstream */
	struct flow_key client;	  /* of the program's packets */
	struct flow_key upstream; /* of our socket's packets */
};

/* What the process asks of `admit`. */
struct admission {
	__u32 ifindex;		/* as in struct arming */
	struct flow_key client; /* the same */
};

/* What they answer. */
struct carriage {
	__u64 sent;	/* bytes that went up since arming, by the kernel and by the process */
	__u64 received; /* the same down */
	__u64 idle_ns;	/* since the last packet */
	__u32 state;
	__u32 unfit;
	__u32 by;    /* with PAIR_RESET: the way of the reset */
	__u32 alone; /* 1: the program's socket is gone */
	__u32 half;  /* 1: one way has ended */
};

/* Where packets with certain addresses belong. */
struct leg {
	__u32 pair;
	__u32 serial;
	__u32 way;
};

/* A pair's change of state, which the process may act on. */
struct pair_event {
	__u64 sent; /* as in struct carriage */
	__u64 received;
	__u32 pair;
	__u32 serial;
	__u32 state;
	__u32 by;
};

enum exemption {
	EXEMPT_PROCESS = 1,
	EXEMPT_FORKS =
	    2, /* its descendants that run the same executable: the workers of a server */
	EXEMPT_DESCENDANTS = 4, /* its descendants, whatever they run */
};

/* Why a program returned as it did; each packet counts once per hook. */
enum counter {
	/* wan_egress */
	COUNT_STEERED_SYN,
	COUNT_STEERED,
	COUNT_PASSED_DECIDED, /* the socket's connection was decided to be left alone */
	COUNT_PASSED_NOT_IP,
	COUNT_PASSED_FORWARDED, /* not sent by a program of this host */
	COUNT_PASSED_VLAN,	/* to be proxied, by the VLAN's own interface if at all */
	COUNT_PASSED_OLDER,	/* a connection opened before we were here, or by a server */
	COUNT_PASSED_SCOPE,
	COUNT_PASSED_EXEMPT,
	COUNT_PASSED_CLOSING,
	COUNT_PASSED_LINK_LOCAL, /* link-local and multicast: they have no meaning on lo */
	COUNT_PASSED_NEIGHBOR,	 /* neighbor discovery and multicast listening: IPv6 does not work
				    without */
	COUNT_PASSED_RULE,
	COUNT_PASSED_NOT_TCP,	/* the rules would have it proxied */
	COUNT_PASSED_NO_SOCKET, /* of no program, as far as can be told, and of no intercepted
				   connection */
	COUNT_PASSED_UNREADABLE,
	COUNT_DROPPED_RULE,
	COUNT_DROPPED_UNREADABLE, /* truncated or malformed, and the rules refuse something */
	COUNT_DROPPED_FRAGMENT,	  /* its first one was not seen, and the rules refuse something */
	COUNT_DROPPED_STRAY, /* a packet of an accepted socket on its way out: the program's address
				is gone */
	COUNT_DROPPED_UNKEPT,	/* no memory to keep with the socket what was decided */
	COUNT_DROPPED_DEVICE,	/* the interface is not in slots */
	COUNT_DROPPED_REWRITE,	/* no memory for a link layer header */
	COUNT_DROPPED_NO_ROUTE, /* redirect: IPv6, and no route leads by that interface */
	COUNT_REJECTED,
	COUNT_REJECTED_SILENTLY, /* dropped: to an answer of this kind there is no answer */
	COUNT_REDIRECTED,
	COUNT_LOG_LOST,	  /* beside another reason: the log was full */
	COUNT_REMEMBERED, /* beside another: a plugin had decided it before */
	COUNT_HELD,	  /* a SYN that waits for a decision: the process has it */
	COUNT_NOT_HELD, /* beside another: as many events wait as may, or it cannot be sent again */
	COUNT_RELEASED, /* a SYN that was held, on its way to where its program sent it */
	COUNT_EVENT_LOST, /* beside another, or none: as many events wait as may */
	/* lo_ingress */
	COUNT_DROPPED_HELD, /* what wan_egress has counted as held */
	COUNT_ASSIGNED,
	COUNT_ESTABLISHED,
	COUNT_UNASSIGNED, /* no SYN, and for no socket that has its addresses */
	COUNT_REOPENED, /* a SYN: a reset goes before it, to our socket of an earlier connection */
	COUNT_DROPPED_NO_LISTENER, /* the listener is gone: the process ended or is closing */
	COUNT_DROPPED_ASSIGN,
	COUNT_DROPPED_MALFORMED,
	/* listener_lookup */
	COUNT_LISTENER_FOUND, /* for a connection that is being opened; beside another reason where
				 lo_ingress asked */
	/* lo_egress */
	COUNT_RETURNED,
	COUNT_PASSED_LOOPBACK, /* somebody dialled the listener itself */
	COUNT_DROPPED_RETURN,  /* the interface it came from is gone */
	/* connect_owner */
	COUNT_OWNER_LOST, /* no memory to note who opened a socket */
	COUNT_MAX,
};

/* What the splice programs did; each packet of a pair counts once per hook. */
enum splice_counter {
	SPLICE_CARRIED,	      /* translated and sent on */
	SPLICE_COPIED,	      /* an ACK, to our socket as well, which waits for it */
	SPLICE_TOLD,	      /* our socket, what was acknowledged meanwhile */
	SPLICE_WINDOW_CLOSED, /* a SYN-ACK of a listener: it lets the program wait with what it says
			       */
	SPLICE_PREMATURE, /* an answer to a probe of that window, before the handshake is over */
	SPLICE_REFERRED,  /* an error about a packet of ours, to the program that sent it */
	SPLICE_LEFT,	  /* to be relayed */
	SPLICE_SILENCED,  /* a packet of a socket of ours that is silent */
	SPLICE_SEVERED,	  /* of a pair that the process has severed, and no answer to that */
	SPLICE_STALE,	  /* of a later connection with the same addresses */
	SPLICE_UNREADABLE,
	SPLICE_DROPPED,	   /* could not be rewritten */
	SPLICE_EVENT_LOST, /* beside another: the events were full */
	SPLICE_MAX,
};

/* What the fastpath did. */
enum fastpath_counter {
	/* remember: each connection that a program of the cgroup has opened */
	FASTPATH_RECORDED,
	FASTPATH_NOT_INTERCEPTED,
	FASTPATH_MPTCP,
	FASTPATH_FULL, /* as many as there may be, or no memory; join counts it too */
	/* join: each connection whose bytes the process carries */
	FASTPATH_JOINED,
	FASTPATH_GONE,	     /* a socket was not found */
	FASTPATH_UNRECORDED, /* the program connected out of remember's sight */
	/* to_proxy and to_program: each message */
	FASTPATH_REDIRECTED,
	FASTPATH_NOT_JOINED, /* its receiver is not the process, or not yet */
	FASTPATH_WRAPPED,    /* another layer on the socket, such as TLS, changes it first */
	FASTPATH_BEHIND,     /* bytes that went by TCP are unread */
	FASTPATH_DECIDED,    /* towards the program: some went by TCP, and so do all others */
	FASTPATH_UNREAD,     /* as many bytes as may be are unread */
	FASTPATH_MAX,
};

/* Where a packet meets our programs. Those from HOOK_SPLICE_EGRESS on have the reasons of enum
 * splice_counter, the others those of enum counter. */
enum hook {
	HOOK_WAN_EGRESS,
	HOOK_LO_INGRESS,
	HOOK_LO_EGRESS,
	HOOK_SPLICE_EGRESS,
	HOOK_SPLICE_LOOPBACK,
	HOOK_SPLICE_INGRESS,
};

/* The destination whose packets are traced, both ways. */
struct trace_target {
	__u32 on;
	__u8 address[16];
	__be16 port; /* 0: any */
};

/* What a hook did with a packet. */
struct trace_event {
	__u64 time;    /* ns of CLOCK_MONOTONIC */
	__u64 reasons; /* a bit for each; none where the packet is not for this hook */
	struct flow_key before;
	struct flow_key after;
	__u32 hook;
	__s32 returned;	  /* TC_ACT_… */
	__u32 ifindex;	  /* where the hook is */
	__u32 length;	  /* of the packet behind the hook, from the link layer header on */
	__u32 rule;	  /* that decided it; 0: the default */
	__u32 generation; /* of the rule; 0: none was asked */
	__u32 lost;	  /* events before this one, on the same processor */
	__u8 protocol;
	__u8 flags_before; /* of TCP */
	__u8 flags;
};

#endif
