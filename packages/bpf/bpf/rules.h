/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the rules say of a connection: first match wins. */
#ifndef TPROXY_RULES_H
#define TPROXY_RULES_H

#include "maps.h"

struct ruling {
	__u32 address[4];
	__u16 port;
	__u32 action;
	__u32 rule;
};

static long ask_rule(__u32 index, struct ruling *ruling)
{
	struct rule *rule = bpf_map_lookup_elem(&rules, &index);

	if (!rule)
		return 1;
	for (int i = 0; i < 4; i++)
		if ((ruling->address[i] & rule->mask[i]) != rule->address[i])
			return 0;
	if (ruling->port < rule->port_low || ruling->port > rule->port_high)
		return 0;
	ruling->action = rule->action;
	ruling->rule = rule->number;
	return 1;
}

static __always_inline void ask_rules(const struct flow_key *key, __u32 number,
				      struct ruling *ruling)
{
	__builtin_memcpy(ruling->address, key->destination, 16);
	ruling->port = bpf_ntohs(key->destination_port);
	ruling->action = ACTION_PROXY;
	ruling->rule = 0;
	bpf_loop(number, ask_rule, ruling, 0);
}

#endif
