/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a plugin decided about connections like this one. */
#ifndef TPROXY_RECALL_H
#define TPROXY_RECALL_H

#include "maps.h"

static __always_inline bool recall_by(const struct memory_key *key, struct verdict *verdict)
{
	struct memory *memory = bpf_map_lookup_elem(&memories, key);

	if (!memory || memory->generation != verdict->generation ||
	    memory->until < bpf_ktime_get_ns())
		return false;
	__sync_fetch_and_add(&memory->hits, 1);
	verdict->action = memory->action;
	return true;
}

/* Gives a verdict the action that is remembered for its rule, if one is and still holds. */
static __always_inline bool recall(const struct flow_key *flow, __u32 uid, __u32 remembers,
				   struct verdict *verdict)
{
	struct memory_key key = {.uid = uid, .rule = verdict->rule};

	if (!remembers)
		return false;
	__builtin_memcpy(key.destination, flow->destination, 16);
	if (remembers & MEMORY_BY_DESTINATION) {
		key.port = flow->destination_port;
		key.by = MEMORY_BY_DESTINATION;
		if (recall_by(&key, verdict))
			return true;
	}
	key.port = 0;
	key.by = MEMORY_BY_ADDRESS;
	return remembers & MEMORY_BY_ADDRESS && recall_by(&key, verdict);
}

#endif
