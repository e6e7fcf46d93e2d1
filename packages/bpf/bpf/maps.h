/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef TPROXY_MAPS_H
#define TPROXY_MAPS_H

#include "opened.h"
#include "rule_counts.h"

const volatile struct settings settings SEC(".rodata.settings");

/* The interfaces, by slot. Written by: the process, before it attaches there. Read by: wan_egress,
 * lo_egress. Bounded: LIMIT_DEVICES, and the process refuses more. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LIMIT_DEVICES);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/* ifindex → slot. Written by: the process, with devices. Read by: wan_egress. Bounded: as devices.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LIMIT_DEVICES);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* The listeners, two per slot: IPv4 at slot * 2, IPv6 at slot * 2 + 1. Written by: the process; the
 * kernel removes a socket that closes. Read by: lo_ingress, listener_lookup. Bounded: as devices.
 * Absent: packets are dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, LIMIT_DEVICES * 2);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* The cgroup whose sockets are intercepted when settings.scoped. Written by: the process. Read by:
 * wan_egress. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} scope SEC(".maps");

/* pid → enum exemption. Written by: the process (itself, and upstreams that run on this host). Read
 * by: connect_owner. Bounded: LIMIT_EXEMPT. Full: the process refuses the upstream. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LIMIT_EXEMPT);
	__type(key, __u32);
	__type(value, __u32);
} exempt SEC(".maps");

/* What was decided about a datagram by its first fragment, which has the ports. Written and read
 * by: wan_egress. Bounded: LIMIT_FRAGMENTED, least recently used first. Evicted: the rest of the
 * datagram is dropped if the rules refuse anything. */
struct fragment_key {
	__u8 source[16];
	__u8 destination[16];
	__u32 id;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_FRAGMENTED);
	__type(key, struct fragment_key);
	__type(value, struct verdict);
} fragments SEC(".maps");

/* What rules with log decided, as struct log_entry. Written by: wan_egress. Read by: the process.
 * Bounded: LIMIT_LOG. Full: the entry is lost, and counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_LOG);
} rule_log SEC(".maps");

/* Connections between their first SYN and the moment the process accepts them, or leaves them
 * alone. Written by: wan_egress, for connections of real sockets only, so raw SYN floods write
 * nothing. Read by: listener_lookup; deleted by: release; read and deleted by the process, also
 * where nobody comes. Bounded: LIMIT_FLOWS, least recently used first. Evicted: the connection
 * works, its process is unknown, and the plugin that decides is the one that the rules name for its
 * ends. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* What becomes of connections that programs open, as struct held and struct opening_event. Written
 * by: wan_egress, connect_owner, connect_outcome. Read by: the process. Bounded: LIMIT_EVENTS.
 * Full: the connection is not held, but accepted before it is decided; an end is lost and counted,
 * and the process looks at what was left alone now and then anyway. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_EVENTS);
} events SEC(".maps");

/* Verdicts of plugins that hold for later connections. Written by: the process; hits: wan_egress.
 * Read by: wan_egress, for what the rules would have proxied, if control.remembers says that there
 * are any. Bounded: LIMIT_MEMORIES, least recently used first. Evicted: the plugin is asked again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_MEMORIES);
	__type(key, struct memory_key);
	__type(value, struct memory);
} memories SEC(".maps");

/* Packets by outcome. Written by: all programs. Read by: the process. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNT_MAX);
	__type(key, enum counter);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter reason)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &reason);

	if (value)
		*value += 1;
}

/* Counts a reason and returns what the hook returns. */
static __always_inline int because(enum counter reason, int result)
{
	count(reason);
	return result;
}

#endif
