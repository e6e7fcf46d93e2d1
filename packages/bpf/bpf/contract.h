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

enum limit {
	LIMIT_DEVICES = 64, /* interfaces that one instance intercepts */
	LIMIT_RULES = 1024,
	LIMIT_FLOWS = 16384, /* connections opened and not yet accepted */
	LIMIT_EXEMPT = 1024, /* processes */
	LIMIT_ANCESTORS = 16,
	LIMIT_PID_LEVELS = 8, /* nested pid namespaces */
};

/* Constant from load on. */
struct settings {
	__u32 mark;	  /* base and instance */
	__u32 lo_ifindex; /* where steered packets enter */
	__u32 netns; /* inode of our network namespace: sockets elsewhere are not ours to look at */
	__u32 pidns; /* inode of our pid namespace: the one whose pids we report */
	__u32 scoped; /* 1: only sockets of the cgroup in scope[0] are intercepted */
};

/* Changes while running. */
struct control {
	__u32 closing; /* 1: steer what is established, take nothing new */
	__u32 rules;   /* how many of rules[] count */
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
	__u32 rule;  /* number of the rule that said proxy; 0: none matched */
	__u32 bound; /* 1: the program's socket is bound to the interface */
};

enum action {
	ACTION_PROXY = 0,
	ACTION_DIRECT = 1,
	ACTION_DROP = 2,
};

/* Matches where (destination & mask) == address, and the destination port lies in the range. */
struct rule {
	__u32 address[4]; /* as in the packet, v4-mapped */
	__u32 mask[4];
	__u16 port_low;
	__u16 port_high;
	__u32 action;
	__u32 number; /* from 1, as the user's list has them; one line may make several of these */
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
	COUNT_PASSED_NOT_TCP,
	COUNT_PASSED_FORWARDED, /* not sent by a program of this host */
	COUNT_PASSED_VLAN,	/* belongs to the VLAN's own interface */
	COUNT_PASSED_OLDER,	/* a connection opened before we were here, or by a server */
	COUNT_PASSED_SCOPE,
	COUNT_PASSED_EXEMPT,
	COUNT_PASSED_CLOSING,
	COUNT_PASSED_LINK_LOCAL, /* link-local and multicast: they have no meaning on lo */
	COUNT_PASSED_RULE,
	COUNT_PASSED_NO_SOCKET, /* a stray packet without socket that belongs to no intercepted
				   connection */
	COUNT_DROPPED_RULE,
	COUNT_DROPPED_STRAY, /* a packet of an accepted socket on its way out: the program's address
				is gone */
	COUNT_DROPPED_DEVICE,  /* the interface is not in slots */
	COUNT_DROPPED_REWRITE, /* no memory for a link layer header */
	/* lo_ingress */
	COUNT_ASSIGNED,
	COUNT_ESTABLISHED,
	COUNT_DROPPED_NO_LISTENER, /* the listener is gone: the process ended or is closing */
	COUNT_DROPPED_ASSIGN,
	COUNT_DROPPED_MALFORMED,
	/* listener_lookup */
	COUNT_REUSED, /* a SYN to a connection of ours in TIME_WAIT */
	/* lo_egress */
	COUNT_RETURNED,
	COUNT_PASSED_LOOPBACK, /* somebody dialled the listener itself */
	COUNT_DROPPED_RETURN,  /* the interface it came from is gone */
	/* connect_owner */
	COUNT_OWNER_LOST, /* no memory to note who opened a socket */
	COUNT_MAX,
};

#endif
